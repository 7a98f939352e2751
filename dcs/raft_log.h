/* The retained part of the Raft log in memory: what a follower may still ask for, and what is not yet
 * applied. The library keeps only terms; entries live here and on disk.
 *
 * Entries first..last are there, without gaps; an empty log has last == first - 1. Entries are
 * shared: one that was cut off lives on while a store call still holds it. Loop thread. */
#ifndef REGENT_DCS_RAFT_LOG_H
#define REGENT_DCS_RAFT_LOG_H

#include "dcs/raft_core.h"

struct raft_log_entry {
    uint64_t term;
    enum raft_entry_type type;
    uint32_t refs;
    size_t len;
    uint8_t data[];
};

struct raft_log {
    struct raft_log_slot *slots; /* owned ring; index i at i & (cap - 1), cap a power of two */
    size_t cap;
    uint64_t first;
    uint64_t last;
    uint64_t bytes_end; /* bytes ever appended, minus those truncated */
};

void raft_log_init(struct raft_log *l, uint64_t first);
void raft_log_close(struct raft_log *l);
/* Drops everything; the next entry is `first`. */
void raft_log_reset(struct raft_log *l, uint64_t first);
/* Copies data behind the end. */
void raft_log_append(struct raft_log *l, uint64_t term, enum raft_entry_type type,
                     struct slice data);
void raft_log_truncate(struct raft_log *l,
                       uint64_t from);               /* drops from and later; from <= last */
void raft_log_trim(struct raft_log *l, uint64_t to); /* drops up to `to`; to < first is no-op */

bool raft_log_has(const struct raft_log *l, uint64_t index);
const struct raft_log_entry *raft_log_get(const struct raft_log *l,
                                          uint64_t index); /* must be there */
struct raft_entry_view raft_log_view(const struct raft_log_entry *entry);
/* Memory of entries from..to, both included; parts outside the log count nothing. */
size_t raft_log_bytes(const struct raft_log *l, uint64_t from, uint64_t to);

struct raft_log_entry *raft_log_hold(struct raft_log *l,
                                     uint64_t index); /* one reference more */
void raft_log_release(struct raft_log_entry *entry);

#endif
