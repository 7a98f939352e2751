/* Whatever the scanner passes, the cursor walks to its end and msgpack-c unpacks to the same length;
 * whatever it refuses in one piece it refuses in two. */
#include <msgpack.h>
#include <stdlib.h>

#include "base/assert.h"
#include "proto/mp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct mp_limits limits = {.bytes = 65536, .depth = 16, .elements = 4096};

static void walk(struct slice value)
{
    struct mp_reader r = {.rest = value};
    while (r.rest.n > 0) {
        uint64_t u;
        int64_t i;
        size_t n;
        bool b;
        struct slice s;
        size_t before = r.rest.n;
        if (mp_read_nil(&r) != ERR_OK && mp_read_bool(&r, &b) != ERR_OK &&
            mp_read_u64(&r, &u) != ERR_OK && mp_read_i64(&r, &i) != ERR_OK &&
            mp_read_bytes(&r, &s) != ERR_OK && mp_read_array(&r, &n) != ERR_OK &&
            mp_read_map(&r, &n) != ERR_OK) {
            enum err rc = mp_read_raw(&r, &s); /* a float */
            ASSERT(rc == ERR_OK);
        }
        ASSERT(r.rest.n < before);
    }
}

static void check_pieces(struct slice in, enum err want, size_t want_size)
{
    struct mp_scanner s;
    mp_scanner_init(&s);
    enum err rc = mp_scanner_run(&s, slice_of(in.p, in.n / 2), &limits);
    if (rc == ERR_UNAVAILABLE)
        rc = mp_scanner_run(&s, in, &limits);
    ASSERT(rc == want);
    ASSERT(rc != ERR_OK || s.pos == want_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of(data, size);
    size_t n = 0, off = 0;
    enum err rc = mp_scan(in, &limits, &n);
    check_pieces(in, rc, n);
    if (rc != ERR_OK)
        return 0;
    ASSERT(n > 0 && n <= size);
    walk(slice_of(data, n));
    msgpack_unpacked u;
    msgpack_unpacked_init(&u);
    msgpack_unpack_return got = msgpack_unpack_next(&u, (const char *)data, n, &off);
    ASSERT(got == MSGPACK_UNPACK_SUCCESS && off == n);
    msgpack_unpacked_destroy(&u);
    return 0;
}
