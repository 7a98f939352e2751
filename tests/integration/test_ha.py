"""Three nodes, one fails, PostgreSQL goes on: real daemons, fences and PostgreSQL.

One cluster serves the whole file; every test begins and ends with three healthy nodes. What must never happen (an
acknowledged row lost, two primaries) is exact; how long something takes is allowed more on a busy machine.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

pytest.importorskip("psycopg2")

from cluster import Cluster, PG_BIN, alive, as_user, build_dir, wait_until  # noqa: E402
from load import TABLE_SQL, Prober, Writer, two_primaries_s  # noqa: E402
from realtime import DISTURBED_MS, Metronome  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
]
TTL_S = 8
ADOPTION_TTL_S = 15


STEPS = 30  # of a failover, one behind the other: each may have to wait for the processor or the disk


def limit(seconds):
    """What a quiet machine keeps; a busy one gets up to three times as much, and one that stood still what that costs."""
    stood_still_s = STEPS * Shared.metronome.worst_ms() / 1000
    return seconds * min(3.0, max(1.0, os.getloadavg()[0] / os.cpu_count())) + stood_still_s


def assert_ended(postmaster):
    """In time, that is by now; a machine that stood still may be late. (Writes are another matter: two_primaries_s.)"""
    if Shared.metronome.worst_ms() < DISTURBED_MS:
        assert not alive(postmaster), "the old PostgreSQL outlived its lease"
    else:
        wait_until(lambda: not alive(postmaster), "the old PostgreSQL ends")


class Shared:
    """The cluster of this file, made anew after a test that left it broken."""
    cluster = None
    metronome = None

    @classmethod
    def get(cls):
        if cls.cluster is None:
            # Autovacuum commits whenever it likes: tests count transactions.
            cls.cluster = Cluster(sync=True, ttl=TTL_S, sets=["bootstrap.dcs.postgresql.parameters.autovacuum=off"])
            cls.cluster.form()
            cls.cluster.primary().sql(TABLE_SQL)
        return cls.cluster

    @classmethod
    def drop(cls):
        if cls.cluster is not None:
            cls.cluster.close()
            cls.cluster = None


@pytest.fixture(scope="module", autouse=True)
def no_cluster_stays():
    yield
    Shared.drop()


@pytest.fixture(autouse=True)
def in_time():
    with Metronome(disk=True) as Shared.metronome:
        yield


@pytest.fixture(name="c")
def cluster_fixture(request):
    try:
        cluster = Shared.get()
        begun = {n: n.log.stat().st_size for n in cluster.nodes}
        failures = request.session.testsfailed
        yield cluster
        if request.session.testsfailed == failures:
            cluster.wait_healthy()
            return
    except BaseException:
        if Shared.cluster is not None:
            print(Shared.cluster.report())
        Shared.drop()
        raise
    for node, size in begun.items():
        with open(node.log, "rb") as log:
            log.seek(size)
            print(f"---- {node}: {sorted(node.processes().values())}\n{log.read()[-12000:].decode(errors='replace')}")
    Shared.drop()


@contextlib.contextmanager
def load(c, writers=1):
    """Clients during a test: a writer through every node, and a prober at each; what they saw is checked at the end."""
    nodes = c.nodes
    c.primary().sql("TRUNCATE acked, probed")
    w = Writer(nodes)
    probers = [Prober(n) for n in nodes]
    for t in [w, *probers]:
        t.start()
    w.probers = probers
    try:
        wait_until(lambda: len(w.acked) > 20, "clients write")
        yield w
    finally:
        w.stop()
        for p in probers:
            p.stop()
    assert two_primaries_s(probers) <= 0, "two primaries acknowledged at the same time"


def rows(node):
    return {r[0] for r in node.sql("SELECT id FROM acked")}


def assert_nothing_lost(c, w):
    """Everything acknowledged is on every node, and all nodes have the same rows."""
    target = c.primary().value("SELECT pg_current_wal_flush_lsn()")
    for n in c.standbys():
        wait_until(lambda n=n: n.value("SELECT pg_last_wal_replay_lsn() >= %s", target), f"{n} has replayed")
    sets = {n: rows(n) for n in c.nodes}
    for n, found in sets.items():
        assert w.ids() <= found, f"{n} lost acknowledged rows: {sorted(w.ids() - found)[:20]}"
    assert len({frozenset(s) for s in sets.values()}) == 1, "the nodes have different rows"


def writes_again(w, since, what, deadline_s=60):
    wait_until(lambda: w.acked_after(since), f"{what}: commits are acknowledged again", deadline_s)


def codes(node, method="GET"):
    return {path: node.rest(path, method)[0] for path in ("/primary", "/leader", "/replica", "/health", "/liveness", "/readiness", "/patroni", "/cluster")}


PRIMARY_CODES = {"/primary": 200, "/leader": 200, "/replica": 503, "/health": 200, "/liveness": 200, "/readiness": 200,
                 "/patroni": 200, "/cluster": 200}
REPLICA_CODES = {**PRIMARY_CODES, "/primary": 503, "/leader": 503, "/replica": 200}


def assert_roles(c):
    """What REST, the list and PostgreSQL say about every node is one and the same."""
    leader = c.primary()
    for n in c.nodes:
        wanted = PRIMARY_CODES if n is leader else REPLICA_CODES
        wait_until(lambda n=n, wanted=wanted: codes(n) == wanted, f"{n}: codes {wanted}, not {codes(n)}")
        assert n.sql("SELECT pg_is_in_recovery()") == [(n is not leader,)]
    listed = {m["Member"]: m["Role"] for m in c.members()}
    assert [name for name, role in listed.items() if role == "Leader"] == [leader.name]


# ---- a healthy cluster ----


def test_three_nodes_form_a_cluster_and_a_row_is_on_all(c):
    leader = c.primary()
    wait_until(lambda: len(c.streaming(leader)) == 2, "both stream")
    leader.sql("INSERT INTO acked VALUES (-1)")
    for n in c.standbys():
        wait_until(lambda n=n: n.try_sql("SELECT id FROM acked WHERE id = -1") == [(-1,)], f"the row is on {n}")
        with pytest.raises(Exception, match="read-only"):
            n.sql("INSERT INTO acked VALUES (-2)")
    assert leader.value("SHOW data_checksums") == "on"
    wait_until(lambda: sorted(m["Role"] for m in c.members()) == ["Leader", "Replica", "Sync Standby"], "one of each role")

    def agree():
        """One may be a step ahead of the other."""
        recorded = c.record("sync")["v"]
        return recorded and recorded[0] in leader.sql("SHOW synchronous_standby_names")[0][0]
    wait_until(agree, "PostgreSQL waits for whom the record names")


def test_rest_answers_by_role_in_every_method(c):
    assert_roles(c)
    for n in c.nodes:
        for path, code in (PRIMARY_CODES if n is c.primary() else REPLICA_CODES).items():
            for method in ("HEAD", "OPTIONS"):
                assert n.answer(path, method) == (code, ""), (method, path)
        assert n.answer("/nothing-here")[0] == 404
        me = json.loads(n.answer("/patroni")[1])
        assert me["role"] == ("primary" if n is c.primary() else "replica")
        assert me["state"] == "running"
    cluster = json.loads(c.nodes[0].answer("/cluster")[1])
    assert {m["name"] for m in cluster["members"]} == {"n1", "n2", "n3"}
    assert [m["name"] for m in cluster["members"] if m["role"] == "leader"] == [c.primary().name]


def test_a_copy_of_the_state_shows_sqlite_the_same_keys(c):
    node = c.nodes[0]
    kept = c.dir / "copy"
    def same():
        """The copy is of a moment; keys that come and go (journal) are given another one."""
        listed = {kv["key"] for kv in json.loads(node.ctl("-f", "json", "dcs", "get", "--prefix", "").stdout)}
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for name in ("state.db", "state.db-wal"):
            if (node.dir / name).exists():
                shutil.copy(node.dir / name, kept / name)
        try:
            with contextlib.closing(sqlite3.connect(kept / "state.db")) as db:
                found = {row[0] for row in db.execute("SELECT key FROM keys")}
        except sqlite3.DatabaseError:  # a checkpoint between the two files
            return False
        assert {"/regent/ha/leader", "/regent/ha/members/n1", "/regent/ha/sync"} <= listed
        return found == listed
    wait_until(same, "the same keys")
    shutil.rmtree(kept)


def test_a_journal_larger_than_a_message_hides_no_record(c):
    """It lies between the records in the order of keys: a node that starts must read on behind it."""
    names = [f"/regent/ha/journal/{i:020d}-test" for i in range(20)]
    try:
        for name in names:
            c.nodes[0].ctl("dcs", "put", name, "x" * 100_000)
        listed = {kv["key"] for kv in json.loads(c.nodes[0].ctl("-f", "json", "dcs", "get", "--prefix", "").stdout)}
        assert {*names, "/regent/ha/config", "/regent/ha/sync"} <= listed
        primary, standby = c.primary(), c.standbys()[0]
        standby.kill()
        standby.start()
        c.wait_healthy()
        with c.lease_of(30):
            postmaster = primary.postmaster()
            primary.signal("regentd", signal.SIGKILL)
            primary.reap()
            primary.start()
            c.wait_healthy()
            assert (c.primary(), primary.postmaster()) == (primary, postmaster)
    finally:
        for name in names:
            c.nodes[0].ctl("dcs", "del", name, check=False)


# ---- a node fails ----


def test_a_killed_node_is_replaced_and_comes_back_by_itself(c):
    with load(c) as w:
        old = c.primary()
        at = time.monotonic()
        old.kill()
        new = c.new_leader(old)
        took = time.monotonic() - at
        assert took < limit(TTL_S + 1), f"a new leader after {took:.2f} s"
        writes_again(w, at + took, "after the failover")
        others = [n for n in c.nodes if n is not old]
        c.wait_healthy(nodes=others)
        back = time.monotonic()
        old.start()
        c.wait_healthy()
        assert c.primary() is new
        gap, begun = w.gap(since=back)
        assert gap < limit(0.5), f"a second gap of {gap:.2f} s, {begun - back:.2f} s after the return"
    assert w.gap(until=back)[0] < limit(TTL_S + 0.5)
    assert_nothing_lost(c, w)
    assert_roles(c)


def test_a_killed_postmaster_hands_over_at_once(c):
    with load(c) as w:
        old = c.primary()
        at = time.monotonic()
        old.signal("postmaster", signal.SIGKILL)
        new = c.new_leader(old)
        writes_again(w, time.monotonic(), "after the failover")
        c.wait_healthy()
        assert c.primary() is new
    assert w.gap(since=at)[0] < limit(1.0)
    assert_nothing_lost(c, w)


def test_switchovers_go_both_ways(c):
    with load(c) as w:
        for _ in range(2):
            old = c.primary()
            sync = c.sync_standby()
            at = time.monotonic()
            done = old.ctl("switchover", "--leader", old.name, "--candidate", sync.name)
            assert f'over to "{sync.name}"' in done.stdout
            writes_again(w, time.monotonic(), "after the switchover")
            assert c.primary() is sync
            c.wait_healthy()
            assert w.gap(since=at)[0] < limit(1.0)
            assert_roles(c)
    assert_nothing_lost(c, w)
    refused = c.nodes[0].ctl("switchover", "--candidate", c.primary().name, check=False)
    assert refused.returncode == 4 and "already" in refused.stderr


# ---- the daemon ----


def test_a_primary_that_is_told_to_stop_hands_over_first(c):
    with load(c) as w:
        old = c.primary()
        at = time.monotonic()
        old.signal("regentd", signal.SIGTERM)
        new = c.new_leader(old)
        writes_again(w, time.monotonic(), "after the hand-over")
        wait_until(lambda: not old.processes(), f"{old} has stopped, PostgreSQL with it")
        assert old.process.wait(60) == 0
        assert w.gap(since=at)[0] < limit(1.0)
        old.start()
        c.wait_healthy()
        assert c.primary() is new
    assert_nothing_lost(c, w)


def adopted(c, w, node, postmaster, at):
    wait_until(lambda: node.rest("/primary")[0] == 200, f"{node} leads again")
    c.wait_healthy()
    # Longer than a lease: what was adopted stays.
    wait_until(lambda: w.acked_after(at + ADOPTION_TTL_S + 1), "the writer goes on")
    assert node.postmaster() == postmaster
    assert c.primary() is node
    assert w.gap(since=at)[0] < limit(0.5)


def test_a_restarted_daemon_adopts_postgresql(c):
    with c.lease_of(ADOPTION_TTL_S), load(c) as w:
        node = c.primary()
        postmaster = node.postmaster()
        at = time.monotonic()
        node.signal("regentd", signal.SIGUSR2)
        wait_until(lambda: node.log_lines("SIGUSR2"), "the restart is announced")
        node.signal("regentd", signal.SIGTERM)
        assert node.process.wait(60) == 0
        node.start()
        adopted(c, w, node, postmaster, at)
    assert_nothing_lost(c, w)


def test_a_killed_daemon_that_is_restarted_adopts_postgresql(c):
    with c.lease_of(ADOPTION_TTL_S), load(c) as w:
        node = c.primary()
        postmaster = node.postmaster()
        at = time.monotonic()
        node.signal("regentd", signal.SIGKILL)
        node.reap()
        node.start()
        adopted(c, w, node, postmaster, at)
    assert_nothing_lost(c, w)


def test_a_standby_streams_on_while_its_daemon_is_restarted(c):
    node = c.standbys()[0]
    receiver = "SELECT pid FROM pg_stat_wal_receiver WHERE status = 'streaming'"

    def reloads():
        return sum("received SIGHUP" in line for line in node.postgres_log())
    before, reloaded = wait_until(lambda: node.value(receiver), f"{node} streams"), reloads()
    node.signal("regentd", signal.SIGKILL)
    node.reap()
    node.start()
    wait_until(lambda: reloads() > reloaded, "the new daemon has written the files")
    c.wait_healthy()
    assert node.value(receiver) == before


def test_a_killed_daemon_that_stays_down_takes_postgresql_along(c):
    with c.lease_of(ADOPTION_TTL_S):
        pass  # a moment ago the fence was told a deadline that is longer than the lease is now
    with load(c) as w:
        old = c.primary()
        postmaster = old.postmaster()
        at = time.monotonic()
        old.signal("regentd", signal.SIGKILL)
        new = c.new_leader(old)
        assert_ended(postmaster)
        writes_again(w, time.monotonic(), "after the failover")
        assert w.gap(since=at)[0] < limit(TTL_S + 0.5)
        old.reap()
        old.start()
        c.wait_healthy()
        assert c.primary() is new
    assert_nothing_lost(c, w)


def test_a_frozen_daemon_takes_postgresql_along(c):
    with load(c) as w:
        old = c.primary()
        postmaster = old.postmaster()
        at = time.monotonic()
        daemon = old.signal("regentd", signal.SIGSTOP)
        try:
            new = c.new_leader(old)
            assert_ended(postmaster)
            writes_again(w, time.monotonic(), "after the failover")
            wait_until(lambda: w.acked_after(at + 15), "15 s have passed")
        finally:
            os.kill(daemon, signal.SIGCONT)
        assert w.gap(since=at)[0] < limit(TTL_S + 0.5)
        c.wait_healthy()
        assert c.primary() is new
    assert_nothing_lost(c, w)


def test_with_daemon_and_fence_frozen_nothing_more_is_acknowledged(c):
    """PostgreSQL lives on without a guard: the sealed synchronous standby acknowledges nothing to it."""
    with load(c) as w:
        old = c.primary()
        postmaster = old.postmaster()
        at = time.monotonic()
        frozen = []

        def guards():
            """The fence forks a guard of its own: whatever goes by that name."""
            return [pid for pid, line in old.processes().items() if "regent-fence" in line and pid not in frozen]
        try:
            pids = [old.pid_of("regentd"), *guards()]
            while pids:  # all at once: nobody has the time to kill anything; then those that were made meanwhile
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
                frozen += pids
                pids = guards()
            new = c.new_leader(old)
            seen = time.monotonic()
            wait_until(lambda: w.acked_after(seen, new.name), "the new primary acknowledges")
            wait_until(lambda: w.acked_after(at + 10), "10 s have passed")
            assert alive(postmaster), "nobody was there to kill it: that is what this test is about"
        finally:
            for pid in frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        c.wait_healthy()
        assert c.primary() is new
    assert_nothing_lost(c, w)


# ---- standbys ----


def test_without_standbys_the_primary_goes_on_alone_and_takes_them_back(c):
    """Their PostgreSQL dies and, with the worker frozen as by a hung disk, is not started again."""
    with load(c) as w:
        primary = c.primary()
        standbys = c.standbys()
        frozen = []
        at = time.monotonic()
        try:
            for n in standbys:
                frozen.append(n.signal("worker", signal.SIGSTOP))
                n.signal("postmaster", signal.SIGKILL)
            wait_until(lambda: c.record("sync")["v"] == [], "the record names nobody any more")
            writes_again(w, time.monotonic(), "alone")
            assert c.primary() is primary
            assert w.gap(since=at)[0] < limit(3.0)
        finally:
            for pid in frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        c.wait_healthy()
        assert c.primary() is primary
        wait_until(lambda: c.record("sync")["v"] != [], "a synchronous standby is back")
    assert_nothing_lost(c, w)


@contextlib.contextmanager
def asynchronous(c):
    c.nodes[0].ctl("edit-config", "-s", "synchronous_mode=off")
    c.sync = False
    try:
        wait_until(lambda: c.primary().value("SHOW synchronous_standby_names") == "", "asynchronous")
        wait_until(lambda: c.record("sync")["mode"] == "off", "the record says so")
        yield
    finally:
        c.nodes[0].ctl("edit-config", "-s", "synchronous_mode=on", check=False)
        c.sync = True


def test_an_asynchronous_primary_whose_postmaster_is_killed_restarts_in_place(c):
    with asynchronous(c), load(c) as w:
        node = c.primary()
        before, postmaster = node.value("SELECT pg_walfile_name(pg_current_wal_lsn())")[:8], node.postmaster()
        at = time.monotonic()
        node.signal("postmaster", signal.SIGKILL)
        wait_until(lambda: node.postmaster() not in (None, postmaster), "a new postmaster")
        writes_again(w, time.monotonic(), "after the restart")
        assert w.gap(since=at)[0] < limit(2.0)
        c.wait_healthy()
        assert c.primary() is node
        assert node.value("SELECT pg_walfile_name(pg_current_wal_lsn())")[:8] == before
    c.wait_healthy()
    assert_nothing_lost(c, w)


def diverge(c):
    """The primary dies with rows that no standby has got; another one leads. The old one stays down."""
    old = c.primary()
    def senders():
        found = [pid for pid, line in old.processes().items() if "walsender" in line]
        return found if len(found) == 2 else None
    for pid in wait_until(senders, f"both stream from {old}"):
        os.kill(pid, signal.SIGSTOP)
    old.sql("INSERT INTO acked SELECT generate_series(-2000, -1001)")
    old.kill()
    new = c.new_leader(old)
    wait_until(lambda: new.try_sql("INSERT INTO acked VALUES (-3000)") is not None or new.value("SELECT 1 FROM acked WHERE id = -3000"),
               "the new primary takes writes")
    return old, new


def assert_rejoined(c, old, new):
    c.wait_healthy()
    assert c.primary() is new
    target = new.value("SELECT pg_current_wal_flush_lsn()")
    wait_until(lambda: old.value("SELECT pg_last_wal_replay_lsn() >= %s", target), f"{old} has replayed")
    assert rows(old) == rows(new)
    assert -3000 in rows(old) and -1500 not in rows(old)


def test_a_diverged_primary_is_rewound(c):
    with asynchronous(c):
        c.primary().sql("TRUNCATE acked")
        old, new = diverge(c)
        old.start()
        assert_rejoined(c, old, new)
        assert old.log_lines("event=action_done action=rewind")
        told = old.log_lines("event=put_aside.*1 transaction.s. from .* that nobody else has")
        kept = pathlib.Path(re.search(r"kept in ([^ \"]+)", told[-1]).group(1))
        assert list(kept.glob("0*")) and (kept / "transactions.txt").read_text(encoding="utf-8").count("COMMIT") == 1
        wait_until(lambda: str(kept) in new.ctl("explain", "-n", "200").stdout, "the journal tells it")
    c.wait_healthy()


@pytest.mark.parametrize("policy", [False, True], ids=["moved aside", "deleted"])
def test_where_the_rewind_fails_the_data_is_cloned_anew_and_the_old_is(c, policy):
    c.nodes[0].ctl("edit-config", "-s", f"postgresql.remove_data_directory_on_rewind_failure={json.dumps(policy)}")
    with asynchronous(c):
        c.primary().sql("TRUNCATE acked")
        old, new = diverge(c)
        clones = len(old.log_lines("event=action_done action=clone"))
        for wal in (old.pgdata / "pg_wal").glob("0*"):
            wal.unlink()
        (old.pgdata / "mark_of_the_test").touch()
        old.start()
        assert_rejoined(c, old, new)
        assert len(old.log_lines("event=action_done action=clone")) == clones + 1
        aside = [p for p in old.dir.rglob("mark_of_the_test") if old.pgdata not in p.parents]
        assert bool(aside) != policy, aside
        for mark in aside:
            mark.unlink()
    c.wait_healthy()


# ---- a node whose state lies ----

LIE = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    changed = db.execute("UPDATE kv SET value = CAST(replace(CAST(value AS TEXT), ?, ?) AS BLOB) WHERE key = CAST(? AS BLOB)", sys.argv[2:5])
    assert changed.rowcount == 1
"""


def lie(c, node, key, true, false):
    """Of a node whose daemon is down: one row of its state.db says something else, and all sums fit."""
    tool = c.bin / "dcs_node"
    if not tool.exists():
        shutil.copy2(build_dir() / "dcs_node", tool)
        tool.chmod(0o755)
    subprocess.run([*as_user(), sys.executable, "-c", LIE, str(node.dir / "state.db"), true, false, key], check=True, cwd="/")
    subprocess.run(node.command("dcs_node", "reseal", "--dir", str(node.dir), "--name", node.name, "--listen", node.dcs_address()),
                   check=True, cwd="/")


def assert_quarantined(node):
    """It says so, with the remedy, and its agent serves nothing."""
    wait_until(lambda: node.log_lines("event=quarantined"), f"{node} is quarantined")
    assert f"member remove {node.name}" in node.log_lines("event=quarantined")[-1]
    wait_until(lambda: node.rest("/primary")[0] == 503 and node.rest("/replica")[0] == 503, f"{node} serves nothing")
    done = node.ctl("dcs", "put", "x", "1", check=False)
    assert done.returncode != 0 and "quarantined" in done.stderr, done


def replace(c, node):
    """As docs/recovery.md says."""
    node.kill()
    other = next(n for n in c.nodes if n is not node)
    other.ctl("member", "remove", node.name)
    token = wait_until(lambda: other.ctl("token", "create", check=False).stdout.strip(), "a token")
    aside = c.dir / f"aside-{node.name}-{time.monotonic_ns()}"
    node.dir.rename(aside)
    node.setup(token=token, first=other.dcs_address())
    node.start()
    c.wait_healthy()
    shutil.rmtree(aside)


def test_a_node_whose_state_differs_does_not_lead_and_is_replaced(c):
    with load(c) as w:
        primary, liar = c.primary(), c.standbys()[0]
        primary.ctl("dcs", "put", "x", "true")
        liar.signal("regentd", signal.SIGKILL)
        liar.reap()
        lie(c, liar, "/regent/ha/leader", f'"{primary.name}"', f'"{liar.name}"')
        liar.start()
        assert_quarantined(liar)
        assert c.primary() is primary
        writes_again(w, time.monotonic(), "while a standby is quarantined")
        replace(c, liar)
        assert c.primary() is primary

        primary.signal("regentd", signal.SIGKILL)
        primary.reap()
        lie(c, primary, "x", "true", "false")
        at = time.monotonic()
        primary.start()
        assert_quarantined(primary)
        c.new_leader(primary)
        assert primary.postmaster() is None or primary.value("SELECT pg_is_in_recovery()") in (True, None)
        writes_again(w, at, "after the quarantine of the primary")
        replace(c, primary)
    assert_nothing_lost(c, w)
