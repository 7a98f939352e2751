/* Shared by init and join. */
#ifndef REGENT_CLI_SETUP_H
#define REGENT_CLI_SETUP_H

#include "cli/cli.h"
#include "proto/pki.h"

enum { SETUP_SETS_MAX = 160, SETUP_MADE_MAX = 32 };

struct setup {
    const char *scope, *name, *listen, *data_dir, *pg_data, *pg_bin, *token, *role;
    /* HOST or HOST:PORT of the site that is followed; several with commas */
    const char *standby_of;
    const char *secrets; /* passwords of it; NULL: new ones */
    char host[256];
    char pg_bin_found[512];
    uint64_t dcs_port, rest_port, pg_port;
    char data_dir_default[512], pg_data_default[560];
    struct setup_owner {
        /* root sets up a node for the services: its daemon runs as another user */
        bool packaged;
        uid_t uid;
        gid_t gid;
    } owner;
    bool witness;
    bool pg_port_given;
    bool dry_run;
    bool keep_pg_data;                /* what is in pg_data is the restored cluster's own */
    const char *sets[SETUP_SETS_MAX]; /* KEY=VALUE for the file */
    size_t sets_n;
    char join[MEMBERS_MAX][128];
    size_t join_n;
    char *made[SETUP_MADE_MAX]; /* what undo takes away, newest last; owned */
    size_t made_n;
};

/* The newest /usr/lib/postgresql/N/bin with a server in it. */
bool setup_find_postgres(char *ret, size_t size);
/* Exit code, 0 when all is well; leaves optind at the first argument that is no option. config_file names the
 * service and so the places of an installed node. */
int setup_parse(struct setup *s, const char *config_file, int argc, char **argv);
enum err setup_check(struct setup *s, const char *config_file, struct errmsg *e) MUST_CHECK;
/* setup_owner.c: who will own the node that this configuration is for. Not packaged: the caller. */
void setup_owner_find(const char *config_file, struct setup_owner *ret);
/* The name of the services' instance: NAME of /etc/regent/NAME.yml, "" for regent.yml and what lies elsewhere. */
void setup_instance(const char *config_file, char *ret, size_t size);
/* Files of data_dir are made as their owner: root does not write where another user may put links. */
void setup_become(const struct setup_owner *o, bool on);
enum err setup_dirs(struct setup *s, struct errmsg *e) MUST_CHECK;
enum err setup_write(struct setup *s, const char *dir, const char *name, struct slice data,
                     unsigned mode, struct errmsg *e) MUST_CHECK;
/* The configuration file as text that the parser has accepted. */
enum err setup_config_text(const struct setup *s, struct buf *ret, struct errmsg *e) MUST_CHECK;
enum err setup_config(struct setup *s, const char *file, struct errmsg *e) MUST_CHECK;
/* CA, certificate of this node and passwords (of secrets_file; NULL: new ones) of a new cluster. init.c */
enum err setup_identity(struct setup *s, const char *kind, uint64_t member_id,
                        const char *secrets_file, struct errmsg *e) MUST_CHECK;
void setup_secrets(struct buf *ret);
void setup_undo(struct setup *s);
void setup_done(struct setup *s);
int setup_finish(struct setup *s, enum err rv, const struct errmsg *e, const char *file);

#endif
