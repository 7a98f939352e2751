/* switchover and failover: writes the request, then follows it to its end. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "cli/commands.h"

struct request {
    struct failover_rec rec;
    uint64_t timeout_s;
    char first_leader[64];
    uint64_t first_token;
};

static int parse(struct cli *c, struct request *q, const char *kind, int argc, char **argv)
{
    static const struct option options[] = {{"leader", required_argument, NULL, 'l'},
                                            {"primary", required_argument, NULL, 'l'},
                                            {"candidate", required_argument, NULL, 'C'},
                                            {"scheduled", required_argument, NULL, 's'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {"force", no_argument, NULL, 'F'},
                                            {NULL, 0, NULL, 0}};
    int option;
    *q = (struct request){.timeout_s = 60};
    str_cut(q->rec.kind, sizeof q->rec.kind, kind);
    optind = 1;
    while ((option = cli_option(argc, argv, options)) != -1) {
        if (option == 'l')
            str_cut(q->rec.leader, sizeof q->rec.leader, optarg);
        else if (option == 'C')
            str_cut(q->rec.candidate, sizeof q->rec.candidate, optarg);
        else if (option == 's' && strcmp(kind, "switchover") != 0)
            return cli_usage("a failover can't be scheduled");
        else if (option == 's') {
            int rv = cli_take_schedule(optarg, &q->rec.at_ms);
            if (rv != 0)
                return rv;
        } else if (option == 'F')
            q->rec.force = true;
        else if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        else if (str_parse_u64(optarg, &q->timeout_s) != ERR_OK || q->timeout_s == 0 ||
                 q->timeout_s > 3600)
            return cli_usage("--timeout: \"%s\" is not a number of seconds up to 3600", optarg);
    }
    int extra = cli_cluster_argument(c, argc, argv);
    if (extra != 0)
        return extra;
    uint8_t random[16];
    rng_system(random, sizeof random);
    hex_encode(q->rec.id, random, sizeof random);
    q->rec.requested_ms = clock_wall_ms();
    return 0;
}

/* As Patroni does. */
static int check_pause(struct cli *c, const struct request *q, bool switchover)
{
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct config_rec config;
    enum err rv = cli_record(c, "config", &msg_config_rec, &config, &arena, NULL);
    if (rv != ERR_OK && rv != ERR_NOT_FOUND)
        return cli_exit_code(rv);
    if (rv == ERR_NOT_FOUND || !config.pause)
        return 0;
    if (q->rec.at_ms != 0)
        return cli_fail(ERR_PRECONDITION,
                        "nothing that is scheduled is done in a pause: `regentctl resume` "
                        "first; nothing changed");
    if (switchover && q->rec.candidate[0] == '\0')
        return cli_fail(ERR_PRECONDITION, "in a pause a switchover goes to a node that you "
                                          "name: say --candidate; nothing changed");
    return 0;
}

/* Refuses what can be seen to be impossible before anything is written. */
static int check(struct cli *c, struct request *q)
{
    struct leader_rec leader;
    struct member_rec member;
    char name[128];
    enum err rv = cli_record(c, "leader", &msg_leader_rec, &leader, NULL, NULL);
    bool has_leader = rv == ERR_OK;
    if (rv != ERR_OK && rv != ERR_NOT_FOUND)
        return cli_exit_code(rv);
    bool switchover = strcmp(q->rec.kind, "switchover") == 0;
    if (switchover && !has_leader)
        return cli_fail(
            ERR_PRECONDITION,
            "there is no leader to switch over from; see `regentctl list`, or use `failover`");
    if (q->rec.leader[0] != '\0' && strcmp(q->rec.leader, leader.name) != 0)
        return cli_fail(ERR_PRECONDITION, "the leader is \"%s\", not \"%s\"; nothing changed",
                        leader.name, q->rec.leader);
    if (has_leader && strcmp(q->rec.candidate, leader.name) == 0)
        return cli_fail(ERR_PRECONDITION, "\"%s\" is the leader already; nothing changed",
                        leader.name);
    if (q->rec.candidate[0] != '\0') {
        (void)snprintf(name, sizeof name, "members/%s", q->rec.candidate);
        rv = cli_record(c, name, &msg_member_rec, &member, NULL, NULL);
        if (rv == ERR_NOT_FOUND)
            return cli_fail(ERR_PRECONDITION,
                            "no node \"%s\" is running; `regentctl list` shows the nodes",
                            q->rec.candidate);
        if (rv != ERR_OK)
            return cli_exit_code(rv);
    }
    int paused = check_pause(c, q, switchover);
    if (paused != 0)
        return paused;
    str_cut(q->first_leader, sizeof q->first_leader, has_leader ? leader.name : "");
    q->first_token = has_leader ? leader.token : 0;
    if (has_leader)
        str_cut(q->rec.leader, sizeof q->rec.leader, leader.name);
    return 0;
}

static enum err submit(struct cli *c, const struct request *q, bool *ret_taken)
{
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    msg_to_json(&msg_failover_rec, &q->rec, &json);
    return cli_replace(c, "failover", 0, buf_slice(&json), ret_taken);
}

/* By the leader, before it did anything: it could not be done without a loss. */
static bool was_refused(const struct status_rec *s)
{
    return str_starts(s->request_result, "refused");
}

/* The new leader must run: the key alone moves some milliseconds before PostgreSQL is promoted. */
static int follow(struct cli *c, const struct request *q)
{
    uint64_t start_ms = clock_mono_ms();
    struct leader_rec leader;
    struct status_rec status;
    for (;;) {
        uint64_t took_ms = clock_mono_ms() - start_ms;
        enum err rv = cli_record(c, "leader", &msg_leader_rec, &leader, NULL, NULL);
        bool moved = rv == ERR_OK && leader.token != q->first_token &&
                     strcmp(leader.name, q->first_leader) != 0;
        if (moved && strcmp(leader.state, "running") == 0) {
            (void)printf("Successfully %s over to \"%s\" (%" PRIu64 " ms)\n",
                         strcmp(q->rec.kind, "failover") == 0 ? "failed" : "switched",
                         leader.name, took_ms);
            return CLI_DONE;
        }
        /* The candidate had the key and gave it back: pre_promote refused, or PostgreSQL did not start. */
        if (rv == ERR_OK && leader.token != q->first_token && !moved &&
            strcmp(leader.state, "running") == 0)
            return cli_fail(ERR_IO,
                            "%s was undone: \"%s\" leads again; see `regentctl explain`",
                            q->rec.kind, leader.name);
        if (rv == ERR_OK || rv == ERR_NOT_FOUND)
            rv = cli_record(c, "status", &msg_status_rec, &status, NULL, NULL);
        if (rv == ERR_OK && strcmp(status.request_id, q->rec.id) == 0 &&
            strcmp(status.request_result, "done") != 0 && !moved)
            return cli_fail(was_refused(&status) ? ERR_PRECONDITION : ERR_IO,
                            "%s was called off: %s; the leader is unchanged", q->rec.kind,
                            status.request_result);
        if (took_ms > q->timeout_s * 1000)
            return cli_fail(
                ERR_OUTCOME_UNKNOWN,
                "%s has not ended within %" PRIu64
                " s and may still go on; see `regentctl list` and `regentctl explain`",
                q->rec.kind, q->timeout_s);
        cli_wait_change(c);
    }
}

static int request(struct cli *c, struct request *q)
{
    bool taken;
    enum err loaded = cli_config(c);
    if (loaded != ERR_OK)
        return cli_exit_code(loaded);
    int exit_code = check(c, q);
    if (exit_code != 0)
        return exit_code;
    enum err rv = submit(c, q, &taken);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (!taken)
        return cli_fail(ERR_EXISTS, "another switchover or failover is under way; wait "
                                    "for it, or see `regentctl explain`");
    if (q->rec.at_ms != 0) {
        (void)printf("Switchover scheduled\n");
        return CLI_DONE;
    }
    return follow(c, q);
}

int cmd_switchover(struct cli *c, int argc, char **argv)
{
    struct request q;
    int rv = parse(c, &q, "switchover", argc, argv);
    return rv != 0 ? rv : request(c, &q);
}

int cmd_failover(struct cli *c, int argc, char **argv)
{
    struct request q;
    int rv = parse(c, &q, "failover", argc, argv);
    if (rv != 0)
        return rv;
    if (q.rec.candidate[0] == '\0')
        return cli_usage("--candidate is missing: a failover goes to a node that you name");
    if (!q.rec.force)
        return cli_fail(ERR_PRECONDITION, "a failover may lose commits that only the old "
                                          "leader has; say --force, or use `switchover`");
    return request(c, &q);
}
