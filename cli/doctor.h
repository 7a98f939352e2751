/* Findings of `doctor`: each is good, or says what to do. */
#ifndef REGENT_CLI_DOCTOR_H
#define REGENT_CLI_DOCTOR_H

#include "cli/cluster.h"

enum doctor_level { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

struct doctor {
    struct cli *c;
    struct output *out;
    size_t n[DOCTOR_FAIL + 1]; /* findings by level */
};

/* remedy NULL: none is needed. */
void doctor_say(struct doctor *d, enum doctor_level level, const char *check,
                const char *remedy, const char *fmt, ...) PRINTF(5, 6);

void doctor_host(struct doctor *d);     /* doctor_host.c: this machine */
void doctor_postgres(struct doctor *d); /* doctor_pg.c: the primary, by SQL */

#endif
