#include "dcs/wire.h"

#define F(s, n, t)                                                      \
    {                                                                   \
        .name = #n, .type = FIELD_##t, .offset = offsetof(struct s, n), \
        .size = sizeof(((struct s *)0)->n)                              \
    }
#define M(s, f)                                                                     \
    {                                                                               \
        .name = #s, .size = sizeof(struct s), .fields = f, .n_fields = ARRAY_LEN(f) \
    }

static const struct field confirm_fields[] = {F(wire_confirm, term, U64),
                                              F(wire_confirm, round, U64)};
static const struct field confirm_reply_fields[] = {F(wire_confirm_reply, term, U64),
                                                    F(wire_confirm_reply, round, U64),
                                                    F(wire_confirm_reply, yes, BOOL)};
static const struct field present_fields[] = {
    F(wire_present, id, U64), F(wire_present, name, TEXT), F(wire_present, address, TEXT),
    F(wire_present, last_index, U64)};
static const struct field snapshot_read_fields[] = {F(wire_snapshot_read, index, U64),
                                                    F(wire_snapshot_read, offset, U64)};
static const struct field compare_fields[] = {F(wire_compare, index, U64),
                                              F(wire_compare, agreed_index, U64),
                                              F(wire_compare, agreed_hash, U64)};
static const struct field compare_reply_fields[] = {F(wire_compare_reply, index, U64),
                                                    F(wire_compare_reply, hash, U64),
                                                    F(wire_compare_reply, quarantined, BOOL)};
static const struct field recall_fields[] = {
    F(wire_recall, term, U64), F(wire_recall, index, U64), F(wire_recall, voted, BOOL)};
static const struct field bytes_fields[] = {F(wire_bytes, data, BYTES)};

const struct msg wire_msg_confirm = M(wire_confirm, confirm_fields);
const struct msg wire_msg_confirm_reply = M(wire_confirm_reply, confirm_reply_fields);
const struct msg wire_msg_present = M(wire_present, present_fields);
const struct msg wire_msg_snapshot_read = M(wire_snapshot_read, snapshot_read_fields);
const struct msg wire_msg_compare = M(wire_compare, compare_fields);
const struct msg wire_msg_compare_reply = M(wire_compare_reply, compare_reply_fields);
const struct msg wire_msg_recall = M(wire_recall, recall_fields);
const struct msg wire_msg_bytes = M(wire_bytes, bytes_fields);
