/* pause, resume: automatic management off and on again. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/str.h"
#include "cli/cluster.h"
#include "cli/commands.h"

struct pause {
    bool on; /* pause; else resume */
    bool wait, force;
    uint64_t timeout_s;
};

static int parse(struct cli *c, struct pause *q, int argc, char **argv)
{
    static const struct option options[] = {{"wait", no_argument, NULL, 'w'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {"force", no_argument, NULL, 'F'},
                                            {NULL, 0, NULL, 0}};
    int option;
    optind = 1;
    /* pause has no --force: it is the first row that resume has more */
    while ((option = cli_option(argc, argv, options)) != -1) {
        if (option == 'w')
            q->wait = true;
        else if (option == 'F' && !q->on)
            q->force = true;
        else if (option == 'F')
            return cli_usage("pause takes no --force");
        else if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        else if (str_parse_u64(optarg, &q->timeout_s) != ERR_OK || q->timeout_s == 0 ||
                 q->timeout_s > 3600)
            return cli_usage("--timeout: \"%s\" is not a number of seconds up to 3600", optarg);
    }
    return cli_cluster_argument(c, argc, argv);
}

/* The record's text with `pause` changed and everything else as it is. */
static enum err set_pause(struct cli *c, bool on, bool *ret_changed)
{
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    uint64_t mod = 0;
    bool taken = false;
    enum err rv = cli_record_text(c, "config", &json, &mod);
    if (rv == ERR_NOT_FOUND)
        (void)cli_fail(rv,
                       "no dynamic configuration yet: the cluster has not been initialised");
    if (rv != ERR_OK)
        return rv;
    json_t *j = json_loadb((const char *)json.p, json.len, 0, NULL);
    *ret_changed = json_is_true(json_object_get(j, "pause")) != on;
    json_object_set_new(j, "pause", json_boolean(on));
    char *text = json_dumps(j, JSON_COMPACT);
    json_decref(j);
    if (*ret_changed)
        rv = cli_replace(c, "config", mod, slice_str(text), &taken);
    free(text);
    if (rv == ERR_OK && *ret_changed && !taken) {
        rv = ERR_EXISTS;
        (void)cli_fail(rv, "somebody else changed the configuration meanwhile; nothing "
                           "changed: do it again");
    }
    return rv;
}

/* An operator vouches that the paused holder is down: others may lead. */
static enum err take_flag_back(struct cli *c)
{
    struct sync_rec sync;
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    uint64_t mod = 0;
    bool taken;
    enum err rv = cli_record(c, "sync", &msg_sync_rec, &sync, NULL, &mod);
    if (rv != ERR_OK || !sync.disarmed)
        return rv == ERR_NOT_FOUND ? ERR_OK : rv;
    sync.disarmed = false;
    msg_to_json(&msg_sync_rec, &sync, &json);
    rv = cli_replace(c, "sync", mod, buf_slice(&json), &taken);
    if (rv == ERR_OK && !taken) {
        rv = ERR_EXISTS;
        (void)cli_fail(rv, "the synchronous record changed meanwhile; do it again");
    }
    return rv;
}

/* pause: every agent knows of it, and the primary's fence holds no deadline. resume: the other way. */
static bool settled(const struct cluster *cl, const struct pause *q)
{
    bool all = true;
    for (size_t i = 0; i < cl->members_n; i++)
        all = all && cl->members[i].paused == q->on;
    if (!q->on)
        return !cl->sync.disarmed && (all || !q->wait);
    bool runs = cl->has_leader && strcmp(cl->leader.state, "running") == 0;
    return all && (cl->sync.disarmed || !runs);
}

static int not_settled(const struct cluster *cl, const struct pause *q)
{
    if (!q->on && cl->sync.disarmed)
        return cli_fail(
            ERR_PRECONDITION,
            "%s has not reported that its fence holds a deadline again, and may take writes: "
            "nobody else will lead until it has; when it is certainly down, `regentctl resume "
            "--force`",
            cl->sync.leader);
    return cli_fail(ERR_OUTCOME_UNKNOWN,
                    "not every node has reported it within %llu s; see `regentctl list`",
                    (unsigned long long)q->timeout_s);
}

static int follow(struct cli *c, const struct pause *q)
{
    static struct cluster cl;
    uint64_t end_ms = clock_mono_ms() + q->timeout_s * 1000;
    for (;;) {
        enum err rv = cluster_read(c, &cl);
        if (rv != ERR_OK)
            return cli_exit_code(rv);
        bool done = settled(&cl, q);
        cluster_close(&cl);
        if (done)
            return CLI_DONE;
        if (clock_mono_ms() >= end_ms)
            return not_settled(&cl, q);
        cli_wait_change(c);
    }
}

static int run(struct cli *c, struct pause *q)
{
    bool changed = false;
    enum err loaded = cli_config(c);
    if (loaded != ERR_OK)
        return cli_exit_code(loaded);
    enum err rv = set_pause(c, q->on, &changed);
    if (rv == ERR_OK && q->force)
        rv = take_flag_back(c);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (!changed && !q->force) {
        /* A resume that has not been completed is gone on with. */
        int rest = q->on ? CLI_DONE : follow(c, q);
        return rest != CLI_DONE ? rest
                                : cli_fail(ERR_INVALID, "Cluster is %s",
                                           q->on ? "already paused" : "not paused");
    }
    int done = !q->on || q->wait ? follow(c, q) : CLI_DONE;
    if (done == CLI_DONE)
        (void)printf("Success: cluster management is %s\n", q->on ? "paused" : "resumed");
    return done;
}

int cmd_pause(struct cli *c, int argc, char **argv)
{
    struct pause q = {.on = true, .timeout_s = 30};
    int rv = parse(c, &q, argc, argv);
    return rv != 0 ? rv : run(c, &q);
}

int cmd_resume(struct cli *c, int argc, char **argv)
{
    struct pause q = {.on = false, .timeout_s = 30};
    int rv = parse(c, &q, argc, argv);
    return rv != 0 ? rv : run(c, &q);
}
