/* init: the first node of a cluster: its CA, its certificate, its passwords, its configuration file. */
#include <stdio.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/setup.h"

enum { SECRETS_MAX = 64 * 1024 };

enum err setup_identity(struct setup *s, const char *kind, uint64_t member_id,
                        const char *secrets_file, struct errmsg *e)
{
    struct buf ca CLEANUP(buf_close) = BUF_INIT;
    struct buf ca_key CLEANUP(buf_close) = BUF_INIT;
    struct buf csr CLEANUP(buf_close) = BUF_INIT;
    struct buf key CLEANUP(buf_close) = BUF_INIT;
    struct buf cert CLEANUP(buf_close) = BUF_INIT;
    struct buf secrets CLEANUP(buf_close) = BUF_INIT;
    struct pki_identity id = {.member_id = member_id};
    uint8_t random[16];
    const char *hosts[] = {s->host};
    rng_system(random, sizeof random);
    hex_encode(id.cluster_id, random, sizeof random);
    str_cut(id.name, sizeof id.name, s->name);
    str_cut(id.kind, sizeof id.kind, kind);
    enum err rv = pki_ca_new(id.cluster_id, &ca, &ca_key, e);
    if (rv == ERR_OK)
        rv = pki_csr_new(s->name, &csr, &key, e);
    if (rv == ERR_OK)
        rv = pki_sign(buf_slice(&ca), buf_slice(&ca_key), buf_slice(&csr), &id, hosts, 1, &cert,
                      e);
    if (secrets_file == NULL)
        setup_secrets(&secrets);
    else if (rv == ERR_OK)
        rv = pki_read_file(secrets_file, SECRETS_MAX, &secrets, e);
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
    int usage = setup_parse(&s, file, argc, argv);
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
        rv = setup_identity(&s, "first", 1, s.secrets, &e);
    if (rv == ERR_OK)
        rv = setup_config(&s, file, &e);
    return setup_finish(&s, rv, &e, file);
}
