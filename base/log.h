/* Structured log: one event a line on stderr, logfmt or JSON, written with one write(2).
 *
 *     log_event(LOG_INFO, "promote", KV(KV_STR("rule", p->rule), KV_U64("token", t)),
 *               "promoting %s", name);
 *     log_event(LOG_WARN, "slow_disk", NO_KV, "fsync took %u ms", ms);
 *
 * Threads: any. Library code does not log; it is done once, where the thing is decided. Secrets
 * never go in. */
#ifndef REGENT_BASE_LOG_H
#define REGENT_BASE_LOG_H

#include "base/base.h"
#include "base/err.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_FATAL };
enum log_format { LOG_LOGFMT, LOG_JSON };

struct log_kv {
    const char *key;
    enum { LOG_KV_STR, LOG_KV_U64, LOG_KV_I64, LOG_KV_BOOL } type;
    union {
        const char *str;
        uint64_t u64;
        int64_t i64;
    } v;
};

#define KV_STR(k, x) ((struct log_kv){.key = (k), .type = LOG_KV_STR, .v.str = (x)})
#define KV_U64(k, x) ((struct log_kv){.key = (k), .type = LOG_KV_U64, .v.u64 = (x)})
#define KV_I64(k, x) ((struct log_kv){.key = (k), .type = LOG_KV_I64, .v.i64 = (x)})
#define KV_BOOL(k, x) ((struct log_kv){.key = (k), .type = LOG_KV_BOOL, .v.u64 = (x)})
#define KV(...)                             \
    ((const struct log_kv[]){__VA_ARGS__}), \
        (sizeof((struct log_kv[]){__VA_ARGS__}) / sizeof(struct log_kv))
#define NO_KV NULL, 0

void log_setup(enum log_level min, enum log_format format);
/* added to every line as node=...; copied, at most 63 bytes */
void log_set_name(const char *node);
enum err log_level_parse(const char *text, enum log_level *ret_level) MUST_CHECK;
bool log_enabled(enum log_level level);
void log_event(enum log_level level, const char *event, const struct log_kv *kv, size_t n_kv,
               const char *fmt, ...) PRINTF(5, 6);

#endif
