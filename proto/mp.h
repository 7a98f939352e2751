/* MessagePack: a bounded scanner and a cursor that allocate nothing, and a writer over msgpack-c. */
#ifndef REGENT_PROTO_MP_H
#define REGENT_PROTO_MP_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

struct mp_limits {
    size_t bytes;
    unsigned depth;
    size_t elements; /* of one value in all, maps count twice */
};

/* Is there one whole, sound value at the front of `in`? ERR_OK: *ret_size is its length.
 * ERR_UNAVAILABLE: more bytes are needed. ERR_LIMIT / ERR_INVALID: never will be. Linear in the
 * bytes consumed; no recursion. limits->depth counts nested containers and is at most MP_DEPTH_MAX.
 * Extension types are refused (ERR_INVALID): nothing here uses them. Floats pass, and no reader takes
 * them. Forms longer than needed are fine. */
enum err mp_scan(struct slice in, const struct mp_limits *limits, size_t *ret_size) MUST_CHECK;

/* The same in steps, for a value that arrives in pieces: keep the scanner, call it again with the
 * same front and more bytes behind it, and nothing is looked at twice. mp_scanner_init() before each
 * value. After ERR_OK, `pos` is the value's length. */
enum { MP_DEPTH_MAX = 32 };
struct mp_scanner {
    size_t pos;      /* bytes of the value seen, or known to belong to it */
    size_t elements; /* announced by its containers so far */
    unsigned depth;  /* open containers */
    bool started;
    size_t left[MP_DEPTH_MAX]; /* elements still to come in each open container; never 0 */
};
void mp_scanner_init(struct mp_scanner *s);
enum err mp_scanner_run(struct mp_scanner *s, struct slice in, const struct mp_limits *limits)
    MUST_CHECK;

/* The cursor reads values that mp_scan() has passed. A read of the wrong type is ERR_INVALID and
 * moves nothing. */
struct mp_reader {
    struct slice rest;
};

enum err mp_read_nil(struct mp_reader *r) MUST_CHECK;
enum err mp_read_bool(struct mp_reader *r, bool *ret) MUST_CHECK;
enum err mp_read_u64(struct mp_reader *r, uint64_t *ret) MUST_CHECK;
enum err mp_read_i64(struct mp_reader *r, int64_t *ret) MUST_CHECK;
enum err mp_read_bytes(struct mp_reader *r, struct slice *ret) MUST_CHECK; /* str or bin */
enum err mp_read_array(struct mp_reader *r, size_t *ret_n) MUST_CHECK;
enum err mp_read_map(struct mp_reader *r, size_t *ret_n) MUST_CHECK;
enum err mp_read_raw(struct mp_reader *r, struct slice *ret)
    MUST_CHECK; /* any one value, encoded */

void mp_write_nil(struct buf *b);
void mp_write_bool(struct buf *b, bool v);
void mp_write_u64(struct buf *b, uint64_t v);
void mp_write_i64(struct buf *b, int64_t v);
void mp_write_str(struct buf *b, struct slice s);
void mp_write_bin(struct buf *b, struct slice s);
void mp_write_array(struct buf *b, size_t n);
void mp_write_map(struct buf *b, size_t n);

#endif
