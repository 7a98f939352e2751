/* Table-driven codec: one table per message gives MessagePack (wire) and JSON (records, -f json).
 *
 * Decoding is bounded and borrows: BYTES, RAW and MANY point into the input, which must outlive the
 * struct. The input is validated as a whole (length, depth, element count) by mp_scan() before the
 * first field is looked at. No allocation anywhere in decoding MessagePack. */
#ifndef REGENT_PROTO_MSG_H
#define REGENT_PROTO_MSG_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

enum field_type {
    FIELD_U64,
    FIELD_I64,
    FIELD_BOOL,
    FIELD_BYTES,
    FIELD_TEXT,
    FIELD_RAW,
    FIELD_SUB,
    FIELD_LIST,
    FIELD_MANY,
    FIELD_NAMES
};

struct msg;

struct field {
    const char *name;
    enum field_type type;
    size_t offset;
    size_t count_offset;   /* LIST, NAMES: of the size_t name_n */
    size_t size;           /* TEXT: bytes of the array; LIST: max elements; NAMES: max names */
    const struct msg *sub; /* SUB, LIST, MANY */
};

enum { MSG_FIELDS_MAX = 64 };

struct msg {
    const char *name;
    size_t size; /* of the C struct */
    const struct field *fields;
    size_t n_fields;
};

/* Appends obj as one MessagePack map; zero and empty fields are left out. Errors show in buf_ok(). */
void msg_encode(const struct msg *m, const void *obj, struct buf *out);
/* Fills *ret_obj (zeroed first) from exactly one MessagePack map. ERR_INVALID (and ERR_LIMIT for a
 * list that is too long) names the field. A field given twice is refused. */
enum err msg_decode(const struct msg *m, struct slice in, void *ret_obj, struct errmsg *e)
    MUST_CHECK;

/* MANY fields: build with begin / append / end, then point the field at buf_slice(). Elements are
 * appended in order; end() writes the array header in front. */
struct msg_list {
    struct buf body;
    size_t n;
};
void msg_list_append(struct msg_list *l, const struct msg *m, const void *obj);
void msg_list_end(struct msg_list *l, struct buf *out); /* appends the array, frees l's body */
void msg_list_close(struct msg_list *l);
/* Iterates: *cursor starts as the field's slice. ERR_NOT_FOUND at the end. */
struct msg_iter {
    struct slice rest;
    size_t left;
};
enum err msg_iter_init(struct msg_iter *it, struct slice many) MUST_CHECK;
enum err msg_iter_next(struct msg_iter *it, const struct msg *m, void *ret_obj,
                       struct errmsg *e) MUST_CHECK;

/* ---- JSON, for records and for people ---- */

/* Owns what BYTES, RAW and MANY fields point to after msg_from_json(). May serve several records;
 * nothing in it moves before msg_arena_close(), which leaves it empty and usable. */
struct msg_arena {
    struct msg_arena_chunk *first;
};
#define MSG_ARENA_INIT ((struct msg_arena){0})
void msg_arena_close(struct msg_arena *a);

/* Every field is written, in the order of the .def file. BYTES become a string when they are UTF-8
 * without NUL, else {"base64": "..."}. A U64 above INT64_MAX becomes a string of digits. RAW holds
 * JSON text here, not MessagePack, and is embedded as it is; empty becomes null. In TEXT, bytes that
 * are not UTF-8 become '?', so that a text cut in the middle of a character never spoils a record. */
void msg_to_json(const struct msg *m, const void *obj, struct buf *out);
/* Unknown names are skipped, absent and null fields are zero. `arena` may be NULL for messages
 * without BYTES, RAW and MANY. RAW comes back as compact JSON text. ERR_INVALID names the field;
 * ERR_LIMIT: messages too deep inside each other. */
enum err msg_from_json(const struct msg *m, struct slice json, void *ret_obj,
                       struct msg_arena *arena, struct errmsg *e) MUST_CHECK;

#endif
