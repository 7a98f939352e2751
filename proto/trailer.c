#include "proto/trailer.h"

static const char magic[16] = {'R', 'e', 'g', 'e', 'n', 't', 'S', 'n',
                               'a', 'p', 's', 'h', 'o', 't', '1', '\n'};

enum { AT = TRAILER_SIZE - 64 }; /* of the magic */

static void put_be64(uint8_t *p, uint64_t v)
{
    for (size_t i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (56 - 8 * i));
}

static uint64_t get_be64(const uint8_t *p)
{
    uint64_t v = 0;
    for (size_t i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

void trailer_encode(const struct trailer *t, uint8_t ret[static TRAILER_SIZE])
{
    memset(ret, 0, AT);
    memcpy(ret + AT, magic, sizeof magic);
    put_be64(ret + AT + 16, t->size);
    put_be64(ret + AT + 24, t->term);
    memcpy(ret + AT + 32, t->sha256, sizeof t->sha256);
}

enum err trailer_decode(const uint8_t in[static TRAILER_SIZE], struct trailer *ret)
{
    if (memcmp(in + AT, magic, sizeof magic) != 0)
        return ERR_INVALID;
    ret->size = get_be64(in + AT + 16);
    ret->term = get_be64(in + AT + 24);
    memcpy(ret->sha256, in + AT + 32, sizeof ret->sha256);
    return ERR_OK;
}
