/* instr() and replace() in time linear in their arguments: SQLite's own take the product of both lengths, which
 * no bound on a query's time ends, for it is looked at between functions. */
#include "dcs/state_internal.h"

static bool any_null(int n, sqlite3_value **v)
{
    for (int i = 0; i < n; i++)
        if (sqlite3_value_type(v[i]) == SQLITE_NULL)
            return true;
    return false;
}

static struct slice text_of(sqlite3_value *v)
{
    const void *p = sqlite3_value_text(v);
    return slice_of(p, p != NULL ? (size_t)sqlite3_value_bytes(v) : 0);
}

static struct slice blob_of(sqlite3_value *v)
{
    const void *p = sqlite3_value_blob(v);
    return slice_of(p, p != NULL ? (size_t)sqlite3_value_bytes(v) : 0);
}

/* From `in` up to where `what`, which is not empty, begins; NULL: nowhere. */
static const uint8_t *find(struct slice in, struct slice what)
{
    return in.n == 0 ? NULL : memmem(in.p, in.n, what.p, what.n);
}

static int64_t characters(const uint8_t *from, const uint8_t *to)
{
    int64_t n = 0;
    for (; from < to; from++)
        n += (*from & 0xc0) != 0x80;
    return n;
}

static void on_instr(sqlite3_context *c, int n, sqlite3_value **v)
{
    if (any_null(n, v))
        return;
    bool bytes =
        sqlite3_value_type(v[0]) == SQLITE_BLOB && sqlite3_value_type(v[1]) == SQLITE_BLOB;
    struct slice in = bytes ? blob_of(v[0]) : text_of(v[0]);
    struct slice what = bytes ? blob_of(v[1]) : text_of(v[1]);
    const uint8_t *at = what.n == 0 ? in.p : find(in, what);
    int64_t before = at == NULL ? 0 : bytes ? at - in.p : characters(in.p, at);
    sqlite3_result_int64(c, what.n == 0 ? 1 : at == NULL ? 0 : before + 1);
}

static void on_replace(sqlite3_context *c, int n, sqlite3_value **v)
{
    if (any_null(n, v))
        return;
    struct slice in = text_of(v[0]), what = text_of(v[1]), by = text_of(v[2]);
    int max = sqlite3_limit(sqlite3_context_db_handle(c), SQLITE_LIMIT_LENGTH, -1);
    struct buf CLEANUP(buf_close) out = {.max = (size_t)max};
    const uint8_t *at;
    while (what.n > 0 && buf_ok(&out) && (at = find(in, what)) != NULL) {
        size_t before = (size_t)(at - in.p);
        buf_append(&out, in.p, before);
        buf_append_slice(&out, by);
        in = slice_of(at + what.n, in.n - before - what.n);
    }
    buf_append_slice(&out, in);
    if (buf_ok(&out))
        sqlite3_result_text(c, out.len > 0 ? (const char *)out.p : "", (int)out.len,
                            SQLITE_TRANSIENT);
    else
        sqlite3_result_error_toobig(c);
}

static void refuse(sqlite3_context *c, int n, sqlite3_value **v)
{
    (void)n;
    (void)v;
    sqlite3_result_error(c, "trim() of given characters is not available here", -1);
}

void query_text_functions(sqlite3 *db)
{
    static const struct {
        const char *name;
        int n;
        void (*run)(sqlite3_context *, int, sqlite3_value **);
    } ours[] = {{"instr", 2, on_instr},
                {"replace", 3, on_replace},
                {"trim", 2, refuse},
                {"ltrim", 2, refuse},
                {"rtrim", 2, refuse}};
    for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
        int rc = sqlite3_create_function(db, ours[i].name, ours[i].n,
                                         SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS,
                                         NULL, ours[i].run, NULL, NULL);
        ASSERT(rc == SQLITE_OK);
    }
}
