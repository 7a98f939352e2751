/* The invariants: one leader per term, one vote per term, committed entries never lost or changed,
 * applied sequences equal prefixes. And the trace that a violation prints. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "dcs/raft_frame.h"
#include "tests/sim/raft_world.h"

uint64_t world_hash(uint64_t h, const void *p, size_t n)
{
    const uint8_t *b = p;
    h ^= 0xcbf29ce484222325U;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3U;
    return h;
}

uint64_t world_random(struct world *w, uint64_t n)
{
    return rng_below(&w->rng, n);
}

void world_note(struct world *w, const char *fmt, ...)
{
    char *line = w->trace[w->n_events++ % WORLD_TRACE];
    int used = snprintf(line, WORLD_LINE, "%8llu ", (unsigned long long)w->now_ms);
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(line + used, (size_t)(WORLD_LINE - used), fmt, args);
    va_end(args);
    w->hash = world_hash(w->hash, line, strlen(line));
    if (getenv("RAFT_WORLD_TRACE") != NULL)
        (void)fprintf(stderr, "%s\n", line);
}

/* One line of what a frame says. */
static void frame_text(const struct raft_frame *f, char *text, size_t size)
{
    switch (f->type) {
    case RAFT_FRAME_APPEND:
        (void)snprintf(text, size, "append %zu behind %llu^%llu, commit %llu", f->append.n,
                       (unsigned long long)f->append.prev_index,
                       (unsigned long long)f->append.prev_term,
                       (unsigned long long)f->append.commit);
        break;
    case RAFT_FRAME_APPEND_RESULT:
        (void)snprintf(text, size, "result rejected %llu last %llu",
                       (unsigned long long)f->append_result.rejected,
                       (unsigned long long)f->append_result.last_index);
        break;
    case RAFT_FRAME_VOTE:
        (void)snprintf(text, size, "%svote? %llu^%llu%s", f->vote.pre_vote ? "pre" : "",
                       (unsigned long long)f->vote.last_index,
                       (unsigned long long)f->vote.last_term,
                       f->vote.disrupt_leader ? " now" : "");
        break;
    case RAFT_FRAME_VOTE_RESULT:
        (void)snprintf(text, size, "%svote %s", f->vote_result.pre_vote ? "pre" : "",
                       f->vote_result.granted ? "granted" : "refused");
        break;
    case RAFT_FRAME_INSTALL:
        (void)snprintf(text, size, "install %llu^%llu", (unsigned long long)f->install.index,
                       (unsigned long long)f->install.term);
        break;
    case RAFT_FRAME_TIMEOUT_NOW:
        (void)snprintf(text, size, "timeout now");
        break;
    }
}

void world_note_frame(struct world *w, const struct world_frame *f)
{
    struct raft_frame frame;
    char text[100] = "unsound";
    if (raft_frame_decode(slice_of(f->bytes, f->n), &frame, NULL) == ERR_OK)
        frame_text(&frame, text, sizeof text);
    world_note(w, "%llu > %llu term %llu: %s", (unsigned long long)f->from,
               (unsigned long long)f->to, (unsigned long long)frame.term, text);
    raft_frame_close(&frame);
}

void world_print_trace(struct world *w)
{
    uint64_t first = w->n_events > WORLD_TRACE ? w->n_events - WORLD_TRACE : 0;
    for (uint64_t i = first; i < w->n_events; i++)
        (void)fprintf(stderr, "%s\n", w->trace[i % WORLD_TRACE]);
}

void world_violation(struct world *w, const char *fmt, ...)
{
    world_print_trace(w);
    (void)fprintf(stderr, "VIOLATION, seed %llu, %llu ms: ", (unsigned long long)w->o.seed,
                  (unsigned long long)w->now_ms);
    va_list args;
    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args);
    va_end(args);
    (void)fprintf(stderr, "\n");
    abort();
}

static const struct world_entry *entry_at(const struct world_disk *d, uint64_t index)
{
    return index >= d->first && index < d->first + d->n ? &d->entries[index - d->first] : NULL;
}

static uint64_t entry_hash(uint64_t term, enum raft_entry_type type, struct slice data)
{
    uint64_t h = world_hash(0, &term, sizeof term);
    uint64_t t = type;
    h = world_hash(h, &t, sizeof t);
    return world_hash(h, data.p, data.n) | 1;
}

/* A leader has every entry that was committed in an earlier term. One whose last vote comes late, when a later
 * term has its leader already, need not have what that one has committed. */
void world_check_role(struct world_node *n, enum raft_core_state state, uint64_t term)
{
    struct world *w = n->world;
    if (state != RAFT_CORE_LEADER)
        return;
    if (term >= WORLD_TERMS_MAX)
        world_violation(w, "term %llu: too many elections", (unsigned long long)term);
    if (w->leader_of[term] != 0 && w->leader_of[term] != n->id)
        world_violation(w, "%llu and %llu lead term %llu",
                        (unsigned long long)w->leader_of[term], (unsigned long long)n->id,
                        (unsigned long long)term);
    w->leader_of[term] = n->id;
    for (uint64_t i = 1; i <= w->model_last; i++) {
        const struct world_entry *e = entry_at(&n->log, i);
        bool in_snapshot = n->log.has_snapshot && i <= n->log.snapshot.index;
        if (w->model[i].term != 0 && w->model[i].in_term < term &&
            (e == NULL ? !in_snapshot : e->term != w->model[i].term))
            world_violation(w,
                            "leader %llu of term %llu lacks committed entry %llu of term %llu",
                            (unsigned long long)n->id, (unsigned long long)term,
                            (unsigned long long)i, (unsigned long long)w->model[i].term);
    }
}

/* Everything up to the commit index is what the model says, of every type. */
void world_check_commit(struct world_node *n)
{
    struct world *w = n->world;
    uint64_t commit = raft_core_commit_index(n->core);
    ASSERT(commit < WORLD_INDEX_MAX);
    for (uint64_t i = MAX(n->log.first, n->checked + 1); i <= commit; i++) {
        const struct world_entry *e = entry_at(&n->log, i);
        if (e == NULL)
            return; /* an install is under way */
        uint64_t h = entry_hash(e->term, e->type, slice_of(e->data, e->n));
        if (w->model[i].hash != 0 && w->model[i].hash != h)
            world_violation(w, "%llu has another committed entry %llu (term %llu, was %llu)",
                            (unsigned long long)n->id, (unsigned long long)i,
                            (unsigned long long)e->term, (unsigned long long)w->model[i].term);
        if (w->model[i].hash == 0)
            w->model[i].in_term = raft_core_term(n->core);
        w->model[i].hash = h;
        w->model[i].term = e->term;
        w->model_last = MAX(w->model_last, i);
        n->checked = i;
    }
}

void world_check_apply(struct world_node *n, uint64_t index, uint64_t term, struct slice data)
{
    struct world *w = n->world;
    ASSERT(index < WORLD_INDEX_MAX);
    if (index <= n->state.index)
        return; /* replay: the state has it */
    uint64_t h = entry_hash(term, RAFT_ENTRY_COMMAND, data);
    n->state.chain = world_hash(n->state.chain, &h, sizeof h);
    n->state.index = index;
    if (w->model[index].command && w->model[index].chain != n->state.chain)
        world_violation(w, "%llu applied another history up to %llu", (unsigned long long)n->id,
                        (unsigned long long)index);
    w->model[index].command = true;
    w->model[index].chain = n->state.chain;
    world_note(w, "%llu applies %llu", (unsigned long long)n->id, (unsigned long long)index);
}

/* A granted vote of byte 1 = 4 (see raft_frame.h): at most one candidate a term. */
void world_check_vote(struct world *w, uint64_t from, uint64_t to, struct slice frame)
{
    if (frame.n != 11 || frame.p[1] != 4 || frame.p[10] != 2)
        return;
    uint64_t term = 0;
    for (size_t i = 2; i < 10; i++)
        term = term << 8 | frame.p[i];
    ASSERT(term < WORLD_TERMS_MAX);
    if (w->nodes[from].disk.term < term || w->nodes[from].disk.vote != to)
        if (w->nodes[from].disk.term <= term)
            world_violation(w, "%llu votes for %llu in term %llu before it is stored",
                            (unsigned long long)from, (unsigned long long)to,
                            (unsigned long long)term);
    uint64_t *vote = &w->vote_of[term][from];
    if (*vote != 0 && *vote != to)
        world_violation(w, "%llu votes for %llu and %llu in term %llu",
                        (unsigned long long)from, (unsigned long long)*vote,
                        (unsigned long long)to, (unsigned long long)term);
    *vote = to;
}
