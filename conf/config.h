/* The configuration file (YAML), shared by the daemon and the CLI.
 *
 * One table describes every key (type, default, range, help); the parser reports all errors of a
 * file at once, each with its line, unknown keys with the nearest known one. REGENT_A_B overrides
 * key a.b; lists and maps are YAML there. The struct owns its strings; after an error it is empty. */
#ifndef REGENT_CONF_CONFIG_H
#define REGENT_CONF_CONFIG_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "conf/dynamic.h"

enum { CONF_LIST_MAX = 64, CONF_METHODS_MAX = 8 };

struct conf_pair {
    char *key;
    char *value;
};

struct conf_user {
    char *username;
    char *password;
};

/* How data is made by a program of the administrator: the section that bootstrap.method or
 * postgresql.create_replica_methods names. */
struct conf_method {
    char *name;
    char *command; /* shell; "": pg_basebackup */
    bool no_params;
    bool keep_existing_recovery_conf;
    bool keep_data;
    char *params[CONF_LIST_MAX]; /* "--key=value" */
    size_t n_params;
    struct conf_pair recovery_conf[CONF_LIST_MAX];
    size_t n_recovery_conf;
};

struct config {
    char *path; /* file it came from */
    char *scope;
    char *name;
    char *data_dir;
    struct {
        char *listen;
        char *connect_address;     /* default: listen */
        char *role;                /* voter | learner | witness */
        char *join[CONF_LIST_MAX]; /* members known at join time; written by `regentctl join` */
        size_t n_join;
        struct {
            char *ca, *cert, *key; /* default: DATA_DIR/pki/{ca.crt,node.crt,node.key} */
        } tls;
        uint64_t election_ms; /* 0: by profile */
        uint64_t heartbeat_ms;
        struct {
            char *dir; /* default: DATA_DIR/backups */
            uint64_t interval, keep;
        } snapshots;
    } dcs;
    struct {
        char *listen;
        char *connect_address;
        struct conf_user authentication;
        char *certfile, *keyfile, *cafile, *verify_client;
        char *allowlist[CONF_LIST_MAX];
        size_t n_allowlist;
    } restapi;
    struct {
        /* bootstrap.dcs as JSON object text: the first dynamic configuration; "{}" */
        char *dcs_json;
        char *initdb[CONF_LIST_MAX]; /* "--encoding=UTF8", "--data-checksums", ... */
        size_t n_initdb;
        char *method;                     /* initdb, or the name of `custom` */
        struct conf_method *custom;       /* NULL: initdb */
        char *post_bootstrap, *post_init; /* one of them: the same under two names */
    } bootstrap;
    struct {
        char *listen; /* host:port; "" for a witness */
        char *connect_address;
        char *data_dir;
        char *bin_dir; /* "" = found by version in the usual places */
        struct conf_pair parameters[CONF_LIST_MAX];
        size_t n_parameters;
        char *pg_hba[CONF_LIST_MAX];
        size_t n_pg_hba;
        char *basebackup[CONF_LIST_MAX]; /* "--max-rate=100M", ... */
        size_t n_basebackup;
        char *create_replica_methods[CONF_LIST_MAX]; /* their names */
        size_t n_create_replica_methods;
        struct conf_method *create[CONF_METHODS_MAX]; /* in the same order */
        char *pg_ident[CONF_LIST_MAX];
        size_t n_pg_ident;
        struct {
            char *on_start, *on_stop, *on_restart, *on_reload, *on_role_change;
        } callbacks;
        char *pre_promote, *before_stop;
        uint64_t hook_timeout; /* seconds, of these two */
        struct {
            /* passwords default to secrets.yml */
            struct conf_user superuser, replication, rewind;
        } authentication;
    } postgresql;
    struct {
        char *listen; /* host:port, UDP; "" = off */
        char *domain;
    } dns;
    struct {
        char *address; /* "10.0.0.100/24", several with commas */
        char *interface;
        char *hook; /* command, called with up or down */
    } vip;
    char *templates_json; /* template_list.h; "{}" */
    struct {
        bool nofailover, noloadbalance, clonefrom, nosync, nostream;
        char *replicatefrom;       /* a member; "" none */
        int64_t failover_priority; /* default 1; 0: as nofailover */
        int64_t sync_priority;     /* default 1; 0: as nosync */
    } tags;
    struct {
        char *mode, *device;
    } watchdog;
    struct {
        char *level, *format;
    } log;
};

/* Reads, overrides from the environment, fills defaults, checks. ERR_INVALID, or ERR_PRECONDITION when each value is
 * good and they contradict each other. Without a file the environment alone will do, when
 * it has all that is required. All findings go to ret_report, one
 * a line ("FILE:LINE: what, why, remedy"), also when the result is ERR_OK (warnings). */
enum err config_load(const char *path, struct config *ret_config, struct buf *ret_report)
    MUST_CHECK;
/* The same for text that is at hand; `name` stands in the findings. */
enum err config_parse(const char *name, struct slice text, struct config *ret_config,
                      struct buf *ret_report) MUST_CHECK;
void config_close(struct config *c);
struct hba_roles conf_roles(const struct config *c);
/* From a file that was read anew: what can change while a daemon runs goes to c, and the old values to next. The paths
 * of what was taken, and of what differs and needs a new start of the daemon, with commas between. */
void config_take(struct config *c, struct config *next, struct buf *ret_taken,
                 struct buf *ret_waiting);
/* First of: explicit, REGENT_CONFIG, /etc/regent/regent.yml. */
const char *config_path(const char *explicit_path);
/* One more file: secrets.yml (0600, passwords of superuser, replication, rewind). Fills what is
 * missing in c. */
enum err config_load_secrets(struct config *c, const char *path, struct errmsg *e) MUST_CHECK;

#endif
