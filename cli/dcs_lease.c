/* dcs lease grant|revoke|list, dcs health. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/str.h"
#include "cli/commands.h"

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

int cmd_dcs_lease_revoke(struct cli *c, int argc, char **argv)
{
    struct lease_revoke r = {0};
    struct lease_state s;
    if (argc != 2 || str_parse_u64(argv[1], &r.id) != ERR_OK || r.id == 0)
        return cli_usage("one ID of `dcs lease list` is needed");
    return cli_exit_code(cli_call(c, METHOD_LEASE_REVOKE, &r, &s));
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
