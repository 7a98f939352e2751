#include "agent/mirror.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/str.h"

enum err mirror_init(struct mirror *m, const char *scope)
{
    *m = (struct mirror){0};
    return str_format(m->prefix, sizeof m->prefix, "/regent/%s/", scope);
}

void mirror_close(struct mirror *m)
{
    msg_arena_close(&m->config_arena);
}

enum err mirror_key(const struct mirror *m, char ret[static MIRROR_KEY_MAX], const char *fmt,
                    ...)
{
    size_t n = strlen(m->prefix);
    memcpy(ret, m->prefix, n);
    va_list ap;
    va_start(ap, fmt);
    int k = vsnprintf(ret + n, MIRROR_KEY_MAX - n, fmt, ap);
    va_end(ap);
    return k < 0 || (size_t)k >= MIRROR_KEY_MAX - n ? ERR_LIMIT : ERR_OK;
}

/* ---- records with one instance ---- */

struct single {
    const char *name;
    const struct msg *msg;
    size_t record;
    size_t meta;
    bool needed; /* without it nothing is decided */
};

#define SINGLE(key, needed)                                   \
    {                                                         \
#key, &msg_##key##_rec, offsetof(struct mirror, key), \
            offsetof(struct mirror, key##_meta), needed       \
    }
static const struct single singles[] = {
    SINGLE(initialize, true), SINGLE(leader, true), SINGLE(sync, true),
    SINGLE(failover, false),  SINGLE(config, true), SINGLE(history, true),
    SINGLE(status, false),
};

/* request/<self>, result/<self> */
static const struct single own_request = {"request", &msg_request_rec,
                                          offsetof(struct mirror, request),
                                          offsetof(struct mirror, request_meta), false};
static const struct single own_result = {"result", &msg_result_rec,
                                         offsetof(struct mirror, result),
                                         offsetof(struct mirror, result_meta), false};

static const struct single *find_single(struct slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(singles); i++)
        if (slice_eq(name, slice_str(singles[i].name)))
            return &singles[i];
    return NULL;
}

static struct mirror_meta *meta_of(struct mirror *m, const struct single *s)
{
    return (struct mirror_meta *)(void *)((char *)m + s->meta);
}

/* An unreadable record counts as unchanged: it is reported, and acted on by nobody. */
static enum err set_single(struct mirror *m, const struct single *s, const struct kv *kv,
                           struct errmsg *e)
{
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    void *record = (char *)m + s->record;
    struct mirror_meta *meta = meta_of(m, s);
    void *parsed CLEANUP(mem_cleanup) = mem_alloc(s->msg->size);
    if (msg_from_json(s->msg, kv->value, parsed, &arena, e) != ERR_OK) {
        if (!meta->present)
            *meta = (struct mirror_meta){
                .unreadable = true, .mod_revision = kv->mod_revision, .lease = kv->lease};
        return err_wrap(e, ERR_CORRUPT, "record %s%s at revision %llu", m->prefix, s->name,
                        (unsigned long long)kv->mod_revision);
    }
    if (s->msg == &msg_sync_rec) {
        m->has_sync_before = meta->present;
        m->sync_before = m->sync;
    }
    memcpy(record, parsed, s->msg->size);
    *meta = (struct mirror_meta){
        .present = true, .mod_revision = kv->mod_revision, .lease = kv->lease};
    if (s->msg == &msg_config_rec) {
        msg_arena_close(&m->config_arena);
        m->config_arena = arena; /* the record points into it */
        arena = MSG_ARENA_INIT;
    }
    return ERR_OK;
}

static void drop_single(struct mirror *m, const struct single *s)
{
    memset((char *)m + s->record, 0, s->msg->size);
    memset((char *)m + s->meta, 0, sizeof(struct mirror_meta));
    if (s->msg == &msg_sync_rec)
        m->has_sync_before = false;
    if (s->msg == &msg_config_rec)
        msg_arena_close(&m->config_arena);
}

/* ---- members and seals: small arrays sorted by name ---- */

static size_t member_slot(const struct mirror *m, struct slice name, bool *ret_found)
{
    size_t i = 0;
    while (i < m->members_n && slice_cmp(slice_str(m->members[i].name), name) < 0)
        i++;
    *ret_found = i < m->members_n && slice_eq(slice_str(m->members[i].name), name);
    return i;
}

static enum err set_member(struct mirror *m, struct slice name, const struct kv *kv,
                           struct errmsg *e)
{
    struct member_rec rec;
    bool found;
    size_t i = member_slot(m, name, &found);
    if (msg_from_json(&msg_member_rec, kv->value, &rec, NULL, e) != ERR_OK ||
        !slice_eq(slice_str(rec.name), name))
        return err_wrap(e, ERR_CORRUPT, "record %smembers/%.*s", m->prefix, (int)name.n,
                        (const char *)name.p);
    if (!found) {
        if (m->members_n == VIEW_MEMBERS)
            return err_set(e, ERR_LIMIT, "more than %d members with PostgreSQL; %s is left out",
                           VIEW_MEMBERS, rec.name);
        memmove(&m->members[i + 1], &m->members[i], (m->members_n - i) * sizeof m->members[0]);
        memmove(&m->member_mods[i + 1], &m->member_mods[i],
                (m->members_n - i) * sizeof m->member_mods[0]);
        m->members_n++;
    }
    m->members[i] = rec;
    m->member_mods[i] = kv->mod_revision;
    return ERR_OK;
}

static void drop_member(struct mirror *m, struct slice name)
{
    bool found;
    size_t i = member_slot(m, name, &found);
    if (!found)
        return;
    m->members_n--;
    memmove(&m->members[i], &m->members[i + 1], (m->members_n - i) * sizeof m->members[0]);
    memmove(&m->member_mods[i], &m->member_mods[i + 1],
            (m->members_n - i) * sizeof m->member_mods[0]);
}

uint64_t mirror_member_mod(const struct mirror *m, const char *name)
{
    bool found;
    size_t i = member_slot(m, slice_str(name), &found);
    return found ? m->member_mods[i] : 0;
}

static size_t seal_slot(const struct mirror *m, struct slice name, bool *ret_found)
{
    size_t i = 0;
    while (i < m->seals_n && slice_cmp(slice_str(m->seals[i].name), name) < 0)
        i++;
    *ret_found = i < m->seals_n && slice_eq(slice_str(m->seals[i].name), name);
    return i;
}

static void remove_seal(struct mirror *m, size_t i)
{
    m->seals_n--;
    memmove(&m->seals[i], &m->seals[i + 1], (m->seals_n - i) * sizeof m->seals[0]);
    memmove(&m->seal_mods[i], &m->seal_mods[i + 1], (m->seals_n - i) * sizeof m->seal_mods[0]);
}

/* Room for one more: of an older loss, which counts in none to come; for our own seal also the least advanced. */
static bool make_room(struct mirror *m, const struct seal_rec *for_rec)
{
    if (m->seals_n < VIEW_MEMBERS)
        return true;
    size_t least = 0;
    for (size_t i = 1; i < m->seals_n; i++) {
        const struct seal_rec *a = &m->seals[i];
        const struct seal_rec *b = &m->seals[least];
        if (a->token < b->token || (a->token == b->token && a->lsn < b->lsn))
            least = i;
    }
    if (m->seals[least].token >= for_rec->token && strcmp(for_rec->name, m->self) != 0)
        return false;
    remove_seal(m, least);
    return true;
}

static enum err set_seal(struct mirror *m, struct slice name, const struct kv *kv,
                         struct errmsg *e)
{
    struct seal_rec rec;
    bool found;
    size_t i = seal_slot(m, name, &found);
    if (msg_from_json(&msg_seal_rec, kv->value, &rec, NULL, e) != ERR_OK ||
        !slice_eq(slice_str(rec.name), name))
        return err_wrap(e, ERR_CORRUPT, "record %sseal/%.*s", m->prefix, (int)name.n,
                        (const char *)name.p);
    if (!found) {
        if (!make_room(m, &rec))
            return err_set(e, ERR_LIMIT, "more than %d seals; that of %s is left out",
                           VIEW_MEMBERS, rec.name);
        i = seal_slot(m, name, &found);
        memmove(&m->seals[i + 1], &m->seals[i], (m->seals_n - i) * sizeof m->seals[0]);
        memmove(&m->seal_mods[i + 1], &m->seal_mods[i],
                (m->seals_n - i) * sizeof m->seal_mods[0]);
        m->seals_n++;
    }
    m->seals[i] = rec;
    m->seal_mods[i] = kv->mod_revision;
    return ERR_OK;
}

static void drop_seal(struct mirror *m, struct slice name)
{
    bool found;
    size_t i = seal_slot(m, name, &found);
    if (found)
        remove_seal(m, i);
}

/* ---- feeding ---- */

static bool after_prefix(struct slice text, const char *prefix, struct slice *ret_rest)
{
    size_t n = strlen(prefix);
    if (text.n < n || memcmp(text.p, prefix, n) != 0)
        return false;
    *ret_rest = slice_of(text.p + n, text.n - n);
    return true;
}

static enum err change(struct mirror *m, const struct kv *kv, bool deleted, struct errmsg *e)
{
    struct slice name;
    struct slice sub;
    if (!after_prefix(kv->key, m->prefix, &name))
        return ERR_OK;
    if (after_prefix(name, "members/", &sub)) {
        if (!deleted)
            return set_member(m, sub, kv, e);
        drop_member(m, sub);
        return ERR_OK;
    }
    if (after_prefix(name, "seal/", &sub)) {
        if (!deleted)
            return set_seal(m, sub, kv, e);
        drop_seal(m, sub);
        return ERR_OK;
    }
    const struct single *s = find_single(name);
    if (after_prefix(name, "request/", &sub) && slice_eq(sub, slice_str(m->self)))
        s = &own_request;
    else if (after_prefix(name, "result/", &sub) && slice_eq(sub, slice_str(m->self)))
        s = &own_result;
    if (s == NULL)
        return ERR_OK; /* journal/..., and what a newer version may add */
    if (!deleted)
        return set_single(m, s, kv, e);
    drop_single(m, s);
    return ERR_OK;
}

static void note_leader(struct mirror *m, uint64_t now_ms)
{
    if (m->leader_meta.present)
        m->leader_lost_ms = 0;
    else if (m->leader_lost_ms == 0)
        m->leader_lost_ms = now_ms;
    if (!m->leader_meta.present)
        return;
    if (m->leader_token != m->leader.token)
        m->leader_since_ms = now_ms;
    m->leader_token = m->leader.token;
    if (strcmp(m->lsn_of, m->leader.incarnation) != 0)
        m->leader_lsn = 0;
    memcpy(m->lsn_of, m->leader.incarnation, sizeof m->lsn_of);
    for (size_t i = 0; i < m->members_n; i++) {
        if (strcmp(m->members[i].incarnation, m->leader.incarnation) != 0)
            continue;
        m->leader_lsn = MAX(m->leader_lsn, m->members[i].lsn);
        if (m->members[i].sick[0] != '\0')
            str_cut(m->sick_leader, sizeof m->sick_leader, m->leader.incarnation);
    }
}

static enum err take_all(struct mirror *m, struct slice kvs, struct errmsg *e)
{
    struct msg_iter it;
    struct kv kv;
    enum err result = ERR_OK;
    enum err rv = msg_iter_init(&it, kvs);
    while (rv == ERR_OK && (rv = msg_iter_next(&it, &msg_kv, &kv, e)) == ERR_OK) {
        enum err one = change(m, &kv, false, e);
        result = one != ERR_OK ? one : result;
    }
    return rv == ERR_NOT_FOUND ? result : rv;
}

/* The configuration says nothing of who leads: the one known before does until the new one is put right. */
static void keep_config(struct mirror *m, bool was_present, const struct config_rec *before,
                        struct msg_arena *arena)
{
    if (was_present && m->config_meta.unreadable) {
        m->config = *before;
        m->config_meta.present = true;
        m->config_meta.unreadable = false;
        m->config_arena = *arena;
        *arena = (struct msg_arena)MSG_ARENA_INIT;
    }
    msg_arena_close(arena);
}

enum err mirror_fill_two(struct mirror *m, const struct range_reply *first,
                         const struct range_reply *second, uint64_t now_ms, struct errmsg *e)
{
    uint64_t lost_ms = m->leader_lost_ms;
    if (first->more || (second != NULL && second->more))
        return err_set(e, ERR_LIMIT, "the records do not fit into a message");
    bool had_config = m->config_meta.present;
    struct config_rec config = m->config;
    struct msg_arena config_arena = m->config_arena;
    m->config_arena = (struct msg_arena)MSG_ARENA_INIT;
    for (size_t i = 0; i < ARRAY_LEN(singles); i++)
        drop_single(m, &singles[i]);
    drop_single(m, &own_request);
    drop_single(m, &own_result);
    m->members_n = 0;
    m->seals_n = 0;
    m->revision = first->revision;
    m->complete = true;
    enum err rv = take_all(m, first->kvs, e);
    if (second != NULL) {
        enum err rest = take_all(m, second->kvs, e);
        rv = rest != ERR_OK ? rest : rv;
    }
    keep_config(m, had_config, &config, &config_arena);
    m->leader_lost_ms = lost_ms;
    note_leader(m, now_ms);
    return rv;
}

enum err mirror_config(struct mirror *m, const struct range_reply *r, struct errmsg *e)
{
    struct msg_iter it;
    struct kv kv;
    const struct single *config = find_single(slice_str("config"));
    enum err rv = msg_iter_init(&it, r->kvs);
    if (rv == ERR_OK)
        rv = msg_iter_next(&it, &msg_kv, &kv, e);
    return rv == ERR_OK ? set_single(m, config, &kv, e) : rv == ERR_NOT_FOUND ? ERR_OK : rv;
}

enum err mirror_fill(struct mirror *m, const struct range_reply *r, uint64_t now_ms,
                     struct errmsg *e)
{
    return mirror_fill_two(m, r, NULL, now_ms, e);
}

enum err mirror_events(struct mirror *m, const struct watch_event *ev, uint64_t now_ms,
                       struct errmsg *e)
{
    if (ev->revision <= m->revision)
        return ERR_OK; /* seen in the range already */
    struct msg_iter it;
    struct event one;
    enum err result = ERR_OK;
    enum err rv = msg_iter_init(&it, ev->events);
    while (rv == ERR_OK && (rv = msg_iter_next(&it, &msg_event, &one, e)) == ERR_OK) {
        enum err bad = change(m, &one.kv, strcmp(one.type, "delete") == 0, e);
        result = bad != ERR_OK ? bad : result;
    }
    m->revision = ev->revision;
    note_leader(m, now_ms);
    return rv == ERR_NOT_FOUND ? result : rv;
}

void mirror_lost(struct mirror *m)
{
    m->complete = false;
}

const char *mirror_unreadable(const struct mirror *m)
{
    for (size_t i = 0; i < ARRAY_LEN(singles); i++)
        if (singles[i].needed &&
            ((const struct mirror_meta *)(const void *)((const char *)m + singles[i].meta))
                ->unreadable)
            return singles[i].name;
    return NULL;
}

bool mirror_ready(const struct mirror *m)
{
    return m->complete && mirror_unreadable(m) == NULL;
}

/* ---- the view ---- */

void mirror_view(const struct mirror *m, const struct config_rec *bootstrap,
                 struct view *ret_view)
{
    struct view *v = ret_view;
    v->dcs_ready = mirror_ready(m);
    const char *unreadable = mirror_unreadable(m);
    str_cut(v->unreadable, sizeof v->unreadable, unreadable != NULL ? unreadable : "");
    v->revision = m->revision;
    v->lost_ms = m->leader_lost_ms;
    config_view(m->config_meta.present ? &m->config : bootstrap, &v->config);
    v->has_initialize = m->initialize_meta.present;
    v->initialize = m->initialize;
    v->initialize_leased = m->initialize_meta.lease != 0;
    /* One that cannot be read is somebody's: it is not ours to hold a deadline for. */
    v->has_leader = m->leader_meta.present || m->leader_meta.unreadable;
    v->leader = m->leader;
    v->leader_lease = m->leader_meta.lease;
    v->leader_ms = m->leader_since_ms;
    memcpy(v->sick_leader, m->sick_leader, sizeof v->sick_leader);
    v->leader_lsn = strcmp(m->lsn_of, m->sync.incarnation) == 0 ? m->leader_lsn : 0;
    v->has_sync = m->sync_meta.present;
    v->sync = m->sync;
    v->sync_mod_revision = m->sync_meta.mod_revision;
    v->has_failover = m->failover_meta.present;
    v->failover = m->failover;
    v->failover_mod_revision = m->failover_meta.mod_revision;
    memcpy(v->members, m->members, m->members_n * sizeof v->members[0]);
    v->members_n = m->members_n;
    memcpy(v->seals, m->seals, m->seals_n * sizeof v->seals[0]);
    memcpy(v->seal_mod_revisions, m->seal_mods, m->seals_n * sizeof m->seal_mods[0]);
    v->seals_n = m->seals_n;
    size_t skip = m->history.entries_n > VIEW_HISTORY ? m->history.entries_n - VIEW_HISTORY : 0;
    v->history_n = m->history.entries_n - skip;
    memcpy(v->history, &m->history.entries[skip], v->history_n * sizeof v->history[0]);
}
