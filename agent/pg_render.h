/* The files PostgreSQL reads, rendered from the configuration. Pure but for memory; what a value holds
 * never becomes anything but that value.
 *
 *   postgresql.conf              ours: include 'postgresql.base.conf' (what initdb made), defaults,
 *                                dynamic, local, and last what the agent owns
 *   postgresql.regent-sync.conf  synchronous_standby_names alone, so that it changes alone
 *   pg_hba.conf, pg_ident.conf   the agent's own lines first, then the configured ones
 *   pgpass                       0600, outside PGDATA: passwords of replication and rewind */
#ifndef REGENT_AGENT_PG_RENDER_H
#define REGENT_AGENT_PG_RENDER_H

#include "agent/pg_limits.h"
#include "agent/postgres.h"
#include "base/buf.h"
#include "conf/config.h"
#include "conf/site.h"

enum { PG_SETTINGS_MAX = 256, PG_HBA_MAX = 128, PG_PATH_MAX = 512 };

/* config_rec.postgresql, taken apart. Owns its strings. */
struct pg_settings {
    struct conf_pair pairs[PG_SETTINGS_MAX];
    size_t n_pairs;
    char *hba[PG_HBA_MAX];
    size_t n_hba;
    char *ident[PG_HBA_MAX];
    size_t n_ident;
};
/* ERR_INVALID names what is wrong; ret is then empty. Empty text is no settings. */
enum err pg_settings_parse(struct slice json, struct pg_settings *ret, struct errmsg *e)
    MUST_CHECK;
void pg_settings_close(struct pg_settings *s);

struct pg_render {
    const struct config *config;
    const struct pg_settings *dynamic;
    const char *socket_dir;
    const char *passfile;
    const char *conninfo; /* primary_conninfo; "": follows nobody */
    const char *slot;     /* "" none */
    /* it follows the other site: restored from its archive as well; NULL: it does not */
    const struct site *site;
    /* there are permanent ones: standbys tell which catalog rows they need */
    bool logical_slots;
    bool native_slots; /* and PostgreSQL synchronizes them itself */
    /* then: slots of those that logical consumers must not get ahead of */
    const char *ahead;
    const char
        *upstream; /* member it points at, and the leader token it was told with: kept in */
    uint64_t follow_token; /* regent.upstream and regent.follow_token for the next daemon */
    uint64_t retry_interval_ms;
    bool strict; /* a crashed backend ends PostgreSQL instead of restarting it in place */
    bool closed; /* pg_hba.conf lets only the agent and replication in */
};

/* What the file wants of the settings in pg_limits.h; 0: it does not say. */
struct pg_limits pg_render_limits(const struct pg_render *r);
/* ERR_INVALID: a name or value that cannot be written; says which. */
enum err pg_render_conf(const struct pg_render *r, struct buf *out, struct errmsg *e)
    MUST_CHECK;
enum err pg_render_hba(const struct pg_render *r, struct buf *out, struct errmsg *e) MUST_CHECK;
enum err pg_render_ident(const struct pg_render *r, struct buf *out, struct errmsg *e)
    MUST_CHECK;
enum err pg_render_sync(const char *names, struct buf *out) MUST_CHECK;
void pg_render_passfile(const struct config *c, struct buf *out);
/* primary_conninfo: no secret in it. */
void pg_render_conninfo(const struct config *c, const struct postgres_upstream *to,
                        const char *incarnation, const char *passfile, struct buf *out);
/* host and port of postgresql.listen */
enum err pg_listen(const struct config *c, char *ret_host, size_t size, uint16_t *ret_port,
                   struct errmsg *e) MUST_CHECK;

/* DATA_DIR when a socket's name fits there, else a directory of this data_dir's own in /tmp. */
void pg_socket_dir(const char *data_dir, char ret[static PG_PATH_MAX]);

#endif
