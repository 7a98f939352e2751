/* Messages, HA records and methods as C structs, and their tables for the codecs.
 * The fields are in messages.def and records.def; docs/PROTOCOL.md explains them. */
#ifndef REGENT_PROTO_MESSAGES_H
#define REGENT_PROTO_MESSAGES_H

#include "base/base.h"
#include "proto/msg.h"

/* REGENT_PRETEND_NEXT (cmake): tests of a cluster in the middle of an upgrade run a build that says it is the next
 * version, and whose messages and records have fields that this one does not know. */
#ifdef REGENT_PRETEND_NEXT
enum { PROTO_VERSION = 2 };
#else
enum { PROTO_VERSION = 1 };
#endif
/* The version of the program: of what it speaks, and of what it may write into the log and the state. Of two that
 * meet, the lower is spoken. What every member has to understand (a kind of entry, a layout of the state) is used
 * only when the cluster's version has come to it, docs/decisions/0015-cluster-version.md.
 * MIN: the oldest that is still understood. */
enum { PROTO_VERSION_MIN = 1, MEMBERS_MAX = 64, NAME_MAX_LEN = 64, SYNC_MAX = 16 };

/* The key whose value, 3, 5 or 7, is how many voters there shall be at most; without it, or with another
 * value: 7. */
#define PROTO_VOTERS_KEY "/regent/voters"
enum { PROTO_VOTERS_MAX = 7 };

#define MSG(name) struct name {
#define END(name) \
    }             \
    ;
#define U64(name) uint64_t name;
#define I64(name) int64_t name;
#define BOOL(name) bool name;
#define BYTES(name) struct slice name;
#define TEXT(name, n) char name[n];
#define RAW(name) struct slice name;
#define SUB(name, m) struct m name;
#define LIST(name, m, max) \
    struct m name[max];    \
    size_t name##_n;
#define MANY(name, m) struct slice name;
#define NAMES(name, max) \
    char name[max][64];  \
    size_t name##_n;
#include "proto/messages.def"
#include "proto/records.def"
#undef MSG
#undef END
#undef U64
#undef I64
#undef BOOL
#undef BYTES
#undef TEXT
#undef RAW
#undef SUB
#undef LIST
#undef MANY
#undef NAMES

/* const struct msg msg_<name>: the table of each message. */
#define MSG(name) extern const struct msg msg_##name;
#define END(name)
#define U64(name)
#define I64(name)
#define BOOL(name)
#define BYTES(name)
#define TEXT(name, n)
#define RAW(name)
#define SUB(name, m)
#define LIST(name, m, max)
#define MANY(name, m)
#define NAMES(name, max)
#include "proto/messages.def"
#include "proto/records.def"
#undef MSG
#undef END
#undef U64
#undef I64
#undef BOOL
#undef BYTES
#undef TEXT
#undef RAW
#undef SUB
#undef LIST
#undef MANY
#undef NAMES

enum method {
#define METHOD(id, wire, params, result, kind) METHOD_##id,
#include "proto/methods.def"
#undef METHOD
    METHOD_COUNT
};

enum method_kind { METHOD_KIND_READ, METHOD_KIND_WRITE, METHOD_KIND_LOCAL, METHOD_KIND_OPEN };

struct method_info {
    const char *name;
    const struct msg *params;
    const struct msg *result;
    enum method_kind kind;
};

extern const struct method_info method_table[METHOD_COUNT];

/* METHOD_COUNT when there is none of that name. */
enum method method_find(struct slice name);

/* docs/PROTOCOL.md, Sessions. Does the text of ERR_PRECONDITION say that the session is unknown? */
bool error_of_session(enum err code, const char *text);
/* In answer to a write of a session that was sent before: is it the result that the store keeps of that number,
 * and so nothing was applied? Any other error speaks of this sending alone. */
bool error_is_result(enum err code, const char *text);

#endif
