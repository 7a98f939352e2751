/* Members as the leader manages them: admission, promotion, removal, hand-over of leadership; and the
 * facts about the cluster everybody can ask for. Decisions are member.c's. */
#include <stdio.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "dcs/node_private.h"

static bool heard(const struct node *n, uint64_t id)
{
    /* A broken link tells sooner than silence. */
    return id == n->o.id ||
           (raft_core_recently_heard(n->raft, id, n->now) && n->ops->linked(n->arg, id));
}

/* ---- the leader's view --------------------------------------------------------------------- */

static bool presented(const struct node *n, uint64_t id)
{
    for (size_t i = 0; i < n->n_presented; i++) {
        if (n->presented[i] == id) {
            return true;
        }
    }
    return false;
}

void member_look(struct node *n, const struct member *all, size_t k,
                 struct member_cluster *ret_view)
{
    const struct raft_membership *m = raft_core_membership(n->raft);
    memset(ret_view, 0, sizeof *ret_view);
    for (size_t i = 0; i < k; i++) {
        struct member_view *v = &ret_view->m[i];
        const struct raft_server *s = member_server(m, all[i].id);
        v->id = all[i].id;
        v->raft = s == NULL                    ? MEMBER_ABSENT
                  : s->role == RAFT_ROLE_VOTER ? MEMBER_VOTER
                                               : MEMBER_LEARNER;
        v->state = strcmp(all[i].state, "joining") == 0   ? MEMBER_JOINING
                   : strcmp(all[i].state, "removed") == 0 ? MEMBER_REMOVED
                                                          : MEMBER_ACTIVE;
        v->wants_vote = strcmp(all[i].role, "learner") != 0;
        v->presented = presented(n, v->id);
        v->heard = s != NULL && heard(n, v->id);
        v->match_index = s == NULL ? 0 : raft_core_match_index(n->raft, v->id);
        v->version = node_program_version(n, v->id);
    }
    ret_view->version = state_version(n->state);
    ret_view->n = k;
    ret_view->self = n->o.id;
    ret_view->last_index = raft_core_last_index(n->raft);
    ret_view->change_pending = raft_core_change_pending(n->raft);
    ret_view->voters_max = state_voters_max(n->state);
    bool even = member_voters(ret_view) % 2 == 0;
    n->even_since_ms = !even ? 0 : n->even_since_ms == 0 ? n->now : n->even_since_ms;
    ret_view->even_ms = even ? n->now - n->even_since_ms : 0;
}

/* ---- changes ------------------------------------------------------------------------------- */

static struct raft_server *slot(struct raft_membership *m, const struct member *who)
{
    for (size_t i = 0; i < m->n; i++) {
        if (m->servers[i].id == who->id) {
            return &m->servers[i];
        }
    }
    if (m->n >= RAFT_CORE_MEMBERS_MAX) {
        return NULL;
    }
    struct raft_server *s = &m->servers[m->n++];
    memset(s, 0, sizeof *s);
    s->id = who->id;
    return s;
}

static void change_role(struct node *n, const struct member *who, enum raft_role role,
                        const struct member_plan *p)
{
    static const char *const verbs[] = {"", "voter", "learner", "spare"};
    struct raft_membership *m = mem_dup(raft_core_membership(n->raft), sizeof *m);
    struct raft_server *s = slot(m, who);
    struct errmsg e = {.text = "there is no room for another member"};
    uint64_t index = 0;
    enum err err =
        s == NULL ? ERR_LIMIT : str_copy(s->address, sizeof s->address, who->address);
    if (err == ERR_OK) {
        s->role = role;
        err = raft_core_change(n->raft, m, n->now, &index, &e);
    }
    if (err == ERR_OK) {
        log_event(LOG_INFO, "member_change",
                  KV(KV_STR("member", who->name), KV_STR("role", verbs[role])), "%s", p->why);
    } else {
        log_event(LOG_WARN, "member_change_failed", KV(KV_STR("member", who->name)), "%s",
                  e.text);
    }
    mem_free(m);
}

static void carry_out(struct node *n, const struct member *all, size_t k,
                      const struct member_plan *p)
{
    const struct member *who = NULL;
    for (size_t i = 0; i < k; i++) {
        who = all[i].id == p->id ? &all[i] : who;
    }
    ASSERT(who != NULL || p->action == MEMBER_NOTHING || p->action == MEMBER_RAISE);
    switch (p->action) {
    case MEMBER_NOTHING:
        return;
    case MEMBER_ADD:
        change_role(n, who, RAFT_ROLE_LEARNER, p);
        return;
    case MEMBER_ACTIVATE:
        write_member_state(n, p->id, "active", &n->member_index);
        log_event(LOG_INFO, "member_active", KV(KV_STR("member", who->name)), "%s", p->why);
        return;
    case MEMBER_PROMOTE:
        change_role(n, who, RAFT_ROLE_VOTER, p);
        return;
    case MEMBER_DEMOTE:
        change_role(n, who, RAFT_ROLE_LEARNER, p);
        return;
    case MEMBER_RAISE:
        write_version(n, p->version, &n->member_index);
        log_event(LOG_INFO, "cluster_version", KV(KV_U64("version", p->version)), "%s", p->why);
        return;
    }
    UNREACHABLE();
}

/* The first leader registers itself: the row must come to everybody through the log. */
static void register_self(struct node *n)
{
    struct member self = {.id = n->o.id};
    memcpy(self.name, n->name, sizeof self.name);
    memcpy(self.address, n->address, sizeof self.address);
    memcpy(self.role, n->role, sizeof self.role);
    memcpy(self.state, "active", sizeof "active");
    write_member_init(n, &self, &n->member_index);
}

/* ---- removal ------------------------------------------------------------------------------- */

static void removal_fail(struct node *n, enum err status, const char *text)
{
    request_fail(n, n->removal, status, text);
    ASSERT(n->removal == NULL);
}

/* Out of Raft first, then out of the table: a crash between leaves a member that the same command,
 * given again, finishes off. */
static void removal_start(struct node *n, struct request *r, const struct member *who,
                          bool force, const struct member_cluster *view)
{
    struct errmsg e = {.text = ""};
    enum err err = member_removable(view, who->id, force, &e);
    if (err != ERR_OK) {
        request_fail(n, r, err, e.text);
        return;
    }
    if (who->id == n->o.id) {
        /* Leadership moves first; the next leader finds this request again by the way of retries. */
        enum err moved = raft_core_transfer(n->raft, 0, n->now);
        if (moved != ERR_OK && r->caller.peer != 0) {
            request_fail(n, r, ERR_UNAVAILABLE, "leadership cannot be moved off this node yet");
        } else {
            request_wait(n, r, n->o.election_ms / 4);
        }
        return;
    }
    n->removal = r;
    n->removal_id = who->id;
    n->removal_marked = false;
    if (member_server(raft_core_membership(n->raft), who->id) == NULL) {
        return;
    }
    struct raft_membership *m = mem_dup(raft_core_membership(n->raft), sizeof *m);
    struct raft_server *s = slot(m, who);
    *s = m->servers[--m->n];
    uint64_t index = 0;
    err = raft_core_change(n->raft, m, n->now, &index, &e);
    mem_free(m);
    if (err != ERR_OK) {
        removal_fail(n, err, e.text);
        return;
    }
    r->submitted = true;
    log_event(LOG_INFO, "member_remove", KV(KV_STR("member", who->name)), "on request");
}

static void removal_go_on(struct node *n)
{
    if (n->removal == NULL || raft_core_change_pending(n->raft) || n->member_index != 0) {
        return;
    }
    if (!n->removal_marked) {
        write_member_state(n, n->removal_id, "removed", &n->member_index);
        n->removal_marked = n->member_index != 0;
        n->removal->submitted = true;
        return;
    }
    struct buf CLEANUP(buf_close) reply = BUF_INIT;
    member_list_encode(n, &reply);
    request_reply(n, n->removal, ERR_OK, NULL, buf_slice(&reply));
}

static void removal_request(struct node *n, struct request *r)
{
    struct member_ref ref;
    if (msg_decode(&msg_member_ref, slice_of(r->params, r->n), &ref, NULL) != ERR_OK) {
        request_fail(n, r, ERR_INVALID, "member.remove needs a name");
        return;
    }
    if (n->removal != NULL) {
        request_fail(n, r, ERR_PRECONDITION, "another member is being removed; try again");
        return;
    }
    if (raft_core_change_pending(n->raft)) {
        request_wait(n, r, NODE_MEMBER_MS);
        return;
    }
    struct member *all = mem_array(MEMBERS_MAX, sizeof *all);
    size_t k = node_members(n, all, MEMBERS_MAX);
    const struct member *who = NULL;
    for (size_t i = 0; i < k; i++) {
        if (strcmp(all[i].name, ref.name) == 0 && strcmp(all[i].state, "removed") != 0) {
            who = &all[i];
        }
    }
    if (who == NULL) {
        struct errmsg e;
        (void)err_set(&e, ERR_NOT_FOUND, "there is no member named %s", ref.name);
        request_fail(n, r, ERR_NOT_FOUND, e.text);
    } else {
        struct member_cluster *view = mem_alloc(sizeof *view);
        member_look(n, all, k, view);
        removal_start(n, r, who, ref.force, view);
        mem_free(view);
    }
    mem_free(all);
}

/* ---- transfer of leadership ---------------------------------------------------------------- */

static void transfer_request(struct node *n, struct request *r)
{
    struct transfer_req req;
    struct member *all = mem_array(MEMBERS_MAX, sizeof *all);
    size_t k = node_members(n, all, MEMBERS_MAX);
    uint64_t to = 0;
    bool known = msg_decode(&msg_transfer_req, slice_of(r->params, r->n), &req, NULL) == ERR_OK;
    bool any = known && req.name[0] == '\0';
    for (size_t i = 0; known && i < k; i++) {
        if (!any && strcmp(all[i].name, req.name) == 0 &&
            strcmp(all[i].state, "removed") != 0) {
            to = all[i].id;
        }
    }
    mem_free(all);
    struct errmsg e;
    if (!any && to == 0) {
        (void)err_set(&e, ERR_NOT_FOUND, "there is no member named %s", req.name);
        request_fail(n, r, ERR_NOT_FOUND, e.text);
    } else if (to == n->o.id) {
        struct status_reply status;
        struct buf CLEANUP(buf_close) reply = BUF_INIT;
        node_status(n, &status);
        msg_encode(&msg_status_reply, &status, &reply);
        request_reply(n, r, ERR_OK, NULL, buf_slice(&reply));
    } else if (n->transfer != NULL || raft_core_transfer(n->raft, to, n->now) != ERR_OK) {
        request_fail(n, r, ERR_PRECONDITION,
                     "leadership cannot move there now: only to a voter that is up to date, "
                     "and not while another "
                     "change is under way");
    } else {
        n->transfer = r;
        n->transfer_since_ms = n->now;
        r->submitted = true;
    }
}

static void transfer_done(struct node *n)
{
    struct status_reply status;
    struct buf CLEANUP(buf_close) reply = BUF_INIT;
    node_status(n, &status);
    msg_encode(&msg_status_reply, &status, &reply);
    request_reply(n, n->transfer, ERR_OK, NULL, buf_slice(&reply));
}

static void transfer_go_on(struct node *n)
{
    if (n->transfer != NULL && n->now >= n->transfer_since_ms + 2 * n->o.election_ms) {
        request_fail(n, n->transfer, ERR_UNAVAILABLE,
                     "leadership did not move: the chosen voter did not take it");
    }
}

/* ---- presenting ---------------------------------------------------------------------------- */

static void present_request(struct node *n, struct request *r)
{
    struct wire_present p;
    struct member m;
    struct errmsg e;
    if (msg_decode(&wire_msg_present, slice_of(r->params, r->n), &p, NULL) != ERR_OK) {
        request_fail(n, r, ERR_INVALID, NULL);
        return;
    }
    if (node_member(n, p.id, &m) != ERR_OK || strcmp(m.state, "removed") == 0) {
        (void)err_set(
            &e, ERR_DENIED,
            "%s (id %llu) is not a member of this cluster: join it again with a token", p.name,
            (unsigned long long)p.id);
        request_fail(n, r, ERR_DENIED, e.text);
        return;
    }
    if (strcmp(m.state, "active") == 0 && p.last_index == 0) {
        (void)err_set(&e, ERR_PRECONDITION,
                      "%s (id %llu) had data and its directory is empty now: a node may not "
                      "forget what it "
                      "acknowledged. Remove the member and join the node again with a token",
                      p.name, (unsigned long long)p.id);
        request_fail(n, r, ERR_PRECONDITION, e.text);
        return;
    }
    if (!presented(n, p.id) && n->n_presented < MEMBERS_MAX) {
        n->presented[n->n_presented++] = p.id;
        n->member_ms = n->now;
    }
    struct buf CLEANUP(buf_close) reply = BUF_INIT;
    member_list_encode(n, &reply);
    request_reply(n, r, ERR_OK, NULL, buf_slice(&reply));
}

void member_op(struct node *n, struct request *r)
{
    ASSERT(r->phase == REQUEST_OP && node_is_leader(n));
    if (raft_core_applied_index(n->raft) < raft_core_term_start(n->raft)) {
        request_wait(n, r, NODE_RETRY_MS); /* a new leader may not know every member yet */
        return;
    }
    if (r->method == METHOD_MEMBER_REMOVE) {
        removal_request(n, r);
    } else if (r->method == METHOD_MEMBER_PROMOTE || r->method == METHOD_MEMBER_DEMOTE) {
        role_request(n, r);
    } else if (r->method == METHOD_CLUSTER_TRANSFER) {
        transfer_request(n, r);
    } else {
        ASSERT(r->method == NODE_METHOD_PRESENT);
        present_request(n, r);
    }
}

void member_op_forget(struct node *n, const struct request *r)
{
    n->removal = n->removal == r ? NULL : n->removal;
    n->transfer = n->transfer == r ? NULL : n->transfer;
    n->role_op = n->role_op == r ? NULL : n->role_op;
}

void member_lost_leadership(struct node *n)
{
    n->n_presented = 0;
    n->member_index = 0;
    n->even_since_ms = 0;
    if (n->transfer != NULL) {
        transfer_done(n);
    }
    if (n->removal != NULL && n->removal->submitted) {
        request_fail(n, n->removal, ERR_OUTCOME_UNKNOWN,
                     "the leader changed; look at the members, then try again");
    } else if (n->removal != NULL) {
        request_wait(n, n->removal, 0);
    }
    role_lost_leadership(n);
}

/* ---- driving ------------------------------------------------------------------------------- */

void member_drive(struct node *n)
{
    if (!node_is_leader(n) ||
        raft_core_applied_index(n->raft) < raft_core_term_start(n->raft)) {
        return;
    }
    transfer_go_on(n);
    removal_go_on(n);
    role_go_on(n);
    if (n->now < n->member_ms || n->member_index != 0 || n->removal != NULL) {
        return;
    }
    n->member_ms = n->now + NODE_MEMBER_MS;
    struct member *all = mem_array(MEMBERS_MAX, sizeof *all);
    struct member_cluster *view = mem_alloc(sizeof *view);
    size_t k = node_members(n, all, MEMBERS_MAX);
    if (k == 0) {
        register_self(n);
    } else {
        member_look(n, all, k, view);
        struct member_plan p = member_decide(view);
        carry_out(n, all, k, &p);
        if (member_settled(view)) {
            n->member_ms = n->now + NODE_SETTLED_MS;
        }
    }
    mem_free(view);
    mem_free(all);
}

uint64_t member_deadline(const struct node *n)
{
    return node_is_leader(n) ? MAX(n->member_ms, n->now + 1) : UINT64_MAX;
}
