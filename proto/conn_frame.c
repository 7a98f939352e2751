/* Frames: bare MessagePack values back to back. The scanner remembers how far it came into an
 * unfinished one, and the buffer is moved once per batch, so both are linear in the bytes read. */
#include "base/assert.h"
#include "proto/conn_impl.h"
#include "proto/messages.h"

enum { TYPE_REQUEST = 0, TYPE_RESPONSE = 1, TYPE_NOTIFY = 2 };

/* ---- reading ---- */

/* [params]: an array of exactly one map. */
static bool read_params(struct mp_reader *r, struct slice *ret)
{
    size_t n;
    if (mp_read_array(r, &n) != ERR_OK || n != 1)
        return false;
    struct mp_reader look = *r;
    return mp_read_map(&look, &n) == ERR_OK && mp_read_raw(r, ret) == ERR_OK;
}

static bool on_request(struct conn *c, struct mp_reader *r)
{
    uint64_t msgid;
    struct slice method, params;
    if (mp_read_u64(r, &msgid) != ERR_OK || mp_read_bytes(r, &method) != ERR_OK ||
        !read_params(r, &params) || c->ops->request == NULL)
        return false;
    c->ops->request(c->arg, msgid, method, params);
    return true;
}

static bool on_notify(struct conn *c, struct mp_reader *r)
{
    struct slice method, params;
    if (mp_read_bytes(r, &method) != ERR_OK || !read_params(r, &params) ||
        c->ops->notify == NULL)
        return false;
    c->ops->notify(c->arg, method, params);
    return true;
}

/* [code, name, message, details]; the code repeats the name for other programs. */
static bool read_error(struct conn *c, struct mp_reader *r, struct errmsg *ret)
{
    size_t n;
    uint64_t code;
    struct slice name, text, raw;
    struct rpc_error_details details;
    if (mp_read_array(r, &n) != ERR_OK || n != 4 || mp_read_u64(r, &code) != ERR_OK ||
        mp_read_bytes(r, &name) != ERR_OK || mp_read_bytes(r, &text) != ERR_OK ||
        mp_read_raw(r, &raw) != ERR_OK ||
        msg_decode(&msg_rpc_error_details, raw, &details, NULL) != ERR_OK)
        return false;
    enum err known =
        strcmp(details.outcome, "unknown") == 0 ? ERR_OUTCOME_UNKNOWN : err_from_name(name);
    if (known == ERR_OK)
        return false;
    (void)err_set(ret, known, "%.*s", (int)MIN(text.n, sizeof ret->text - 1),
                  (const char *)text.p);
    memcpy(c->error_leader, details.leader, sizeof c->error_leader);
    c->error_gone = details.gone;
    return true;
}

static bool on_response(struct conn *c, struct mp_reader *r)
{
    uint64_t msgid;
    struct slice result;
    struct errmsg error = {.code = ERR_OK};
    c->error_leader[0] = '\0';
    c->error_gone = false;
    if (mp_read_u64(r, &msgid) != ERR_OK || c->ops->response == NULL)
        return false;
    if (mp_read_nil(r) != ERR_OK && !read_error(c, r, &error))
        return false;
    if (mp_read_raw(r, &result) != ERR_OK)
        return false;
    c->ops->response(c->arg, msgid, error.code, &error, result);
    c->error_leader[0] = '\0';
    c->error_gone = false;
    return true;
}

static bool dispatch(struct conn *c, struct slice frame)
{
    struct mp_reader r = {.rest = frame};
    size_t n;
    uint64_t type;
    if (mp_read_array(&r, &n) != ERR_OK || n < 3 || mp_read_u64(&r, &type) != ERR_OK)
        return false;
    switch (type) {
    case TYPE_REQUEST:
        return n == 4 && on_request(c, &r);
    case TYPE_RESPONSE:
        return n == 4 && on_response(c, &r);
    case TYPE_NOTIFY:
        return n == 3 && on_notify(c, &r);
    default:
        return false;
    }
}

void conn_frames_parse(struct conn *c)
{
    const struct mp_limits limits = {c->frame_max, CONN_DEPTH_MAX, CONN_ELEMENTS_MAX};
    size_t done = 0;
    uint64_t until_ns = uv_hrtime() + (uint64_t)CONN_TURN_MS * 1000000;
    while (c->state == CONN_READY && done < c->in.len) {
        if (done > 0 && uv_hrtime() >= until_ns) {
            conn_put_off(c);
            break;
        }
        struct slice rest = slice_of(c->in.p + done, c->in.len - done);
        enum err rc = mp_scanner_run(&c->scan, rest, &limits);
        if (rc == ERR_UNAVAILABLE)
            break;
        if (rc == ERR_LIMIT) {
            conn_fail(c, ERR_LIMIT,
                      "%s sent a message over the limits (%zu bytes, %d levels, %d elements)",
                      c->peer, c->frame_max, CONN_DEPTH_MAX, CONN_ELEMENTS_MAX);
            return;
        }
        if (rc != ERR_OK || !dispatch(c, slice_of(rest.p, c->scan.pos))) {
            conn_fail(c, ERR_INVALID, "%s sent what is not MessagePack-RPC", c->peer);
            return;
        }
        done += c->scan.pos;
        mp_scanner_init(&c->scan);
    }
    buf_consume(&c->in, done);
}

/* ---- writing ---- */

static void flush_soon(uv_prepare_t *h)
{
    struct conn *c = h->data;
    CHECK_MAGIC(c, CONN_MAGIC);
    conn_flush(c);
}

/* A frame has been appended to c->out. */
static void written(struct conn *c)
{
    if (conn_pending_bytes(c) > c->write_max) {
        conn_fail(c, ERR_LIMIT, "%s is too slow: %zu bytes wait to be sent", c->peer,
                  conn_pending_bytes(c));
        return;
    }
    (void)uv_prepare_start(&c->flusher, flush_soon); /* nothing when active already */
}

static void put_params(struct buf *out, struct slice params)
{
    mp_write_array(out, 1);
    if (params.n == 0)
        mp_write_map(out, 0);
    else
        buf_append_slice(out, params);
}

void conn_request(struct conn *c, uint64_t msgid, const char *method, struct slice params)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    if (c->state >= CONN_LINGER)
        return;
    mp_write_array(&c->out, 4);
    mp_write_u64(&c->out, TYPE_REQUEST);
    mp_write_u64(&c->out, msgid);
    mp_write_str(&c->out, slice_str(method));
    put_params(&c->out, params);
    written(c);
}

void conn_notify(struct conn *c, const char *method, struct slice params)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    if (c->state >= CONN_LINGER)
        return;
    mp_write_array(&c->out, 3);
    mp_write_u64(&c->out, TYPE_NOTIFY);
    mp_write_str(&c->out, slice_str(method));
    put_params(&c->out, params);
    written(c);
}

/* A short one cannot have too many elements: each takes a byte. */
static bool result_fits(struct slice result)
{
    const struct mp_limits limits = {CONN_FRAME_MAX - 64, CONN_DEPTH_MAX - 1,
                                     CONN_ELEMENTS_MAX - 4};
    size_t n;
    return result.n < limits.elements || mp_scan(result, &limits, &n) == ERR_OK;
}

void conn_reply(struct conn *c, uint64_t msgid, struct slice result)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    if (c->state >= CONN_LINGER)
        return;
    if (!result_fits(result)) {
        conn_reply_error(c, msgid, ERR_LIMIT,
                         "the result is longer than a message may be, or has too many "
                         "elements; ask for less",
                         NULL);
        return;
    }
    mp_write_array(&c->out, 4);
    mp_write_u64(&c->out, TYPE_RESPONSE);
    mp_write_u64(&c->out, msgid);
    mp_write_nil(&c->out);
    if (result.n == 0)
        mp_write_map(&c->out, 0);
    else
        buf_append_slice(&c->out, result);
    written(c);
}

static void reply_error(struct conn *c, uint64_t msgid, enum err code, const char *text,
                        struct rpc_error_details *details)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    ASSERT(code != ERR_OK);
    if (c->state >= CONN_LINGER)
        return;
    if (code == ERR_OUTCOME_UNKNOWN)
        memcpy(details->outcome, "unknown", sizeof "unknown");
    else
        memcpy(details->outcome, "none", sizeof "none");
    mp_write_array(&c->out, 4);
    mp_write_u64(&c->out, TYPE_RESPONSE);
    mp_write_u64(&c->out, msgid);
    mp_write_array(&c->out, 4);
    mp_write_u64(&c->out, (uint64_t)err_grpc(code));
    mp_write_str(&c->out, slice_str(err_name(code)));
    mp_write_str(&c->out, slice_str(text != NULL ? text : err_text(code)));
    msg_encode(&msg_rpc_error_details, details, &c->out);
    mp_write_nil(&c->out);
    written(c);
}

void conn_reply_error(struct conn *c, uint64_t msgid, enum err code, const char *text,
                      const char *leader)
{
    struct rpc_error_details details = {.gone = false};
    if (leader != NULL && strlen(leader) < sizeof details.leader)
        memcpy(details.leader, leader, strlen(leader) + 1);
    reply_error(c, msgid, code, text, &details);
}

void conn_reply_gone(struct conn *c, uint64_t msgid, enum err code, const char *text)
{
    struct rpc_error_details details = {.gone = true};
    reply_error(c, msgid, code, text, &details);
}
