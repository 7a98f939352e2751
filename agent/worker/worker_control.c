#include "agent/worker/worker_control.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/pg_text.h"
#include "base/str.h"

enum { WAL_PAGE = 8192, WAL_ALIGN = 8, PAGE_HEADER = 24, SEGMENT_HEADER = 40 };

/* The text behind "label:", without blanks; ERR_NOT_FOUND when no line has that label. */
static enum err value_of(const char *text, const char *label, char *ret, size_t size)
{
    size_t n = strlen(label);
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *end = strchr(line, '\n');
        size_t length = end != NULL ? (size_t)(end - line) : strlen(line);
        if (length > n && strncmp(line, label, n) == 0 && line[n] == ':') {
            const char *from = line + n + 1;
            while (*from == ' ')
                from++;
            return str_copy_slice(ret, size, slice_of(from, (size_t)(line + length - from)));
        }
        line = end != NULL ? end + 1 : NULL;
    }
    return ERR_NOT_FOUND;
}

static enum err number_of(const char *text, const char *label, uint64_t *ret, struct errmsg *e)
{
    char value[40];
    enum err rv = value_of(text, label, value, sizeof value);
    if (rv == ERR_OK)
        rv = str_parse_u64(value, ret);
    return rv == ERR_OK ? rv
                        : err_set(e, ERR_CORRUPT, "pg_controldata: no sound \"%s\"", label);
}

static enum err lsn_of(const char *text, const char *label, uint64_t *ret, struct errmsg *e)
{
    char value[40];
    enum err rv = value_of(text, label, value, sizeof value);
    if (rv == ERR_OK)
        rv = pg_lsn_parse(value, ret);
    return rv == ERR_OK ? rv
                        : err_set(e, ERR_CORRUPT, "pg_controldata: no sound \"%s\"", label);
}

/* Its labels are the settings' names; that of locks is shortened. */
static enum err limits_of(const char *text, struct control_data *c, struct errmsg *e)
{
    static const char *const labels[] = {
        "max_connections setting", "max_worker_processes setting", "max_wal_senders setting",
        "max_prepared_xacts setting", "max_locks_per_xact setting"};
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(labels); i++) {
        uint64_t value = 0;
        enum err rv = number_of(text, labels[i], &value, e);
        if (rv != ERR_OK)
            return rv;
        n += (size_t)snprintf(c->limits + n, sizeof c->limits - n, "%s%" PRIu64,
                              i > 0 ? "/" : "", MIN(value, (uint64_t)INT32_MAX));
    }
    return ERR_OK;
}

enum err control_parse(const char *text, struct control_data *ret, struct errmsg *e)
{
    struct control_data c = {0};
    enum err rv = value_of(text, "Database cluster state", c.state, sizeof c.state);
    if (rv != ERR_OK)
        return err_set(e, ERR_CORRUPT, "pg_controldata: no cluster state");
    rv = number_of(text, "Database system identifier", &c.system_id, e);
    if (rv == ERR_OK)
        rv = lsn_of(text, "Latest checkpoint location", &c.checkpoint_lsn, e);
    if (rv == ERR_OK)
        rv = lsn_of(text, "Latest checkpoint's REDO location", &c.redo_lsn, e);
    if (rv == ERR_OK)
        rv = number_of(text, "Latest checkpoint's TimeLineID", &c.timeline, e);
    if (rv == ERR_OK)
        rv = lsn_of(text, "Minimum recovery ending location", &c.recovery_lsn, e);
    if (rv == ERR_OK)
        rv = number_of(text, "Min recovery ending loc's timeline", &c.recovery_timeline, e);
    if (rv == ERR_OK)
        rv = number_of(text, "Bytes per WAL segment", &c.segment_bytes, e);
    if (rv == ERR_OK)
        rv = limits_of(text, &c, e);
    uint64_t size = c.segment_bytes;
    if (rv == ERR_OK && (size < (1U << 20) || size > (1U << 30) || (size & (size - 1)) != 0))
        rv = err_set(e, ERR_CORRUPT, "pg_controldata: odd WAL segment size");
    if (rv == ERR_OK)
        *ret = c;
    return rv;
}

enum err control_record_end(const char *line, uint64_t lsn, uint64_t segment_bytes,
                            uint64_t *ret_end, struct errmsg *e)
{
    const char *length = strstr(line, "len (rec/tot):");
    const char *total = length != NULL ? strchr(length + 14, '/') : NULL;
    char *end = NULL;
    unsigned long left = total != NULL ? strtoul(total + 1, &end, 10) : 0;
    if (left == 0 || left > (1U << 30) || end == total + 1)
        return err_set(e, ERR_CORRUPT, "pg_waldump: no record length in its output");
    uint64_t at = lsn;
    while (left > 0) {
        if (at % WAL_PAGE == 0)
            at += at % segment_bytes == 0 ? SEGMENT_HEADER : PAGE_HEADER;
        uint64_t room = WAL_PAGE - at % WAL_PAGE;
        uint64_t here = MIN(room, (uint64_t)left);
        at += here;
        left -= (unsigned long)here;
    }
    *ret_end = (at + WAL_ALIGN - 1) / WAL_ALIGN * WAL_ALIGN;
    return ERR_OK;
}

enum err control_segment_end(const char *name, uint64_t segment_bytes, uint64_t *ret_timeline,
                             uint64_t *ret_end)
{
    uint8_t raw[12];
    uint64_t part[3] = {0, 0, 0};
    if (strlen(name) != 24 || hex_decode(name, raw, sizeof raw) != ERR_OK)
        return ERR_INVALID;
    for (size_t i = 0; i < sizeof raw; i++)
        part[i / 4] = part[i / 4] << 8 | raw[i];
    *ret_timeline = part[0];
    *ret_end = (part[1] << 32) + (part[2] + 1) * segment_bytes;
    return ERR_OK;
}
