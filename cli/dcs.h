/* Shared by the commands of `regentctl dcs`. */
#ifndef REGENT_CLI_DCS_H
#define REGENT_CLI_DCS_H

#include "cli/cli.h"

void dcs_print_bytes(struct slice s);
void dcs_print_result(const struct msg *m, const void *result); /* one line of JSON */
void dcs_print_kvs(const struct cli *c, struct slice kvs, bool keys_only);

/* One line each, NUL-terminated and taken apart in place; false: it is none. What they append to the
 * list points nowhere. */
bool dcs_parse_compare(char *line, struct msg_list *l);
bool dcs_parse_op(char *line, struct msg_list *l);

#endif
