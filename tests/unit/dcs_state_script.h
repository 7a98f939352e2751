/* A state driven by rows of text, for tests that read like a transcript:
 *
 *     {"put a 1", "rev 1 | put a=1"},
 *     {"txn value a = 1 ? put b 2 , get b : get a", "rev 2 then put get(b=2) | put b=2"},
 *
 * Each command line is one entry of one command at the next Raft index, unless told otherwise.
 * Leases and sessions are named L1, L2, ... S1, ... in the order in which they were made.
 *
 *     put KEY VALUE [lease=L1] [prev] [keep_value] [keep_lease] [s=S1/SEQ]     VALUE -: none
 *     del KEY [END] [prev] [s=..]
 *     get KEY [END] [limit=N] [rev=N] [keys] [count]  END * is "everything from KEY on"
 *         [sort=mod] [down] [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]
 *     txn [COMPARE , COMPARE] ? [OP , OP] : [OP , OP] [s=..]     OP may be ( COMPARE ? OPS : OPS )
 *     grant TTL NONCE [s=..]   renew L1 NONCE N [ttl=] [held=]   expire L1 NONCE N   revoke L1 [s=..]
 *     leases                   expired
 *     session NONCE            compact REV               replay FROM
 *     token ID ROLE USES EXPIRES SECRET   untoken ID     redeem ID SECRET NAME ADDRESS [KEY]
 *     issue NAME ROLE [renews=INDEX]   unissue NAME [unlisted]   refused NAME INDEX   certs
 *     init NAME ADDRESS        member ID STATE           members
 *     now MS   wall MS   index N   commit   full   reopen   copy   restore   applied
 *
 * reopen closes without a commit and applies again from the log what the file does not have. */
#ifndef REGENT_TESTS_DCS_STATE_SCRIPT_H
#define REGENT_TESTS_DCS_STATE_SCRIPT_H

#include "base/base.h"
#include "base/buf.h"
#include "dcs/state.h"

enum { SCRIPT_NAMES_MAX = 16, SCRIPT_LOG_MAX = 4096 };

struct script {
    char dir[64];
    char path[96];
    struct state *s;
    uint64_t index; /* of the last entry */
    uint64_t now_ms;
    uint64_t wall_ms;
    uint64_t leases[SCRIPT_NAMES_MAX + 1];
    uint64_t sessions[SCRIPT_NAMES_MAX + 1];
    struct {
        uint64_t index;
        struct buf entry;
    } log[SCRIPT_LOG_MAX];
    size_t n_log;
    struct buf out;    /* of the present line */
    struct buf events; /* of the present line */
};

struct script_row {
    const char *line;
    const char *want;
};

void script_open(struct script *x);
void script_close(struct script *x); /* removes the files */
const char *script_run(struct script *x, const char *line);
/* The same of a command that no line can say. */
const char *script_command(struct script *x, enum state_command cmd, const struct msg *m,
                           const void *req);
/* Runs each row and fails the test at the first one that answers something else. */
void script_rows(struct script *x, const struct script_row *rows, size_t n);

#define SCRIPT(...)                                             \
    do {                                                        \
        static const struct script_row rows_[] = {__VA_ARGS__}; \
        struct script *x_ = script_new();                       \
        script_rows(x_, rows_, sizeof rows_ / sizeof rows_[0]); \
        script_free(x_);                                        \
    } while (0)

struct script *script_new(void);
void script_free(struct script *x);

#endif
