/* SPIN model of docs/ha-protocol.md: lease, sealing, the sync record and changes of the set, as agents that read
 * the store piece by piece and send transactions that arrive late or never. sync_model.c takes every step the
 * rules permit on one view; here a decision rests on registers that were filled at different times, so what it
 * shows is that the comparisons of the transactions suffice.
 *
 *   tests/model/run_spin       every run with what it must come to
 *
 * One commit waits for one acknowledgement (k = 1). A frozen agent is frozen with its fence: its PostgreSQL lives.
 * -DNO_SEALING        a position is published while the old primary still streams to it
 * -DNO_PUBLICATION    the record names a set that was not confirmed
 * -DNO_COMPARE        transactions compare nothing but the holder
 * -DCHANGES, -DFREEZES, -DWRITES   bounds: steps of set and record, agents frozen, commits
 *
 * Property: whoever was promoted last has every commit that was acknowledged to a client. */
#define N 3
#define NONE 7
#ifndef WRITES
#define WRITES 2
#endif
#ifndef FREEZES
#define FREEZES 1
#endif
#ifndef CHANGES
#define CHANGES 2
#endif
#define TOKENS 3
#define BIT(i) (1 << (i))
#define ONES(m) (((m) & 1) + (((m) >> 1) & 1) + (((m) >> 2) & 1))

/* ---- the store ---- */
byte leader = 0, token = 1, rev = 0;
byte owner = 0, V = 2, q = 1;     /* the record: its leader, who may be promoted, of how many seals */
byte seal[N], seal_at[N];         /* token of the loss, 0 none; the log that was published */

/* ---- one transaction under way for each node ---- */
mtype = { IDLE, SEAL, ACQUIRE, SYNC };
typedef Txn {
    mtype kind = IDLE;
    byte token, rev, v, q
};
Txn txn[N];

/* ---- PostgreSQL: logs are sets of commits, and prefixes of each other while one primary writes ---- */
byte has[N], src[N], set[N], walset[N];
bool prim[N], frozen[N];
byte top = 0, acked = 0, next = 0, freezes = 0, changes = 0;

/* ---- registers of the agents ---- */
byte r_token[N], r_v[N], r_q[N], r_rev[N], cut[N];
bool r_owner[N];
byte stage[N], mark[N]; /* of the set: 0 written, 1 every walsender has taken it, 2 and what was before is there */

inline forget(i)
{
    r_token[i] = 0; r_v[i] = 0; r_q[i] = 0; r_rev[i] = 0; r_owner[i] = false;
}

inline acknowledge(what)
{
    acked = acked | (what);
    assert((acked & ~has[top]) == 0)
}

inline send(i, what, t, r, vv, qq)
{
    txn[i].kind = what; txn[i].token = t; txn[i].rev = r; txn[i].v = vv; txn[i].q = qq
}

inline drop_txn(i)
{
    txn[i].kind = IDLE; txn[i].token = 0; txn[i].rev = 0; txn[i].v = 0; txn[i].q = 0
}

/* Of those in r_v with a seal of this loss that is not ahead of ours. */
#define COUNTS(i, j) ((r_v[i] & BIT(j)) && seal[j] == r_token[i] && seal_at[j] <= seal_at[i])
#define COUNTED(i) (COUNTS(i, 0) + COUNTS(i, 1) + COUNTS(i, 2))
#define TAKEN(i, j) (src[j] != i || walset[j] == set[i])
#define FLUSHED(i, j) (src[j] == i && (set[i] & BIT(j)) && (mark[i] & ~has[j]) == 0)
#define FREE(i) (!frozen[i] && txn[i].kind == IDLE)
#define LEADS(i) (leader == i && prim[i])

proctype agent(byte i)
{
    byte j;
    do
    /* There is no leader: the reads of a candidate, each at its own time. */
    :: atomic { FREE(i) && leader == NONE && !prim[i] && r_token[i] != token ->
        forget(i); r_token[i] = token }
    :: atomic { FREE(i) && r_token[i] != 0 && cut[i] != r_token[i] && !prim[i] ->
#ifndef NO_SEALING
        src[i] = NONE;
#endif
        cut[i] = r_token[i] }
    :: atomic { FREE(i) && r_token[i] != 0 && cut[i] == r_token[i] && seal[i] != r_token[i] ->
        send(i, SEAL, r_token[i], 0, has[i], 0) }
    :: atomic { FREE(i) && r_token[i] != 0 && !prim[i] && leader != i &&
        (r_rev[i] != rev || r_v[i] != V || r_q[i] != q) ->
        r_v[i] = V; r_q[i] = q; r_rev[i] = rev; r_owner[i] = (owner == i) }
    :: atomic { FREE(i) && r_token[i] != 0 && seal[i] == r_token[i] && (r_v[i] & BIT(i)) && leader == NONE &&
        COUNTED(i) >= r_q[i] && token < TOKENS -> send(i, ACQUIRE, r_token[i], r_rev[i], 0, 0) }
    :: atomic { FREE(i) && r_token[i] != 0 && r_owner[i] && cut[i] == r_token[i] && leader == NONE &&
        token < TOKENS -> send(i, ACQUIRE, r_token[i], r_rev[i], 1, 0) }

    /* The key is ours: promote; then the set, its confirmation, the record. */
    :: atomic { FREE(i) && leader == i && !prim[i] ->
        prim[i] = true; src[i] = NONE; set[i] = 0; stage[i] = 2; top = i; forget(i);
        assert((acked & ~has[i]) == 0) }
    :: atomic { FREE(i) && LEADS(i) && changes < CHANGES ->
        if /* a member is added, or taken out, or exchanged */
        :: j = 0
        :: j = 1
        :: j = 2
        fi;
        if
        :: j != i && !(set[i] & BIT(j)) && src[j] == i && (V == 0 || 1 + q > ONES(V | set[i] | BIT(j))) ->
            changes++; set[i] = set[i] | BIT(j); stage[i] = 0; mark[i] = 0
        :: j != i && (set[i] & BIT(j)) && (V == 0 || (set[i] != BIT(j) && 1 + q > ONES(V | (set[i] & ~BIT(j))))) ->
            changes++; set[i] = set[i] & ~BIT(j); mark[i] = 0;
            stage[i] = (set[i] == 0 -> 2 : 0)
        :: (V & BIT(j)) -> /* asks for as many seals as before */
            changes++; send(i, SYNC, token, rev, V & ~BIT(j), (V == BIT(j) -> 1 : q))
        :: else
        fi; j = 0 }
    :: atomic { FREE(i) && LEADS(i) && stage[i] == 0 && TAKEN(i, 0) && TAKEN(i, 1) && TAKEN(i, 2) ->
        stage[i] = 1; mark[i] = has[i] }
    :: atomic { FREE(i) && LEADS(i) && stage[i] == 1 && (FLUSHED(i, 0) || FLUSHED(i, 1) || FLUSHED(i, 2)) ->
        stage[i] = 2; mark[i] = 0 }
    :: atomic { FREE(i) && LEADS(i) && V != set[i] && set[i] != 0 &&
#ifndef NO_PUBLICATION
        stage[i] == 2 &&
#endif
        true -> send(i, SYNC, token, rev, set[i], ONES(set[i])) }

    /* Somebody else's: what went its own way is not followed while the record counts on it. */
    :: atomic { FREE(i) && leader != NONE && leader != i && prim[leader] && !prim[i] && src[i] != leader &&
        ((has[i] & ~has[leader]) == 0 || !(V & BIT(i))) ->
        if
        :: (has[i] & ~has[leader]) != 0 -> has[i] = has[leader]
        :: else
        fi;
        src[i] = leader; walset[i] = set[leader]; cut[i] = 0; forget(i) }
    od
}

#ifdef NO_COMPARE
#define UNCHANGED(i) true
#else
#define UNCHANGED(i) (token == txn[i].token && rev == txn[i].rev)
#endif

inline apply(i)
{
    if
    :: txn[i].kind == SEAL ->
        if
        :: leader == NONE && token == txn[i].token -> seal[i] = txn[i].token; seal_at[i] = txn[i].v
        :: else
        fi
    :: txn[i].kind == ACQUIRE ->
        if
        :: leader == NONE && UNCHANGED(i) -> leader = i; token++; owner = i; V = 0; q = 1; rev++;
            seal[0] = 0; seal[1] = 0; seal[2] = 0; seal_at[0] = 0; seal_at[1] = 0; seal_at[2] = 0
        :: else
        fi
    :: txn[i].kind == SYNC ->
        if
        :: leader == i && UNCHANGED(i) -> V = txn[i].v; q = txn[i].q; rev++
        :: else
        fi
    fi;
    drop_txn(i)
}

#define FOR_EACH_NODE if :: i = 0 :: i = 1 :: i = 2 fi

active proctype world()
{
    byte i;
    atomic {
        prim[0] = true; stage[0] = 2; set[0] = 2; src[0] = NONE;
#ifdef QUORUM
        set[0] = 6; V = 6; q = 2;
#endif
        walset[1] = set[0]; walset[2] = set[0];
        run agent(0); run agent(1); run agent(2)
    }
    do
    /* the store: a transaction arrives late, or never */
    :: atomic { FOR_EACH_NODE;
        if
        :: txn[i].kind != IDLE -> apply(i)
        :: txn[i].kind != IDLE -> drop_txn(i)
        :: else
        fi; i = 0 }
    /* PostgreSQL */
    :: atomic { FOR_EACH_NODE;
        if
        :: prim[i] && next < WRITES -> has[i] = has[i] | BIT(next); next++
        :: prim[i] && set[i] == 0 && (has[i] & ~acked) != 0 -> acknowledge(has[i])
        :: !prim[i] && src[i] != NONE && prim[src[i]] && has[i] != has[src[i]] -> has[i] = has[src[i]]
        :: !prim[i] && src[i] != NONE && prim[src[i]] && walset[i] != set[src[i]] -> walset[i] = set[src[i]]
        :: !prim[i] && src[i] != NONE && prim[src[i]] && (walset[i] & BIT(i)) && (has[i] & ~acked) != 0 ->
            acknowledge(has[i])
        :: else
        fi; i = 0 }
    /* agents freeze, with their fences; leases end */
    :: atomic { FOR_EACH_NODE;
        if
        :: !frozen[i] && freezes < FREEZES -> frozen[i] = true; freezes++
        :: frozen[i] && leader == i -> leader = NONE
        :: frozen[i] -> frozen[i] = false;
            if /* the deadline has passed, and the fence acts first */
            :: leader != i -> prim[i] = false; set[i] = 0; stage[i] = 0; mark[i] = 0; forget(i)
            :: else
            fi
        :: else
        fi; i = 0 }
    od
}
