/* The first byte picks a message, the rest is its MessagePack or its JSON. What is accepted must
 * survive being written and read again, in both encodings. */
#include "base/assert.h"
#include "base/mem.h"
#include "proto/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct msg *const all[] = {
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

static void check_messagepack(const struct msg *m, struct slice in)
{
    void *a CLEANUP(mem_cleanup) = mem_alloc(m->size),
            *b CLEANUP(mem_cleanup) = mem_alloc(m->size);
    struct buf x CLEANUP(buf_close) = BUF_INIT, y CLEANUP(buf_close) = BUF_INIT,
                 json CLEANUP(buf_close) = BUF_INIT;
    struct errmsg e;
    if (msg_decode(m, in, a, &e) != ERR_OK)
        return;
    msg_encode(m, a, &x);
    enum err rc = msg_decode(m, buf_slice(&x), b, &e);
    ASSERT(rc == ERR_OK);
    msg_encode(m, b, &y);
    ASSERT(slice_eq(buf_slice(&x), buf_slice(&y)));
    msg_to_json(m, a, &json);
}

static void check_json(const struct msg *m, struct slice in)
{
    void *a CLEANUP(mem_cleanup) = mem_alloc(m->size),
            *b CLEANUP(mem_cleanup) = mem_alloc(m->size);
    struct buf x CLEANUP(buf_close) = BUF_INIT, y CLEANUP(buf_close) = BUF_INIT;
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct errmsg e;
    if (msg_from_json(m, in, a, &arena, &e) != ERR_OK)
        return;
    msg_to_json(m, a, &x);
    enum err rc = msg_from_json(m, buf_slice(&x), b, &arena, &e);
    ASSERT(rc == ERR_OK);
    msg_to_json(m, b, &y);
    ASSERT(slice_eq(buf_slice(&x), buf_slice(&y)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    const struct msg *m = all[(data[0] & 0x7f) % ARRAY_LEN(all)];
    struct slice in = slice_of(data + 1, size - 1);
    if ((data[0] & 0x80) != 0)
        check_json(m, in);
    else
        check_messagepack(m, in);
    return 0;
}
