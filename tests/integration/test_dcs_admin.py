"""What an operator does to the store: regentctl against real members."""
import contextlib
import json
import os
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
import uuid

import pytest

from dcs_attack import wait_until_forgotten
from dcs_lab import PATIENCE_S, Client, DcsError, Lab, Node, build_dir, ctl, wait_for
from ports import free_port
from realtime import Metronome
from regent_client import Client as Stranger

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "dcs_node").exists(), reason="dcs_node is not built"),
    pytest.mark.skipif(not (build_dir() / "regentctl").exists(), reason="regentctl is not built"),
]


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
        with contextlib.suppress(sqlite3.OperationalError), \
                contextlib.closing(sqlite3.connect(f"file:{node.dir}/state.db?mode=ro", uri=True)) as db:
            return db.execute("PRAGMA user_version").fetchone()[0]
        return 0  # busy

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

    def leads_next():
        if lab.leader().program != "dcs_node_next":
            lab.leader().call("cluster.transfer", name=others[0].name)
        return lab.leader().program == "dcs_node_next"
    wait_for("a leader of the next version", leads_next)
    for i in range(100):
        put(f"k{i}")
    wait_for("the leader is linked with all and knows what they are", lambda: {
        m["name"]: (m["version"], m["reachable"]) for m in lab.leader().call("member.list")["members"]} ==
        {n.name: (2 if n in others else 1, True) for n in lab.nodes})
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
    lab.nodes.append(waits)
    waits.start(wait=False)
    wait_for("it is refused", lambda: "this cluster is at version 2, and the program of n4 knows 1: upgrade regent there" in waits.log())
    waits.kill()
    for node, program in ((waits, "dcs_node_next"), (last, "dcs_node_next")):
        node.program = program
        node.start()
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
    lab.wait_voters(3)
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
    with Metronome(disk=True) as metronome:
        load = lab.load("m-", 8)
        lab.add()
        lab.add()
        lab.wait_voters(5)
        lab.lead(lab.nodes[1], via=lab.nodes[2])
        for node in (lab.nodes[4], lab.nodes[1]):
            load.wait_for_more()
            rest = next(n for n in lab.nodes if n is not node and n.alive())
            ctl(rest, "member", "remove", node.name)
            node.kill()
        lab.wait_voters(3)
        load.wait_for_more()
        errors = [line for line in load.end() if not line.startswith("ok ")]
    # A machine that stands still may be without a leader for more than two seconds: then the outcome may be unknown.
    assert errors == [] or (metronome.worst_ms() > 250 and all(e.startswith("outcome_unknown ") for e in errors)), errors


def test_a_lost_member_is_replaced_under_its_name(lab):
    lost = lab.followers()[0]
    rest = [n for n in lab.nodes if n is not lost]
    old = next(m["id"] for m in rest[0].call("member.list")["members"] if m["name"] == lost.name)
    wait_for("they are linked", lambda: next(m["reachable"] for m in rest[0].call("member.list")["members"] if m["name"] == lost.name))
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
    load = lab.load("h-", 8)
    for _ in range(3):
        load.wait_for_more()
        rows = json.loads(ctl(lab.followers()[0], "-f", "json", "dcs", "hash"))
        assert len({(r["index"], r["hash"]) for r in rows}) == 1 and len(rows) == 3
    load.end()


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
    assert odd.process.wait(PATIENCE_S) == 1
    assert "damaged" in odd.log()[before:] and "member remove" in odd.log()[before:]
    subprocess.run([build_dir() / "dcs_node", "reseal", *odd.flags()], check=True)
    odd.start()
    sane = [n for n in lab.nodes if n is not odd]
    wait_for("it is quarantined", lambda: odd.seen().get("trouble") == "quarantined")
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
    assert odd.process.wait(PATIENCE_S) == 1 and "is quarantined" in odd.log().splitlines()[-1]


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
    wait_for("it is quarantined", lambda: odd.seen().get("trouble") == "quarantined")
    other = lab.leader(besides=odd)
    assert other.call("kv.range", key="x")["kvs"][0]["value"] == "1"


def test_a_removed_member_that_runs_is_told(lab):
    gone = lab.followers()[0]
    rest = [n for n in lab.nodes if n is not gone]
    ctl(rest[0], "member", "remove", gone.name, "--force")
    wait_for("it knows", lambda: gone.seen().get("trouble") == "removed")
    assert "event=removed" in gone.log() and "with a token" in gone.status()["trouble_text"]
    with pytest.raises(DcsError) as no:
        gone.call("kv.range", key="x", local=True)
    assert no.value.name == "denied"
    pki = rest[0].dir / "pki"
    with contextlib.closing(Stranger([n.address for n in (gone, *rest)], ca=pki / "ca.crt", cert=pki / "node.crt", key=pki / "node.key")) as client:
        client.put("y", "1")
        assert client.connection.node["name"] != gone.name


def test_a_member_removed_while_it_was_down_is_told_at_its_start(lab):
    gone = lab.followers()[0]
    gone.kill()
    rest = [n for n in lab.nodes if n is not gone]
    ctl(rest[0], "member", "remove", gone.name, "--force")
    gone.start()
    wait_for("it knows", lambda: gone.seen().get("trouble") == "removed")
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
        self.address = f"[::1]:{free_port('::1')}"


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
        wait_for("all are linked", lambda: all(m["reachable"] for m in lab.nodes[0].call("member.list")["members"]))
        assert all(n.nat.used for n in lab.nodes)
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
    last = node.call("kv.put", key="a'b", value="x", lease=lease)["revision"]
    wait_for("this node has applied it, too", lambda: node.status()["revision"] >= last)
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


def test_as_many_members_as_there_can_be_are_listed(one, tmp_path):
    node = one.nodes[0]
    config = tmp_path / "regent.yml"
    config.write_text(f"scope: demo\nname: n1\ndcs: {{listen: {json.dumps(node.address)}}}\n"
                      "postgresql: {listen: '127.0.0.1:5432', data_dir: /nowhere}\n")
    names = [f"node-{i:02}" for i in range(1, 65)]
    for name in names:
        node.call("kv.put", key=f"/regent/demo/members/{name}", value=json.dumps({
            "name": name, "incarnation": str(uuid.uuid4()), "role": "primary" if name == names[0] else "replica",
            "state": "running" if name == names[0] else "streaming", "timeline": 1, "lsn": 0x3000000,
            "conn_host": f"host-of-{name}.example", "conn_port": 5432, "pending_reason": "x" * 500}))
    assert [m["Member"] for m in json.loads(ctl(node, "-c", config, "-f", "json", "list"))] == names
    assert all(name in ctl(node, "-c", config, "list") for name in (names[0], names[-1]))


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
        wait_for("it is told", lambda n=node: "certificate_renewed" in n.log())
        assert (node.dir / "pki" / "node.key").read_bytes() == key
        host, port = node.address.split(":")
        shown = subprocess.run(["openssl", "s_client", "-connect", f"{host}:{port}"], stdin=subprocess.DEVNULL,
                               capture_output=True, text=True, timeout=60, check=False).stdout
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
        assert len(json.loads(ctl(rest[0], "-f", "json", "cert", "list"))) == 2  # the renewed one stands for both

        had = away.status()["last_index"]
        away.kill()
        assert "no certificate of a client" in ctl(rest[0], "cert", "revoke", "anne", code=1)
        assert "1 listed certificate of ann revoked" in ctl(rest[0], "cert", "revoke", "ann")
        with pytest.raises((DcsError, ConnectionError)) as refusal:
            open_one("kv.put", key="a", value="hers", deadline_ms=5000)
        assert "revoked" in str(refusal.value)
        for node in rest:
            wait_for("it knows", lambda n=node: "was revoked" in says(n, ann, "member", "list"))
            assert "was revoked" in says(node, again, "cert", "create", "other", "-o", str(tmp_path / "ann"))
            assert "n1" in says(node, bob, "member", "list")

        # The member that was away gets it with a snapshot, and keeps it over a restart.
        for i in range(60):
            rest[0].call("kv.put", key=f"k{i}", value="v")
        wait_until_forgotten(lab, had, 20)
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
