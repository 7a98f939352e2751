/* join: a token of the running cluster becomes a certificate, the shared passwords and a configuration file. */
#include <getopt.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/setup.h"

enum { REDEEM_AGAIN = 3 };

static enum err redeem(struct setup *s, const char *host, struct slice csr,
                       struct client_sync **ret_client, struct token_grant *ret_grant,
                       struct errmsg *e)
{
    struct pki_token token;
    enum err rv = pki_token_parse(s->token, &token, e);
    if (rv != ERR_OK)
        return rv;
    struct client_options o = {.endpoints = {host},
                               .n_endpoints = 1,
                               .ca_fingerprint = token.ca_fingerprint,
                               .name = s->name,
                               .no_session = true};
    struct errmsg why = {0};
    rv = client_sync_open(&o, CLIENT_DEADLINE_MS, ret_client, &why);
    if (rv != ERR_OK)
        return err_set(e, rv == ERR_PRECONDITION ? ERR_DENIED : rv,
                       "cannot join by %s: %s; is regentd running there, and is this its "
                       "dcs.connect_address? `regentctl member list` on a member shows them",
                       host, why.text);
    struct token_redeem r = {.csr = csr};
    bool v6 = strchr(s->host, ':') != NULL;
    if (str_copy(r.token, sizeof r.token, s->token) != ERR_OK ||
        str_copy(r.name, sizeof r.name, s->name) != ERR_OK ||
        str_format(r.address, sizeof r.address, v6 ? "[%s]:%u" : "%s:%u", s->host,
                   (unsigned)s->dcs_port) != ERR_OK)
        return err_set(e, ERR_LIMIT, "name or address is too long");
    return client_sync_call(*ret_client, METHOD_TOKEN_REDEEM, &r, 2 * CLIENT_DEADLINE_MS,
                            ret_grant, e);
}

static enum err write_grant(struct setup *s, const struct token_grant *g, struct slice key,
                            struct errmsg *e)
{
    char *pki CLEANUP(mem_cleanup) = mem_printf("%s/pki", s->data_dir);
    enum err rv = setup_write(s, pki, "ca.crt", g->ca, 0644, e);
    if (rv == ERR_OK)
        rv = setup_write(s, pki, "node.crt", g->cert, 0644, e);
    if (rv == ERR_OK)
        rv = setup_write(s, pki, "node.key", key, 0600, e);
    if (rv == ERR_OK)
        rv = setup_write(s, s->data_dir, "secrets.yml", g->secrets, 0600, e);
    return rv;
}

/* The members that are in the cluster already: where this node finds it at its first start. */
static void take_members(struct setup *s, const struct token_grant *g)
{
    for (size_t i = 0; i < g->members_n; i++)
        if (strcmp(g->members[i].state, "active") == 0)
            str_cut(s->join[s->join_n++], sizeof s->join[0], g->members[i].address);
    s->scope = g->scope;
    s->role = g->role;
    s->witness = s->witness || strcmp(g->role, "witness") == 0;
}

static enum err join(struct setup *s, const char *host, const char *file, struct errmsg *e)
{
    static struct token_grant grant;
    struct buf csr CLEANUP(buf_close) = BUF_INIT;
    struct buf key CLEANUP(buf_close) = BUF_INIT;
    struct client_sync *client = NULL;
    enum err rv = setup_check(s, file, e);
    if (rv == ERR_OK)
        rv = pki_csr_new(s->name, &csr, &key, e);
    if (rv == ERR_OK)
        rv = setup_dirs(s, e); /* what fails here must not cost the token */
    if (rv == ERR_OK)
        rv = redeem(s, host, buf_slice(&csr), &client, &grant, e);
    /* The same key again costs nothing and has the same answer. */
    for (int i = 0; rv == ERR_OUTCOME_UNKNOWN && i < REDEEM_AGAIN; i++) {
        client_sync_close(TAKE(client));
        rv = redeem(s, host, buf_slice(&csr), &client, &grant, e);
    }
    if (rv == ERR_OK) {
        take_members(s, &grant);
        if (s->join_n == 0)
            str_cut(s->join[s->join_n++], sizeof s->join[0], host);
        rv = write_grant(s, &grant, buf_slice(&key), e);
    }
    if (rv == ERR_OK)
        rv = setup_config(s, file, e);
    client_sync_close(client); /* the grant borrows from it */
    return rv;
}

int cmd_join(struct cli *c, int argc, char **argv)
{
    struct setup s;
    struct errmsg e = {0};
    char host[256];
    uint16_t port;
    const char *file = config_path(c->config_path);
    int usage = setup_parse(&s, file, argc, argv);
    if (usage != 0)
        return usage;
    if (optind + 1 != argc)
        return cli_usage("one HOST:PORT of a running member is needed");
    if (s.token == NULL || s.scope != NULL)
        return cli_usage(
            s.token == NULL
                ? "--token is missing; make one with `regentctl token create` on a member"
                : "--scope comes with the token");
    if (str_host_port(argv[optind], host, sizeof host, &port) != ERR_OK)
        return cli_usage("\"%s\" is not HOST:PORT", argv[optind]);
    enum err rv = join(&s, argv[optind], file, &e);
    return setup_finish(&s, rv, &e, file);
}
