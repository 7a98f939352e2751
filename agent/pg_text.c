#include "agent/pg_text.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* 1 to 8 hexadecimal digits; NULL when there is none, or one too many. */
static const char *half(const char *p, uint64_t *ret)
{
    uint64_t v = 0;
    unsigned n = 0;
    for (; hex_value(*p) >= 0; p++, n++)
        v = v << 4 | (uint64_t)hex_value(*p);
    *ret = v;
    return n >= 1 && n <= 8 ? p : NULL;
}

enum err pg_lsn_parse(const char *text, uint64_t *ret_lsn)
{
    uint64_t high;
    uint64_t low;
    const char *p = half(text, &high);
    if (p == NULL || *p != '/')
        return ERR_INVALID;
    p = half(p + 1, &low);
    if (p == NULL || *p != '\0')
        return ERR_INVALID;
    *ret_lsn = high << 32 | low;
    return ERR_OK;
}

void pg_lsn_text(uint64_t lsn, char ret[static PG_LSN_TEXT])
{
    (void)snprintf(ret, PG_LSN_TEXT, "%" PRIX64 "/%" PRIX64, lsn >> 32, lsn & 0xffffffffU);
}

enum err pg_history_line(const char *line, uint64_t *ret_timeline, uint64_t *ret_lsn)
{
    char lsn[24];
    char *end = NULL;
    unsigned long timeline = strtoul(line, &end, 10);
    if (end == line || (*end != '\t' && *end != ' '))
        return ERR_INVALID;
    const char *from = end + strspn(end, "\t ");
    size_t n = strcspn(from, "\t \n");
    if (n == 0 || n >= sizeof lsn)
        return ERR_INVALID;
    memcpy(lsn, from, n);
    lsn[n] = '\0';
    if (pg_lsn_parse(lsn, ret_lsn) != ERR_OK)
        return ERR_INVALID;
    *ret_timeline = timeline;
    return ERR_OK;
}

enum err pg_bool_parse(const char *text, bool *ret)
{
    if (strcmp(text, "t") != 0 && strcmp(text, "f") != 0)
        return ERR_INVALID;
    *ret = text[0] == 't';
    return ERR_OK;
}

static bool has_control(const char *value)
{
    for (const char *p = value; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return true;
    return false;
}

/* The lexer of postgresql.conf takes '' for a quote and reads backslash escapes. */
enum err pg_put_conf(struct buf *b, const char *value)
{
    if (has_control(value))
        return ERR_INVALID;
    buf_append_u8(b, '\'');
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == '\'' || *p == '\\')
            buf_append_u8(b, (uint8_t)*p);
        buf_append_u8(b, (uint8_t)*p);
    }
    buf_append_u8(b, '\'');
    return ERR_OK;
}

bool pg_setting_name_ok(const char *name)
{
    unsigned dots = 0;
    if (!isalpha((unsigned char)name[0]) && name[0] != '_')
        return false;
    for (const char *p = name; *p != '\0'; p++) {
        bool dot = *p == '.' && p[1] != '\0';
        if (!isalnum((unsigned char)*p) && *p != '_' && *p != '$' && !dot)
            return false;
        dots += dot;
    }
    return dots <= 1 && strlen(name) < 64;
}

void pg_put_conninfo(struct buf *b, const char *keyword, const char *value)
{
    if (value == NULL || value[0] == '\0')
        return;
    buf_printf(b, "%s='", keyword);
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == '\'' || *p == '\\')
            buf_append_u8(b, '\\');
        buf_append_u8(b, (uint8_t)*p);
    }
    buf_append(b, "' ", 2);
}

void pg_put_passfile(struct buf *b, const char *value)
{
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == ':' || *p == '\\')
            buf_append_u8(b, '\\');
        buf_append_u8(b, (uint8_t)*p);
    }
}

/* Quotes keep keywords (all, replication, +role) from being keywords; a quote inside is doubled. */
enum err pg_put_hba(struct buf *b, const char *value)
{
    if (value[0] == '\0' || has_control(value))
        return ERR_INVALID;
    buf_append_u8(b, '"');
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == '"')
            buf_append_u8(b, '"');
        buf_append_u8(b, (uint8_t)*p);
    }
    buf_append_u8(b, '"');
    return ERR_OK;
}

void pg_put_ident(struct buf *b, const char *name)
{
    buf_append_u8(b, '"');
    for (const char *p = name; *p != '\0'; p++) {
        if (*p == '"')
            buf_append_u8(b, '"');
        buf_append_u8(b, (uint8_t)*p);
    }
    buf_append_u8(b, '"');
}

void pg_put_literal(struct buf *b, const char *value)
{
    bool escape = strchr(value, '\\') != NULL;
    buf_append_slice(b, slice_str(escape ? " E'" : "'"));
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == '\'' || *p == '\\')
            buf_append_u8(b, (uint8_t)*p);
        buf_append_u8(b, (uint8_t)*p);
    }
    buf_append_u8(b, '\'');
}

void pg_slot_name(const char *member, char ret[static 64])
{
    char clean[48];
    uint32_t hash = 2166136261U; /* FNV-1a */
    size_t n = 0;
    bool lost = false;
    for (const char *p = member; *p != '\0'; p++) {
        bool fine = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '_';
        hash = (hash ^ (unsigned char)*p) * 16777619U;
        if (n + 1 < sizeof clean)
            clean[n++] = fine ? *p : '_';
        else
            lost = true;
        lost = lost || !fine;
    }
    clean[n] = '\0';
    if (lost)
        (void)snprintf(ret, 64, "regent_%s_%08x", clean, hash);
    else
        (void)snprintf(ret, 64, "regent_%s", clean);
}
