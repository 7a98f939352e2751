#include "dcs/row_hash.h"

#include <endian.h>

/* Both steps can be undone, so two rows that differ in one word alone never meet. */
static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio, odd */
    return h ^ h >> 32;
}

uint64_t row_hash_begin(enum row_table table)
{
    return mix(0, (uint64_t)table);
}

uint64_t row_hash_u64(uint64_t h, uint64_t v)
{
    return mix(h, v);
}

uint64_t row_hash_bytes(uint64_t h, struct slice v)
{
    uint64_t word;
    h = mix(h, (uint64_t)1 << 63 | v.n); /* no small number is a length */
    size_t at = 0;
    for (; at + sizeof word <= v.n; at += sizeof word) {
        memcpy(&word, v.p + at, sizeof word);
        h = mix(h, le64toh(word));
    }
    if (at < v.n) {
        word = 0;
        memcpy(&word, v.p + at, v.n - at);
        h = mix(h, le64toh(word));
    }
    return h;
}

/* Sums keep apart only what differs in many bits. */
uint64_t row_hash_end(uint64_t h)
{
    for (unsigned i = 0; i < 3; i++)
        h = mix(h, h >> 17);
    return h;
}
