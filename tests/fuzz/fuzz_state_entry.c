/* A log entry with any bytes: refused as damaged, or applied; never a memory error, and never two
 * outcomes. (state_apply() itself ends the process on damage: entries come checked from the log.) */
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/str.h"
#include "dcs/state_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct state *open_scratch(void)
{
    static struct state *s;
    char dir[] = "/tmp/regent-fuzz-state-XXXXXX";
    char path[64];
    struct errmsg e;
    if (s != NULL)
        return s;
    ASSERT(mkdtemp(dir) != NULL);
    ASSERT(str_format(path, sizeof path, "%s/state.db", dir) == ERR_OK);
    ASSERT(state_open(path, "fuzz", &s, &e) == ERR_OK);
    /* Files without a name: nothing stays behind. */
    (void)unlink(path);
    ASSERT(str_format(path, sizeof path, "%s/state.db-wal", dir) == ERR_OK);
    (void)unlink(path);
    ASSERT(str_format(path, sizeof path, "%s/state.db-shm", dir) == ERR_OK);
    (void)unlink(path);
    (void)rmdir(dir);
    return s;
}

static void on_result(void *arg, uint64_t index, size_t i, enum err status, const char *error,
                      struct slice result)
{
    size_t *n = arg;
    (void)index;
    ASSERT(i == *n);
    ASSERT((status == ERR_OK) == (error == NULL));
    ASSERT(status == ERR_OK || result.n == 0);
    (*n)++;
}

/* In one transaction that is rolled back, so that every input meets the same state. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct state_ops ops = {.result = on_result};
    struct state *s = open_scratch();
    struct errmsg e;
    size_t n = 0;
    state_begin(s);
    lease_table_restart(&s->leases, 1000);
    enum err rc = state_apply_entry(s, 1, slice_of(data, size), 1000, &ops, &n, &e);
    ASSERT(rc == ERR_OK || rc == ERR_INVALID || rc == ERR_LIMIT);
    ASSERT(sqlite3_get_autocommit(s->db) == 0);
    uint64_t revision = 0;
    rc = state_replay_some(s, 1, 0, &ops, &n, &revision);
    ASSERT(rc == ERR_OK ? revision == s->m.revision + 1 : rc == ERR_COMPACTED);
    state_rollback(s);
    state_load(s);
    return 0;
}
