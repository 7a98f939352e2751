/* Building an entry: MessagePack [version, wall_ms, [[kind, map]...]]. */
#include "base/str.h"
#include "dcs/state_internal.h"
#include "proto/mp.h"

enum { BATCH_COMMANDS_MAX = 65535 }; /* a position fits into the low bits of apply_new_id() */

static void command_begin(struct state_batch *b, enum state_command cmd)
{
    ASSERT(b->n < BATCH_COMMANDS_MAX);
    mp_write_array(&b->body, 2);
    mp_write_u64(&b->body, (uint64_t)cmd);
    b->n++;
}

size_t state_batch_add(struct state_batch *b, enum state_command cmd, struct slice params)
{
    ASSERT(params.n > 0);
    command_begin(b, cmd);
    buf_append_slice(&b->body, params);
    return b->n - 1;
}

static size_t add_message(struct state_batch *b, enum state_command cmd, const struct msg *m,
                          const void *obj)
{
    command_begin(b, cmd);
    msg_encode(m, obj, &b->body);
    return b->n - 1;
}

size_t state_batch_expire(struct state_batch *b, uint64_t lease, uint64_t nonce, uint64_t n)
{
    struct lease_renew r = {.id = lease, .nonce = nonce, .n = n};
    return add_message(b, STATE_CMD_LEASE_EXPIRE, &msg_lease_renew, &r);
}

size_t state_batch_member(struct state_batch *b, uint64_t id, const char *new_state)
{
    struct member m = {.id = id};
    enum err rc = str_copy(m.state, sizeof m.state, new_state);
    ASSERT(rc == ERR_OK);
    return add_message(b, STATE_CMD_MEMBER_STATE, &msg_member, &m);
}

size_t state_batch_member_role(struct state_batch *b, uint64_t id, const char *role)
{
    struct member m = {.id = id};
    enum err rc = str_copy(m.role, sizeof m.role, role);
    ASSERT(rc == ERR_OK);
    return add_message(b, STATE_CMD_MEMBER_ROLE, &msg_member, &m);
}

size_t state_batch_member_init(struct state_batch *b, const struct member *m)
{
    return add_message(b, STATE_CMD_MEMBER_INIT, &msg_member, m);
}

size_t state_batch_compact(struct state_batch *b, uint64_t revision)
{
    struct compact_req c = {.revision = revision};
    return add_message(b, STATE_CMD_COMPACT, &msg_compact_req, &c);
}

size_t state_batch_version(struct state_batch *b, uint64_t version)
{
    struct version_mark v = {.version = version};
    return add_message(b, STATE_CMD_VERSION, &msg_version_mark, &v);
}

size_t state_batch_bytes(const struct state_batch *b)
{
    return b->body.len;
}

void state_batch_end(struct state_batch *b, uint64_t wall_ms, struct buf *ret_entry)
{
    mp_write_array(ret_entry, 3);
    mp_write_u64(ret_entry, MAX(b->version, (uint64_t)STATE_FIRST_VERSION));
    mp_write_u64(ret_entry, wall_ms);
    mp_write_array(ret_entry, b->n);
    buf_append_slice(ret_entry, buf_slice(&b->body));
    if (!buf_ok(&b->body))
        ret_entry->overflow = true;
    buf_clear(&b->body);
    b->n = 0;
}
