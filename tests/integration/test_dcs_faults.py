"""Members of the store that are killed, paused, cut off, or put back to an old copy.

REGENT_HEAVY=1: more kills."""
import contextlib
import os
import random
import shutil
import signal
import tempfile
import time

import pytest

from dcs_attack import HEAVY, NEEDED, Wire, applied, fill, in_file, keys_of, rss_mib, settle, text
from dcs_lab import PATIENCE_S, DcsError, Lab, Node, wait_for
from netns import Net, why_not
from realtime import Metronome

pytestmark = NEEDED


# ---- kills under load ----------------------------------------------------------------------------


def content(node):
    """What has to be equal on all members; of a node that has stopped."""
    import sqlite3
    with contextlib.closing(sqlite3.connect(node.dir / "state.db")) as db:
        tables = {t: db.execute(f"SELECT * FROM {t} ORDER BY 1, 2").fetchall()
                  for t in ("kv", "event", "lease", "result", "token", "member")}
        tables["session"] = db.execute("SELECT id, nonce, last_seq FROM session ORDER BY 1").fetchall()
        tables["store"] = db.execute("SELECT revision, compacted FROM store").fetchall()
        return tables


def test_kills_of_random_members_lose_nothing_and_leave_equal_states(lab):
    rng = random.Random(os.environ.get("REGENT_SEED") or time.time_ns())
    cycles = 60 if HEAVY else 12
    loads = [lab.load(f"s-{i}-", 8) for i in range(2)]
    revisions = {}
    for cycle in range(cycles):
        victims = rng.sample(lab.nodes, 1 if cycle % 4 else 2)
        for node in victims:
            node.kill()
        time.sleep(rng.random() * 0.3)
        for node in victims:
            node.start(wait=False)
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            for node in lab.nodes:
                with contextlib.suppress(OSError, DcsError), contextlib.closing(Wire(node)) as wire:
                    revision = wire("cluster.status").get("revision", 0)
                    if node not in victims:
                        assert revision >= revisions.get(node, 0)
                    revisions[node] = revision
            time.sleep(0.05)
    for load in loads:
        load.wait_for_more()
        load.end()
    have = set(keys_of(lab.client(), "s-"))
    assert all(load.acknowledged() <= have for load in loads)
    settle(lab)
    for node in lab.nodes:
        node.kill(signal.SIGTERM)
    # Stopping moves leadership: what a member did not hear of is what its log brings at the next start.
    for node in lab.nodes:
        node.start(wait=False)
    lab.leader()
    settle(lab)
    lab.any().call("kv.put", key="last", value="1")
    settle(lab)
    for node in lab.nodes:
        wait_for("its state is on the disk", lambda n=node: in_file(n, "revision") == n.status()["revision"])
    for node in lab.nodes:
        node.kill()
    first, *others = [content(n) for n in lab.nodes]
    for other in others:
        for table, rows in first.items():
            assert rows == other[table], table


# ---- pauses and cut networks ---------------------------------------------------------------------


def write(node, key, value):
    return node.call("kv.put", key=key, value=value)


def test_a_leader_that_was_paused_serves_no_stale_read(lab):
    for turn in range(6 if HEAVY else 2):
        old = lab.leader()
        write(old, "turn", f"old {turn}")
        with contextlib.closing(Wire(old)) as client:
            old.signal(signal.SIGSTOP)
            fresh = lab.leader(besides=old)
            term = fresh.status()["term"]
            write(fresh, "turn", f"new {turn}")
            # Lies in its socket when it wakes up, before anything that tells of the other leader.
            reads = [client.send("kv.range", key="turn", deadline_ms=4000) for _ in range(20)]
            old.signal(signal.SIGCONT)
            for msgid in reads:
                with contextlib.suppress(DcsError):
                    assert text(client.answer(msgid)["kvs"][0]["value"]) == f"new {turn}"
        wait_for("it has caught up", lambda: (s := old.status())["leader_id"] and s["term"] >= term)


def test_a_lease_ends_on_time_although_the_leader_is_paused_and_comes_back(lab):
    ttl_s = 6
    time.sleep(ttl_s)  # the rule holds once the next leader has been up for a TTL
    old = lab.leader()
    watcher = next(n for n in lab.nodes if n is not old)
    began = time.monotonic()
    lease = watcher.call("lease.grant", ttl_ms=ttl_s * 1000, nonce=3)["id"]
    granted = time.monotonic()
    watcher.call("kv.put", key="mine", value="1", lease=lease)
    time.sleep(max(0, granted + ttl_s / 2 - time.monotonic()))
    old.signal(signal.SIGSTOP)
    lab.leader(besides=old)
    leads = time.monotonic()
    wait_for("it is gone", lambda: watcher.call("kv.range", key="mine")["count"] == 0)
    ended = time.monotonic()
    old.signal(signal.SIGCONT)
    assert ended - began >= ttl_s - 0.1
    assert ended - leads < ttl_s - 1, "the next leader does not begin to count anew"
    settle(lab)
    for node in lab.nodes:
        assert node.call("kv.range", key="mine", local=True)["count"] == 0


class NetNode(Node):
    """A node in a network namespace of its own."""

    def __init__(self, lab, number):
        super().__init__(lab, number)
        self.host = lab.net.add()
        self.address = f"{self.host.address}:7400"
        self.prefix = ["ip", "netns", "exec", self.host.namespace]


class NetLab(Lab):
    node_class = NetNode

    def __init__(self, root, nodes=3, timing=()):
        self.net = Net("rgdcs", subnet="10.99.0")
        try:
            super().__init__(root, nodes, timing)
        except BaseException:
            self.net.close()
            raise

    def close(self):
        super().close()
        self.net.close()


@contextlib.contextmanager
def net_lab(*timing):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with contextlib.closing(NetLab(tempfile.mkdtemp(prefix="dcs.", dir="/tmp"), timing=timing)) as lab:
        yield lab


def has(node, value):
    return text(node.call("kv.range", key="turn", local=True)["kvs"][0]["value"]) == value


def test_an_isolated_leader_is_replaced_and_returns_within_a_second_twice():
    with net_lab() as net:
        for turn in range(2):
            old = net.leader()
            write(old, "turn", f"old {turn}")
            wait_for("it has it itself", lambda old=old, turn=turn: has(old, f"old {turn}"))
            old.host.cut()
            fresh = net.leader(besides=old)
            write(fresh, "turn", f"new {turn}")
            with contextlib.closing(Wire(old)) as client:
                with pytest.raises(DcsError) as refused:
                    client("kv.range", key="turn", deadline_ms=1500)
                assert refused.value.name in ("unavailable", "timeout")
            assert has(old, f"old {turn}")
            with Metronome(disk=True) as metronome:
                old.host.heal()
                began = time.monotonic()
                wait_for("it has what was written", lambda old=old, turn=turn: has(old, f"new {turn}"))
                healed_s = time.monotonic() - began
            assert healed_s < 1.5 or metronome.worst_ms() > 100
            assert write(old, "turn", "back")


def test_loss_in_one_direction_does_not_depose_a_healthy_leader():
    """With a longer election timeout than usual: a machine that stands still for a moment deposes nobody either."""
    with net_lab("--election", "3000") as net:
        leader = net.leader()
        term = leader.status()["term"]
        deaf = net.followers()[0]
        for by, to in ((deaf, leader), (leader, deaf)):
            by.host.deaf_to(to.host)
            end = time.monotonic() + 7
            with contextlib.closing(leader.client()) as client:
                while time.monotonic() < end:
                    client("kv.put", key="x", value="1")
            by.host.hear_all()
            target = leader.status()["applied_index"]
            wait_for("it has caught up", lambda target=target: applied(deaf) >= target)
        assert leader.status()["term"] == term


def test_a_slow_follower_costs_the_leader_bounded_memory_and_nobody_else_anything(lab):
    leader, slow = lab.leader(), lab.followers()[0]
    before = rss_mib(leader)
    slow.signal(signal.SIGSTOP)
    with contextlib.closing(leader.client()) as client:
        for i in range(80):
            client("kv.put", key=f"f{i % 3}", value=f"{i:04}" * 100000)
    grown = rss_mib(leader) - before
    slow.signal(signal.SIGCONT)
    assert grown < 150, f"{grown} MiB"
    settle(lab)


# ---- a directory put back to an old copy ---------------------------------------------------------


def copy_store(node, to):
    """What a snapshot of its machine would have of the store."""
    shutil.copytree(node.dir, to, ignore=shutil.ignore_patterns("regent.sock", "lock"))


def put_back(node, copy):
    shutil.rmtree(node.dir)
    shutil.copytree(copy, node.dir)


def has_left(node):
    wait_for("it has left", lambda: node.seen().get("trouble") == "quarantined")
    said = node.status()["trouble_text"]
    assert "older than what it has said" in said and f"member remove {node.name}" in said


def wait_until_it_said_so(lab, node):
    """The leader has heard that it has stored all there is: what it shows may be of entries that it is about to store."""
    target = lab.leader().status()["commit_index"]
    wait_for("it has said that it has them", lambda: next(
        m["match_index"] for m in lab.leader().call("member.list")["members"] if m["name"] == node.name) >= target)


def write_some(lab, besides, prefix):
    with contextlib.closing(lab.client([n for n in lab.nodes if n is not besides])) as client:
        fill(client, 100, prefix)


def test_a_member_put_back_to_an_old_copy_leaves_and_is_not_counted(lab):
    """Copied while it ran, as a machine's snapshot is. Its log and state fit together: only the others can tell."""
    node = lab.followers()[0]
    copy = lab.root / "copy"
    write_some(lab, node, "a-")
    node.kill()
    copy_store(node, copy)
    node.start()
    write_some(lab, node, "b-")
    wait_until_it_said_so(lab, node)
    node.kill()
    put_back(node, copy)
    node.start(wait=False)
    has_left(node)
    write_some(lab, node, "c-")  # the others go on, and nobody counts it
    wait_for("others show it", lambda: next(m["state"] for m in lab.leader(besides=node).call("member.list")["members"]
                                            if m["name"] == node.name) == "quarantined")
    node.kill(signal.SIGTERM)
    node.start(wait=False)
    assert node.process.wait(PATIENCE_S) == 1 and "is quarantined" in node.log().splitlines()[-1]
    lab.leader().call("member.remove", name=node.name)
    write_some(lab, node, "d-")


def test_what_a_member_said_outlives_those_who_heard_it(lab):
    """The leader that heard the acknowledgements is stopped and started before the old copy comes."""
    node = lab.followers()[0]
    copy = lab.root / "copy"
    node.kill()
    copy_store(node, copy)
    node.start()
    write_some(lab, node, "a-")
    wait_until_it_said_so(lab, node)
    others = [n for n in lab.nodes if n is not node]
    for n in lab.nodes:
        n.kill(signal.SIGTERM)
    put_back(node, copy)
    for n in (*others, node):
        n.start(wait=False)
    has_left(node)
    write_some(lab, node, "b-")
