/* Explicit-state checker of the protocol in docs/ha-protocol.md: lease, sealing, delayed transactions, the
 * sync record, set changes, hand-over, wiped data. Breadth first, so a violation comes with a shortest
 * schedule. The policy is every step that the rules permit, not only those decide() would take.
 *
 *   sync_model on|quorum [WITHOUT...]      exit 0 clean, 1 VIOLATED, 2 usage or bound
 *
 * WITHOUT names a MUST that is taken out; tests/model/run shows that each is needed.
 *
 * Property: whoever was promoted last has every commit acknowledged to a client. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 3, WRITES = 2, TOKENS = 2, NO = 7, BOUND = 24000000 };
enum { TABLE = 1 << 26 };

static const char *const must_names[] = {
    "sealing", "reload", "flush",       "rule", "seals",    "empty",  "own",
    "record",  "token",  "incarnation", "lsn",  "advanced", "quorum", NULL};
enum must {
    SEALING,     /* a sealed standby is cut off from the old primary */
    RELOAD,      /* (a) a new set counts only when every walsender has taken it */
    FLUSH,       /* (b) and k of its members have what was written before */
    RULE,        /* k + q > |V u S| */
    SEALS,       /* an acquisition compares the loss it was planned for */
    EMPTY,       /* with V empty only the record's leader may lead */
    OWN,         /* without seals only the record's own leader may resume, not any former one */
    RECORD,      /* the winner empties V before it promotes */
    TOKEN,       /* a change of the record compares the leader token */
    INCARNATION, /* V and S name data, not nodes */
    LSN,         /* a hand-over goes to one that has everything */
    ADVANCED,    /* the most advanced of the sealed */
    QUORUM       /* of at least q of them */
};
static bool without[13];
static bool quorum;

struct set {
    uint8_t k, s, e; /* e: members whose data is still the one that was named */
};

struct state {
    uint8_t has[N];      /* commits in the log */
    uint8_t src[N];      /* whom it streams from */
    uint8_t pub[N];      /* token + 1 of its published seal */
    uint8_t want[N];     /* token + 1 of an acquisition under way */
    struct set set, old; /* of the newest primary; old: what some walsender still goes by */
    struct set stale;    /* of an older primary that lives on frozen */
    uint8_t prim, frozen, was, gone; /* gone: in V, but its data is no more */
    uint8_t leader, phase, token;    /* phase 1: acquired, not promoted */
    uint8_t own, v, q;               /* the record */
    uint8_t top;                     /* promoted last */
    uint8_t lag, stage, before; /* old in force; 0 (a) missing, 1 (b) missing, 2 confirmed */
    uint8_t rec, rec_token, rec_v, rec_q; /* change of the record under way: by rec, NO: none */
    uint8_t acked, next, freezes, wipes;
};

static struct state *states;
static uint32_t *parents, *table;
static const char **labels;
static uint8_t *actors;
static uint32_t states_n, current;

static int ones(unsigned x)
{
    return __builtin_popcount(x);
}

static bool in(unsigned set, int i)
{
    return set >> i & 1;
}

static bool rule(struct set s, unsigned v, unsigned q)
{
    return v == 0 || without[RULE] || s.k + (int)q > ones(s.s | v);
}

static void print_schedule(uint32_t at)
{
    static uint32_t path[400];
    int n = 0;
    for (; at != UINT32_MAX && n < 400; at = parents[at])
        path[n++] = at;
    while (n-- > 0) {
        const struct state *s = &states[path[n]];
        printf("  %-44s n%u | log %x %x %x primary %x leader %c token %u | V %x q %u own n%u | "
               "S %x k %u%s | acked %x\n",
               labels[path[n]], actors[path[n]] + 1U, s->has[0], s->has[1], s->has[2], s->prim,
               s->leader == NO ? '-' : (char)('1' + s->leader), s->token, s->v, s->q,
               s->own + 1U, s->set.s, s->set.k, s->stage == 2 ? "" : "?", s->acked);
    }
}

/* Forgets what can have no effect any more, so that fewer states differ. */
static void normalize(struct state *s)
{
    for (int i = 0; i < N; i++) {
        if (s->pub[i] != s->token + 1 || s->leader != NO)
            s->pub[i] = 0;
        if (!without[SEALS] && s->want[i] != s->token + 1)
            s->want[i] = 0; /* will be refused */
    }
    if (!without[TOKEN] && s->rec != NO && (s->leader != s->rec || s->token != s->rec_token)) {
        s->rec = NO; /* will be refused */
        s->rec_token = s->rec_v = s->rec_q = 0;
        s->gone &= s->v;
    }
    if (!without[OWN])
        s->was = 0;
}

static void add(const struct state *from, const char *label, int actor)
{
    struct state copy = *from;
    const struct state *s = &copy;
    normalize(&copy);
    const uint8_t *p = (const uint8_t *)s;
    uint64_t h = 1469598103934665603ULL;
    for (size_t i = 0; i < sizeof *s; i++)
        h = (h ^ p[i]) * 1099511628211ULL;
    size_t at = (h ^ h >> 31) & (TABLE - 1);
    for (; table[at] != UINT32_MAX; at = (at + 1) & (TABLE - 1))
        if (memcmp(&states[table[at]], s, sizeof *s) == 0)
            return;
    if (states_n == BOUND) {
        printf("bound of %d states reached, nothing found\n", BOUND);
        exit(2);
    }
    table[at] = states_n;
    states[states_n] = *s;
    parents[states_n] = current;
    labels[states_n] = label;
    actors[states_n++] = (uint8_t)actor;
    if (in(s->prim, s->top) && (s->acked & ~s->has[s->top])) {
        printf(
            "VIOLATED after %u states: an acknowledged commit is not on the newest primary\n",
            states_n);
        print_schedule(states_n - 1);
        exit(1);
    }
}

/* ---- PostgreSQL: goes on whatever its agent does ---- */

static bool released_by(const struct state *s, int i, struct set set, int w)
{
    int n = 0;
    for (int j = 0; j < N; j++)
        n += in(set.e, j) && s->src[j] == i && in(s->has[j], w);
    return n >= set.k;
}

static void acknowledge(struct state *s)
{
    for (int i = 0; i < N; i++)
        for (int w = 0; in(s->prim, i) && w < s->next; w++) {
            if (!in(s->has[i], w))
                continue;
            bool ok = i == s->top ? released_by(s, i, s->set, w) ||
                                        (s->lag && released_by(s, i, s->old, w))
                                  : released_by(s, i, s->stale, w);
            if (ok)
                s->acked |= (uint8_t)(1 << w);
        }
}

static void postgres(const struct state *b)
{
    for (int i = 0; i < N; i++) {
        struct state s = *b;
        if (in(s.prim, i) && s.next < WRITES) {
            s.has[i] |= (uint8_t)(1 << s.next++);
            acknowledge(&s);
            add(&s, "a client writes", i);
        }
        s = *b;
        if (!in(s.prim, i) && s.src[i] != NO && in(s.prim, s.src[i]) &&
            (s.has[s.src[i]] & ~s.has[i])) {
            s.has[i] |= s.has[s.src[i]];
            acknowledge(&s);
            add(&s, "streams", i);
        }
    }
    struct state s = *b;
    if (s.lag) {
        s.lag = 0;
        memset(&s.old, 0, sizeof s.old);
        add(&s, "the last walsender takes the new set", s.top);
    }
}

/* ---- faults ---- */

static void die(struct state *s, int i)
{
    s->prim &= (uint8_t) ~(1 << i);
    if (i != s->top) {
        memset(&s->stale, 0, sizeof s->stale);
        return;
    }
    memset(&s->set, 0, sizeof s->set);
    memset(&s->old, 0, sizeof s->old);
    s->lag = s->stage = s->before = 0;
}

static void faults(const struct state *b)
{
    for (int i = 0; i < N; i++) {
        struct state s = *b;
        if (!in(s.frozen, i) && s.freezes + s.wipes == 0) {
            s.frozen |= (uint8_t)(1 << i);
            s.freezes++;
            add(&s, "agent and fence frozen, PostgreSQL lives", i);
        }
        s = *b;
        if (in(s.frozen, i)) {
            s.frozen &= (uint8_t) ~(1 << i);
            if (in(s.prim, i) && (s.leader != i || s.phase == 1))
                die(&s, i);
            add(&s, "thawed: sees another token, kills", i);
        }
        s = *b;
        bool may_wipe = s.freezes + s.wipes == 0 && !in(s.prim, i) && s.leader != NO &&
                        s.leader != i && s.own != i;
        if (may_wipe) {
            s.wipes++;
            s.has[i] = 0;
            s.src[i] = NO;
            s.pub[i] = 0;
            if (!without[INCARNATION]) {
                s.set.e &= (uint8_t) ~(1 << i);
                s.old.e &= (uint8_t) ~(1 << i);
                s.stale.e &= (uint8_t) ~(1 << i);
                s.gone |= (uint8_t)((s.v | s.rec_v) & 1 << i);
            }
            add(&s, "data directory lost", i);
        }
    }
    struct state s = *b;
    if (s.leader != NO && s.token < TOKENS) {
        int i = s.leader;
        if (!in(s.frozen, i))
            die(&s, i);
        s.leader = NO;
        s.phase = 0;
        add(&s, "leader key expires", i);
    }
}

/* ---- agents ---- */

static unsigned sealed_v(const struct state *s)
{
    unsigned m = 0;
    for (int j = 0; j < N; j++)
        if (in(s->v, j) && !in(s->gone, j) && s->pub[j] == s->token + 1)
            m |= 1U << j;
    return m;
}

static bool eligible(const struct state *s, int i)
{
    if (s->own == i || (without[OWN] && in(s->was, i)))
        return true;
    if (s->v == 0)
        return without[EMPTY] && s->pub[i] == s->token + 1;
    unsigned m = sealed_v(s);
    int counted = 0;
    if (!in(m, i))
        return false;
    for (int j = 0; j < N; j++)
        counted += in(m, j) && (without[ADVANCED] || (s->has[j] & ~s->has[i]) == 0);
    return counted >= (without[QUORUM] ? 1 : s->q);
}

static void lead(struct state *s, int i)
{
    s->leader = (uint8_t)i;
    s->phase = 1;
    s->token++;
    s->own = (uint8_t)i;
    s->src[i] = NO;
    if (!without[RECORD]) {
        s->v = s->gone = 0;
        s->q = 1;
    } else {
        s->v &= (uint8_t) ~(1 << i);
    }
}

static void without_leader(const struct state *b, int i)
{
    struct state s = *b;
    if (!in(s.prim, i) && !in(s.frozen, i) && s.pub[i] != s.token + 1) {
        s.pub[i] = (uint8_t)(s.token + 1);
        if (!without[SEALING])
            s.src[i] = NO;
        add(&s, "seals", i);
    }
    s = *b;
    if (!in(s.prim, i) && !in(s.frozen, i) && s.want[i] == 0 && eligible(&s, i)) {
        s.want[i] = (uint8_t)(s.token + 1);
        add(&s, "sends its acquisition", i);
    }
    s = *b;
    if (s.want[i] != 0 && !in(s.prim, i)) {
        bool ok = without[SEALS] || s.want[i] == s.token + 1;
        s.want[i] = 0;
        if (ok)
            lead(&s, i);
        add(&s, ok ? "acquires" : "acquisition refused", i);
    }
}

static void promote(const struct state *b, int i)
{
    struct state s = *b;
    if (s.leader != i || s.phase != 1 || in(s.frozen, i) || in(s.prim, i))
        return;
    if (in(s.prim, s.top))               /* the old one lives on, frozen */
        s.stale = s.lag ? s.old : s.set; /* what it goes by; both would only acknowledge less */
    if (in(s.prim, s.top) && s.lag && s.set.k < s.old.k)
        s.stale = s.set;
    s.phase = 0;
    s.prim |= (uint8_t)(1 << i);
    s.was |= (uint8_t)(1 << i);
    s.top = (uint8_t)i;
    memset(&s.set, 0, sizeof s.set);
    memset(&s.old, 0, sizeof s.old);
    s.lag = s.stage = s.before = 0;
    acknowledge(&s);
    add(&s, "PROMOTED", i);
}

static void follow(const struct state *b, int i)
{
    struct state s = *b;
    int up = s.leader;
    if (up == NO || up == i || s.phase == 1 || !in(s.prim, up) || in(s.prim, i) ||
        in(s.frozen, i) || s.src[i] == up)
        return;
    bool rewinds = (s.has[i] & ~s.has[up]) != 0;
    if (rewinds && in(s.v, i) && !in(s.gone, i))
        return; /* out of the record first: what this costs otherwise is INCARNATION's case */
    s.has[i] &= s.has[up];
    s.src[i] = (uint8_t)up;
    s.want[i] = 0;
    add(&s, rewinds ? "rewinds and follows" : "follows", i);
}

static void change_set(const struct state *b, int i)
{
    if (b->lag || b->rec != NO)
        return;
    for (unsigned m = 0; m < 1U << N; m++)
        for (int k = m != 0; k <= ones(m); k++) {
            struct state s = *b;
            struct set want = {(uint8_t)k, (uint8_t)m, (uint8_t)m};
            if (k > 0 && k != (quorum ? 1 : ones(m)))
                continue;
            if (in(m, i) || (m & s.gone) || (m == s.set.s && k == s.set.k && s.set.e == m) ||
                !rule(want, s.v, s.q))
                continue;
            s.old = s.set;
            s.lag = 1;
            s.stage = 0;
            s.before = 0;
            s.set = want;
            acknowledge(&s);
            add(&s, "changes the set", i);
        }
}

static void confirm(const struct state *b, int i)
{
    struct state s = *b;
    if (s.stage == 0 && (!s.lag || without[RELOAD])) {
        s.stage = 1;
        s.before = s.has[i];
        add(&s, "every walsender has taken the set", i);
        return;
    }
    int n = 0;
    for (int j = 0; j < N; j++)
        n += in(s.set.e, j) && s.src[j] == i && (s.before & ~s.has[j]) == 0;
    if (s.stage == 1 && (n >= s.set.k || without[FLUSH])) {
        s.stage = 2;
        s.before = 0;
        add(&s, "the set is confirmed", i);
    }
}

static void change_record(const struct state *b, int i)
{
    if (b->rec != NO)
        return;
    for (unsigned v = 0; v < 1U << N; v++)
        for (int q = 1; q <= (v == 0 || !quorum ? 1 : ones(v)); q++) {
            struct state s = *b;
            bool shrinks = s.v != 0 && (v & ~s.v) == 0 && q >= s.q;
            bool held =
                s.stage == 2 && rule(s.set, v, (unsigned)q) && (v & s.set.s & ~s.set.e) == 0;
            if (in(v, i) || (v == s.v && q == s.q) || (v & s.gone & ~s.v) ||
                !(v == 0 || shrinks || held))
                continue;
            s.rec = (uint8_t)i;
            s.rec_token = s.token;
            s.rec_v = (uint8_t)v;
            s.rec_q = (uint8_t)q;
            add(&s, "sends a change of the record", i);
        }
}

static void land_record(const struct state *b)
{
    struct state s = *b;
    if (s.rec == NO)
        return;
    int by = s.rec;
    bool ok = without[TOKEN] || (s.leader == by && s.token == s.rec_token);
    if (ok) {
        s.v = s.rec_v;
        s.q = s.rec_q;
    }
    s.gone &= s.v;
    s.rec = NO;
    s.rec_token = s.rec_v = s.rec_q = 0;
    add(&s, ok ? "the record changes" : "change of the record refused", by);
}

static void hand_over(const struct state *b, int i)
{
    for (int j = 0; j < N; j++) {
        struct state s = *b;
        bool has_all = (s.has[i] & ~s.has[j]) == 0;
        if (j == i || s.src[j] != i || in(s.prim, j) || s.token == TOKENS || s.rec != NO ||
            !(has_all || without[LSN]))
            continue;
        die(&s, i);
        lead(&s, j);
        add(&s, "stops and hands over to the next", i);
    }
}

static void agents(const struct state *b)
{
    land_record(b);
    for (int i = 0; i < N; i++) {
        if (b->leader == NO)
            without_leader(b, i);
        promote(b, i);
        follow(b, i);
        if (b->leader != i || !in(b->prim, i) || in(b->frozen, i) || b->phase != 0)
            continue;
        change_set(b, i);
        confirm(b, i);
        change_record(b, i);
        hand_over(b, i);
    }
}

static bool options(int argc, char **argv, struct state *s)
{
    if (argc < 2)
        return false;
    quorum = strcmp(argv[1], "quorum") == 0;
    if (!quorum && strcmp(argv[1], "on") != 0)
        return false;
    s->v = s->set.s = s->set.e = quorum ? 6 : 2;
    s->set.k = 1;
    s->q = quorum ? 2 : 1;
    for (int a = 2; a < argc; a++) {
        int m = 0;
        while (must_names[m] != NULL && strcmp(must_names[m], argv[a]) != 0)
            m++;
        if (must_names[m] == NULL)
            return false;
        without[m] = true;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct state s;
    memset(&s, 0, sizeof s);
    s.src[0] = NO;
    s.prim = s.was = 1;
    s.stage = 2;
    s.rec = NO;
    if (!options(argc, argv, &s)) {
        fprintf(stderr, "usage: sync_model on|quorum [MUST taken out...]\n");
        return 2;
    }
    states = calloc(BOUND, sizeof *states);
    parents = calloc(BOUND, sizeof *parents);
    labels = calloc(BOUND, sizeof *labels);
    actors = calloc(BOUND, sizeof *actors);
    table = malloc(TABLE * sizeof *table);
    if (states == NULL || parents == NULL || labels == NULL || actors == NULL || table == NULL)
        return 2;
    memset(table, 0xff, TABLE * sizeof *table);
    current = UINT32_MAX;
    add(&s, "begin", 0);
    for (current = 0; current < states_n; current++) {
        struct state b = states[current];
        postgres(&b);
        faults(&b);
        agents(&b);
    }
    printf("clean: %u states\n", states_n);
    return 0;
}
