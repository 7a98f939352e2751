/* Shared by the commands of `regentctl dcs`. */
#ifndef REGENT_CLI_DCS_H
#define REGENT_CLI_DCS_H

#include "cli/cli.h"

void dcs_print_bytes(struct slice s);
void dcs_print_result(const struct msg *m, const void *result); /* one line of JSON */
void dcs_print_kvs(struct slice kvs);
/* The range of all keys that begin with *key, which may change. Owned by the caller: what *ret_end
 * points to. */
char *dcs_prefix(struct slice *key, struct slice *ret_end);

/* One line each, NUL-terminated and taken apart in place; false: it is none. What they append to the
 * list points nowhere. */
bool dcs_parse_compare(char *line, struct msg_list *l);
bool dcs_parse_op(char *line, struct msg_list *l);

/* A transaction, line by line. */
enum { DCS_TXN_DEPTH_MAX = 4 }; /* docs/PROTOCOL.md, Limits */
struct dcs_txn {
    struct dcs_txn_level {
        struct msg_list parts[3];
        size_t part;
    } level[DCS_TXN_DEPTH_MAX]; /* the outermost first */
    size_t depth;
};
void dcs_txn_init(struct dcs_txn *t);
void dcs_txn_close(struct dcs_txn *t);
/* 0, or the exit code after a message. line is taken apart; number: for the message. */
int dcs_txn_line(struct dcs_txn *t, unsigned number, char *line);
/* compare, then, otherwise, each an encoded list. */
int dcs_txn_end(struct dcs_txn *t, struct buf ret[3]);

#endif
