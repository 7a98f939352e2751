#include "agent/worker/worker_messages.h"

#define PLAIN(f, t) {.name = #f, .type = (t), .offset = offsetof(SELF, f)},
#define W_U64(f) PLAIN(f, FIELD_U64)
#define W_BOOL(f) PLAIN(f, FIELD_BOOL)
#define W_BYTES(f) PLAIN(f, FIELD_BYTES)
#define W_TEXT(f, n) {.name = #f, .type = FIELD_TEXT, .offset = offsetof(SELF, f), .size = (n)},
#define W_MANY(f, m) \
    {.name = #f, .type = FIELD_MANY, .offset = offsetof(SELF, f), .sub = &msg_##m},

#define SELF struct worker_file
static const struct field file_fields[] = {WORKER_FILE(W_U64, W_BOOL, W_TEXT, W_BYTES, W_MANY)};
const struct msg msg_worker_file = {"worker_file", sizeof(SELF), file_fields,
                                    ARRAY_LEN(file_fields)};
#undef SELF
#define SELF struct worker_req
static const struct field req_fields[] = {WORKER_REQ(W_U64, W_BOOL, W_TEXT, W_BYTES, W_MANY)};
const struct msg msg_worker_req = {"worker_req", sizeof(SELF), req_fields,
                                   ARRAY_LEN(req_fields)};
#undef SELF
#define SELF struct worker_reply
static const struct field reply_fields[] = {
    WORKER_REPLY(W_U64, W_BOOL, W_TEXT, W_BYTES, W_MANY)};
const struct msg msg_worker_reply = {"worker_reply", sizeof(SELF), reply_fields,
                                     ARRAY_LEN(reply_fields)};
#undef SELF

const struct mp_limits worker_limits = {
    .bytes = WORKER_FRAME_MAX, .depth = 8, .elements = 4096};
