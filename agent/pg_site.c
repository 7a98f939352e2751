/* The other site of a standby cluster, as the dynamic configuration has it (conf/site.h), and what this PostgreSQL is
 * told to follow. */
#include "agent/postgres_private.h"
#include "base/str.h"

static bool follows_site(const struct postgres *p)
{
    return p->follow.known && strcmp(p->follow.name, REMOTE_SITE) == 0;
}

const struct site *site_followed(const struct postgres *p)
{
    return follows_site(p) ? &p->site : NULL;
}

void site_upstream(const struct postgres *p, struct postgres_upstream *ret)
{
    *ret = (struct postgres_upstream){.name = REMOTE_SITE, .read_write = site_many(&p->site)};
    str_cut(ret->host, sizeof ret->host, p->site.host);
    str_cut(ret->port, sizeof ret->port, p->site.port[0] != '\0' ? p->site.port : "5432");
}

/* "" follows nobody: an archive alone. */
static void put_conninfo(const struct postgres *p, const struct postgres_upstream *to,
                         struct buf *b)
{
    if (!p->config->tags.nostream && to->host[0] != '\0')
        pg_render_conninfo(p->config, to, p->probe.incarnation, p->passfile, b);
}

bool follow_set(struct postgres *p, const struct postgres_upstream *to, uint64_t token)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct follow next = {.known = true, .token = token};
    if (to != NULL) {
        memcpy(next.name, to->name, sizeof next.name);
        put_conninfo(p, to, &b);
    }
    if (str_copy(next.conninfo, sizeof next.conninfo, buf_cstr(&b)) != ERR_OK)
        return false;
    p->follow = next;
    p->site_checked = false;
    return true;
}

void site_configure(struct postgres *p, struct slice json)
{
    struct errmsg e = {0};
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct postgres_upstream to;
    if (!slice_eq(buf_slice(&p->site_json), json)) {
        buf_clear(&p->site_json);
        buf_append_slice(&p->site_json, json);
        if (site_parse(json, &p->site, &e) != ERR_OK)
            (void)snprintf(p->trouble, sizeof p->trouble, "%s", e.text);
        p->conf_dirty = p->conf_dirty || follows_site(p);
    }
    /* No site any more: what was followed stays until the plan says otherwise. */
    if (!follows_site(p) || p->act.active || json.n == 0 || p->probe.incarnation[0] == '\0')
        return;
    site_upstream(p, &to);
    put_conninfo(p, &to, &b);
    if (strcmp(p->follow.conninfo, buf_cstr(&b)) == 0 ||
        str_copy(p->follow.conninfo, sizeof p->follow.conninfo, buf_cstr(&b)) != ERR_OK)
        return;
    p->conf_dirty = true;
    stuck_forget(p);
    p->site_checked = false;
}

/* The site's list says which of this node's methods, and in which order. */
static const struct conf_method *find_method(const struct postgres *p, const char *name)
{
    static const struct conf_method basebackup = {.name = (char *)"basebackup",
                                                  .command = (char *)""};
    for (size_t i = 0; i < p->config->postgresql.n_create_replica_methods; i++)
        if (strcmp(p->config->postgresql.create[i]->name, name) == 0)
            return p->config->postgresql.create[i];
    return strcmp(name, "basebackup") == 0 ? &basebackup : NULL;
}

size_t copy_methods(const struct postgres *p, const struct conf_method *ret[CONF_METHODS_MAX])
{
    const struct site *s = &p->site;
    size_t n = 0;
    if (strcmp(p->act.upstream.name, REMOTE_SITE) == 0 && s->create_replica_methods_n > 0) {
        for (size_t i = 0; i < MIN(s->create_replica_methods_n, (size_t)CONF_METHODS_MAX);
             i++) {
            ret[n] = find_method(p, s->create_replica_methods[i]);
            n += ret[n] != NULL;
        }
        return n;
    }
    for (; n < p->config->postgresql.n_create_replica_methods; n++)
        ret[n] = p->config->postgresql.create[n];
    return n;
}
