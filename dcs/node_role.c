/* member.promote and member.demote: what a member is to be is an entry; member.c makes Raft follow. */
#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "dcs/node_private.h"

static const struct member *find(const struct member *all, size_t k, const char *name)
{
    for (size_t i = 0; i < k; i++) {
        if (strcmp(all[i].name, name) == 0 && strcmp(all[i].state, "removed") != 0) {
            return &all[i];
        }
    }
    return NULL;
}

/* May this voter become a learner? Refused as its removal would be; being a learner is no harm else. */
static enum err check_demotion(struct node *n, const struct member *all, size_t k,
                               const struct member *who, bool force, struct errmsg *e)
{
    struct member_cluster *view = mem_alloc(sizeof *view);
    member_look(n, all, k, view);
    enum err err = member_removable(view, who->id, force, e);
    mem_free(view);
    return err;
}

static void start(struct node *n, struct request *r, const struct member *who, const char *role)
{
    write_member_role(n, who->id, role, &n->member_index);
    if (n->member_index == 0) {
        request_wait(n, r, NODE_RETRY_MS);
        return;
    }
    n->role_op = r;
    r->submitted = true;
    log_event(LOG_INFO, "member_role", KV(KV_STR("member", who->name), KV_STR("role", role)),
              "on request");
}

static void decide(struct node *n, struct request *r, const struct member *all, size_t k,
                   const struct member_ref *ref)
{
    bool up = r->method == METHOD_MEMBER_PROMOTE;
    struct errmsg e = {.text = ""};
    const struct member *who = find(all, k, ref->name);
    if (who == NULL) {
        (void)err_set(&e, ERR_NOT_FOUND, "there is no member named %s", ref->name);
        request_fail(n, r, ERR_NOT_FOUND, e.text);
        return;
    }
    enum err err = up ? ERR_OK : check_demotion(n, all, k, who, ref->force, &e);
    if (err != ERR_OK) {
        request_fail(n, r, err, e.text);
    } else if (!up && who->id == n->o.id && node_is_voter(n, who->id)) {
        /* Leadership moves first; the next leader finds this request again by the way of retries. */
        if (raft_core_transfer(n->raft, 0, n->now) != ERR_OK && r->caller.peer != 0) {
            request_fail(n, r, ERR_UNAVAILABLE, "leadership cannot be moved off this node yet");
        } else {
            request_wait(n, r, n->o.election_ms / 4);
        }
    } else {
        start(n, r, who,
              !up                                 ? "learner"
              : strcmp(who->role, "witness") == 0 ? "witness"
                                                  : "voter");
    }
}

void role_request(struct node *n, struct request *r)
{
    struct member_ref ref;
    if (msg_decode(&msg_member_ref, slice_of(r->params, r->n), &ref, NULL) != ERR_OK) {
        request_fail(n, r, ERR_INVALID, "a name is needed");
        return;
    }
    if (n->member_index != 0 || n->removal != NULL || n->role_op != NULL) {
        request_wait(n, r, NODE_MEMBER_MS);
        return;
    }
    struct member *all = mem_array(MEMBERS_MAX, sizeof *all);
    size_t k = node_members(n, all, MEMBERS_MAX);
    decide(n, r, all, k, &ref);
    mem_free(all);
}

void role_go_on(struct node *n)
{
    if (n->role_op == NULL || n->member_index != 0) {
        return;
    }
    struct buf CLEANUP(buf_close) reply = BUF_INIT;
    n->member_ms = n->now;
    member_list_encode(n, &reply);
    request_reply(n, n->role_op, ERR_OK, NULL, buf_slice(&reply));
    ASSERT(n->role_op == NULL);
}

/* Promoting or demoting twice is the same as once: the next leader does it again. */
void role_lost_leadership(struct node *n)
{
    if (n->role_op != NULL) {
        request_lost(n, n->role_op, "the leader changed; look at the members, then try again");
    }
}
