/* What follows from other keys, and what must hold between them. */
#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/str.h"
#include "conf/dynamic.h"
#include "conf/loader.h"
#include "conf/template_list.h"

static void default_path(char **at, const char *dir, const char *file)
{
    if ((*at)[0] == '\0') {
        mem_free(*at);
        *at = mem_printf("%s/%s", dir, file);
    }
}

static bool is_wildcard(const char *listen)
{
    static const char *const all[] = {"0.0.0.0", "::", "*"};
    char host[256];
    uint16_t port;
    if (str_host_port(listen, host, sizeof host, &port) != ERR_OK)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (strcmp(host, all[i]) == 0)
            return true;
    return false;
}

/* Others dial connect_address: what stands for every address of this machine is none of theirs. */
static void default_address(struct loader *l, const char *section, char **at,
                            const char *listen)
{
    if ((*at)[0] == '\0') {
        mem_free(*at);
        *at = mem_strdup(listen);
    }
    if (is_wildcard(*at))
        conf_complain(l, NULL,
                      "%s.connect_address is missing: listen is \"%s\", which others cannot "
                      "dial; name the address that they can",
                      section, listen);
}

static void check_name(struct loader *l, const char *key, const char *value)
{
    enum { NAME_LEN_MAX = 60 };
    if (strlen(value) > NAME_LEN_MAX)
        conf_complain(l, NULL, "%s: \"%.70s\" is longer than %d characters", key, value,
                      NAME_LEN_MAX);
    for (const char *p = value; *p != '\0'; p++) {
        if (!isalnum((unsigned char)*p) && strchr("_-.", *p) == NULL) {
            conf_complain(l, NULL, "%s: \"%.70s\" may hold letters, digits, and _ - . only",
                          key, value);
            return;
        }
    }
}

static void check_absolute(struct loader *l, const char *key, const char *path)
{
    if (path[0] != '\0' && path[0] != '/')
        conf_complain(l, NULL, "%s: \"%s\" is not an absolute path", key, path);
}

static void check_postgresql(struct loader *l)
{
    const struct config *c = l->c;
    if (strcmp(c->dcs.role, "witness") == 0)
        return;
    if (c->postgresql.listen[0] == '\0')
        conf_complain(l, NULL,
                      "postgresql.listen is missing (host:port PostgreSQL listens on); "
                      "only a witness has none");
    if (c->postgresql.data_dir[0] == '\0')
        conf_complain(l, NULL,
                      "postgresql.data_dir is missing (where PostgreSQL's data lives); "
                      "only a witness has none");
    if (c->postgresql.data_dir[0] != '\0' && strcmp(c->postgresql.data_dir, c->data_dir) == 0)
        conf_complain(l, NULL,
                      "postgresql.data_dir is the same as data_dir: \"%s\"; choose a "
                      "directory of its own",
                      c->data_dir);
}

struct hba_roles conf_roles(const struct config *c)
{
    return (struct hba_roles){.superuser = c->postgresql.authentication.superuser.username,
                              .replication = c->postgresql.authentication.replication.username,
                              .rewind = c->postgresql.authentication.rewind.username};
}

/* A line that PostgreSQL cannot read keeps it from starting. */
static void check_lines(struct loader *l)
{
    struct errmsg e = {0};
    const struct hba_roles roles = conf_roles(l->c);
    for (size_t i = 0; i < l->c->postgresql.n_pg_hba; i++) {
        const char *line = l->c->postgresql.pg_hba[i];
        if (hba_check(line, &e) != ERR_OK || hba_check_roles(line, &roles, &e) != ERR_OK)
            conf_complain(l, NULL, "postgresql.%s", e.text);
    }
    for (size_t i = 0; i < l->c->postgresql.n_pg_ident; i++)
        if (ident_check(l->c->postgresql.pg_ident[i], &e) != ERR_OK)
            conf_complain(l, NULL, "postgresql.%s", e.text);
}

static bool is_given(const struct loader *l, const char *path)
{
    for (size_t i = 0; i < conf_keys_n; i++)
        if (strcmp(conf_keys[i].path, path) == 0)
            return l->seen[i];
    UNREACHABLE();
}

/* One tag says never, the other how gladly: nobody knows which was meant. */
static void check_tag(struct loader *l, const char *never, bool is_never, const char *priority,
                      int64_t value)
{
    if (!is_given(l, never) || !is_given(l, priority) || is_never == (value <= 0))
        return;
    conf_complain(l, NULL, "%s: %s contradicts %s: %" PRId64 "; leave one of them out", never,
                  is_never ? "true" : "false", priority, value);
    l->contradictions++;
}

static void exclude(struct loader *l, bool both, const char *a, const char *b, const char *why)
{
    if (!both)
        return;
    conf_complain(l, NULL, "%s contradicts %s: %s; leave one of them out", a, b, why);
    l->contradictions++;
}

/* What a standby cannot be at once. */
static void check_upstream(struct loader *l)
{
    const struct config *c = l->c;
    bool cascades = c->tags.replicatefrom[0] != '\0';
    bool wants_sync = is_given(l, "tags.sync_priority") && c->tags.sync_priority > 0;
    exclude(l, cascades && c->tags.nostream, "tags.nostream", "tags.replicatefrom",
            "the one streams from nobody, the other from a member");
    exclude(l, c->tags.clonefrom && c->tags.nostream, "tags.nostream", "tags.clonefrom",
            "only one that streams is cloned from");
    exclude(l, c->tags.nostream && wants_sync, "tags.nostream", "tags.sync_priority",
            "one that does not stream confirms nothing");
    exclude(l, cascades && wants_sync, "tags.replicatefrom", "tags.sync_priority",
            "a synchronous standby streams from the leader");
    if (!cascades)
        return;
    check_name(l, "tags.replicatefrom", c->tags.replicatefrom);
    if (strcmp(c->tags.replicatefrom, c->name) == 0)
        conf_complain(l, NULL, "tags.replicatefrom: %s is this node; name another", c->name);
}

/* Where a copy comes from and how it is made is the agent's to say. */
static void check_basebackup(struct loader *l)
{
    static const char *const ours[] = {
        "--pgdata", "--format",      "--wal-method", "--checkpoint",  "--dbname",
        "--host",   "--port",        "--username",   "--password",    "--no-password",
        "--target", "--incremental", "--slot",       "--create-slot", "--write-recovery-conf"};
    for (size_t i = 0; i < l->c->postgresql.n_basebackup; i++) {
        const char *option = l->c->postgresql.basebackup[i];
        size_t n = strcspn(option, "=");
        for (size_t k = 0; k < ARRAY_LEN(ours); k++)
            if (strlen(ours[k]) == n && strncmp(option, ours[k], n) == 0)
                conf_complain(l, NULL, "postgresql.basebackup: Regent sets %s by itself",
                              ours[k]);
    }
}

static void check_hooks(struct loader *l)
{
    const struct config *c = l->c;
    if (c->postgresql.hook_timeout == 0)
        conf_complain(l, NULL, "postgresql.hook_timeout: 0 leaves no time; 1 to 50 (seconds)");
    if (c->bootstrap.post_bootstrap[0] != '\0' && c->bootstrap.post_init[0] != '\0')
        conf_complain(l, NULL,
                      "bootstrap.post_bootstrap and bootstrap.post_init are two names of one "
                      "command: leave one out");
}

static void check_ports(struct loader *l)
{
    const struct {
        const char *key, *listen;
    } all[] = {{"dcs.listen", l->c->dcs.listen},
               {"restapi.listen", l->c->restapi.listen},
               {"postgresql.listen", l->c->postgresql.listen}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        for (size_t j = i + 1; j < ARRAY_LEN(all); j++)
            if (all[i].listen[0] != '\0' && strcmp(all[i].listen, all[j].listen) == 0)
                conf_complain(l, NULL, "%s and %s are the same: \"%s\"", all[i].key, all[j].key,
                              all[i].listen);
}

static bool is_address(const char *text)
{
    uint8_t bytes[16];
    char host[64];
    uint64_t bits;
    const char *slash = strchr(text, '/');
    bool v6 = strchr(text, ':') != NULL;
    return slash != NULL && str_parse_u64(slash + 1, &bits) == ERR_OK && bits > 0 &&
           bits <= (v6 ? 128 : 32) &&
           str_copy_slice(host, sizeof host, slice_of(text, (size_t)(slash - text))) ==
               ERR_OK &&
           inet_pton(v6 ? AF_INET6 : AF_INET, host, bytes) == 1;
}

static void check_vip(struct loader *l)
{
    enum { ADDRESSES_MAX = 4 };
    const struct config *c = l->c;
    char *text = mem_strdup(c->vip.address);
    char *save = NULL;
    size_t n = 0;
    for (char *a = strtok_r(text, ", ", &save); a != NULL; a = strtok_r(NULL, ", ", &save)) {
        n++;
        if (!is_address(a))
            conf_complain(l, NULL,
                          "vip.address: \"%s\" is not an address with bits; write for example "
                          "10.0.0.100/24 or fd00::100/64",
                          a);
    }
    mem_free(text);
    if (n > ADDRESSES_MAX)
        conf_complain(l, NULL, "vip.address: more than %d addresses", ADDRESSES_MAX);
    if (c->vip.interface[0] != '\0' && n == 0)
        conf_complain(l, NULL, "vip.interface without vip.address");
    if (n > 0 && c->vip.interface[0] == '\0' && c->vip.hook[0] == '\0')
        conf_complain(l, NULL, "vip.interface is missing (only a hook does without)");
}

static void check_templates(struct loader *l)
{
    struct template_list list;
    struct errmsg e = {0};
    if (template_list_parse(l->c->templates_json, &list, &e) != ERR_OK)
        conf_complain(l, NULL, "%s", e.text);
    template_list_close(&list);
}

void conf_check(struct loader *l)
{
    struct config *c = l->c;
    default_path(&c->dcs.tls.ca, c->data_dir, "pki/ca.crt");
    default_path(&c->dcs.tls.cert, c->data_dir, "pki/node.crt");
    default_path(&c->dcs.tls.key, c->data_dir, "pki/node.key");
    default_address(l, "dcs", &c->dcs.connect_address, c->dcs.listen);
    default_address(l, "restapi", &c->restapi.connect_address, c->restapi.listen);
    default_address(l, "postgresql", &c->postgresql.connect_address, c->postgresql.listen);
    check_name(l, "scope", c->scope);
    check_name(l, "name", c->name);
    check_absolute(l, "data_dir", c->data_dir);
    check_absolute(l, "dcs.snapshots.dir", c->dcs.snapshots.dir);
    if (c->dcs.snapshots.interval > 0 && c->dcs.snapshots.keep == 0)
        conf_complain(l, NULL,
                      "dcs.snapshots.keep must be at least 1; to save none, set "
                      "dcs.snapshots.interval to 0");
    check_absolute(l, "postgresql.data_dir", c->postgresql.data_dir);
    check_absolute(l, "postgresql.bin_dir", c->postgresql.bin_dir);
    check_postgresql(l);
    check_ports(l);
    check_vip(l);
    check_templates(l);
    check_lines(l);
    check_basebackup(l);
    check_tag(l, "tags.nofailover", c->tags.nofailover, "tags.failover_priority",
              c->tags.failover_priority);
    check_tag(l, "tags.nosync", c->tags.nosync, "tags.sync_priority", c->tags.sync_priority);
    check_upstream(l);
    check_hooks(l);
    if ((c->restapi.certfile[0] != '\0') != (c->restapi.keyfile[0] != '\0'))
        conf_complain(l, NULL, "restapi.certfile and restapi.keyfile belong together");
    if (c->dcs.heartbeat_ms == 0 || c->dcs.election_ms < 5 * c->dcs.heartbeat_ms)
        conf_complain(l, NULL,
                      "dcs.election_ms (%" PRIu64 ") must be at least five times "
                      "dcs.heartbeat_ms (%" PRIu64 ")",
                      c->dcs.election_ms, c->dcs.heartbeat_ms);
}
