"""What an operator does to the store: regentctl against real members."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import tempfile
import threading
import time

import pytest

from dcs_lab import Client, DcsError, Lab, Node, build_dir, free_port, wait_for

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "dcs_node").exists(), reason="dcs_node is not built"),
    pytest.mark.skipif(not (build_dir() / "regentctl").exists(), reason="regentctl is not built"),
]


@pytest.fixture(name="lab")
def lab_fixture():
    lab = Lab(tempfile.mkdtemp(prefix="adm.", dir="/tmp"))
    yield lab
    lab.close()


@pytest.fixture(name="one")
def one_fixture():
    lab = Lab(tempfile.mkdtemp(prefix="adm.", dir="/tmp"), nodes=1)
    yield lab
    lab.close()


def ctl(node, *words, code=0):
    """regentctl over TLS, asking this node; its standard output."""
    pki = node.dir / "pki"
    env = {**os.environ, "REGENT_CACERT": str(pki / "ca.crt"), "REGENT_CERT": str(pki / "node.crt"),
           "REGENT_KEY": str(pki / "node.key")}
    done = subprocess.run([build_dir() / "regentctl", "-H", node.address, *[str(w) for w in words]], env=env,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


# ---- upgrades ----

def test_nobody_meets_what_his_program_does_not_know(lab):
    """dcs_node_next is built as the next version: it has entries and a state that this version does not know."""
    if not (build_dir() / "dcs_node_next").exists():
        pytest.skip("dcs_node_next is not built")

    def restart(node, program):
        node.kill(signal.SIGTERM)
        node.program = program
        node.start()

    def schema(node):
        with contextlib.closing(sqlite3.connect(f"file:{node.dir}/state.db?mode=ro", uri=True)) as db:
            return db.execute("PRAGMA user_version").fetchone()[0]

    def put(key):
        lab.any().call("kv.put", key=key, value="1")

    last = lab.leader()
    others = [n for n in lab.nodes if n is not last]
    first_schema = schema(last)
    for node in others:
        restart(node, "dcs_node_next")
        put(node.name)
    # The next version leads, and one member is still of this one.
    restart(last, "dcs_node")
    wait_for("a leader of the next version", lambda: lab.leader().program == "dcs_node_next")
    for i in range(100):
        put(f"k{i}")
    leader = lab.leader()
    wait_for("all are linked", lambda: all(m["reachable"] for m in leader.call("member.list")["members"]))
    assert {m["name"]: m["version"] for m in leader.call("member.list")["members"]} == {n.name: 2 if n in others else 1 for n in lab.nodes}
    assert all((n.status()["version"], schema(n)) == (1, first_schema) for n in lab.nodes)
    assert [n.status()["program_version"] for n in others] == [2, 2]
    # Back is possible for as long as one is of this version.
    restart(others[0], "dcs_node")
    put("back")
    restart(others[0], "dcs_node_next")
    waits = lab.register(via=others[1])  # it has a certificate, and will be started too late
    restart(last, "dcs_node_next")
    wait_for("the cluster is at the next version", lambda: all(n.status()["version"] == 2 for n in lab.nodes))
    put("next")
    wait_for("its state is the next version's", lambda: {schema(n) for n in lab.nodes} == {first_schema + 1})
    # Neither back nor in with the old program, and it says what to do.
    last.kill(signal.SIGTERM)
    last.program = "dcs_node"
    last.start(wait=False)
    assert last.process.wait(60) != 0
    assert "upgrade" in last.log() or "newer" in last.log(), last.log()
    waits.start(wait=False)
    wait_for("it is refused", lambda: "this cluster is at version 2, and the program of n4 knows 1: upgrade regent there" in waits.log())
    waits.kill()
    for node, program in ((waits, "dcs_node_next"), (last, "dcs_node_next")):
        node.program = program
        node.start()
    lab.nodes.append(waits)
    wait_for("it is in", lambda: {m["name"]: m["state"] for m in lab.leader().call("member.list")["members"]}.get("n4") == "active")
    put("all")
    ctl(lab.nodes[0], "dcs", "hash")  # the same state everywhere


# ---- history ----

def test_a_put_keeps_what_it_is_told_to_ignore(one):
    node = one.nodes[0]
    assert "does not exist" in ctl(node, "dcs", "put", "a", "--ignore-value", code=1)
    lease = ctl(node, "dcs", "lease", "grant", "60").split()[0]
    ctl(node, "dcs", "put", "a", "1", "--lease", lease)
    ctl(node, "dcs", "put", "a", "2", "--ignore-lease")
    ctl(node, "dcs", "put", "a", "--ignore-value", "--ignore-lease")
    kv = node.call("kv.range", key="a")["kvs"][0]
    assert kv["value"] == "2" and str(kv["lease"]) == lease
    ctl(node, "dcs", "put", "a", "--ignore-value")
    assert node.call("kv.range", key="a")["kvs"][0].get("lease", 0) == 0
    assert "KEY alone" in ctl(node, "dcs", "put", "a", "3", "--ignore-value", code=2)
    assert ctl(node, "dcs", "put", "b", "1", "--prev-kv") == "OK\n"
    assert ctl(node, "dcs", "put", "b", "3", "--prev-kv") == "OK\nb\n1\n"
    assert "one is enough" in ctl(node, "dcs", "del", "a", "c", "--from-key", code=2)
    assert ctl(node, "dcs", "del", "a", "--from-key", "--prev-kv") == "2\na\n2\nb\n3\n"


def test_a_range_of_the_past_and_its_end_by_compaction(lab):
    follower = lab.followers()[0]
    for value in "123":
        ctl(follower, "dcs", "put", "k", value)
    then = lab.leader().status()["revision"] - 1
    assert ctl(follower, "dcs", "get", "k", "--rev", then) == "k\n2\n"
    assert ctl(follower, "dcs", "get", "k") == "k\n3\n"
    assert "in the future" in ctl(follower, "dcs", "get", "k", "--rev", then + 1000, code=1)
    compacted = json.loads(ctl(follower, "-f", "json", "dcs", "compact", then + 1))
    assert compacted["compacted_revision"] == then + 1
    assert "no longer kept" in ctl(follower, "dcs", "get", "k", "--rev", then, code=1)
    assert ctl(follower, "dcs", "get", "k", "--rev", then + 1) == "k\n3\n"
    assert "compacted" in ctl(follower, "dcs", "compact", then, code=1)
    assert "in the future" in ctl(follower, "dcs", "compact", then + 1000, code=1)


# ---- members ----

def ctl_both(node, *words):
    """Standard output and standard error together, of a command that succeeds."""
    pki = node.dir / "pki"
    env = {**os.environ, "REGENT_CACERT": str(pki / "ca.crt"), "REGENT_CERT": str(pki / "node.crt"),
           "REGENT_KEY": str(pki / "node.key")}
    done = subprocess.run([build_dir() / "regentctl", "-H", node.address, *words], env=env, capture_output=True,
                          text=True, timeout=60, check=True)
    return done.stdout, done.stderr


def roles(node):
    return {m["name"]: m["role"] for m in node.call("member.list")["members"]}


def test_a_demoted_voter_stays_a_learner_until_it_is_promoted(lab):
    lab.add()
    lab.add()
    lab.wait_voters(5)
    leader = lab.leader()
    _, said = ctl_both(leader, "member", "demote", leader.name)
    assert "now: 5 voters, quorum 3, 2 may be lost" in said and "then: 4 voters, quorum 3, 1 may be lost" in said
    wait_for("it follows", lambda: roles(lab.any())[leader.name] == "learner" and leader.status()["state"] != "leader")
    wait_for("three vote", lambda: lab.any().call("member.list")["voters"] == 3, 25)
    fresh = lab.leader()
    assert fresh is not leader
    ctl(fresh, "member", "promote", leader.name)
    lab.wait_voters(5)
    assert set(roles(fresh).values()) == {"voter"}


def test_nodes_above_the_target_are_spares(lab):
    assert ctl(lab.any(), "member", "target").strip() == "7"
    assert "3, 5 or 7" in ctl(lab.any(), "member", "target", "4", code=2)
    lab.add()
    lab.add()
    lab.wait_voters(5)
    shown, said = ctl_both(lab.any(), "member", "target", "3")
    assert shown == "3\n" and "now: 5 voters, quorum 3, 2 may be lost" in said and "then: 3 voters, quorum 2, 1 may be lost" in said
    lab.wait_voters(3)
    leader, spare = lab.leader(), [n for n in lab.nodes if roles(lab.any())[n.name] == "learner"]
    assert len(spare) == 2 and leader not in spare and ctl(spare[0], "member", "target").strip() == "3"
    gone = next(n for n in lab.nodes if n not in spare and n is not leader)
    ctl(leader, "member", "remove", gone.name)
    gone.kill()
    wait_for("a spare has its place", lambda: sorted(roles(leader).values()) == ["learner", "voter", "voter", "voter"])
    lab.add()
    ctl(leader, "member", "target", "5")
    wait_for("all of them vote", lambda: sorted(roles(leader).values()) == ["voter"] * 5)


def test_a_demotion_that_costs_the_quorum_is_refused(lab):
    followers = lab.followers()
    followers[0].kill()
    wait_for("its link is down", lambda: not next(
        m for m in lab.leader().call("member.list")["members"] if m["name"] == followers[0].name).get("reachable"))
    assert "--force" in ctl(lab.leader(), "member", "demote", followers[1].name, code=4)
    assert roles(lab.leader())[followers[1].name] == "voter"
    assert "no member named" in ctl(lab.leader(), "member", "demote", "nobody", code=1)


def test_three_to_five_to_three_under_load_without_an_error(lab):
    # The load shows the certificate of n1, which stays.
    lab.nodes[2].call("cluster.transfer", name="n2")
    load = lab.tool("load", "m-", 8, 10000)
    lab.add()
    lab.add()
    lab.wait_voters(5)
    assert lab.leader() is lab.nodes[1]
    for node in (lab.nodes[4], lab.nodes[1]):
        rest = next(n for n in lab.nodes if n is not node and n.alive())
        ctl(rest, "member", "remove", node.name)
        node.kill()
    wait_for("three vote", lambda: lab.any().call("member.list")["voters"] == 3)
    lines = load.communicate(timeout=60)[0].splitlines()
    assert len(lines) > 200 and [line for line in lines if not line.startswith("ok ")] == []


def test_a_lost_member_is_replaced_under_its_name(lab):
    lost = lab.followers()[0]
    rest = [n for n in lab.nodes if n is not lost]
    old = next(m["id"] for m in rest[0].call("member.list")["members"] if m["name"] == lost.name)
    assert "is running" in ctl(rest[0], "member", "replace", lost.name, code=4)
    lost.kill()
    wait_for("it is missed", lambda: not next(
        m for m in rest[0].call("member.list")["members"] if m["name"] == lost.name).get("reachable"))
    command, said = ctl_both(rest[0], "member", "replace", lost.name)
    assert "now: 3 voters" in said and f"--name {lost.name} " in command
    shutil.rmtree(lost.dir)
    token = command.split("--token ")[1].split()[0]
    subprocess.run([build_dir() / "dcs_node", "join", *[str(f) for f in lost.flags()], "--token", token, "--via",
                    rest[0].address], check=True)
    lost.join = [rest[0].address]
    lost.start()
    wait_for("three vote again", lambda: rest[0].call("member.list")["voters"] == 3)
    assert next(m["id"] for m in rest[0].call("member.list")["members"] if m["name"] == lost.name) > old
    assert "there is a member named" in ctl(rest[0], "member", "add", lost.name, code=1)
    assert "join" in ctl(rest[0], "member", "add", "n9", "--role", "learner")


# ---- comparing members ----

def test_all_members_show_the_same_state_while_it_changes(lab):
    lease = lab.nodes[0].call("lease.grant", ttl_ms=60000, nonce=3)["id"]
    lab.nodes[0].call("kv.put", key="x", value="1", lease=lease)
    lab.nodes[0].call("lease.renew", id=lease, nonce=3, n=5)
    load = lab.tool("load", "h-", 8, 2000)
    for _ in range(3):
        rows = json.loads(ctl(lab.followers()[0], "-f", "json", "dcs", "hash"))
        assert len({(r["index"], r["hash"]) for r in rows}) == 1 and len(rows) == 3
    load.communicate(timeout=30)


def test_a_member_with_other_data_is_seen(lab):
    odd = lab.followers()[0]
    lab.leader().call("kv.put", key="x", value="1")
    wait_for("it has it", lambda: odd.call("kv.range", key="x", local=True)["count"] == 1)
    odd.kill(signal.SIGTERM)
    with contextlib.closing(sqlite3.connect(odd.dir / "state.db")) as db:
        db.execute("UPDATE kv SET value = CAST('2' AS BLOB) WHERE key = CAST('x' AS BLOB)")
        db.commit()
    before = len(odd.log())
    odd.start(wait=False)
    assert odd.process.wait(20) == 1
    assert "damaged" in odd.log()[before:] and "member remove" in odd.log()[before:]
    subprocess.run([build_dir() / "dcs_node", "reseal", *odd.flags()], check=True)
    odd.start()
    sane = [n for n in lab.nodes if n is not odd]
    wait_for("it is quarantined", lambda: (odd.status() or {}).get("trouble") == "quarantined")
    assert "event=quarantined" in odd.log() and "join it anew" in odd.status()["trouble_text"]
    with pytest.raises(DcsError) as no:
        odd.call("kv.put", key="x", value="3")
    assert no.value.name == "corrupt" and "quarantined" in no.value.text
    with pytest.raises(DcsError):
        odd.call("kv.range", key="x", local=True)
    wait_for("a leader elsewhere", lambda: [n for n in sane if n.status()["state"] == "leader"])
    assert sane[0].call("kv.put", key="x", value="4")
    wait_for("others show it", lambda: next(m["state"] for m in sane[0].call("member.list")["members"] if m["name"] == odd.name) == "quarantined")
    assert "not every member" in ctl(sane[0], "dcs", "hash", code=1)
    assert "quarantined" in ctl(odd, "dcs", "health", code=1) and "quarantined" in ctl(odd, "dcs", "status")
    odd.kill(signal.SIGTERM)  # being started again does not help
    odd.start(wait=False)
    assert odd.process.wait(20) == 1 and "is quarantined" in odd.log().splitlines()[-1]


def test_a_leader_with_other_data_leaves_although_it_leads(lab):
    odd = lab.leader()
    odd.call("kv.put", key="x", value="1")
    for node in lab.nodes:
        wait_for("it has it", lambda node=node: node.call("kv.range", key="x", local=True)["count"] == 1)
    odd.kill(signal.SIGTERM)
    with contextlib.closing(sqlite3.connect(odd.dir / "state.db")) as db:
        db.execute("UPDATE kv SET value = CAST('2' AS BLOB) WHERE key = CAST('x' AS BLOB)")
        db.commit()
    subprocess.run([build_dir() / "dcs_node", "reseal", *odd.flags()], check=True)
    odd.start()
    with contextlib.suppress(DcsError):
        lab.leader().call("cluster.transfer", name=odd.name)
    wait_for("it is quarantined", lambda: (odd.status() or {}).get("trouble") == "quarantined")
    other = lab.leader(besides=odd)
    assert other.call("kv.range", key="x")["kvs"][0]["value"] == "1"


def test_a_removed_member_that_runs_is_told(lab):
    gone = lab.followers()[0]
    rest = [n for n in lab.nodes if n is not gone]
    ctl(rest[0], "member", "remove", gone.name, "--force")
    wait_for("it knows", lambda: (gone.status() or {}).get("trouble") == "removed")
    assert "event=removed" in gone.log() and "with a token" in gone.status()["trouble_text"]
    with pytest.raises(DcsError) as no:
        gone.call("kv.range", key="x", local=True)
    assert no.value.name == "denied"


def test_a_member_removed_while_it_was_down_is_told_at_its_start(lab):
    gone = lab.followers()[0]
    gone.kill()
    rest = [n for n in lab.nodes if n is not gone]
    ctl(rest[0], "member", "remove", gone.name, "--force")
    gone.start()
    wait_for("it knows", lambda: (gone.status() or {}).get("trouble") == "removed")
    assert gone.log().count("event=removed") == 1


def test_a_slow_request_is_in_the_log_with_what_it_waited_for(lab):
    leader, followers = lab.leader(), lab.followers()

    def said():
        return [x for x in leader.log().splitlines() if "event=slow_request method=kv.put" in x]

    def others():
        return sum(int(n) for n in re.findall(r"event=slow_requests? .*?others=(\d+)", leader.log()))

    def put(client, session, seq):
        with contextlib.suppress(DcsError):
            client("kv.put", key="a", value="2", session=session, seq=seq, deadline_ms=1500)
    with contextlib.ExitStack() as stack:
        # Of sessions: they are kept when the leader steps down, and not answered at once that their outcome is unknown.
        clients = [stack.enter_context(contextlib.closing(leader.client())) for _ in range(3)]
        sessions = [c("session.open", nonce=7 + i)["session"] for i, c in enumerate(clients)]
        # Where this test does not come to its puts in time, there is no leader to be waited for any more: again.
        for seq in range(1, 6):
            lab.leader()
            for node in followers:
                node.signal(signal.SIGSTOP)
            puts = [threading.Thread(target=put, args=(c, s, seq)) for c, s in zip(clients, sessions, strict=True)]
            for t in puts:
                t.start()
            for t in puts:
                t.join()
            for node in followers:
                node.signal(signal.SIGCONT)
            with contextlib.suppress(AssertionError):
                wait_for("each is told or counted", lambda: len(said()) + others() >= 3, 5)
                break
    assert "commit " in said()[0] or "leader " in said()[0]
    assert others() > 0


# ---- addresses ----

class V6Node(Node):
    def __init__(self, lab, number):
        super().__init__(lab, number)
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
            self.address = f"[::1]:{s.getsockname()[1]}"


class V6Lab(Lab):
    node_class = V6Node


def has_v6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as s:
        s.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not has_v6(), reason="this machine has no IPv6 loopback")
def test_members_and_clients_meet_over_ipv6():
    lab = V6Lab(tempfile.mkdtemp(prefix="adm.", dir="/tmp"), 3)
    try:
        assert all(m["address"].startswith("[::1]:") for m in lab.nodes[0].call("member.list")["members"])
        client = lab.client()
        client("kv.put", key="a", value="1")
        lab.leader().kill()
        wait_for("another leads", lambda: client("kv.put", key="a", value="2"))
        assert client("kv.range", key="a")["kvs"][0]["value"] == "2"
    finally:
        lab.close()


class Forwarder(threading.Thread):
    """What a NAT does: connections to one address end at another."""

    def __init__(self, to_port):
        super().__init__(daemon=True)
        self.to_port, self.used = to_port, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                one = self.listener.accept()[0]
                try:
                    two = socket.create_connection(("127.0.0.1", self.to_port))
                except OSError:  # it has not begun, or has ended
                    one.close()
                    continue
                self.used += 1
                for a, b in ((one, two), (two, one)):
                    threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    @staticmethod
    def pump(a, b):
        with contextlib.suppress(OSError):
            while data := a.recv(1 << 16):
                b.sendall(data)
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()


class NatNode(Node):
    """Listens on one port; others know another."""

    def __init__(self, lab, number):
        super().__init__(lab, number)
        self.nat = Forwarder(int(self.address.rsplit(":", 1)[1]))
        self.listen, self.address = self.address, f"127.0.0.1:{self.nat.port}"

    def flags(self):
        return ["--dir", self.dir, "--name", self.name, "--listen", self.listen, "--connect", self.address]


class NatLab(Lab):
    node_class = NatNode


def test_members_behind_nat_are_dialed_at_their_connect_address():
    lab = NatLab(tempfile.mkdtemp(prefix="adm.", dir="/tmp"), 3)
    try:
        members = lab.nodes[0].call("member.list")["members"]
        assert [m["address"] for m in members] == [n.address for n in lab.nodes]
        assert all(m["reachable"] for m in members) and all(n.nat.used for n in lab.nodes)
        leader = lab.leader()
        leader.kill()
        wait_for("another leads", lambda: lab.leader(besides=leader).call("kv.put", key="a", value="1"))
    finally:
        for node in lab.nodes:
            node.nat.close()
        lab.close()


# ---- SQL ----

def sql(node, text, *words, code=0):
    said = ctl(node, "-f", "json", "sql", text, *words, code=code)
    return json.loads(said) if code == 0 else said


def test_sql_reads_the_documented_views(lab):
    node = lab.followers()[0]
    lease = node.call("lease.grant", ttl_ms=60000, nonce=1)["id"]
    for key, value in (("leader", {"name": "n1", "state": "active", "timeline": 3, "token": 7}),
                       ("sync", {"leader": "n1", "token": 7, "mode": "on", "v": ["a"], "q": 1}),
                       ("history", {"entries": [{"timeline": 2, "name": "n2"}, {"timeline": 3, "name": "n1"}]}),
                       ("journal/1", {"at_ms": 5, "node": "n1", "rule": "r", "reason": "because"}),
                       ("members/n1", {"name": "n1", "role": "primary"})):
        node.call("kv.put", key=f"/regent/demo/{key}", value=json.dumps(value))
    node.call("kv.put", key="a'b", value="x", lease=lease)
    assert sql(node, "SELECT name, timeline, scope FROM leader") == [{"name": "n1", "timeline": 3, "scope": "demo"}]
    assert sql(node, "SELECT unknown, mode FROM sync")[0]["mode"] == "on"
    assert [r["name"] for r in sql(node, "SELECT name FROM history ORDER BY timeline")] == ["n2", "n1"]
    assert sql(node, "SELECT reason FROM journal") == [{"reason": "because"}]
    assert sql(node, "SELECT role FROM nodes") == [{"role": "primary"}]
    assert sql(node, "SELECT keys FROM leases") == [{"keys": 1}]
    assert len(sql(node, "SELECT * FROM members")) == 3
    assert sql(node, "SELECT count(*) AS n FROM keys") == [{"n": 6}]
    assert sql(node, "SELECT type, key FROM changes ORDER BY id DESC LIMIT 1;") == [{"type": "put", "key": "a'b"}]
    assert sql(node, "SELECT revision FROM revision")[0]["revision"] == lab.leader().status()["revision"]
    assert len(sql(node, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n", "--limit",
                   "5")) == 5
    assert "n1" in ctl(node, "sql", "SELECT name FROM members")


@pytest.mark.parametrize(("text", "said"), [
    ("DELETE FROM kv", "only reading"), ("UPDATE member SET name = 'x'", "only reading"),
    ("INSERT INTO kv SELECT * FROM kv", "only reading"), ("DROP TABLE kv", "only reading"),
    ("ATTACH '/tmp/x' AS y", "only reading"), ("PRAGMA user_version = 9", "only reading"),
    ("VACUUM INTO '/tmp/x'", "one SELECT"),
    ("BEGIN", "only reading"), ("ROLLBACK", "only reading"), ("CREATE TEMP TABLE x(a)", "only reading"),
    ("SELECT secret_sha256 FROM token", "only reading"), ("SELECT * FROM token", "only reading"),
    ("SELECT 1; SELECT 2", "one SELECT"), ("", "one SELECT"), ("SELECT x FROM nowhere", "no such table"),
    ("SELECT load_extension('x')", "no"), ("SELECT length(zeroblob(1000000000))", "too big"),
    ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", "longer than it may"),
])
def test_sql_does_nothing_but_read_and_not_for_long(one, text, said):
    node = one.nodes[0]
    node.call("kv.put", key="a", value="1")
    assert said in ctl(node, "sql", text, code=1)
    assert node.call("kv.range", key="a")["count"] == 1
    assert sql(node, "SELECT 1 AS x") == [{"x": 1}]


# ---- certificates and files ----

def days_left(cert):
    end = subprocess.run(["openssl", "x509", "-noout", "-enddate", "-in", cert], capture_output=True, text=True,
                         check=True).stdout.strip().split("=")[1]
    return (ssl.cert_time_to_seconds(end) - time.time()) / 86400


def age(lab, node):
    """Its certificate as it is, but for 20 days more only."""
    ca, own = lab.nodes[0].dir / "pki", node.dir / "pki"
    text = subprocess.run(["openssl", "x509", "-x509toreq", "-copy_extensions", "copyall", "-in", own / "node.crt",
                           "-signkey", own / "node.key"], capture_output=True, check=True).stdout
    subprocess.run(["openssl", "x509", "-req", "-days", "20", "-copy_extensions", "copyall", "-CA", ca / "ca.crt", "-CAkey",
                    ca / "ca.key", "-out", own / "node.crt"], input=text, capture_output=True, check=True)
    assert days_left(own / "node.crt") < 21


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_certificates_are_renewed_in_time_and_used_without_a_restart(lab):
    lab.add(role="learner")
    learner = lab.nodes[3]
    wait_for("it follows", lambda: roles(lab.nodes[0]).get("n4") == "learner")
    for node in (lab.nodes[1], learner):  # one that can sign, one that has to ask
        node.kill(signal.SIGTERM)
        age(lab, node)
        key = (node.dir / "pki" / "node.key").read_bytes()
        node.start()
        wait_for("it is renewed", lambda n=node: days_left(n.dir / "pki" / "node.crt") > 300)
        assert (node.dir / "pki" / "node.key").read_bytes() == key and "certificate_renewed" in node.log()
        host, port = node.address.split(":")
        shown = subprocess.run(["openssl", "s_client", "-connect", f"{host}:{port}"], stdin=subprocess.DEVNULL,
                               capture_output=True, text=True, timeout=20, check=False).stdout
        assert subprocess.run(["openssl", "x509", "-noout", "-checkend", str(300 * 86400)], input=shown, text=True,
                              capture_output=True, check=False).returncode == 0
    wait_for("all work", lambda: all(n.status() for n in lab.nodes))


def test_a_client_may_do_what_its_certificate_says(one, tmp_path):
    node = one.nodes[0]
    def client(role, *words, code=0):
        env = {**os.environ, **dict(word.split("=") for word in printed[role].split())}
        done = subprocess.run([build_dir() / "regentctl", "-H", node.address, *words], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    node_env = {"REGENT_CACERT": "ca.crt", "REGENT_CERT": "node.crt", "REGENT_KEY": "node.key"}
    printed = {"node": " ".join(f"{k}={node.dir / 'pki' / v}" for k, v in node_env.items())}
    for role in ("viewer", "operator", "admin"):
        printed[role] = client("node", "cert", "create", f"a-{role}", "--role", role, "-o", str(tmp_path))
    assert os.stat(tmp_path / "a-viewer.key").st_mode & 0o777 == 0o600
    assert "exists" in client("node", "cert", "create", "a-viewer", "-o", str(tmp_path), code=1)
    assert "viewer, operator or admin" in client("node", "cert", "create", "x", "--role", "boss", code=2)
    for role in printed:
        may_write, may_all = role != "viewer", role in ("admin", "node")
        said = client(role, "dcs", "put", "k", role, code=0 if may_write else 1)
        assert may_write or "kv.put is for the role operator; this certificate is of a viewer" in said or "session.open is for" in said
        assert client(role, "dcs", "get", "k", "--print-value-only") == ("viewer" == role and "node" or role) + "\n"
        assert "n1" in client(role, "member", "list") and "healthy" in client(role, "dcs", "health")
        for words in (["token", "create"], ["cert", "create", "mine", "-o", str(tmp_path / role)], ["dcs", "snapshot", "save", str(tmp_path / f"{role}.copy")]):
            (tmp_path / role).mkdir(exist_ok=True)
            said = client(role, *words, code=0 if may_all else 1)
            assert may_all or "is for the role admin" in said, words


def says(node, environment, *words):
    """regentctl of a client with a certificate of its own."""
    env = {**os.environ, **dict(word.split("=") for word in environment.split())}
    done = subprocess.run([build_dir() / "regentctl", "-H", node.address, *words], env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else done.stderr


def request_of(key):
    """A certificate request, PEM."""
    return subprocess.run(["openssl", "req", "-new", "-key", key, "-subj", "/CN=x"], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_lost_certificate_is_revoked_on_every_member_for_good(tmp_path):
    lab = Lab(tempfile.mkdtemp(prefix="adm.", dir="/tmp"), 3, ("--snapshot-every", "20"))
    try:
        away = lab.followers()[0]
        rest = [n for n in lab.nodes if n is not away]
        ann = ctl(rest[0], "cert", "create", "ann", "--role", "admin", "-o", tmp_path)
        bob = ctl(rest[0], "cert", "create", "bob", "-o", tmp_path)
        assert all("n1" in says(n, ann, "member", "list") for n in lab.nodes)
        listed = json.loads(ctl(rest[0], "-f", "json", "cert", "list"))
        assert [(c["Name"], c["Role"]) for c in listed] == [("ann", "admin"), ("bob", "viewer")]

        # A connection of hers that is there, and one whose certificate is the renewed one.
        pki = tmp_path / "ann"
        pki.mkdir()
        for theirs, ours in (("ca.crt", "ca.crt"), ("ann.crt", "node.crt"), ("ann.key", "node.key")):
            shutil.copy(tmp_path / theirs, pki / ours)
        open_one = Client([rest[0].address], pki)
        lab.clients.append(open_one)
        (tmp_path / "again.crt").write_text(open_one("cert.renew", csr=request_of(tmp_path / "ann.key"))["cert"])
        again = ann.replace("ann.crt", "again.crt")
        assert "n1" in says(rest[1], again, "member", "list")
        assert len(json.loads(ctl(rest[0], "-f", "json", "cert", "list"))) == 3

        away.kill()
        assert "no certificate of a client" in ctl(rest[0], "cert", "revoke", "anne", code=1)
        assert "2 listed certificates of ann revoked" in ctl(rest[0], "cert", "revoke", "ann")
        with pytest.raises((DcsError, ConnectionError)) as refusal:
            open_one("kv.put", key="a", value="hers")
        assert "revoked" in str(refusal.value)
        for node in rest:
            wait_for("it knows", lambda n=node: "was revoked" in says(n, ann, "member", "list"))
            assert "was revoked" in says(node, again, "cert", "create", "other", "-o", str(tmp_path / "ann"))
            assert "n1" in says(node, bob, "member", "list")

        # The member that was away gets it with a snapshot, and keeps it over a restart.
        for i in range(60):
            rest[0].call("kv.put", key=f"k{i}", value="v")
        away.start()
        wait_for("it knows, too", lambda: "was revoked" in says(away, again, "member", "list"))
        assert "snapshot_fetch" in away.log()
        away.kill()
        away.start()
        assert "was revoked" in says(away, ann, "member", "list")

        os.rename(tmp_path / "ann.crt", tmp_path / "lost.crt")
        os.rename(tmp_path / "ann.key", tmp_path / "lost.key")
        again = again.replace("ann.key", "lost.key")
        ann = ctl(rest[0], "cert", "create", "ann", "--role", "admin", "-o", tmp_path)
        for node in lab.nodes:
            wait_for("the new one is good", lambda n=node: "n1" in says(n, ann, "member", "list"))
            assert "was revoked" in says(node, again, "member", "list")
        rows = ctl(rest[0], "cert", "list")
        assert rows.count("ann") == 2 and rows.count("bob") == 1
        ctl(rest[0], "dcs", "hash")
    finally:
        lab.close()


def test_files_of_the_store_are_nobody_elses(one):
    old = os.umask(0)
    try:
        node = one.nodes[0]
        node.kill(signal.SIGTERM)
        (node.dir / "log.db").chmod(0o644)
        node.start()
        node.call("kv.put", key="a", value="1")
    finally:
        os.umask(old)
    for path in node.dir.iterdir():
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path


# ---- copies of the store, and new clusters made of them ----

class Member:
    """regentd as a witness: the store without PostgreSQL."""

    def __init__(self, root, name):
        self.name = name
        self.dir = root / name
        self.config = root / f"{name}.yml"
        self.address = f"127.0.0.1:{free_port()}"
        self.log_path = root / f"{name}.log"
        self.process = None

    def ctl(self, *words, code=0, answer=None):
        done = subprocess.run([build_dir() / "regentctl", "-c", self.config, *[str(w) for w in words]], input=answer,
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def place(self):
        return ["--name", self.name, "--listen", self.address, "--data-dir", self.dir, "--witness", "--rest-port",
                free_port()]

    def start(self):
        with self.log_path.open("a") as log:
            self.process = subprocess.Popen([build_dir() / "regentd", "-c", self.config], stdout=log, stderr=log)
        wait_for(f"{self.name} is up", self.status)
        return self

    def status(self):
        assert self.process.poll() is None, self.log_path.read_text()
        with contextlib.suppress(AssertionError, ValueError):
            return json.loads(self.ctl("-f", "json", "dcs", "status"))
        return None

    def stop(self, how=signal.SIGKILL):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(20)

    def keys(self, prefix):
        return json.loads(self.ctl("-f", "json", "dcs", "get", prefix, "--prefix"))


class Cluster:
    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.members = []

    def first(self, name="n1"):
        m = Member(self.root, name)
        m.ctl("init", "--scope", "demo", *m.place())
        self.members.append(m)
        return m.start()

    def join(self, name, via):
        m = Member(self.root, name)
        token = via.ctl("token", "create", "--role", "witness").strip()
        m.ctl("join", via.address, "--token", token, *m.place())
        self.members.append(m)
        return m.start()

    def three(self):
        first = self.first()
        rest = [self.join(f"n{i}", first) for i in (2, 3)]
        wait_for("three voters", lambda: first.status()["voters"] == 3)
        return [first, *rest]

    def close(self):
        for m in self.members:
            m.stop()
            print(f"---- {m.name}\n{m.log_path.read_text()[-3000:] if m.log_path.exists() else ''}")
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture(name="cluster")
def cluster_fixture():
    c = Cluster(tempfile.mkdtemp(prefix="rec.", dir="/tmp"))
    yield c
    c.close()


SYNC = {"leader": "n9", "incarnation": "abc", "token": 41, "mode": "on", "v": ["abc", "def"], "q": 1, "unknown": False}


def fill(node):
    """Keys, a lease with a key, an HA record, a request to fail over."""
    node.ctl("dcs", "put", "a", "1")
    node.ctl("dcs", "put", "/regent/demo/sync", json.dumps(SYNC))
    node.ctl("dcs", "put", "/regent/demo/failover", "{}")
    lease = node.ctl("dcs", "lease", "grant", "600").split()[-1]
    node.ctl("dcs", "put", "/regent/demo/leader", "{}", "--lease", lease)


def expect_reborn(node, revision, index):
    """What every new cluster out of an old state must be."""
    status = wait_for("it leads", lambda: (s := node.status()) and s["state"] == "leader" and s)
    assert status["revision"] >= revision + 10**9 and status["compacted_revision"] >= revision + 10**9
    assert status["applied_index"] >= index + 2**32
    keys = {kv["key"]: kv for kv in node.keys("/regent/demo/")}
    assert "/regent/demo/leader" not in keys and "/regent/demo/failover" not in keys
    sync = json.loads(keys["/regent/demo/sync"]["value"])
    assert sync == {**SYNC, "unknown": True, "token": sync["token"]} and sync["token"] > 41 + 1000
    assert keys["/regent/demo/sync"]["mod_revision"] == revision + 10**9
    assert "compacted" in node.ctl("dcs", "watch", "a", "--rev", revision + 1, code=1)
    members = json.loads(node.ctl("-f", "json", "member", "list"))
    assert [m["name"] for m in members] == [node.name]
    node.ctl("dcs", "put", "a", "2")
    assert node.status()["revision"] > revision + 10**9


def test_a_copy_is_saved_from_any_member_and_read_with_sqlite(lab):
    for i in range(50):
        lab.nodes[0].call("kv.put", key=f"k{i}", value="x" * 20000)
    revision = lab.leader().status()["revision"]
    for node in lab.nodes:
        wait_for("it has all", lambda n=node: n.status()["revision"] >= revision)
        file = lab.root / f"{node.name}.snap"
        told = json.loads(ctl(node, "-f", "json", "dcs", "snapshot", "save", file))
        assert told["revision"] == revision and told["member"] == node.name
        assert file.stat().st_mode & 0o777 == 0o600 and not list(node.dir.glob("*.save"))
        read = json.loads(ctl(node, "-f", "json", "dcs", "snapshot", "status", file))
        assert (read["revision"], read["keys"], len(read["members"])) == (revision, 50, 3)
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            assert db.execute("SELECT count(*) FROM keys").fetchone() == (50,)
        assert "exists" in ctl(node, "dcs", "snapshot", "save", file, code=1)


def test_a_copy_of_the_database_file_alone_has_all_keys_soon(lab):
    def keys_of(node):
        """Of state.db, without its WAL."""
        alone = lab.root / "alone.db"
        shutil.copyfile(node.dir / "state.db", alone)
        with contextlib.closing(sqlite3.connect(alone)) as db:
            with contextlib.suppress(sqlite3.DatabaseError):  # copied while pages were moved into it
                return {row[0] for row in db.execute("SELECT key FROM keys")}
        return set()

    before = {key for node in lab.nodes for key in keys_of(node)}
    for i in range(20):
        lab.nodes[i % 3].call("kv.put", key=f"alone-{i}", value="x")
    lab.nodes[0].call("kv.delete", key="alone-7")
    all_of_them = {f"alone-{i}" for i in range(20) if i != 7}
    for node in lab.nodes:
        wait_for("the file has all keys", lambda n=node: keys_of(n) - before == all_of_them)
    node = lab.followers()[0]
    node.call("kv.put", key="alone-last", value="x")
    wait_for("it has it", lambda: node.call("kv.range", key="alone-last", local=True)["count"] == 1)
    node.kill()
    node.start()
    wait_for("also what an earlier process left", lambda: "alone-last" in keys_of(node))


def test_a_copy_is_consistent_while_the_store_is_written(lab):
    load = lab.tool("load", "k-", 8, 3000)
    for i in range(4):
        file = lab.root / f"{i}.snap"
        ctl(lab.leader(), "dcs", "snapshot", "save", file)
        ctl(lab.nodes[0], "dcs", "snapshot", "status", file)
    load.communicate(timeout=40)


def test_a_damaged_copy_is_refused(one):
    node, file = one.nodes[0], one.root / "copy"
    node.call("kv.put", key="a", value="1")
    ctl(node, "dcs", "snapshot", "save", file)
    good = file.read_bytes()
    for bad in (good[:-1], good[:-4096], good[:100], b"", good + b"x", good[:5000] + b"\xff" + good[5001:]):
        file.write_bytes(bad)
        assert "damaged" in (said := ctl(node, "dcs", "snapshot", "status", file, code=1)) or "missing" in said


def test_copies_are_saved_by_themselves_and_the_newest_are_kept():
    lab = Lab(tempfile.mkdtemp(prefix="adm.", dir="/tmp"), 1, ("--archive", "1"))
    try:
        node, seen = lab.nodes[0], set()
        backups = node.dir / "backups"

        def files():
            return sorted(f.name for f in backups.iterdir()) if backups.exists() else []

        for i in range(4):
            node.call("kv.put", key="a", value=str(i))
            before = len(seen)

            def more(before=before):
                seen.update(n for n in files() if n.endswith(".snapshot"))
                return len(seen) > before
            wait_for("another copy", more)
        wait_for("two are kept", lambda: len(files()) == 2 and not any(f.endswith(".part") for f in files()))
        newest = backups / files()[-1]
        assert newest.stat().st_mode & 0o777 == 0o600
        status = json.loads(ctl(node, "-f", "json", "dcs", "snapshot", "status", str(newest)))
        assert status["revision"] == node.call("kv.range", key="a")["revision"]
        node.kill(signal.SIGTERM)
        with newest.open("r+b") as f:
            f.seek(5000)
            f.write(b"x")
        assert "damaged" in ctl(node, "dcs", "snapshot", "status", str(newest), code=1)
    finally:
        lab.close()


def test_one_copy_at_a_time_and_none_left_over(one):
    node = one.nodes[0]
    first = Client([node.address], node.dir / "pki")
    copy = first("snapshot.save")
    with pytest.raises(DcsError) as busy:
        node.call("snapshot.save")
    assert busy.value.name == "unavailable"
    with pytest.raises(DcsError) as wrong:
        node.call("snapshot.piece", id=copy["id"] + 1)
    assert wrong.value.name == "not_found"
    node.call("snapshot.piece", id=copy["id"], offset=copy["size"])
    assert node.call("snapshot.save")["id"] != copy["id"]
    first.close()


def test_a_restored_copy_is_a_new_cluster(cluster):
    nodes = cluster.three()
    fill(nodes[0])
    file = cluster.root / "copy"
    told = json.loads(nodes[1].ctl("-f", "json", "dcs", "snapshot", "save", file))
    nodes[0].ctl("dcs", "put", "late", "1")
    old_id = nodes[0].status()["cluster_id"]
    fresh = Member(cluster.root, "r1")
    assert "--name" in fresh.ctl("dcs", "snapshot", "restore", file, code=2)
    fresh.ctl("dcs", "snapshot", "restore", file, *fresh.place())
    cluster.members.append(fresh)
    assert "exists" in fresh.ctl("dcs", "snapshot", "restore", file, *fresh.place(), code=1)
    fresh.start()
    expect_reborn(fresh, told["revision"], told["index"])
    assert fresh.status()["cluster_id"] != old_id and fresh.keys("late") == []
    # the old cluster lives on, and neither lets the other's members in
    assert nodes[0].keys("late")
    for a, b in ((fresh, nodes[0]), (nodes[0], fresh)):
        with pytest.raises(ConnectionError):
            Client([b.address], a.dir / "pki")("cluster.status")
    # it grows: a member of the same name as an old one gets an id of its own
    again = cluster.join("n2x", fresh)
    ids = {m["name"]: m["id"] for m in json.loads(fresh.ctl("-f", "json", "member", "list"))}
    assert ids["r1"] > 3 and ids["n2x"] > ids["r1"]
    wait_for("it has the state", lambda: again.keys("a"))


def test_a_restore_that_fails_leaves_nothing(cluster):
    m = Member(cluster.root, "r1")
    file = cluster.root / "copy"
    file.write_bytes(b"nonsense" * 100)
    assert "not written by" in m.ctl("dcs", "snapshot", "restore", file, *m.place(), code=1)
    assert not m.dir.exists() and not m.config.exists()


def test_a_survivor_recovers_alone_and_locks_the_others_out(cluster):
    nodes = cluster.three()
    fill(nodes[0])
    survivor = nodes[2]
    before = nodes[0].status()
    wait_for("it has all", lambda: survivor.status()["revision"] >= before["revision"])
    assert "stop it first" in survivor.ctl("dcs", "recover", "--force", code=4)
    for m in nodes:
        m.stop()
    assert "nothing was changed" in survivor.ctl("dcs", "recover", code=4, answer="yes\n")
    said = survivor.ctl("dcs", "recover", answer=f"{survivor.name}\n")
    assert "n1" in said and "locked out" in said and "n9" in said
    assert list(survivor.dir.glob("before-recover-*/log.db"))
    survivor.start()
    expect_reborn(survivor, before["revision"], before["applied_index"])
    # An old member comes back: it is nobody here, and has no quorum of its own.
    nodes[0].process = None
    nodes[0].start()
    with pytest.raises(ConnectionError):
        Client([survivor.address], nodes[0].dir / "pki")("cluster.status")
    assert nodes[0].status()["state"] != "leader"
    assert json.loads(survivor.ctl("-f", "json", "dcs", "status"))["voters"] == 1
    # Nodes join it anew.
    cluster.join("m2", survivor)
    cluster.join("m3", survivor)
    wait_for("three voters", lambda: survivor.status()["voters"] == 3)


def test_a_recovery_keeps_what_only_the_log_had(cluster):
    """Acknowledged by a majority that is lost: the survivor had it stored, not applied."""
    nodes = cluster.three()
    for i in range(14):
        nodes[0].ctl("dcs", "put", f"k{i % 7}", str(i))
    for m in nodes:
        m.stop()
    survivor = nodes[1]
    survivor.ctl("dcs", "recover", "--force")
    survivor.start()
    assert {kv["key"]: kv["value"] for kv in survivor.keys("k")} == {f"k{i % 7}": str(i) for i in range(7, 14)}


def test_an_interrupted_recovery_is_finished_and_nothing_starts_before(cluster):
    node = cluster.first()
    node.ctl("dcs", "put", "a", "1")
    node.stop()
    node.ctl("dcs", "recover", "--force")
    # As if it had ended between the two steps: the new log not in place yet.
    work = node.dir / "reborn.tmp"
    work.mkdir()
    aside = next(node.dir.glob("before-recover-*"))
    for name in ("ca.crt", "ca.key", "node.crt", "node.key"):
        shutil.copy(node.dir / "pki" / name, work)
    (node.dir / "log.db").rename(work / "log.db")
    (node.dir / "recovering").write_text(f"install {aside}")
    refused = subprocess.run([build_dir() / "regentd", "-c", node.config], capture_output=True, text=True, timeout=20,
                             check=False)
    assert refused.returncode == 1 and "dcs recover` again" in refused.stderr
    node.ctl("dcs", "recover", "--force")
    assert not work.exists() and not (node.dir / "recovering").exists()
    node.start()
    wait_for("it leads", lambda: node.status()["state"] == "leader")
    assert node.keys("a")
