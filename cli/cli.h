/* What every command of regentctl shares: options, the connection, output, exit codes. */
#ifndef REGENT_CLI_CLI_H
#define REGENT_CLI_CLI_H

#include <getopt.h>

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "conf/config.h"
#include "proto/client.h"

enum cli_exit { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_UNKNOWN = 3, CLI_REFUSED = 4 };
enum cli_format { CLI_TABLE, CLI_JSON, CLI_YAML, CLI_TSV };

struct cli {
    const char *config_path; /* -c; NULL: default */
    const char *hosts;       /* -H */
    enum cli_format format;
    bool format_given;
    const char *delimiter; /* of tsv; NULL: a tab */
    bool configured;       /* config is loaded */
    struct config config;
    struct client_sync *client;
};

struct command {
    const char *name; /* "token create": words separated by one space */
    const char *usage;
    const char *help;
    int (*run)(struct cli *c, int argc, char **argv); /* argv[0]: the command's last word */
};

extern const struct command cli_commands[];
extern const size_t cli_commands_n;

/* One line on stderr: "regentctl: <text>"; returns the exit code the error stands for. */
int cli_fail(enum err code, const char *fmt, ...) PRINTF(2, 3);
int cli_error(const struct errmsg *e);

/* ---- options ---- */
/* Names the command in what cli_usage() says; the text must stay. */
void cli_running(const char *command);
/* A wrong use of the command running: one line on stderr; returns CLI_USAGE. */
int cli_usage(const char *fmt, ...) PRINTF(1, 2);
enum { CLI_BAD_OPTION = '?' };
/* getopt_long() whose complaints are ours (said already when CLI_BAD_OPTION comes back). Set optind
 * to 1 before the first call; -1 at the end. */
int cli_option(int argc, char **argv, const struct option *options);
/* The same with one-letter options, in getopt's notation after a colon (":r:m:"). */
int cli_option_short(int argc, char **argv, const char *letters, const struct option *options);
/* 0, or the exit code after a complaint: for commands that take nothing. */
int cli_no_arguments(int argc, char **argv);
/* What stands behind the options is nothing, or, as with patronictl, the cluster's name: 0, or the exit code after a
 * complaint. */
int cli_cluster_argument(struct cli *c, int argc, char **argv);
/* The same for commands without options. */
int cli_cluster_only(struct cli *c, int argc, char **argv);
/* "90s", "10m", "1h", "2d" */
bool cli_duration(const char *text, uint64_t *ret_ms);

/* --scheduled, a time with its zone: 0, or the exit code after a complaint. "now" is 0. */
int cli_take_schedule(const char *text, uint64_t *ret_ms);

/* Loads the configuration; its findings go to stderr. */
enum err cli_config(struct cli *c) MUST_CHECK;
/* Connects when not connected: the node's own socket first, else the members over TLS. Prints why not. */
enum err cli_connect(struct cli *c) MUST_CHECK;
/* Calls, and prints the error; *ret_result is the method's result struct. */
enum err cli_call(struct cli *c, enum method m, const void *params, void *ret_result)
    MUST_CHECK;
int cli_exit_code(enum err code);
/* Why nobody takes connections on this unix socket, as errno; 0: somebody does. */
int cli_socket_error(const char *path);

/* ---- HA records ---- */
enum { CLI_KEY_MAX = 256 };
void cli_key(const struct cli *c, char ret_key[static CLI_KEY_MAX], const char *name);
/* Keys from..to (not included) of /regent/<scope>/, or with `to` NULL everything that begins with
 * `from`. cb gets the rest of the key: behind the scope, or behind `from`. */
typedef enum err cli_record_cb(void *arg, const char *name, const struct kv *kv,
                               struct errmsg *e);
enum err cli_records(struct cli *c, const char *from, const char *to, cli_record_cb *cb,
                     void *arg) MUST_CHECK;
/* One record; ERR_NOT_FOUND silently. *ret_mod may be NULL. */
enum err cli_record(struct cli *c, const char *name, const struct msg *m, void *ret_record,
                    struct msg_arena *arena, uint64_t *ret_mod) MUST_CHECK;

/* One record as the JSON text that is stored. ERR_NOT_FOUND silently. */
enum err cli_record_text(struct cli *c, const char *name, struct buf *ret_json,
                         uint64_t *ret_mod) MUST_CHECK;
/* Stores a record if it has not changed since `mod` (0: if it is absent); *ret_taken says whether. */
enum err cli_replace(struct cli *c, const char *name, uint64_t mod, struct slice json,
                     bool *ret_taken) MUST_CHECK;
/* Deletes a record if it has not changed since `mod`. */
enum err cli_delete(struct cli *c, const char *name, uint64_t mod, bool *ret_taken) MUST_CHECK;
/* One key of the dynamic configuration, as edit-config changes it: says what has become of it. Exit code. dynamic.c */
int cli_set_dynamic(struct cli *c, const char *key, const char *json);
/* Waits until some HA record changes, a quarter of a second at most: the records are read again. */
void cli_wait_change(struct cli *c);

/* ---- again and again: -W, -w SECONDS (frame.c) ---- */
enum { CLI_EVERY_S = 2 };
/* The argument of -w: 0, or the exit code after a complaint. */
int cli_every(const char *text, uint64_t *ret_s);
/* What show() prints: on a terminal over what is there, cut to its size, without flicker. show() gives CLI_DONE, or
 * the exit code when there is nothing to be shown. */
int cli_frame(struct cli *c, int (*show)(struct cli *c, void *arg), void *arg);
/* Until the next one is due, or the terminal has another size. false: nobody reads what is written. */
bool cli_frame_wait(uint64_t every_s);
/* Frames until the user ends them; every_s 0: one. When the first one fails that is the end, later ones may. */
int cli_again(struct cli *c, uint64_t every_s, int (*show)(struct cli *c, void *arg),
              void *arg);

/* ---- output ---- */
enum cli_colour { CLI_PLAIN, CLI_GOOD, CLI_CARE, CLI_BAD };
/* What begins a colour; CLI_PLAIN: what ends one. "" where there are none: not a terminal, a dumb one, or NO_COLOR
 * is set. */
const char *cli_colour(enum cli_colour colour);

/* Rows of texts under headings, in the format asked for; NULL cells are empty, and absent in JSON
 * and YAML. */
struct output_column {
    const char *name;
    const char *heading; /* in a table; NULL: the name */
    bool number;         /* without quotes in JSON */
    bool json;           /* cells are JSON objects: embedded there, `name: value` in a table */
    bool right;
    bool optional; /* not in a table when all its cells are empty */
    enum cli_colour (*colour)(const char *text); /* of a cell in a table; NULL: plain */
};
struct output;
struct output *output_new(const struct cli *c, const char *title,
                          const struct output_column *columns, size_t n);
void output_row(struct output *o, const char *const *cells); /* copies */
void output_print(struct output *o);                         /* to stdout; frees */

const char *cli_lsn(uint64_t lsn, char ret[static 24]);

#endif
