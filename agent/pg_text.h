/* PostgreSQL's notations: LSNs, and values quoted for each of the places we write them to. Whatever
 * the value holds, it stays one value there. Pure. */
#ifndef REGENT_AGENT_PG_TEXT_H
#define REGENT_AGENT_PG_TEXT_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

enum { PG_LSN_TEXT = 20 };

/* "16/B374D848"; ERR_INVALID for anything else. */
enum err pg_lsn_parse(const char *text, uint64_t *ret_lsn) MUST_CHECK;
void pg_lsn_text(uint64_t lsn, char ret[static PG_LSN_TEXT]);
/* A line of a timeline history file, "2<tab>0/3000148<tab>reason": the timeline and where it was
 * left. */
enum err pg_history_line(const char *line, uint64_t *ret_timeline, uint64_t *ret_lsn)
    MUST_CHECK;
/* "t" or "f". */
enum err pg_bool_parse(const char *text, bool *ret) MUST_CHECK;

/* postgresql.conf: 'it''s'. A value with a line break or control character is refused: the file's
 * grammar has no way to write some of them that every version reads the same. */
enum err pg_put_conf(struct buf *b, const char *value) MUST_CHECK;
/* Name of a setting: letters, digits, _ $ and one dot for extensions. */
bool pg_setting_name_ok(const char *name);
/* keyword='value' of a connection string, with a blank behind it; an empty value is left out. */
void pg_put_conninfo(struct buf *b, const char *keyword, const char *value);
/* A field of a password file. */
void pg_put_passfile(struct buf *b, const char *value);
/* A quoted name or word of pg_hba.conf; ERR_INVALID when it cannot be written. */
enum err pg_put_hba(struct buf *b, const char *value) MUST_CHECK;
/* SQL: "name" and 'literal' (E'' when it has a backslash). */
void pg_put_ident(struct buf *b, const char *name);
void pg_put_literal(struct buf *b, const char *value);

/* Name of the physical slot kept for a member: regent_ and the name in [a-z0-9_], with a hash of the
 * name behind it when that lost something, so that two members never share a slot. */
void pg_slot_name(const char *member, char ret[static 64]);

#endif
