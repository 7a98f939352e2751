#include "agent/rest_journal.h"

#include <jansson.h>

#include "base/clock.h"
#include "base/str.h"
#include "proto/model.h"

static void append(json_t *list, const struct kv *kv, const struct journal_rec *r)
{
    char at[CLOCK_TEXT_MAX];
    size_t from = kv->key.n;
    while (from > 0 && kv->key.p[from - 1] != '/')
        from--;
    clock_wall_text(r->at_ms, at);
    json_t *o = json_pack("{s:s%, s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "id",
                          (const char *)kv->key.p + from, kv->key.n - from, "time", at, "node",
                          r->node, "rule", r->rule, "reason", r->reason, "action", r->action,
                          "writes", r->txn, "token", (json_int_t)r->token);
    if (o != NULL) /* a reason that was cut within a character */
        json_array_append_new(list, o);
}

char *rest_journal_body(struct slice kvs)
{
    struct msg_iter it;
    struct kv kv;
    if (msg_iter_init(&it, kvs) != ERR_OK)
        return NULL;
    json_t *list = json_array();
    while (msg_iter_next(&it, &msg_kv, &kv, NULL) == ERR_OK) {
        struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
        struct journal_rec r;
        if (msg_from_json(&msg_journal_rec, kv.value, &r, &arena, NULL) == ERR_OK)
            append(list, &kv, &r);
    }
    char *text = json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return text;
}
