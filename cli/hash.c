/* dcs hash: every member's hash of its state at one entry, side by side. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/commands.h"

enum { PATIENCE_MS = 30000, POLL_MS = 50 };

static const char *file_of(const char *env, const char *configured)
{
    const char *value = getenv(env);
    return value != NULL ? value : configured;
}

/* Waits until this member has come to the mark and read its whole state. */
static enum err ask(const struct cli *c, const char *address, uint64_t index,
                    struct hash_reply *ret, struct errmsg *e)
{
    struct client_options o = {.endpoints = {address},
                               .n_endpoints = 1,
                               .ca_file = file_of("REGENT_CACERT", c->config.dcs.tls.ca),
                               .cert_file = file_of("REGENT_CERT", c->config.dcs.tls.cert),
                               .key_file = file_of("REGENT_KEY", c->config.dcs.tls.key),
                               .name = "regentctl",
                               .no_session = true};
    struct hash_ref ref = {.index = index};
    struct client_sync *client = NULL;
    uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    enum err rv = client_sync_open(&o, CLIENT_DEADLINE_MS, &client, e);
    while (rv == ERR_OK) {
        rv = client_sync_call(client, METHOD_HASH_READ, &ref, CLIENT_DEADLINE_MS, ret, e);
        if (rv != ERR_UNAVAILABLE || clock_mono_ms() > until_ms)
            break;
        (void)usleep(POLL_MS * 1000);
        rv = ERR_OK;
    }
    client_sync_close(client);
    return rv;
}

int cmd_dcs_hash(struct cli *c, int argc, char **argv)
{
    static const struct output_column columns[] = {
        {.name = "member"},
        {.name = "index", .number = true, .right = true},
        {.name = "hash"},
        {.name = "error"}};
    static const struct empty nothing;
    static struct member_list list;
    struct hash_reply mark;
    uint64_t first = 0;
    bool any = false, equal = true;
    int usage = cli_no_arguments(argc, argv);
    if (usage != 0)
        return usage;
    enum err rv = cli_call(c, METHOD_MEMBER_LIST, &nothing, &list);
    if (rv == ERR_OK)
        rv = cli_call(c, METHOD_HASH_MARK, &nothing, &mark);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    struct output *o = output_new(c, NULL, columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < list.members_n; i++) {
        struct hash_reply h;
        struct errmsg e = {0};
        char index[24], hash[24];
        rv = ask(c, list.members[i].address, mark.index, &h, &e);
        equal = equal && rv == ERR_OK && (!any || h.hash == first);
        if (rv == ERR_OK && !any) {
            first = h.hash;
            any = true;
        }
        (void)snprintf(index, sizeof index, "%" PRIu64, mark.index);
        (void)snprintf(hash, sizeof hash, "%016" PRIx64, rv == ERR_OK ? h.hash : 0);
        output_row(o, (const char *[]){list.members[i].name, index, rv == ERR_OK ? hash : NULL,
                                       rv == ERR_OK ? NULL : e.text});
    }
    output_print(o);
    return equal
               ? CLI_DONE
               : cli_fail(ERR_IO, "not every member has shown the same state at index %" PRIu64,
                          mark.index);
}
