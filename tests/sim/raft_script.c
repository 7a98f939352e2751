#include "tests/sim/raft_script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/str.h"

struct line {
    struct world *w;
    char text[128];
    char *word[4];
    size_t n;
};

static NORETURN void wrong(const struct line *l, const char *why)
{
    world_print_trace(l->w);
    (void)fprintf(stderr, "script: \"%s\" at %llu ms: %s\n", l->text,
                  (unsigned long long)l->w->now_ms, why);
    abort();
}

static void expect(const struct line *l, bool ok, const char *why)
{
    if (!ok)
        wrong(l, why);
}

static uint64_t number(const struct line *l, size_t i)
{
    uint64_t v = 0;
    if (i >= l->n || str_parse_u64(l->word[i], &v) != ERR_OK)
        wrong(l, "a number is missing");
    return v;
}

static struct world_node *node(const struct line *l, size_t i)
{
    uint64_t id = number(l, i);
    expect(l, id >= 1 && id <= l->w->n_nodes, "no such node");
    return &l->w->nodes[id];
}

static struct raft_core *core(const struct line *l, size_t i)
{
    struct world_node *n = node(l, i);
    expect(l, n->up, "the node is down");
    return n->core;
}

bool raft_script_agreed(struct world *w)
{
    struct world_node *l = world_leader(w);
    if (l == NULL || raft_core_commit_index(l->core) != raft_core_last_index(l->core) ||
        raft_core_change_pending(l->core))
        return false;
    const struct raft_membership *m = raft_core_membership(l->core);
    for (size_t i = 0; i < m->n; i++) {
        struct world_node *n = &w->nodes[m->servers[i].id];
        if (n->up && (raft_core_stored_index(n->core) != raft_core_last_index(l->core) ||
                      raft_core_applied_index(n->core) != raft_core_last_index(l->core) ||
                      n->state.chain != l->state.chain))
            return false;
    }
    return true;
}

static bool agreed(struct world *w, void *arg)
{
    (void)arg;
    return raft_script_agreed(w);
}

static bool leads(struct world *w, void *arg)
{
    struct world_node *l = world_leader(w);
    return l != NULL && (arg == NULL || l == arg) &&
           raft_core_commit_index(l->core) >= raft_core_term_start(l->core);
}

static void lead(const struct line *l)
{
    struct world_node *n = node(l, 1);
    for (int i = 0; i < 10 && !leads(l->w, n); i++) {
        expect(l, world_until(l->w, leads, NULL, 20000), "nobody leads");
        world_run(l->w, 500);
        if (!leads(l->w, n) && leads(l->w, NULL))
            world_transfer(l->w, world_leader(l->w)->id, n->id);
        (void)world_until(l->w, leads, n, 2000);
    }
    expect(l, leads(l->w, n), "it does not lead");
}

static void put(const struct line *l, bool accepted)
{
    uint64_t index;
    enum err r =
        world_submit(l->w, number(l, 1), slice_str(l->n > 2 ? l->word[2] : ""), &index);
    expect(l, (r == ERR_OK) == accepted, err_name(r));
}

static void flood(const struct line *l)
{
    for (uint64_t i = number(l, 2); i > 0; i--) {
        uint64_t index;
        enum err r = world_submit(l->w, number(l, 1), slice_of(&i, sizeof i), &index);
        expect(l, r == ERR_OK, err_name(r));
        world_run(l->w, 1);
    }
}

static void change(const struct line *l, size_t at, bool allowed)
{
    struct world_node *leader = world_leader(l->w);
    expect(l, leader != NULL, "nobody leads");
    bool remove = strcmp(l->word[at], "remove") == 0;
    enum raft_role role =
        strcmp(l->word[at], "voter") == 0 ? RAFT_ROLE_VOTER : RAFT_ROLE_LEARNER;
    enum err r = world_change(l->w, leader->id, number(l, at + 1), role, remove);
    expect(l, (r == ERR_OK) == allowed, err_name(r));
}

static void check_leader(const struct line *l)
{
    struct world_node *leader = world_leader(l->w);
    if (strcmp(l->word[1], "none") == 0)
        expect(l, leader == NULL, "somebody leads");
    else
        expect(l, leader != NULL && leader->id == number(l, 1), "it does not lead");
}

static bool play_network(const struct line *l, const char *verb)
{
    if (strcmp(verb, "cut") == 0)
        world_cut(l->w, number(l, 1), number(l, 2), true);
    else if (strcmp(verb, "isolate") == 0)
        world_isolate(l->w, number(l, 1), true);
    else if (strcmp(verb, "reach") == 0)
        world_isolate(l->w, number(l, 1), false);
    else if (strcmp(verb, "heal") == 0)
        world_heal(l->w);
    else if (strcmp(verb, "transfer") == 0)
        world_transfer(l->w, number(l, 1), number(l, 2));
    else
        return false;
    return true;
}

static bool play_node(const struct line *l, const char *verb)
{
    if (strcmp(verb, "crash") == 0)
        world_stop(l->w, number(l, 1), true);
    else if (strcmp(verb, "stop") == 0)
        world_stop(l->w, number(l, 1), false);
    else if (strcmp(verb, "start") == 0)
        world_start(l->w, number(l, 1));
    else if (strcmp(verb, "join") == 0)
        (void)world_join(l->w);
    else if (strcmp(verb, "keep") == 0)
        world_disk_keep(node(l, 1));
    else if (strcmp(verb, "roll") == 0)
        world_disk_roll_back(node(l, 1));
    else if (strcmp(verb, "hold") == 0)
        node(l, 1)->disk_held = true;
    else if (strcmp(verb, "release") == 0)
        world_disk_release(l->w, number(l, 1));
    else
        return false;
    return true;
}

static bool play_request(const struct line *l, const char *verb)
{
    if (strcmp(verb, "put") == 0)
        put(l, true);
    else if (strcmp(verb, "refuse") == 0)
        put(l, false);
    else if (strcmp(verb, "flood") == 0)
        flood(l);
    else if (strcmp(verb, "denied") == 0)
        change(l, 1, false);
    else if (strcmp(verb, "learner") == 0 || strcmp(verb, "voter") == 0 ||
             strcmp(verb, "remove") == 0)
        change(l, 0, true);
    else
        return false;
    return true;
}

static bool play_check(const struct line *l, const char *verb)
{
    if (strcmp(verb, "leader") == 0)
        check_leader(l);
    else if (strcmp(verb, "members") == 0)
        expect(l, raft_core_membership(core(l, 1))->n == number(l, 2),
               "another number of members");
    else if (strcmp(verb, "committed") == 0)
        expect(l, raft_core_commit_index(core(l, 1)) == number(l, 2), "another commit index");
    else if (strcmp(verb, "stored") == 0)
        expect(l, raft_core_stored_index(core(l, 1)) == number(l, 2), "another stored index");
    else if (strcmp(verb, "restored") == 0)
        expect(l, node(l, 1)->restores == number(l, 2), "another number of snapshots");
    else if (strcmp(verb, "out") == 0)
        expect(l, node(l, 1)->out, "it was not told what it forgot");
    else if (strcmp(verb, "agree") == 0)
        expect(l, world_until(l->w, agreed, NULL, 10000), "no agreement");
    else
        return false;
    return true;
}

static void play(struct line *l)
{
    char copy[sizeof l->text];
    memcpy(copy, l->text, sizeof copy);
    char *rest = copy;
    for (char *word; l->n < ARRAY_LEN(l->word) && (word = strtok_r(rest, " ", &rest)) != NULL;)
        l->word[l->n++] = word;
    if (l->n == 0)
        return;
    const char *verb = l->word[0];
    world_note(l->w, "-- %s", l->text);
    if (strcmp(verb, "run") == 0)
        world_run(l->w, number(l, 1));
    else if (strcmp(verb, "lead") == 0)
        lead(l);
    else if (!play_node(l, verb) && !play_network(l, verb) && !play_request(l, verb) &&
             !play_check(l, verb))
        wrong(l, "no such command");
}

void raft_script(struct world *w, const char *text)
{
    while (*text != '\0') {
        struct line l = {.w = w};
        size_t n = strcspn(text, "\n");
        size_t used = MIN(strcspn(text, "#\n"), n);
        ASSERT(used < sizeof l.text);
        memcpy(l.text, text, used);
        play(&l);
        text += n + (text[n] == '\n');
    }
}

struct world *raft_script_world(uint64_t voters, uint64_t snapshot_every)
{
    struct world_options o;
    world_options_default(&o);
    o.snapshot_every = o.trailing = snapshot_every;
    struct world *w = world_new(&o, voters);
    for (uint64_t id = 1; id <= voters; id++)
        world_start(w, id);
    return w;
}

void raft_script_play(uint64_t voters, const char *text)
{
    struct world *w = raft_script_world(voters, 8192);
    raft_script(w, text);
    world_free(w);
}
