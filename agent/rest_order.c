#include "agent/rest_order.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "conf/dynamic.h"

enum { ACCEPTED = 202, BAD = 400, GONE_WRONG = 412, UNPROCESSABLE = 422, BUSY = 503 };

struct rest_reply rest_text(unsigned code, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return (struct rest_reply){code, strdup(text), "text/html"};
}

/* What a refusal needs: False, with the reply filled. */
static bool no(struct rest_reply *ret, struct rest_reply reply)
{
    *ret = reply;
    return false;
}

/* ---- values ---- */

/* A member of the object as text, cut to size; false: there, but no text or too long. */
static bool take_text(const json_t *body, const char *name, char *ret, size_t size)
{
    const json_t *v = json_object_get(body, name);
    if (v == NULL || json_is_null(v))
        return true;
    return json_is_string(v) && str_copy(ret, size, json_string_value(v)) == ERR_OK;
}

/* True: none given, or *ret_ms; else the reply says why not. */
static bool take_schedule(const char *text, const char *action, uint64_t wall_ms,
                          uint64_t *ret_ms, struct rest_reply *ret_reply)
{
    uint64_t at_ms = 0;
    if (text[0] == '\0')
        return true;
    enum err rv = clock_wall_parse(text, &at_ms);
    if (rv == ERR_UNSUPPORTED)
        return no(
            ret_reply,
            rest_text(BAD, "Timezone information is mandatory for the scheduled %s", action));
    if (rv != ERR_OK)
        return no(ret_reply,
                  rest_text(UNPROCESSABLE,
                            "Unable to parse scheduled timestamp. It should be in an "
                            "unambiguous format, e.g. ISO 8601"));
    if (at_ms <= wall_ms)
        return no(ret_reply,
                  rest_text(UNPROCESSABLE, "Cannot schedule %s in the past", action));
    *ret_ms = at_ms;
    return true;
}

/* ---- switchover, failover ---- */

static bool mode_is_sync(const struct view *v)
{
    return view_record_mode(v) != SYNC_OFF;
}

/* What can be seen to be impossible; NULL: nothing. */
static const char *precheck(const struct view *v, const struct failover_rec *r)
{
    bool switchover = strcmp(r->kind, "switchover") == 0;
    const struct member_rec *to = view_member(v, r->candidate);
    if (switchover && (!v->has_leader || strcmp(v->leader.name, r->leader) != 0))
        return "leader name does not match";
    if (r->candidate[0] != '\0' && to == NULL)
        return "candidate does not exists";
    if (r->candidate[0] != '\0' && v->has_leader && strcmp(v->leader.name, r->candidate) == 0)
        return "candidate is the leader already";
    size_t others = 0;
    size_t sync = 0;
    for (size_t i = 0; i < v->members_n; i++) {
        const struct member_rec *m = &v->members[i];
        bool leads = v->has_leader && strcmp(m->name, v->leader.name) == 0;
        others += !leads;
        sync += !leads && view_in_v(v, m->incarnation);
    }
    if (!switchover)
        return NULL;
    if (others == 0)
        return "switchover is not possible: cluster does not have members except leader";
    if (mode_is_sync(v) && sync == 0)
        return "switchover is not possible: can not find sync_standby";
    if (mode_is_sync(v) && to != NULL && !view_in_v(v, to->incarnation))
        return "candidate name does not match with sync_standby";
    if (to != NULL && to->nofailover)
        return "switchover is not possible: no good candidates have been found";
    return NULL;
}

static bool parse_failover(const json_t *body, const struct rest_facts *f, uint64_t wall_ms,
                           struct rest_order *o, struct rest_reply *ret_reply)
{
    const struct view *v = &f->view;
    struct failover_rec *r = &o->failover;
    char at[64] = "";
    bool failover = o->kind == VERB_FAILOVER;
    if (!take_text(body, "leader", r->leader, sizeof r->leader) ||
        !take_text(body, "member", r->candidate, sizeof r->candidate) ||
        !take_text(body, "candidate", r->candidate, sizeof r->candidate) ||
        !take_text(body, "scheduled_at", at, sizeof at))
        return no(ret_reply, rest_text(BAD, "leader, candidate and scheduled_at are texts"));
    if (failover && r->leader[0] != '\0') /* as in Patroni */
        failover = false;
    str_cut(r->kind, sizeof r->kind, failover ? "failover" : "switchover");
    r->force = failover;
    if (failover && r->candidate[0] == '\0')
        return no(ret_reply,
                  rest_text(BAD, "Failover could be performed only to a specific candidate"));
    if (!failover && r->leader[0] == '\0')
        return no(ret_reply,
                  rest_text(BAD, "Switchover could be performed only from a specific leader"));
    if (at[0] != '\0' && failover)
        return no(ret_reply, rest_text(BAD, "Failover can't be scheduled"));
    if (at[0] != '\0' && v->config.pause)
        return no(ret_reply, rest_text(BAD, "Can't schedule switchover in the paused state"));
    if (!take_schedule(at, "switchover", wall_ms, &r->at_ms, ret_reply))
        return false;
    if (!failover && r->candidate[0] == '\0' && v->config.pause)
        return no(ret_reply,
                  rest_text(BAD, "Switchover is possible only to a specific candidate in "
                                 "a paused state"));
    const char *why = precheck(v, r);
    return why == NULL || no(ret_reply, rest_text(GONE_WRONG, "%s", why));
}

/* ---- restart ---- */

/* "300", 300 or "5min" are Patroni's; seconds are what people send. */
static bool take_timeout(const json_t *v, uint64_t *ret_ms)
{
    uint64_t s = 0;
    if (json_is_integer(v) && json_integer_value(v) > 0)
        s = (uint64_t)json_integer_value(v);
    else if (json_is_string(v)) {
        char digits[16] = "";
        const char *text = json_string_value(v);
        size_t n = strspn(text, "0123456789");
        uint64_t unit = strcmp(text + n, "min") == 0                    ? 60
                        : strcmp(text + n, "h") == 0                    ? 3600
                        : text[n] == '\0' || strcmp(text + n, "s") == 0 ? 1
                                                                        : 0;
        if (n == 0 || str_copy_slice(digits, sizeof digits, slice_of(text, n)) != ERR_OK ||
            str_parse_u64(digits, &s) != ERR_OK)
            return false;
        s = s < 86400 ? s * unit : 0;
    }
    *ret_ms = s * 1000;
    return s > 0 && s <= 86400;
}

static bool restart_value(const char *key, const json_t *value, struct request_rec *r,
                          struct rest_reply *ret_reply)
{
    const char *text = json_is_string(value) ? json_string_value(value) : "";
    if (strcmp(key, "schedule") == 0)
        return true; /* later */
    if (strcmp(key, "role") == 0) {
        bool standby = strcmp(text, "replica") == 0 || strcmp(text, "standby_leader") == 0;
        if (!standby && strcmp(text, "primary") != 0 && strcmp(text, "master") != 0)
            return no(ret_reply, rest_text(BAD, "PostgreSQL role should be either primary, "
                                                "standby_leader, or replica"));
        str_cut(r->role, sizeof r->role, standby ? "replica" : "primary");
        return true;
    }
    if (strcmp(key, "postgres_version") == 0) {
        if (text[0] == '\0' || strspn(text, "0123456789.") != strlen(text) ||
            str_copy(r->pg_version, sizeof r->pg_version, text) != ERR_OK)
            return no(ret_reply,
                      rest_text(BAD, "PostgreSQL version should be in the first.major.minor "
                                     "format"));
        return true;
    }
    if (strcmp(key, "timeout") == 0)
        return take_timeout(value, &r->timeout_ms) ||
               no(ret_reply, rest_text(BAD, "Timeout should be a positive number of seconds"));
    if (strcmp(key, "restart_pending") == 0) {
        r->pending = true; /* that it is there counts */
        return true;
    }
    return no(ret_reply,
              rest_text(BAD, "Unknown filter for the restart parameters: %.60s", key));
}

static bool parse_restart(const json_t *body, const struct rest_facts *f, uint64_t wall_ms,
                          struct rest_order *o, struct rest_reply *ret_reply)
{
    struct request_rec *r = &o->request;
    char at[64] = "";
    const char *key;
    json_t *value;
    str_cut(r->kind, sizeof r->kind, "restart");
    if (!take_text(body, "schedule", at, sizeof at))
        return no(ret_reply, rest_text(BAD, "schedule is a text"));
    if (at[0] != '\0' && f->view.config.pause)
        return no(ret_reply, rest_text(500, "Can't schedule restart in the paused state"));
    json_object_foreach((json_t *)body, key, value)
    {
        if (!restart_value(key, value, r, ret_reply))
            return false;
    }
    if (!take_schedule(at, "restart", wall_ms, &r->at_ms, ret_reply))
        return false;
    if (r->at_ms == 0 && f->view.pg.proc == PG_PROC_STARTING)
        return no(ret_reply, rest_text(BUSY, "postgres is still starting"));
    return true;
}

/* ---- reinitialize ---- */

/* Patroni's documentation has the words with hyphens, its code with underscores. */
static bool either(const json_t *body, const char *hyphens, const char *underscores)
{
    return json_is_true(json_object_get(body, hyphens)) ||
           json_is_true(json_object_get(body, underscores));
}

static bool parse_reinitialize(const json_t *body, const struct rest_facts *f,
                               struct rest_order *o, struct rest_reply *ret_reply)
{
    const struct view *v = &f->view;
    str_cut(o->request.kind, sizeof o->request.kind, "reinitialize");
    o->request.force = json_is_true(json_object_get(body, "force"));
    o->request.from_leader = either(body, "from-leader", "from_leader");
    o->request.remove_data = either(body, "remove-data", "remove_data");
    if (!v->has_leader)
        return no(ret_reply, rest_text(BUSY, "Cluster has no leader, can not reinitialize"));
    if (strcmp(v->leader.name, v->self) == 0)
        return no(ret_reply, rest_text(BUSY, "I am the leader, can not reinitialize"));
    return true;
}

/* ---- all ---- */

/* An empty body is one without members where that makes sense. NULL: the reply is filled. */
static json_t *object_of(struct slice body, bool optional, struct rest_reply *ret_reply)
{
    if (body.n == 0 && optional)
        return json_object();
    json_error_t why;
    json_t *j = body.n == 0 ? NULL
                            : json_loadb((const char *)body.p, body.n,
                                         JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (json_is_object(j))
        return j;
    if (body.n == 0)
        *ret_reply = rest_text(411, "Length Required");
    else
        *ret_reply = rest_text(BAD, "The body is not a JSON object%s%.100s",
                               j == NULL ? ": " : "", j == NULL ? why.text : "");
    json_decref(j);
    return NULL;
}

static bool parse_body(const json_t *j, struct slice body, const struct rest_facts *f,
                       uint64_t wall_ms, struct rest_order *o, struct rest_reply *ret_reply)
{
    switch (o->kind) {
    case VERB_CONFIG_PATCH:
    case VERB_CONFIG_PUT:
        o->config = mem_dup(body.p, body.n);
        return true;
    case VERB_SWITCHOVER:
    case VERB_FAILOVER:
        return parse_failover(j, f, wall_ms, o, ret_reply);
    case VERB_RESTART:
        return parse_restart(j, f, wall_ms, o, ret_reply);
    case VERB_REINITIALIZE:
        return parse_reinitialize(j, f, o, ret_reply);
    case VERB_SWITCHOVER_DELETE:
    case VERB_RESTART_DELETE:
    case VERB_RELOAD:
    case VERB_JOURNAL:
        break;
    }
    return true;
}

bool rest_order_parse(enum rest_verb_kind kind, struct slice body, const struct rest_facts *f,
                      uint64_t wall_ms, struct rest_order *ret_order,
                      struct rest_reply *ret_reply)
{
    *ret_order = (struct rest_order){.kind = kind};
    bool bare =
        kind == VERB_SWITCHOVER_DELETE || kind == VERB_RESTART_DELETE || kind == VERB_RELOAD;
    if (!f->known)
        return no(ret_reply, rest_text(BUSY, "The agent has not looked yet"));
    if (bare)
        return true;
    json_t *j = object_of(body, kind == VERB_RESTART || kind == VERB_REINITIALIZE, ret_reply);
    if (j == NULL)
        return false;
    bool good = parse_body(j, body, f, wall_ms, ret_order, ret_reply);
    json_decref(j);
    return good;
}

void rest_order_close(struct rest_order *o)
{
    mem_free(o->config);
    o->config = NULL;
}

/* ---- configuration ---- */

enum err rest_config_merge(const struct dynamic_edit *edit, const char *given, bool patch,
                           char **ret_text, struct errmsg *e)
{
    struct buf merged CLEANUP(buf_close) = BUF_INIT;
    struct buf checked CLEANUP(buf_close) = BUF_INIT;
    *ret_text = NULL;
    enum err rv =
        dynamic_merge(patch ? edit->before : slice_str("{}"), slice_str(given), &merged, e);
    if (rv == ERR_OK)
        rv = dynamic_check_edit(buf_slice(&merged), edit, &checked, e);
    if (rv == ERR_OK)
        *ret_text = strdup(buf_cstr(&checked));
    return rv;
}
