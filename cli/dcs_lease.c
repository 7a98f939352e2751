/* dcs lease grant|revoke|keep-alive|timetolive|list, dcs health. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/dcs.h"

int cmd_dcs_lease_grant(struct cli *c, int argc, char **argv)
{
    struct lease_grant r = {0};
    struct lease_state s;
    uint64_t seconds;
    enum { SECONDS_MAX = 86400 };
    if (argc != 2 || str_parse_u64(argv[1], &seconds) != ERR_OK || seconds == 0 ||
        seconds > SECONDS_MAX)
        return cli_usage("one TTL in seconds, up to %d, is needed", SECONDS_MAX);
    r.ttl_ms = seconds * 1000;
    rng_system(&r.nonce, sizeof r.nonce);
    r.nonce >>= 1; /* a U64 that JSON shows as a number */
    enum err rv = cli_call(c, METHOD_LEASE_GRANT, &r, &s);
    if (rv == ERR_OK)
        (void)printf("%" PRIu64 "\n", s.id);
    return cli_exit_code(rv);
}

/* The one argument: 0, or the exit code after a complaint. */
static int parse_id(int argc, char **argv, uint64_t *ret_id)
{
    bool good = argc == 1 && str_parse_u64(argv[0], ret_id) == ERR_OK && *ret_id != 0;
    return good ? 0 : cli_usage("one ID of `dcs lease list` is needed");
}

int cmd_dcs_lease_revoke(struct cli *c, int argc, char **argv)
{
    struct lease_revoke r = {0};
    struct lease_state s;
    int usage = parse_id(argc - 1, argv + 1, &r.id);
    return usage != 0 ? usage : cli_exit_code(cli_call(c, METHOD_LEASE_REVOKE, &r, &s));
}

/* One lease as it stands: CLI_DONE, or the exit code after a complaint. */
static int look_up(struct cli *c, uint64_t id, struct lease_state *ret)
{
    struct lease_list list;
    struct msg_iter it;
    enum err rv =
        cli_call(c, METHOD_LEASE_INFO, &(struct lease_ref){.id = id, .keys = true}, &list);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    rv = msg_iter_init(&it, list.leases);
    rv = rv == ERR_OK ? msg_iter_next(&it, &msg_lease_state, ret, NULL) : rv;
    if (rv != ERR_OK || ret->gone)
        return cli_fail(ERR_NOT_FOUND, "lease %" PRIu64 " does not exist or has ended", id);
    return CLI_DONE;
}

int cmd_dcs_lease_timetolive(struct cli *c, int argc, char **argv)
{
    struct lease_state s = {0};
    uint64_t id = 0;
    int rv = parse_id(argc - 1, argv + 1, &id);
    rv = rv == 0 ? look_up(c, id, &s) : rv;
    if (rv != 0)
        return rv;
    if (c->format == CLI_JSON)
        dcs_print_result(&msg_lease_state, &s);
    else
        (void)printf("lease %" PRIu64 " granted with TTL(%" PRIu64 "s), remaining(%" PRIu64
                     "s), attached keys(%" PRIu64 ")\n",
                     s.id, s.ttl_ms / 1000, s.remaining_ms / 1000, s.keys);
    return CLI_DONE;
}

/* ---- keep-alive ---- */

/* Does this page of keys name the lease? *ret_last: its last key. */
static enum err names_lease(const struct range_reply *page, uint64_t lease,
                            struct buf *ret_last, bool *ret_found)
{
    struct msg_iter it;
    struct kv kv;
    enum err rv = msg_iter_init(&it, page->kvs);
    while (rv == ERR_OK && (rv = msg_iter_next(&it, &msg_kv, &kv, NULL)) == ERR_OK) {
        *ret_found = *ret_found || kv.lease == lease;
        buf_clear(ret_last);
        buf_append_slice(ret_last, kv.key);
    }
    return rv == ERR_NOT_FOUND ? ERR_OK : rv;
}

/* The lease of an agent says that its node lives: kept alive by somebody else it would hide that it is dead. */
static int refuse_agents(struct cli *c, uint64_t id)
{
    struct buf CLEANUP(buf_close) last = BUF_INIT;
    struct range_req r = {
        .key = slice_str("/regent/"), .end = slice_str("/regent0"), .keys_only = true};
    struct range_reply page = {.more = true};
    bool found = false;
    while (page.more && !found) {
        enum err rv = cli_call(c, METHOD_KV_RANGE, &r, &page);
        if (rv != ERR_OK)
            return cli_exit_code(rv);
        rv = names_lease(&page, id, &last, &found);
        if (rv != ERR_OK)
            return cli_fail(rv, "the node's answer cannot be read");
        buf_append_u8(&last, 0); /* the key right behind */
        r.key = buf_slice(&last);
    }
    if (!found)
        return CLI_DONE;
    (void)cli_fail(
        ERR_PRECONDITION,
        "lease %" PRIu64 " is that of an agent, which alone may say that its node lives", id);
    return CLI_REFUSED;
}

/* As its holder would: `n` goes up. */
static int renew(struct cli *c, struct lease_state *s)
{
    struct lease_renew r = {.id = s->id, .nonce = s->nonce, .n = s->n + 1};
    enum err rv = cli_call(c, METHOD_LEASE_RENEW, &r, s);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (s->gone)
        return cli_fail(ERR_NOT_FOUND, "lease %" PRIu64 " expired or revoked", r.id);
    if (c->format == CLI_JSON)
        dcs_print_result(&msg_lease_state, s);
    else
        (void)printf("lease %" PRIu64 " keepalived with TTL(%" PRIu64 ")\n", s->id,
                     s->ttl_ms / 1000);
    return fflush(stdout) == 0 ? CLI_DONE : CLI_FAILED; /* nobody reads any more */
}

int cmd_dcs_lease_keep_alive(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"once", no_argument, NULL, 'o'},
                                            {NULL, 0, NULL, 0}};
    bool once = false;
    struct lease_state s = {0};
    uint64_t id = 0;
    int option;
    optind = 1;
    while ((option = cli_option(argc, argv, options)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        once = true;
    }
    int rv = parse_id(argc - optind, argv + optind, &id);
    rv = rv == 0 ? look_up(c, id, &s) : rv;
    rv = rv == 0 ? refuse_agents(c, id) : rv;
    rv = rv == 0 ? renew(c, &s) : rv;
    while (rv == 0 && !once) {
        uint64_t wait_ms = s.ttl_ms / 3;
        (void)nanosleep(&(struct timespec){.tv_sec = (time_t)(wait_ms / 1000),
                                           .tv_nsec = (long)(wait_ms % 1000) * 1000000L},
                        NULL);
        rv = renew(c, &s);
    }
    return rv;
}

int cmd_dcs_lease_list(struct cli *c, int argc, char **argv)
{
    static const struct output_column columns[] = {
        {.name = "id", .number = true, .right = true},
        {.name = "ttl_ms", .number = true, .right = true},
        {.name = "remaining_ms", .number = true, .right = true},
        {.name = "keys", .number = true, .right = true}};
    struct lease_list list;
    struct msg_iter it;
    struct lease_state s;
    int usage = cli_no_arguments(argc, argv);
    if (usage != 0)
        return usage;
    enum err rv = cli_call(c, METHOD_LEASE_INFO, &(struct lease_ref){.keys = true}, &list);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    struct output *o = output_new(c, NULL, columns, ARRAY_LEN(columns));
    rv = msg_iter_init(&it, list.leases);
    while (rv == ERR_OK && (rv = msg_iter_next(&it, &msg_lease_state, &s, NULL)) == ERR_OK) {
        char text[4][24];
        const uint64_t values[] = {s.id, s.ttl_ms, s.remaining_ms, s.keys};
        for (size_t i = 0; i < ARRAY_LEN(values); i++)
            (void)snprintf(text[i], sizeof text[i], "%" PRIu64, values[i]);
        output_row(o, (const char *[]){text[0], text[1], text[2], text[3]});
    }
    output_print(o);
    return CLI_DONE;
}

/* A read through the quorum: what it proves is that something can be decided. */
int cmd_dcs_health(struct cli *c, int argc, char **argv)
{
    struct range_reply reply;
    int usage = cli_no_arguments(argc, argv);
    if (usage != 0)
        return usage;
    enum err rv = cli_connect(c);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    uint64_t start_us = clock_boot_us();
    rv = cli_call(c, METHOD_KV_RANGE,
                  &(struct range_req){.key = slice_str("/"), .count_only = true}, &reply);
    if (rv == ERR_OK)
        (void)printf("healthy: a read through the quorum took %.1f ms, revision %" PRIu64 "\n",
                     (double)(clock_boot_us() - start_us) / 1000, reply.revision);
    return cli_exit_code(rv);
}
