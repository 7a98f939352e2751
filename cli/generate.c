/* generate: files of other programs, from the same templates and values as the daemon's `templates:`. */
#include <stdio.h>

#include "base/assert.h"
#include "base/str.h"
#include "cli/cluster.h"
#include "cli/commands.h"
#include "conf/template.h"
#include "proto/model.h"
#include "proto/pki.h"

enum { SETS_MAX = 32 };

struct generate {
    const char *template; /* name of a built-in one, or a file */
    const char *file;     /* NULL: standard output */
    struct model_pair set[SETS_MAX];
    size_t set_n;
};

/* NAME=VALUE is cut in two where it stands. */
static int add_set(struct generate *g, char *text)
{
    char *value = strchr(text, '=');
    if (value == NULL || value == text)
        return cli_usage("--set takes NAME=VALUE, not \"%s\"", text);
    if (g->set_n == SETS_MAX)
        return cli_usage("more than %d times --set", SETS_MAX);
    *value++ = '\0';
    g->set[g->set_n++] = (struct model_pair){text, value};
    return 0;
}

static int parse(int argc, char **argv, struct generate *g)
{
    static const struct option options[] = {{"set", required_argument, NULL, 's'},
                                            {"output", required_argument, NULL, 'o'},
                                            {NULL, 0, NULL, 0}};
    int option;
    optind = 1;
    while ((option = cli_option_short(argc, argv, ":s:o:", options)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        if (option == 'o')
            g->file = optarg;
        else if (add_set(g, optarg) != 0)
            return CLI_USAGE;
    }
    if (optind + 1 != argc)
        return cli_usage(
            "one of haproxy, pgbouncer, keepalived, or a template's file is needed");
    g->template = argv[optind];
    return 0;
}

static enum err read_template(const char *name, struct buf *ret_text, struct errmsg *e)
{
    const char *text = template_builtin(name);
    if (text != NULL) {
        buf_append_slice(ret_text, slice_str(text));
        return ERR_OK;
    }
    enum err rv = pki_read_file(name, TEMPLATE_TEXT_MAX, ret_text, e);
    if (rv == ERR_NOT_FOUND && strchr(name, '/') == NULL)
        return err_set(e, ERR_NOT_FOUND,
                       "\"%s\" is no file, and none of haproxy, pgbouncer, keepalived", name);
    return rv;
}

/* Nodes whose agent is down have no record: who makes a file by hand wants to know. */
static void tell_missing(struct cli *c, const struct cluster *cl)
{
    static const struct empty nothing;
    static struct member_list list;
    if (cli_call(c, METHOD_MEMBER_LIST, &nothing, &list) != ERR_OK)
        return;
    for (size_t i = 0; i < list.members_n; i++) {
        bool known = strcmp(list.members[i].role, "witness") == 0;
        for (size_t k = 0; k < cl->members_n; k++)
            known = known || strcmp(list.members[i].name, cl->members[k].name) == 0;
        if (!known)
            (void)fprintf(stderr,
                          "regentctl: %s does not run and is left out; generate again when it "
                          "does\n",
                          list.members[i].name);
    }
}

static enum err make(struct cli *c, const struct generate *g, struct buf *ret_text,
                     struct errmsg *e)
{
    static struct cluster cl;
    struct buf text CLEANUP(buf_close) = BUF_INIT;
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    ASSERT(g->template != NULL);
    enum err rv = read_template(g->template, &text, e);
    if (rv != ERR_OK || (rv = cluster_read(c, &cl)) != ERR_OK)
        return rv;
    struct model_facts f = {.scope = c->configured ? c->config.scope : "",
                            .self = c->configured ? c->config.name : "",
                            .members = cl.members,
                            .members_n = cl.members_n,
                            .leader = cl.has_leader ? &cl.leader : NULL,
                            .sync = &cl.sync,
                            .set = g->set,
                            .set_n = g->set_n};
    model_json(&f, &json);
    rv = template_render(g->template, buf_slice(&text), buf_slice(&json), ret_text, e);
    if (rv == ERR_OK)
        tell_missing(c, &cl);
    cluster_close(&cl);
    return rv;
}

int cmd_generate(struct cli *c, int argc, char **argv)
{
    struct generate g = {0};
    struct buf text CLEANUP(buf_close) = BUF_INIT;
    struct errmsg e = {0};
    int usage = parse(argc, argv, &g);
    if (usage != 0)
        return usage;
    enum err rv = make(c, &g, &text, &e);
    if (rv == ERR_OK && g.file != NULL)
        rv = pki_write_file(g.file, buf_slice(&text), 0644, true, &e);
    if (rv != ERR_OK) /* without a text it has been told already */
        return e.text[0] != '\0' ? cli_fail(rv, "%s", e.text) : cli_exit_code(rv);
    if (g.file == NULL)
        (void)fwrite(text.p, 1, text.len, stdout);
    return CLI_DONE;
}
