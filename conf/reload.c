/* A file that was changed under a daemon that runs: what it can take over, and what waits. */
#include "conf/config.h"
#include "conf/keys.h"

static void *at(struct config *c, size_t offset)
{
    return (char *)c + offset;
}

/* Of the arrays behind one key. */
static size_t bytes_of(const struct conf_key *k)
{
    switch (k->type) {
    case CONF_STR:
    case CONF_JSON:
        return sizeof(char *);
    case CONF_U64:
    case CONF_I64:
        return sizeof(uint64_t);
    case CONF_BOOL:
        return sizeof(bool);
    case CONF_LIST:
    case CONF_FLAGS:
        return CONF_LIST_MAX * sizeof(char *);
    case CONF_PAIRS:
        return CONF_LIST_MAX * sizeof(struct conf_pair);
    }
    return 0;
}

static bool same_text(const char *a, const char *b)
{
    return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0;
}

static bool same_many(struct config *a, struct config *b, const struct conf_key *k)
{
    const size_t *na = at(a, k->count_offset);
    const size_t *nb = at(b, k->count_offset);
    size_t texts = k->type == CONF_PAIRS ? 2 : 1;
    char *const *x = at(a, k->offset);
    char *const *y = at(b, k->offset);
    bool same = *na == *nb;
    for (size_t i = 0; same && i < *na * texts; i++)
        same = same_text(x[i], y[i]);
    return same;
}

static bool same(struct config *a, struct config *b, const struct conf_key *k)
{
    if (k->type == CONF_LIST || k->type == CONF_FLAGS || k->type == CONF_PAIRS)
        return same_many(a, b, k);
    if (k->type == CONF_STR || k->type == CONF_JSON)
        return same_text(*(char *const *)at(a, k->offset), *(char *const *)at(b, k->offset));
    return memcmp(at(a, k->offset), at(b, k->offset), bytes_of(k)) == 0;
}

static void swap_bytes(void *a, void *b, size_t n)
{
    unsigned char *x = a;
    unsigned char *y = b;
    for (size_t i = 0; i < n; i++) {
        unsigned char held = x[i];
        x[i] = y[i];
        y[i] = held;
    }
}

static void swap(struct config *a, struct config *b, const struct conf_key *k)
{
    swap_bytes(at(a, k->offset), at(b, k->offset), bytes_of(k));
    if (k->type == CONF_LIST || k->type == CONF_FLAGS || k->type == CONF_PAIRS)
        swap_bytes(at(a, k->count_offset), at(b, k->count_offset), sizeof(size_t));
}

void config_take(struct config *c, struct config *next, struct buf *ret_taken,
                 struct buf *ret_waiting)
{
    for (size_t i = 0; i < conf_keys_n; i++) {
        const struct conf_key *k = &conf_keys[i];
        struct buf *said = k->live ? ret_taken : ret_waiting;
        if (same(c, next, k))
            continue;
        buf_printf(said, "%s%s", said->len > 0 ? ", " : "", k->path);
        if (k->live)
            swap(c, next, k);
    }
}
