#include "dcs/raft_membership.h"

#include "base/assert.h"

enum { FORMAT = 1, LIB_STANDBY = 0, LIB_VOTER = 1, LIB_SPARE = 2 };

enum err raft_membership_check(const struct raft_membership *m, struct errmsg *e)
{
    if (m->n == 0 || m->n > RAFT_CORE_MEMBERS_MAX)
        return err_set(e, ERR_INVALID, "a membership has 1 to %d members, not %zu",
                       RAFT_CORE_MEMBERS_MAX, m->n);
    for (size_t i = 0; i < m->n; i++) {
        const struct raft_server *s = &m->servers[i];
        if (s->id == 0 || s->id > INT64_MAX)
            return err_set(e, ERR_INVALID, "%llu is no member id", (unsigned long long)s->id);
        if (s->address[0] == '\0' || memchr(s->address, '\0', sizeof s->address) == NULL)
            return err_set(e, ERR_INVALID, "member %llu has no sound address",
                           (unsigned long long)s->id);
        if (s->role != RAFT_ROLE_VOTER && s->role != RAFT_ROLE_LEARNER &&
            s->role != RAFT_ROLE_SPARE)
            return err_set(e, ERR_INVALID, "member %llu has no role",
                           (unsigned long long)s->id);
        for (size_t j = 0; j < i; j++) {
            if (m->servers[j].id == s->id || strcmp(m->servers[j].address, s->address) == 0)
                return err_set(e, ERR_INVALID, "member %llu or its address %s is there twice",
                               (unsigned long long)s->id, s->address);
        }
    }
    if (raft_membership_voters(m) == 0)
        return err_set(e, ERR_INVALID, "a membership needs a voter");
    return ERR_OK;
}

static uint8_t role_to_lib(enum raft_role role)
{
    switch (role) {
    case RAFT_ROLE_VOTER:
        return LIB_VOTER;
    case RAFT_ROLE_LEARNER:
        return LIB_STANDBY;
    case RAFT_ROLE_SPARE:
        return LIB_SPARE;
    }
    UNREACHABLE();
}

static bool role_from_lib(uint8_t lib, enum raft_role *ret)
{
    if (lib > LIB_SPARE)
        return false;
    *ret = lib == LIB_VOTER     ? RAFT_ROLE_VOTER
           : lib == LIB_STANDBY ? RAFT_ROLE_LEARNER
                                : RAFT_ROLE_SPARE;
    return true;
}

static void append_le64(struct buf *b, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        buf_append_u8(b, (uint8_t)(v >> (8 * i)));
}

static uint64_t le64(const uint8_t *p)
{
    uint64_t v = 0;
    for (unsigned i = 8; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

void raft_membership_encode(const struct raft_membership *m, struct buf *ret_data)
{
    ASSERT(raft_membership_check(m, NULL) == ERR_OK);
    size_t start = ret_data->len;
    buf_append_u8(ret_data, FORMAT);
    append_le64(ret_data, m->n);
    for (size_t i = 0; i < m->n; i++) {
        append_le64(ret_data, m->servers[i].id);
        buf_append(ret_data, m->servers[i].address, strlen(m->servers[i].address) + 1);
        buf_append_u8(ret_data, role_to_lib(m->servers[i].role));
    }
    while ((ret_data->len - start) % 8 != 0)
        buf_append_u8(ret_data, 0);
    ASSERT(buf_ok(ret_data));
}

/* One server from the front of *s; *s moves behind it. */
static bool decode_server(struct slice *s, struct raft_server *ret)
{
    if (s->n < 8)
        return false;
    ret->id = le64(s->p);
    *s = slice_of(s->p + 8, s->n - 8);
    const uint8_t *nul = memchr(s->p, '\0', MIN(s->n, sizeof ret->address));
    if (nul == NULL)
        return false;
    size_t size = (size_t)(nul - s->p) + 1;
    memcpy(ret->address, s->p, size);
    *s = slice_of(s->p + size, s->n - size);
    if (s->n < 1 || !role_from_lib(s->p[0], &ret->role))
        return false;
    *s = slice_of(s->p + 1, s->n - 1);
    return true;
}

enum err raft_membership_decode(struct slice data, uint64_t index, struct raft_membership *ret)
{
    if (data.n < 9 || data.n % 8 != 0 || data.p[0] != FORMAT)
        return ERR_INVALID;
    uint64_t n = le64(data.p + 1);
    if (n == 0 || n > RAFT_CORE_MEMBERS_MAX)
        return ERR_INVALID;
    struct raft_membership m = {.index = index, .n = (size_t)n};
    struct slice rest = slice_of(data.p + 9, data.n - 9);
    for (size_t i = 0; i < m.n; i++) {
        if (!decode_server(&rest, &m.servers[i]))
            return ERR_INVALID;
    }
    if (rest.n >= 8)
        return ERR_INVALID;
    for (size_t i = 0; i < rest.n; i++) {
        if (rest.p[i] != 0)
            return ERR_INVALID;
    }
    enum err r = raft_membership_check(&m, NULL);
    if (r == ERR_OK)
        *ret = m;
    return r;
}

const struct raft_server *raft_membership_find(const struct raft_membership *m, uint64_t id)
{
    ASSERT(m->n <= RAFT_CORE_MEMBERS_MAX);
    for (size_t i = 0; i < m->n; i++) {
        if (m->servers[i].id == id)
            return &m->servers[i];
    }
    return NULL;
}

size_t raft_membership_voters(const struct raft_membership *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++)
        n += m->servers[i].role == RAFT_ROLE_VOTER;
    return n;
}

bool raft_membership_sole_voter(const struct raft_membership *m, uint64_t id)
{
    const struct raft_server *s = raft_membership_find(m, id);
    return s != NULL && s->role == RAFT_ROLE_VOTER && raft_membership_voters(m) == 1;
}

static bool server_same(const struct raft_server *a, const struct raft_server *b)
{
    return a->id == b->id && a->role == b->role && strcmp(a->address, b->address) == 0;
}

size_t raft_membership_distance(const struct raft_membership *a,
                                const struct raft_membership *b)
{
    size_t d = 0;
    for (size_t i = 0; i < a->n; i++) {
        const struct raft_server *s = raft_membership_find(b, a->servers[i].id);
        d += s == NULL || !server_same(s, &a->servers[i]);
    }
    for (size_t i = 0; i < b->n; i++)
        d += raft_membership_find(a, b->servers[i].id) == NULL;
    return d;
}

bool raft_membership_same(const struct raft_membership *a, const struct raft_membership *b)
{
    return raft_membership_distance(a, b) == 0;
}

void raft_membership_in_order(const struct raft_membership *from,
                              const struct raft_membership *to, struct raft_membership *ret)
{
    ASSERT(ret != from && ret != to);
    *ret = (struct raft_membership){.index = to->index};
    for (size_t i = 0; i < from->n; i++) {
        const struct raft_server *s = raft_membership_find(to, from->servers[i].id);
        if (s != NULL)
            ret->servers[ret->n++] = *s;
    }
    for (size_t i = 0; i < to->n; i++) {
        if (raft_membership_find(from, to->servers[i].id) == NULL)
            ret->servers[ret->n++] = to->servers[i];
    }
    ASSERT(ret->n == to->n);
}
