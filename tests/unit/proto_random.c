#include "proto_random.h"

#include "base/mem.h"
#include "proto/mp.h"

const struct msg *const proto_all_messages[] = {
#define MSG(name) &msg_##name,
#define END(name)
#define U64(name)
#define I64(name)
#define BOOL(name)
#define BYTES(name)
#define TEXT(name, n)
#define RAW(name)
#define SUB(name, m)
#define LIST(name, m, max)
#define MANY(name, m)
#define NAMES(name, max)
#include "proto/messages.def"
#include "proto/records.def"
};
const size_t proto_all_messages_n = ARRAY_LEN(proto_all_messages);

static struct msg_arena_node {
    struct msg_arena_node *next;
    uint8_t bytes[];
} * nodes;

void proto_random_free(void)
{
    while (nodes != NULL) {
        struct msg_arena_node *n = nodes;
        nodes = n->next;
        mem_free(n);
    }
}

static struct slice keep(struct slice s)
{
    struct msg_arena_node *n = mem_alloc(sizeof *n + s.n);
    n->next = nodes;
    nodes = n;
    if (s.n != 0)
        memcpy(n->bytes, s.p, s.n);
    return slice_of(n->bytes, s.n);
}

static struct slice random_bytes(struct rng *r)
{
    uint8_t b[300];
    size_t n = rng_below(r, 8) == 0 ? rng_below(r, sizeof b) : rng_below(r, 20);
    bool text = rng_below(r, 2) == 0;
    for (size_t i = 0; i < n; i++)
        b[i] = text ? (uint8_t)(' ' + rng_below(r, 90)) : (uint8_t)rng_u64(r);
    return keep(slice_of(b, n));
}

static void random_text(struct rng *r, char *to, size_t size)
{
    static const char *const pieces[] = {
        "a", "Z", " ", "\"", "\\", "\n", "\x01", "\xc3\xa9", "\xf0\x9f\x90\x98", "/"};
    size_t n = 0, want = rng_below(r, 4) == 0 ? size - 1 : rng_below(r, size);
    for (;;) {
        const char *p = pieces[rng_below(r, ARRAY_LEN(pieces))];
        if (n + strlen(p) > want)
            break;
        memcpy(to + n, p, strlen(p));
        n += strlen(p);
    }
    to[n] = '\0';
}

static uint64_t random_u64(struct rng *r)
{
    static const uint64_t edges[] = {0,          1,
                                     127,        128,
                                     255,        256,
                                     65535,      65536,
                                     UINT32_MAX, 1ULL + UINT32_MAX,
                                     INT64_MAX,  1ULL + INT64_MAX,
                                     UINT64_MAX, (1ULL << 53) + 1};
    return rng_below(r, 2) == 0 ? edges[rng_below(r, ARRAY_LEN(edges))]
                                : rng_u64(r) >> rng_below(r, 64);
}

/* A message may have lists of its own kind: three levels are enough of them. */
static struct slice random_many(struct rng *r, const struct msg *m, bool raw_is_json)
{
    static unsigned depth;
    struct buf out CLEANUP(buf_close) = BUF_INIT;
    struct msg_list list = {.n = 0};
    void *element CLEANUP(mem_cleanup) = mem_alloc(m->size);
    size_t n = rng_below(r, 5);
    if (n == 0 || depth == 3)
        return slice_of(NULL, 0);
    depth++;
    for (; n > 0; n--) {
        proto_random_fill(r, m, element, raw_is_json);
        msg_list_append(&list, m, element);
    }
    depth--;
    msg_list_end(&list, &out);
    return keep(buf_slice(&out));
}

static struct slice random_raw(struct rng *r, bool json)
{
    struct buf out CLEANUP(buf_close) = BUF_INIT;
    if (json)
        return keep(
            slice_str(rng_below(r, 2) == 0 ? "{\"a\":[1,0.25,\"x\"],\"b\":null}" : "[]"));
    mp_write_array(&out, 2);
    mp_write_u64(&out, random_u64(r));
    mp_write_map(&out, 1);
    mp_write_str(&out, random_bytes(r));
    mp_write_nil(&out);
    return keep(buf_slice(&out));
}

static void fill_list(struct rng *r, const struct field *f, uint8_t *obj, bool raw_is_json)
{
    size_t n = rng_below(r, 6) == 0 ? f->size : rng_below(r, MIN(f->size, (size_t)4));
    memcpy(obj + f->count_offset, &n, sizeof n);
    for (size_t i = 0; i < n; i++) {
        if (f->type == FIELD_LIST)
            proto_random_fill(r, f->sub, obj + f->offset + i * f->sub->size, raw_is_json);
        else
            random_text(r, (char *)obj + f->offset + i * 64, 64);
    }
}

void proto_random_fill(struct rng *r, const struct msg *m, void *obj, bool raw_is_json)
{
    memset(obj, 0, m->size);
    for (size_t i = 0; i < m->n_fields; i++) {
        const struct field *f = &m->fields[i];
        void *p = (uint8_t *)obj + f->offset;
        if (rng_below(r, 5) == 0)
            continue;
        switch (f->type) {
        case FIELD_U64:
        case FIELD_I64:
            *(uint64_t *)p = random_u64(r);
            break;
        case FIELD_BOOL:
            *(bool *)p = true;
            break;
        case FIELD_BYTES:
            *(struct slice *)p = random_bytes(r);
            break;
        case FIELD_TEXT:
            random_text(r, p, f->size);
            break;
        case FIELD_RAW:
            *(struct slice *)p = random_raw(r, raw_is_json);
            break;
        case FIELD_SUB:
            proto_random_fill(r, f->sub, p, raw_is_json);
            break;
        case FIELD_LIST:
        case FIELD_NAMES:
            fill_list(r, f, obj, raw_is_json);
            break;
        case FIELD_MANY:
            *(struct slice *)p = random_many(r, f->sub, raw_is_json);
            break;
        }
    }
}
