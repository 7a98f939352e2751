/* GET /sd/prometheus: where the metrics of all nodes are, in the form of Prometheus' http_sd. */
#include <jansson.h>
#include <stdio.h>

#include "agent/rest_body.h"
#include "base/str.h"

char *rest_discovery_body(const struct rest_facts *f, uint64_t now_ms)
{
    (void)now_ms;
    json_t *groups = json_array();
    for (size_t i = 0; i < f->view.members_n; i++) {
        const struct member_rec *m = &f->view.members[i];
        char target[160];
        const char *at = strstr(m->api_url, "://");
        if (at == NULL)
            continue; /* it has no REST */
        at += strlen("://");
        if (str_copy_slice(target, sizeof target, slice_of(at, strcspn(at, "/"))) != ERR_OK)
            continue;
        json_array_append_new(
            groups, json_pack("{s:[s], s:{s:s, s:s, s:s}}", "targets", target, "labels",
                              "__scheme__", str_starts(m->api_url, "https:") ? "https" : "http",
                              "cluster", f->scope, "member", m->name));
    }
    char *text = json_dumps(groups, JSON_COMPACT);
    json_decref(groups);
    return text;
}
