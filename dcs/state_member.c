/* Registered members: who may have a certificate and an id. Raft's configuration says who takes part;
 * the server keeps the two in step. Ids come from a counter and are never given twice: a log or a
 * vote of a removed member must not be taken for a new one's. */
#include <stdio.h>

#include "base/str.h"
#include "dcs/state_internal.h"

static void read_member(struct state *s, enum sql which, struct member *ret)
{
    *ret = (struct member){.id = sql_u64(s, which, 0)};
    enum err rc = str_copy(ret->name, sizeof ret->name, sql_text(s, which, 1));
    if (rc == ERR_OK)
        rc = str_copy(ret->address, sizeof ret->address, sql_text(s, which, 2));
    if (rc == ERR_OK)
        rc = str_copy(ret->role, sizeof ret->role, sql_text(s, which, 3));
    if (rc == ERR_OK)
        rc = str_copy(ret->state, sizeof ret->state, sql_text(s, which, 4));
    if (rc != ERR_OK)
        state_fatal(s, "a row of member is too long: reading it");
}

size_t member_list(struct state *s, struct member *ret_members, size_t max)
{
    size_t n = 0;
    while (sql_row(s, SQL_MEMBER_LIVE)) {
        if (n == max) {
            sql_done(s, SQL_MEMBER_LIVE);
            break;
        }
        read_member(s, SQL_MEMBER_LIVE, &ret_members[n++]);
    }
    return n;
}

enum err state_members(struct state *s, struct member *ret_members, size_t max, size_t *ret_n)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    *ret_n = member_list(s, ret_members, max);
    return ERR_OK;
}

enum err state_member(struct state *s, uint64_t id, struct member *ret_member)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    sql_bind_u64(s, SQL_MEMBER_GET, 1, id);
    if (!sql_row(s, SQL_MEMBER_GET))
        return ERR_NOT_FOUND;
    read_member(s, SQL_MEMBER_GET, ret_member);
    sql_done(s, SQL_MEMBER_GET);
    return ERR_OK;
}

uint64_t state_voters_max(struct state *s)
{
    struct kv kv;
    char text[4];
    uint64_t n = 0;
    CHECK_MAGIC(s, STATE_MAGIC);
    bool set = kv_find(s, slice_str(PROTO_VOTERS_KEY), &kv) &&
               str_copy_slice(text, sizeof text, kv.value) == ERR_OK &&
               str_parse_u64(text, &n) == ERR_OK && (n == 3 || n == 5);
    return set ? n : PROTO_VOTERS_MAX;
}

bool member_of_key(struct state *s, const char *token, const char *key,
                   struct member *ret_member)
{
    sql_bind_text(s, SQL_MEMBER_OF_KEY, 1, token);
    sql_bind_text(s, SQL_MEMBER_OF_KEY, 2, key);
    if (!sql_row(s, SQL_MEMBER_OF_KEY))
        return false;
    read_member(s, SQL_MEMBER_OF_KEY, ret_member);
    sql_done(s, SQL_MEMBER_OF_KEY);
    return true;
}

/* ---- checks ---- */

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '-' || c == '_' || c == '.';
}

static bool role_known(const char *role)
{
    return strcmp(role, "voter") == 0 || strcmp(role, "learner") == 0 ||
           strcmp(role, "witness") == 0;
}

enum err member_check(const struct member *m, struct errmsg *e)
{
    char host[128];
    uint16_t port;
    size_t n = strlen(m->name);
    for (size_t i = 0; i < n; i++)
        if (!name_char(m->name[i]))
            return err_set(e, ERR_INVALID,
                           "member name \"%s\": only letters, digits, '-', '_' and '.'",
                           m->name);
    if (n == 0 || m->name[0] == '.' || m->name[0] == '-')
        return err_set(e, ERR_INVALID, "member name \"%s\": must begin with a letter or digit",
                       m->name);
    if (str_host_port(m->address, host, sizeof host, &port) != ERR_OK || host[0] == '\0')
        return err_set(e, ERR_INVALID, "member address \"%s\" is not HOST:PORT", m->address);
    if (!role_known(m->role))
        return err_set(e, ERR_INVALID, "role \"%s\" is none of voter, learner, witness",
                       m->role);
    return ERR_OK;
}

enum err member_check_free(struct state *s, const char *name, const char *address,
                           struct errmsg *e)
{
    struct member m;
    size_t n = 0;
    enum err rc = ERR_OK;
    while (sql_row(s, SQL_MEMBER_LIVE)) {
        read_member(s, SQL_MEMBER_LIVE, &m);
        n++;
        if (rc != ERR_OK)
            continue;
        if (strcmp(m.name, name) == 0)
            rc = err_set(e, ERR_EXISTS,
                         "a member named %s is %s; choose another name, or first "
                         "`regentctl member remove %s`",
                         name, m.state, name);
        else if (strcmp(m.address, address) == 0)
            rc = err_set(e, ERR_EXISTS,
                         "member %s has the address %s; use another one, or first "
                         "`regentctl member remove %s`",
                         m.name, address, m.name);
    }
    if (rc == ERR_OK && n >= MEMBERS_MAX)
        rc = err_set(e, ERR_LIMIT, "there are %d members, the most", (int)MEMBERS_MAX);
    return rc;
}

/* ---- changes ---- */

static void insert_member(struct state *s, const struct member *m, const char *token,
                          const char *key)
{
    sql_bind_u64(s, SQL_MEMBER_INSERT, 1, m->id);
    sql_bind_text(s, SQL_MEMBER_INSERT, 2, m->name);
    sql_bind_text(s, SQL_MEMBER_INSERT, 3, m->address);
    sql_bind_text(s, SQL_MEMBER_INSERT, 4, m->role);
    sql_bind_text(s, SQL_MEMBER_INSERT, 5, m->state);
    sql_bind_text(s, SQL_MEMBER_INSERT, 6, token);
    sql_bind_text(s, SQL_MEMBER_INSERT, 7, key);
    small_write(s, SQL_MEMBER_INSERT);
}

void member_add(struct apply *a, struct member *m, const char *token, const char *key)
{
    ASSERT(a->s->m.next_member != 0);
    m->id = a->s->m.next_member++;
    insert_member(a->s, m, token, key);
}

enum err cmd_member_init(struct apply *a, const void *req)
{
    struct member m = *(const struct member *)req;
    struct state *s = a->s;
    if (sql_one_u64(s, SQL_MEMBER_COUNT) != 0)
        return err_set(&a->error, ERR_PRECONDITION, "there are members already");
    enum err rc = member_check(&m, &a->error);
    if (rc != ERR_OK)
        return rc;
    if (m.id == 0)
        m.id = s->m.next_member;
    if (m.id < s->m.next_member || m.id > INT32_MAX)
        return err_set(&a->error, ERR_INVALID,
                       "member id %llu was given before, or is too high",
                       (unsigned long long)m.id);
    memcpy(m.state, "active", sizeof "active");
    s->m.next_member = m.id + 1;
    insert_member(s, &m, "", "");
    apply_result(a, &msg_member, &m);
    return ERR_OK;
}

/* A program that does not know that version must not go on: another member may use it from the next entry on. */
enum err cmd_version(struct apply *a, const void *req)
{
    const struct version_mark *r = req;
    struct state *s = a->s;
    struct errmsg e;
    char text[300];
    if (r->version > PROTO_VERSION) {
        (void)snprintf(text, sizeof text,
                       "%s: the cluster has come to version %llu, this program knows %d: "
                       "upgrade regent on this node",
                       s->path, (unsigned long long)r->version, (int)PROTO_VERSION);
        state_fatal_text(text);
    }
    if (r->version > s->m.version) {
        state_begin(s);
        if (state_schema_raise(s->db, s->path, s->m.version, r->version, &e) != ERR_OK)
            state_fatal_text(e.text);
        s->m.version = r->version;
    }
    struct version_mark result = {.version = s->m.version};
    apply_result(a, &msg_version_mark, &result);
    return ERR_OK;
}

uint64_t state_version(const struct state *s)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    return s->m.version;
}

/* joining -> active -> removed; to where it is: nothing happens. */
static bool may_become(const char *from, const char *to)
{
    if (strcmp(from, to) == 0)
        return true;
    if (strcmp(from, "joining") == 0)
        return strcmp(to, "active") == 0 || strcmp(to, "removed") == 0;
    return strcmp(from, "active") == 0 && strcmp(to, "removed") == 0;
}

enum err cmd_member_state(struct apply *a, const void *req)
{
    const struct member *wanted = req;
    struct member m;
    if (state_member(a->s, wanted->id, &m) != ERR_OK)
        return err_set(&a->error, ERR_NOT_FOUND, "no member has the id %llu",
                       (unsigned long long)wanted->id);
    if (!may_become(m.state, wanted->state))
        return err_set(&a->error, ERR_PRECONDITION, "member %s is %s and cannot become \"%s\"",
                       m.name, m.state, wanted->state);
    if (strcmp(m.state, wanted->state) != 0) {
        memcpy(m.state, wanted->state, sizeof m.state);
        sql_bind_u64(a->s, SQL_MEMBER_STATE, 1, m.id);
        sql_bind_text(a->s, SQL_MEMBER_STATE, 2, m.state);
        small_write(a->s, SQL_MEMBER_STATE);
    }
    apply_result(a, &msg_member, &m);
    return ERR_OK;
}

enum err cmd_member_role(struct apply *a, const void *req)
{
    const struct member *wanted = req;
    struct member m;
    if (!role_known(wanted->role))
        return err_set(&a->error, ERR_INVALID, "role \"%s\" is none of voter, learner, witness",
                       wanted->role);
    if (state_member(a->s, wanted->id, &m) != ERR_OK || strcmp(m.state, "removed") == 0)
        return err_set(&a->error, ERR_NOT_FOUND, "no member has the id %llu",
                       (unsigned long long)wanted->id);
    memcpy(m.role, wanted->role, sizeof m.role);
    sql_bind_u64(a->s, SQL_MEMBER_ROLE, 1, m.id);
    sql_bind_text(a->s, SQL_MEMBER_ROLE, 2, m.role);
    small_write(a->s, SQL_MEMBER_ROLE);
    apply_result(a, &msg_member, &m);
    return ERR_OK;
}
