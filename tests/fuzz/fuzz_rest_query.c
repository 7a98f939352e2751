/* Any bytes as the path and the parameters of a request that reads, PATH, then NAME and VALUE in turn, each ended by a
 * zero: answered with a code of the interface, or refused with a text. The first byte says what this node is. */
#include <stdlib.h>

#include "agent/rest_route.h"
#include "base/assert.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NOW_MS = 10000 };

static void become(struct rest_facts *f, unsigned what)
{
    struct view *v = &f->view;
    f->known = true;
    v->dcs_ready = true;
    v->now_ms = v->sync_mod_revision = NOW_MS;
    v->config.ttl_ms = 5000;
    v->pg.data = PG_DATA_OURS;
    v->pg.proc = what % 2 != 0 ? PG_PROC_RUNNING : PG_PROC_STOPPED;
    v->pg.accepts = v->pg.streaming = true;
    v->pg.in_recovery = what % 4 >= 2;
    v->has_leader = what % 8 >= 4;
    f->tags = (struct rest_tags){.noloadbalance = what % 16 >= 8, .replicatefrom = "n2"};
    str_cut(v->self, sizeof v->self, "n1");
    str_cut(v->leader.name, sizeof v->leader.name, what % 4 >= 2 ? "n2" : "n1");
}

static const char *word(const char **at, const char *end)
{
    const char *w = *at;
    *at = w < end ? w + strlen(w) + 1 : end;
    return w < end ? w : "";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rest_facts f;
    struct rest_query q = {.has_lag = false};
    struct rest_reply reply = {0};
    struct errmsg e = {.text = ""};
    enum err rv = ERR_OK;
    if (size < 2 || data[size - 1] != '\0')
        return 0;
    const char *at = (const char *)data + 1, *end = (const char *)data + size;
    become(&f, data[0]);
    const struct rest_route *route = rest_route_find(word(&at, end));
    while (at < end && rv == ERR_OK) {
        const char *name = word(&at, end);
        rv = rest_query_add(&q, name, word(&at, end), &e);
    }
    ASSERT((rv == ERR_OK) == (e.text[0] == '\0'));
    if (rv != ERR_OK || route == NULL || route->kind == ROUTE_EVENTS ||
        route->kind == ROUTE_JOURNAL)
        return 0;
    rest_answer(&f, route, &q, NOW_MS, true, &reply);
    ASSERT(reply.code >= 200 && reply.code < 600);
    free(reply.body);
    return 0;
}
