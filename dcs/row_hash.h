/* A 64-bit number for a row, to be added up over a table: rows in any order give the same sum, and a
 * change of one row is its old number taken away and its new one added. Finds damage and members that
 * differ; no protection against somebody who chooses the rows.
 *
 *     h = row_hash_end(row_hash_bytes(row_hash_u64(row_hash_begin(TABLE), id), value)); */
#ifndef REGENT_DCS_ROW_HASH_H
#define REGENT_DCS_ROW_HASH_H

#include "base/base.h"

/* What a row is of; numbers are in files: never changed, never used again. */
enum row_table {
    ROW_KV = 1,
    ROW_EVENT,
    ROW_LEASE,
    ROW_SESSION,
    ROW_RESULT,
    ROW_TOKEN,
    ROW_MEMBER,
    ROW_STORE,
    ROW_KV_LEASE, /* of the index, not of a table */
    ROW_CONTENT,  /* of the whole state */
    ROW_CERT,
    ROW_REVOKED
};

uint64_t row_hash_begin(enum row_table table);
uint64_t row_hash_u64(uint64_t h, uint64_t v);
uint64_t row_hash_bytes(uint64_t h, struct slice v);
uint64_t row_hash_end(uint64_t h);

#endif
