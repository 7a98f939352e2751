/* Join tokens. The secret is never here: the leader makes it, the log and this table see its SHA-256.
 * The one place where the wall clock matters: a token ends at expires_ms, by the clock of the leader
 * that proposed the entry. */
#include "base/mem.h"
#include "base/str.h"
#include "dcs/state_internal.h"

enum { SHA256_HEX = 64 };

static void read_token(struct state *s, enum sql which, struct token_info *ret)
{
    *ret = (struct token_info){.uses_left = sql_u64(s, which, 2),
                               .expires_ms = sql_u64(s, which, 3)};
    enum err rc = str_copy(ret->id, sizeof ret->id, sql_text(s, which, 0));
    if (rc == ERR_OK)
        rc = str_copy(ret->role, sizeof ret->role, sql_text(s, which, 1));
    if (rc == ERR_OK)
        rc = str_copy(ret->token, sizeof ret->token, sql_text(s, which, 4));
    if (rc != ERR_OK)
        state_fatal(s, "a row of token is too long: reading it");
}

static bool find_token(struct state *s, const char *id, struct token_info *ret)
{
    sql_bind_text(s, SQL_TOKEN_GET, 1, id);
    if (!sql_row(s, SQL_TOKEN_GET))
        return false;
    read_token(s, SQL_TOKEN_GET, ret);
    sql_done(s, SQL_TOKEN_GET);
    return true;
}

enum err state_tokens(struct state *s, struct token_list *ret_list, struct errmsg *e)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    (void)e;
    ret_list->tokens_n = 0;
    while (sql_row(s, SQL_TOKEN_ALL)) {
        ASSERT(ret_list->tokens_n < ARRAY_LEN(ret_list->tokens));
        struct token_info *t = &ret_list->tokens[ret_list->tokens_n++];
        read_token(s, SQL_TOKEN_ALL, t);
        memset(t->token, 0, sizeof t->token);
        if (t->uses_left == 0)
            ret_list->tokens_n--; /* kept for one that redeems it again */
    }
    return ERR_OK;
}

/* Unknown and wrong are one answer: ids are public. */
static enum err check_secret(struct state *s, const char *id, const char *sha256,
                             uint64_t wall_ms, struct token_info *ret, struct errmsg *e)
{
    if (!find_token(s, id, ret) || strcmp(ret->token, sha256) != 0)
        return err_set(
            e, ERR_DENIED,
            "this token is unknown or was revoked; make a new one with `regentctl token "
            "create`");
    if (ret->expires_ms <= wall_ms)
        return err_set(e, ERR_DENIED,
                       "token %s has expired; make a new one with `regentctl token create`",
                       id);
    return ERR_OK;
}

enum err state_token_check(struct state *s, const char *id, const char *sha256,
                           uint64_t wall_ms, struct errmsg *e)
{
    struct token_info t;
    CHECK_MAGIC(s, STATE_MAGIC);
    return check_secret(s, id, sha256, wall_ms, &t, e);
}

/* ---- commands ---- */

static bool is_sha256(const char *hex)
{
    uint8_t bytes[SHA256_HEX / 2];
    return strlen(hex) == SHA256_HEX && hex_decode(hex, bytes, sizeof bytes) == ERR_OK;
}

static enum err check_create(struct apply *a, const struct token_info *t)
{
    struct token_info there;
    struct member shape = {.name = "n", .address = "h:1"}; /* for the role alone */
    memcpy(shape.role, t->role, sizeof shape.role);
    if (t->id[0] == '\0' || !is_sha256(t->token))
        return err_set(&a->error, ERR_INVALID, "token: no id, or no SHA-256 of its secret");
    if (t->uses_left == 0 || t->uses_left > MEMBERS_MAX)
        return err_set(&a->error, ERR_INVALID, "token: uses must be 1 to %d", (int)MEMBERS_MAX);
    if (t->expires_ms <= a->wall_ms || t->expires_ms > INT64_MAX)
        return err_set(&a->error, ERR_INVALID,
                       "token: its end is in the past, or out of range");
    if (find_token(a->s, t->id, &there))
        return err_set(&a->error, ERR_EXISTS, "token %s exists", t->id);
    return member_check(&shape, &a->error);
}

enum err cmd_token_create(struct apply *a, const void *req)
{
    struct token_info t = *(const struct token_info *)req;
    struct state *s = a->s;
    enum err rc = check_create(a, &t);
    if (rc != ERR_OK)
        return rc;
    sql_bind_u64(s, SQL_TOKEN_SWEEP, 1, a->wall_ms);
    small_write(s, SQL_TOKEN_SWEEP);
    if (sql_one_u64(s, SQL_TOKEN_COUNT) >= STATE_TOKENS_MAX)
        small_write(s, SQL_TOKEN_SWEEP_SPENT);
    if (sql_one_u64(s, SQL_TOKEN_COUNT) >= STATE_TOKENS_MAX)
        return err_set(&a->error, ERR_LIMIT, "there are %d live tokens, the most; revoke some",
                       (int)STATE_TOKENS_MAX);
    sql_bind_text(s, SQL_TOKEN_INSERT, 1, t.id);
    sql_bind_text(s, SQL_TOKEN_INSERT, 2, t.role);
    sql_bind_u64(s, SQL_TOKEN_INSERT, 3, t.uses_left);
    sql_bind_u64(s, SQL_TOKEN_INSERT, 4, t.expires_ms);
    sql_bind_text(s, SQL_TOKEN_INSERT, 5, t.token);
    small_write(s, SQL_TOKEN_INSERT);
    memset(t.token, 0, sizeof t.token); /* the server puts the secret into the reply */
    apply_result(a, &msg_token_info, &t);
    return ERR_OK;
}

enum err cmd_token_revoke(struct apply *a, const void *req)
{
    const struct token_ref *r = req;
    struct token_info t;
    struct empty result;
    if (!find_token(a->s, r->id, &t))
        return err_set(&a->error, ERR_NOT_FOUND, "token %s does not exist", r->id);
    sql_bind_text(a->s, SQL_TOKEN_DELETE, 1, r->id);
    small_write(a->s, SQL_TOKEN_DELETE);
    memset(&result, 0, sizeof result);
    apply_result(a, &msg_empty, &result);
    return ERR_OK;
}

/* r->token is "ID:SHA256HEX". */
static enum err find_redeemed(struct apply *a, const struct token_redeem *r,
                              struct token_info *ret_token)
{
    char id[sizeof ret_token->id];
    const char *colon = strchr(r->token, ':');
    if (colon == NULL || !is_sha256(colon + 1) ||
        str_copy_slice(id, sizeof id, slice_of(r->token, (size_t)(colon - r->token))) != ERR_OK)
        return err_set(&a->error, ERR_INVALID, "token: not \"ID:SHA-256 of the secret\"");
    return check_secret(a->s, id, colon + 1, a->wall_ms, ret_token, &a->error);
}

static void grant_result(struct apply *a, const struct member *m)
{
    struct token_grant *g = mem_alloc(sizeof *g);
    memcpy(g->cluster_id, a->s->cluster_id, sizeof g->cluster_id);
    memcpy(g->role, m->role, sizeof g->role);
    g->member_id = m->id;
    g->members_n = member_list(a->s, g->members, ARRAY_LEN(g->members));
    apply_result(a, &msg_token_grant, g);
    mem_free(g);
}

enum err cmd_token_redeem(struct apply *a, const void *req)
{
    const struct token_redeem *r = req;
    struct token_info t = {.id = ""};
    struct member m;
    char key[SHA256_HEX + 1];
    enum err rc = find_redeemed(a, r, &t);
    if (rc == ERR_OK && (str_copy_slice(key, sizeof key, r->csr) != ERR_OK || !is_sha256(key)))
        rc = err_set(&a->error, ERR_INVALID, "token: no SHA-256 of the key");
    if (rc != ERR_OK)
        return rc;
    /* The answer to the first time was lost: the same again, at no cost. */
    if (member_of_key(a->s, t.id, key, &m) && strcmp(m.name, r->name) == 0 &&
        strcmp(m.address, r->address) == 0) {
        grant_result(a, &m);
        return ERR_OK;
    }
    if (t.uses_left == 0)
        return err_set(&a->error, ERR_DENIED,
                       "token %s has been used; make a new one with `regentctl token create`",
                       t.id);
    m = (struct member){.state = "joining"};
    memcpy(m.name, r->name, sizeof m.name);
    memcpy(m.address, r->address, sizeof m.address);
    memcpy(m.role, t.role, sizeof m.role);
    rc = member_check(&m, &a->error);
    if (rc == ERR_OK)
        rc = member_check_free(a->s, m.name, m.address, &a->error);
    if (rc != ERR_OK)
        return rc;
    sql_bind_text(a->s, SQL_TOKEN_USE, 1, t.id);
    small_write(a->s, SQL_TOKEN_USE);
    member_add(a, &m, t.id, key);
    grant_result(a, &m);
    return ERR_OK;
}
