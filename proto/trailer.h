/* The last page of a file that `regentctl dcs snapshot save` writes. Before it is a plain SQLite database,
 * which sqlite3 reads as it is: it goes by the length in its own header.
 *
 *   4032  zero
 *     16  "RegentSnapshot1\n"
 *      8  bytes of the database, big-endian
 *      8  Raft term of the node that made it, big-endian
 *     32  SHA-256 of the database */
#ifndef REGENT_PROTO_TRAILER_H
#define REGENT_PROTO_TRAILER_H

#include "base/base.h"
#include "base/err.h"

enum { TRAILER_SIZE = 4096 };

struct trailer {
    uint64_t size;
    uint64_t term;
    uint8_t sha256[32];
};

void trailer_encode(const struct trailer *t, uint8_t ret[static TRAILER_SIZE]);
/* ERR_INVALID: these are not the last bytes of such a file. */
enum err trailer_decode(const uint8_t in[static TRAILER_SIZE], struct trailer *ret) MUST_CHECK;

#endif
