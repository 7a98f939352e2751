/* Links between the daemons: one connection for each direction, as production dials them. What is sent
 * into a cut is lost; a link that has been cut or silent for two seconds is declared dead, and one whose
 * peer died at once. Frames may be lost, doubled and late; a lost call takes its link along. */
#include "base/assert.h"
#include "base/mem.h"
#include "dcs/wire.h"
#include "tests/sim/node_world.h"

enum { DEAD_MS = 2000, LATE_MS = 9000 };

struct message {
    uint64_t from; /* index of the sender */
    unsigned from_life;
    uint32_t number;
    unsigned method;
    enum err status;
    char text[200];
    size_t n;
    uint8_t bytes[];
};

static struct message *message_new(struct sim_node *from, struct slice bytes)
{
    struct message *m = mem_alloc(sizeof *m + bytes.n);
    m->from = from->id - 1;
    m->from_life = from->life[DAEMON];
    m->n = bytes.n;
    if (bytes.n > 0)
        memcpy(m->bytes, bytes.p, bytes.n);
    return m;
}

bool net_open(const struct sim *w, const struct sim_node *a, const struct sim_node *b)
{
    return !w->cut[a->id - 1][b->id - 1];
}

uint64_t net_delay(struct sim *w)
{
    return 100 + sim_random(w, w->delay_us);
}

/* ---- links ---- */

static void link_down(struct sim *w, struct sim_node *x, void *arg)
{
    uint64_t to = *(uint64_t *)arg;
    (void)w;
    node_link(x->node, to + 1, false);
    daemon_pass(x);
}

static void lose_link(struct sim_node *x, size_t to, uint64_t after_us)
{
    if (!x->linked[to])
        return;
    x->linked[to] = false;
    sim_at(x->w, x, DAEMON, after_us, "link down", link_down, mem_dup(&to, sizeof to));
    net_changed(x->w);
}

static bool alive(const struct sim_node *x, const struct sim_node *peer)
{
    return domain_runs(peer, DAEMON) && net_open(x->w, x, peer) && net_open(x->w, peer, x);
}

static void link_dead(struct sim *w, struct sim_node *x, void *arg)
{
    uint64_t to = *(uint64_t *)arg;
    if (x->linked[to] && !alive(x, &w->node[to]))
        lose_link(x, to, 0);
}

static void link_up(struct sim *w, struct sim_node *x, void *arg)
{
    uint64_t to = *(uint64_t *)arg;
    if (x->linked[to] || !alive(x, &w->node[to]))
        return;
    x->linked[to] = true;
    node_link(x->node, to + 1, true);
    daemon_pass(x);
}

void net_changed(struct sim *w)
{
    for (size_t i = 0; i < w->n; i++)
        for (size_t j = 0; j < w->n; j++) {
            struct sim_node *x = &w->node[i];
            if (i == j || !x->up[DAEMON])
                continue;
            bool good = alive(x, &w->node[j]);
            if (x->linked[j] == good)
                continue;
            uint64_t to = j;
            if (!x->linked[j])
                sim_at(w, x, DAEMON, 20 * MS + sim_random(w, 200 * MS), "link up", link_up,
                       mem_dup(&to, sizeof to));
            else if (!w->node[j].up[DAEMON])
                lose_link(x, j, w->node[j].machine_down ? DEAD_MS * MS : net_delay(w));
            else
                sim_at(w, x, DAEMON, DEAD_MS * MS, "link dead", link_dead,
                       mem_dup(&to, sizeof to));
        }
}

/* ---- sending ---- */

/* When it arrives; 0: it does not. */
static uint64_t arrival(struct sim_node *x, struct sim_node *to, bool ordered)
{
    struct sim *w = x->w;
    if (!net_open(w, x, to) || !to->up[DAEMON])
        return 0;
    uint64_t at = w->now_us + net_delay(w);
    if (!ordered && sim_chance(w, w->reorder))
        return at + sim_random(w, 20 * w->delay_us + 1);
    at = MAX(at, x->link_busy_us[to->id - 1] + 1);
    x->link_busy_us[to->id - 1] = at;
    return at;
}

static void on_frame(struct sim *w, struct sim_node *x, void *arg)
{
    struct message *m = arg;
    struct errmsg e = {0};
    uint8_t *exact = mem_dup(m->bytes, m->n);
    if (node_frame(x->node, m->from + 1, slice_of(exact, m->n), &e) != ERR_OK)
        sim_violation(w, "%s refuses a frame of %s: %s", x->name, w->node[m->from].name,
                      e.text);
    mem_free(exact);
    daemon_pass(x);
}

void net_frame(struct sim_node *x, uint64_t member, struct slice frame)
{
    struct sim *w = x->w;
    struct sim_node *to = &w->node[member - 1];
    if (!x->linked[member - 1] || sim_chance(w, w->loss))
        return;
    for (unsigned copies = sim_chance(w, w->duplicate) ? 2 : 1; copies > 0; copies--) {
        uint64_t at = arrival(x, to, false);
        if (at != 0)
            sim_at(w, to, DAEMON, at - w->now_us, "frame", on_frame, message_new(x, frame));
    }
}

static void on_answer(struct sim *w, struct sim_node *x, void *arg)
{
    struct message *m = arg;
    (void)w;
    node_answer(x->node, m->number, m->status, m->text, slice_of(m->bytes, m->n));
    daemon_pass(x);
}

/* Whom an answer goes to. */
struct ticket {
    struct sim_node *x; /* who answers */
    uint64_t from;
    unsigned from_life;
    uint32_t number;
};

static void answer(const struct ticket *t, enum err status, const char *text,
                   struct slice result)
{
    struct sim_node *x = t->x;
    struct sim *w = x->w;
    struct sim_node *to = &w->node[t->from];
    if (to->life[DAEMON] != t->from_life)
        return;
    uint64_t at = arrival(x, to, true);
    if (at == 0)
        return;
    if (sim_chance(w, w->loss / 4)) {
        lose_link(to, x->id - 1, net_delay(w));
        return;
    }
    struct message *m = message_new(x, result);
    m->number = t->number;
    m->status = status;
    if (text != NULL)
        (void)strncpy(m->text, text, sizeof m->text - 1);
    sim_at(w, to, DAEMON, at - w->now_us, "answer", on_answer, m);
}

static void replied(void *arg, uint64_t tag, enum err status, const char *text,
                    struct slice result)
{
    struct ticket *t = arg;
    (void)tag;
    if (!t->x->ending)
        answer(t, status, text, result);
    mem_free(t);
}

/* Methods of members alone that are answered at once. */
enum { ASK_CONFIRM = NODE_METHOD_COUNT, ASK_COMPARE, ASK_RECALL };

static void ask(struct sim_node *x, const struct message *m, struct buf *ret_reply)
{
    struct slice params = slice_of(m->bytes, m->n);
    if (m->method == ASK_CONFIRM)
        node_confirm(x->node, params, ret_reply);
    else if (m->method == ASK_COMPARE)
        node_compare(x->node, params, ret_reply);
    else
        /* whoever forgot leaves, which is an error here */
        node_recall(x->node, m->from + 1, params);
}

static void on_call(struct sim *w, struct sim_node *x, void *arg)
{
    struct message *m = arg;
    struct ticket to = {x, m->from, m->from_life, m->number};
    (void)w;
    if (m->method >= NODE_METHOD_COUNT) {
        struct buf out CLEANUP(buf_close) = BUF_INIT;
        ask(x, m, &out);
        answer(&to, ERR_OK, NULL, buf_slice(&out));
    } else {
        struct ticket *t = mem_dup(&to, sizeof to);
        struct node_caller c = {.peer = m->from + 1, .cb = replied, .arg = t};
        node_request(x->node, m->method, slice_of(m->bytes, m->n), &c);
    }
    daemon_pass(x);
}

bool net_call(struct sim_node *x, uint64_t member, uint32_t number, const char *method,
              struct slice params)
{
    struct sim *w = x->w;
    struct sim_node *to = &w->node[member - 1];
    if (!x->linked[member - 1])
        return false;
    uint64_t at = arrival(x, to, true);
    if (sim_chance(w, w->loss / 4)) {
        lose_link(x, member - 1, net_delay(w));
        return true;
    }
    if (at == 0)
        return true; /* into a cut: nobody knows yet */
    if (sim_chance(w, w->late))
        at += sim_random(w, LATE_MS * MS); /* sent again and again below us, as TCP does */
    struct message *m = message_new(x, params);
    m->number = number;
    m->method = strcmp(method, WIRE_RAFT_CONFIRM) == 0    ? ASK_CONFIRM
                : strcmp(method, WIRE_STATE_COMPARE) == 0 ? ASK_COMPARE
                : strcmp(method, WIRE_PEER_RECALL) == 0   ? ASK_RECALL
                                                          : method_find(slice_str(method));
    ASSERT(m->method != METHOD_COUNT);
    sim_at(w, to, DAEMON, at - w->now_us, "call", on_call, m);
    return true;
}
