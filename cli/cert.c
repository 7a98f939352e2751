/* cert create|list|revoke: certificates for clients, with a role. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "proto/pki.h"

enum { PEM_MAX = 256 * 1024 };

struct files {
    char *ca, *cert, *key; /* paths, owned */
};

static void files_name(struct files *f, const char *dir, const char *name)
{
    f->ca = mem_printf("%s/ca.crt", dir);
    f->cert = mem_printf("%s/%s.crt", dir, name);
    f->key = mem_printf("%s/%s.key", dir, name);
}

static void files_close(struct files *f)
{
    mem_free(f->ca);
    mem_free(f->cert);
    mem_free(f->key);
}

static enum err check_free(const struct files *f, struct errmsg *e)
{
    const char *const paths[] = {f->cert, f->key};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        if (access(paths[i], F_OK) == 0)
            return err_set(e, ERR_EXISTS,
                           "%s exists; choose another name or directory, or move it away",
                           paths[i]);
    return ERR_OK;
}

/* What the client knows the servers by: as this command does. */
static enum err write_ca(struct cli *c, const struct files *f, struct errmsg *e)
{
    struct buf ca CLEANUP(buf_close) = BUF_INIT, there CLEANUP(buf_close) = BUF_INIT;
    const char *from = getenv("REGENT_CACERT");
    enum err rv = from != NULL ? ERR_OK : cli_config(c);
    if (rv == ERR_OK)
        rv = pki_read_file(from != NULL ? from : c->config.dcs.tls.ca, PEM_MAX, &ca, e);
    if (rv != ERR_OK)
        return rv;
    if (access(f->ca, F_OK) != 0)
        return pki_write_file(f->ca, buf_slice(&ca), 0644, false, e);
    rv = pki_read_file(f->ca, PEM_MAX, &there, e);
    if (rv == ERR_OK && !slice_eq(buf_slice(&ca), buf_slice(&there)))
        return err_set(e, ERR_EXISTS, "%s is of another cluster; choose another directory",
                       f->ca);
    return rv;
}

/* The key is made here and goes nowhere. */
static enum err create(struct cli *c, struct cert_issue *r, const struct files *f,
                       struct errmsg *e)
{
    struct buf csr CLEANUP(buf_close) = BUF_INIT, key CLEANUP(buf_close) = BUF_INIT;
    struct cert_reply reply;
    enum err rv = check_free(f, e);
    if (rv == ERR_OK)
        rv = write_ca(c, f, e);
    if (rv == ERR_OK)
        rv = pki_csr_new(r->name, &csr, &key, e);
    if (rv != ERR_OK)
        return rv;
    r->csr = buf_slice(&csr);
    rv = cli_call(c, METHOD_CERT_ISSUE, r, &reply);
    if (rv != ERR_OK) {
        e->text[0] = '\0'; /* said */
        return rv;
    }
    rv = pki_write_file(f->key, buf_slice(&key), 0600, false, e);
    return rv == ERR_OK ? pki_write_file(f->cert, reply.cert, 0644, false, e) : rv;
}

static int parse(struct cert_issue *r, const char **ret_dir, int argc, char **argv)
{
    static const struct option options[] = {{"role", required_argument, NULL, 'r'},
                                            {"output", required_argument, NULL, 'o'},
                                            {NULL, 0, NULL, 0}};
    const char *role = "viewer";
    int option;
    *ret_dir = ".";
    optind = 1;
    while ((option = cli_option_short(argc, argv, ":o:", options)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        *(option == 'r' ? &role : ret_dir) = optarg;
    }
    if (strcmp(role, "viewer") != 0 && strcmp(role, "operator") != 0 &&
        strcmp(role, "admin") != 0)
        return cli_usage("--role takes viewer, operator or admin");
    str_cut(r->role, sizeof r->role, role);
    if (optind + 1 != argc || str_copy(r->name, sizeof r->name, argv[optind]) != ERR_OK ||
        argv[optind][0] == '\0' || strchr(argv[optind], '/') != NULL)
        return cli_usage("one NAME for the client is needed");
    return 0;
}

int cmd_cert_create(struct cli *c, int argc, char **argv)
{
    struct cert_issue r = {.name = ""};
    struct files f;
    struct errmsg e = {.text = ""};
    const char *dir;
    int usage = parse(&r, &dir, argc, argv);
    if (usage != 0)
        return usage;
    files_name(&f, dir, r.name);
    enum err rv = create(c, &r, &f, &e);
    if (rv == ERR_OK)
        (void)printf("REGENT_CACERT=%s REGENT_CERT=%s REGENT_KEY=%s\n", f.ca, f.cert, f.key);
    else if (e.text[0] != '\0')
        (void)cli_error(&e);
    files_close(&f);
    return cli_exit_code(rv);
}

/* One table for people, one array for programs: a revoked name is a row without a role. */
static void print_list(const struct cli *c, const struct cert_list *list)
{
    static const struct output_column columns[] = {
        {.name = "Serial", .number = true, .right = true},
        {.name = "Name"},
        {.name = "Role"},
        {.name = "Issued"},
        {.name = "Expires"},
        {.name = "Revoked"}};
    struct msg_iter it;
    struct cert_info one;
    struct cert_revoked gone;
    char serial[24], issued[CLOCK_TEXT_MAX], end[CLOCK_TEXT_MAX];
    struct output *o = output_new(c, NULL, columns, ARRAY_LEN(columns));
    enum err err = msg_iter_init(&it, list->certs);
    while (err == ERR_OK && msg_iter_next(&it, &msg_cert_info, &one, NULL) == ERR_OK) {
        (void)snprintf(serial, sizeof serial, "%" PRIu64, one.serial);
        clock_wall_text(one.issued_ms, issued);
        clock_wall_text(one.expires_ms, end);
        output_row(o, (const char *[]){serial, one.name, one.role, issued, end, NULL});
    }
    err = msg_iter_init(&it, list->revoked);
    while (err == ERR_OK && msg_iter_next(&it, &msg_cert_revoked, &gone, NULL) == ERR_OK) {
        (void)snprintf(serial, sizeof serial, "%" PRIu64, gone.serial);
        clock_wall_text(gone.at_ms, end);
        output_row(o, (const char *[]){serial, gone.name, NULL, NULL, NULL, end});
    }
    output_print(o);
}

int cmd_cert_list(struct cli *c, int argc, char **argv)
{
    static const struct empty nothing;
    struct cert_list list;
    int usage = cli_no_arguments(argc, argv);
    if (usage != 0)
        return usage;
    enum err rv = cli_call(c, METHOD_CERT_LIST, &nothing, &list);
    if (rv == ERR_OK)
        print_list(c, &list);
    return cli_exit_code(rv);
}

int cmd_cert_revoke(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"unlisted", no_argument, NULL, 'u'},
                                            {NULL, 0, NULL, 0}};
    struct cert_ref r = {.name = ""};
    struct cert_revoked reply;
    int option;
    optind = 1;
    while ((option = cli_option(argc, argv, options)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        r.unlisted = true;
    }
    if (optind + 1 != argc || str_copy(r.name, sizeof r.name, argv[optind]) != ERR_OK)
        return cli_usage("one NAME of `cert list` is needed");
    enum err rv = cli_call(c, METHOD_CERT_REVOKE, &r, &reply);
    if (rv == ERR_OK)
        (void)printf("%" PRIu64
                     " listed certificate%s of %s revoked; all that it has until now "
                     "are refused\n",
                     reply.certs, reply.certs == 1 ? "" : "s", reply.name);
    return cli_exit_code(rv);
}
