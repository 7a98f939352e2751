#include "base/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

static enum log_level min_level = LOG_INFO;
static enum log_format out_format = LOG_LOGFMT;
static char node_name[64];
static const char *const level_names[] = {"debug", "info", "warn", "error", "fatal"};

void log_setup(enum log_level min, enum log_format format)
{
    min_level = min;
    out_format = format;
}

void log_set_name(const char *node)
{
    (void)snprintf(node_name, sizeof node_name, "%s", node);
}

enum err log_level_parse(const char *text, enum log_level *ret_level)
{
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return ERR_OK;
        }
    }
    return ERR_INVALID;
}

bool log_enabled(enum log_level level)
{
    return level >= min_level;
}

/* JSON's escapes are also valid inside logfmt's quotes. */
static void put_quoted(struct buf *b, const char *s)
{
    buf_append_u8(b, '"');
    for (const uint8_t *p = (const uint8_t *)s; *p != 0; p++) {
        if (*p == '"' || *p == '\\')
            buf_printf(b, "\\%c", *p);
        else if (*p == '\n')
            buf_append(b, "\\n", 2);
        else if (*p < 0x20 || *p == 0x7f)
            buf_printf(b, "\\u%04x", *p);
        else
            buf_append_u8(b, *p);
    }
    buf_append_u8(b, '"');
}

static bool plain(const char *s)
{
    if (*s == '\0')
        return false;
    for (; *s != '\0'; s++)
        if ((unsigned char)*s <= ' ' || *s == '"' || *s == '=' || *s == '\\' || *s == 0x7f)
            return false;
    return true;
}

static void put_key(struct buf *b, const char *key)
{
    if (out_format == LOG_JSON)
        buf_printf(b, "%s\"%s\":", b->len > 1 ? "," : "", key);
    else
        buf_printf(b, "%s%s=", b->len > 0 ? " " : "", key);
}

static void put_str(struct buf *b, const char *key, const char *value)
{
    put_key(b, key);
    if (value == NULL)
        value = "";
    if (out_format == LOG_LOGFMT && plain(value))
        buf_append_slice(b, slice_str(value));
    else
        put_quoted(b, value);
}

static void put_kv(struct buf *b, const struct log_kv *kv)
{
    switch (kv->type) {
    case LOG_KV_STR:
        put_str(b, kv->key, kv->v.str);
        break;
    case LOG_KV_U64:
        put_key(b, kv->key);
        buf_printf(b, "%" PRIu64, kv->v.u64);
        break;
    case LOG_KV_I64:
        put_key(b, kv->key);
        buf_printf(b, "%" PRId64, kv->v.i64);
        break;
    case LOG_KV_BOOL:
        put_key(b, kv->key);
        buf_printf(b, "%s", kv->v.u64 != 0 ? "true" : "false");
        break;
    }
}

void log_event(enum log_level level, const char *event, const struct log_kv *kv, size_t n_kv,
               const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    struct buf b CLEANUP(buf_close) = {.max = 16384};
    char ts[CLOCK_TEXT_MAX];
    char msg[2048];
    clock_wall_text(clock_wall_ms(), ts);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);

    if (out_format == LOG_JSON)
        buf_append_u8(&b, '{');
    put_str(&b, "ts", ts);
    put_str(&b, "level", level_names[level]);
    if (node_name[0] != '\0')
        put_str(&b, "node", node_name);
    put_str(&b, "event", event);
    for (size_t i = 0; i < n_kv; i++)
        put_kv(&b, &kv[i]);
    put_str(&b, "msg", msg);
    if (out_format == LOG_JSON)
        buf_append_u8(&b, '}');
    buf_append_u8(&b, '\n');
    ssize_t written = write(STDERR_FILENO, b.p, b.len);
    (void)written; /* nowhere left to complain */
}
