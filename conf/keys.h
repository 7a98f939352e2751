/* The table of configuration keys: the parser, the environment and the manual page all go by it. */
#ifndef REGENT_CONF_KEYS_H
#define REGENT_CONF_KEYS_H

#include "conf/config.h"

enum conf_type {
    CONF_STR,
    CONF_U64,
    CONF_I64,
    CONF_BOOL,
    CONF_LIST,  /* of strings; count at count_offset */
    CONF_FLAGS, /* list of command-line options: `data-checksums` or `encoding: UTF8` */
    CONF_PAIRS, /* map of scalars */
    CONF_JSON   /* any map, kept as JSON text */
};

struct conf_key {
    const char *path; /* "dcs.listen" */
    enum conf_type type;
    size_t offset;
    size_t count_offset;
    const char *fallback; /* default as text; NULL: none */
    const char *choices;  /* "a|b|c": the only values; NULL: any */
    uint64_t max;         /* CONF_U64: 0: any */
    bool host_port;       /* must read host:port */
    bool required;
    bool live; /* a daemon that runs takes a change over; only its loop reads it */
    const char *help;
};

extern const struct conf_key conf_keys[];
extern const size_t conf_keys_n;

#endif
