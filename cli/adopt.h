/* What `adopt` finds: a server of PostgreSQL that Regent has not made. */
#ifndef REGENT_CLI_ADOPT_H
#define REGENT_CLI_ADOPT_H

#include <sys/types.h>

#include "conf/config.h"

enum { ADOPT_SETTINGS_MAX = 128, ADOPT_LINES_MAX = 64, ADOPT_PATH = 600 };

struct adoption {
    char data_dir[ADOPT_PATH];
    char conf_dir[ADOPT_PATH];   /* of postgresql.conf: of Debian's layout below /etc */
    char start_conf[ADOPT_PATH]; /* Debian: says whether it starts with the machine; "": none */
    char bin_dir[ADOPT_PATH];
    unsigned long major;
    uid_t owner;
    unsigned long pid; /* of its postmaster; 0: it does not run */
    uint64_t port;
    char state[64]; /* as pg_controldata has it */
    char system_id[32];
    bool standby;
    bool hints, checksums;
    /* of its configuration files, the last of each name; owned */
    struct conf_pair settings[ADOPT_SETTINGS_MAX];
    size_t settings_n;
    char *hba[ADOPT_LINES_MAX];
    size_t hba_n;
    char *ident[ADOPT_LINES_MAX];
    size_t ident_n;
};

/* `cluster`: "15/main" of Debian's layout, or a data directory; bin_dir: NULL to have it found. Reads only. */
enum err adoption_look(const char *cluster, const char *bin_dir, struct adoption *ret,
                       struct errmsg *e) MUST_CHECK;
void adoption_close(struct adoption *a);
/* What its files say; fallback where they say nothing. */
const char *adoption_setting(const struct adoption *a, const char *name, const char *fallback);
/* Lines of a postgresql.conf, with what it includes. Pure but for the files it reads. */
enum err adoption_read_conf(struct adoption *a, const char *path, unsigned depth,
                            struct errmsg *e) MUST_CHECK;

#endif
