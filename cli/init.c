/* init: the first node of a cluster: its CA, its certificate, its passwords, its configuration file. */
#include <stdio.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/setup.h"

static enum err make_identity(struct setup *s, struct errmsg *e)
{
    struct buf ca CLEANUP(buf_close) = BUF_INIT;
    struct buf ca_key CLEANUP(buf_close) = BUF_INIT;
    struct buf csr CLEANUP(buf_close) = BUF_INIT;
    struct buf key CLEANUP(buf_close) = BUF_INIT;
    struct buf cert CLEANUP(buf_close) = BUF_INIT;
    struct buf secrets CLEANUP(buf_close) = BUF_INIT;
    struct pki_identity id = {.kind = "first", .member_id = 1};
    uint8_t random[16];
    const char *hosts[] = {s->host};
    rng_system(random, sizeof random);
    hex_encode(id.cluster_id, random, sizeof random);
    str_cut(id.name, sizeof id.name, s->name);
    enum err rv = pki_ca_new(id.cluster_id, &ca, &ca_key, e);
    if (rv == ERR_OK)
        rv = pki_csr_new(s->name, &csr, &key, e);
    if (rv == ERR_OK)
        rv = pki_sign(buf_slice(&ca), buf_slice(&ca_key), buf_slice(&csr), &id, hosts, 1, &cert,
                      e);
    setup_secrets(&secrets);
    char *pki CLEANUP(mem_cleanup) = mem_printf("%s/pki", s->data_dir);
    if (rv == ERR_OK)
        rv = setup_write(s, pki, "ca.crt", buf_slice(&ca), 0644, e);
    if (rv == ERR_OK)
        rv = setup_write(s, pki, "ca.key", buf_slice(&ca_key), 0600, e);
    if (rv == ERR_OK)
        rv = setup_write(s, pki, "node.crt", buf_slice(&cert), 0644, e);
    if (rv == ERR_OK)
        rv = setup_write(s, pki, "node.key", buf_slice(&key), 0600, e);
    if (rv == ERR_OK)
        rv = setup_write(s, s->data_dir, "secrets.yml", buf_slice(&secrets), 0600, e);
    return rv;
}

int cmd_init(struct cli *c, int argc, char **argv)
{
    struct setup s;
    struct errmsg e = {0};
    const char *file = config_path(c->config_path);
    int usage = setup_parse(&s, argc, argv);
    if (usage != 0)
        return usage;
    if (optind < argc)
        return cli_usage("unexpected argument \"%s\"", argv[optind]);
    if (s.scope == NULL || s.token != NULL)
        return cli_usage(s.scope == NULL ? "--scope is missing" : "--token belongs to join");
    enum err rv = setup_check(&s, file, &e);
    if (rv == ERR_OK)
        rv = setup_dirs(&s, &e);
    if (rv == ERR_OK)
        rv = make_identity(&s, &e);
    if (rv == ERR_OK)
        rv = setup_config(&s, file, &e);
    return setup_finish(&s, rv, &e, file);
}
