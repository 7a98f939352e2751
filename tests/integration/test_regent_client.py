"""The client that was written from docs/PROTOCOL.md alone, against real members."""
import ast
import contextlib
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest

import regent_client
from dcs_lab import Lab, build_dir, wait_for
from regent_client import ALL, Client, Connection, RegentError, Unknown

pytestmark = [pytest.mark.skipif(not (build_dir() / "dcs_node").exists(), reason="dcs_node is not built")]


@pytest.fixture(name="lab", scope="module")
def lab_fixture():
    lab = Lab(tempfile.mkdtemp(prefix="rc.", dir="/tmp"), 3)
    wait_for("every voter can sign", lambda: all((n.dir / "pki" / "ca.key").exists() for n in lab.nodes))
    yield lab
    lab.close()


def client_of(lab, nodes=None):
    pki = lab.nodes[0].dir / "pki"
    return Client([n.address for n in nodes or lab.nodes], ca=pki / "ca.crt", cert=pki / "node.crt", key=pki / "node.key", deadline_s=60)


@pytest.fixture(name="client")
def client_fixture(lab):
    client = client_of(lab)
    yield client
    client.close()


class Watcher(threading.Thread):
    def __init__(self, client, key, **more):
        super().__init__(daemon=True)
        self.seen, self.of = [], client.watch(key, **more)
        self.start()

    def run(self):
        with contextlib.suppress(RegentError):  # compacted by a later test
            self.follow()

    def follow(self):
        for revision, events in self.of:
            self.seen.append((revision, [(e["type"], e["kv"]["key"].decode(), e["kv"].get("value", b"").decode()) for e in events]))


def test_it_needs_nothing_but_python():
    tree = ast.parse(pathlib.Path(regent_client.__file__).read_text())
    names = {n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= set(sys.stdlib_module_names)


def test_keys(client):
    first = client.put("k/a", "1")
    assert client.put("k/a", "2", prev_kv=True)["kvs"][0]["value"] == b"1"
    client.put("k/b", b"\0\xff")
    assert client.get("k/b") == b"\0\xff" and client.get("k/c") is None
    page = client.range("k/", end="k0", limit=1)
    assert [kv["key"] for kv in page["kvs"]] == [b"k/a"] and page["more"] and page["count"] == 2
    assert client.range("k/a", revision=first["revision"])["kvs"][0]["value"] == b"1"
    assert client.range("k/", end="k0", keys_only=True)["kvs"][0].get("value", b"") == b""
    assert client.delete("k/", end="k0")["count"] == 2
    assert client.range("k/", end="k0", count_only=True).get("count", 0) == 0


def test_transactions(client):
    made = client.txn(compare=[{"key": "t", "target": "version", "op": "="}], then=[{"op": "put", "key": "t", "value": "1"}])
    assert made["succeeded"]
    again = client.txn(compare=[{"key": "t", "target": "version", "op": "="}], then=[{"op": "put", "key": "t", "value": "2"}],
                       otherwise=[{"op": "range", "key": "t"}])
    assert not again.get("succeeded") and again["results"][0]["kvs"][0]["value"] == b"1"
    with pytest.raises(RegentError) as refused:
        client.txn(compare=[{"key": "t", "target": "colour", "op": "="}])
    assert refused.value.name == "invalid" and refused.value.outcome == "none"


def test_a_transaction_inside_a_transaction(client):
    def absent(key):
        return {"key": key, "target": "version", "op": "="}
    inner = {"op": "txn", "compare": [absent("n/b")], "then": [{"op": "put", "key": "n/b", "value": "2"}, {"op": "range", "key": "n/a"}],
             "otherwise": [{"op": "delete", "key": "n/b", "prev_kv": True}]}
    parts = {"compare": [absent("n/a")], "then": [{"op": "put", "key": "n/a", "value": "1"}, inner], "otherwise": [inner]}
    made = client.txn(**parts)
    put, txn = made["results"]
    assert made["succeeded"] and txn["succeeded"] and put["revision"] == txn["revision"] == made["revision"]
    assert [r["op"] for r in txn["results"]] == ["put", "range"] and txn["results"][1]["kvs"][0]["value"] == b"1"
    again = client.txn(**parts)
    gone = again["results"][0]["results"][0]
    assert not again.get("succeeded") and gone["count"] == 1 and gone["kvs"][0]["value"] == b"2"
    assert [kv["key"] for kv in client.range("n/", end="n0")["kvs"]] == [b"n/a"]
    deep = {"op": "range", "key": "n/a"}
    for _ in range(3):
        deep = {"op": "txn", "then": [deep]}
    found = client.txn(then=[deep])
    for _ in range(4):
        assert len(found["results"]) == 1
        found = found["results"][0]
    assert found["kvs"][0]["key"] == b"n/a"
    with pytest.raises(RegentError) as refused:
        client.txn(then=[{"op": "txn", "then": [deep]}])
    assert refused.value.name == "limit" and refused.value.outcome == "none"


def test_a_write_that_is_sent_again_is_applied_once(lab, client):
    client.put("once", "0")
    compare = [{"key": "once", "target": "value", "op": "=", "value": "0"}]
    request = {"compare": compare, "then": [{"op": "put", "key": "once", "value": "1"}], "session": client.session, "seq": client.seq + 1}
    client.seq += 1
    until = time.monotonic() + 60
    first = client.again("kv.txn", request, until, safe=True)
    with contextlib.closing(client_of(lab, [lab.nodes[2]])) as other:
        assert other.again("kv.txn", request, until, safe=True) == first and first["succeeded"]


class Scripted(Client):
    """Its requests meet with what the test says, in order; the last one for ever."""

    def __init__(self, *said, deadline_s=60):
        super().__init__([], deadline_s=deadline_s)
        self.said, self.session, self.sent = list(said), 7, []

    def attempt(self, method, params, until):
        self.sent.append((params["session"], params["seq"]))
        said = self.said.pop(0) if len(self.said) > 1 else self.said[0]
        if isinstance(said, dict):
            return said
        if isinstance(said, RegentError):
            raise said
        name, outcome = said
        raise RegentError(0, name, "said the test", {"outcome": outcome})


def test_a_write_in_doubt_is_sent_again_until_it_has_its_result():
    lost = ("outcome_unknown", "unknown")
    passing = [(name, "none") for name in ("unavailable", "no_space", "limit", "timeout", "cancelled")]
    client = Scripted(lost, *passing, lost, {"revision": 5})
    assert client.put("a", "1") == {"revision": 5} and client.sent == [(7, 1)] * 8
    with pytest.raises(RegentError) as kept:
        Scripted(lost, ("unavailable", "none"), ("not_found", "none")).put("a", "1")
    assert kept.value.name == "not_found"
    with pytest.raises(Unknown):
        Scripted(lost, ("denied", "none")).put("a", "1")
    with pytest.raises(Unknown):
        Scripted(lost, ("no_space", "none"), deadline_s=0.5).put("a", "1")
    with pytest.raises(RegentError) as certain:
        Scripted(("no_space", "none")).put("a", "1")
    assert certain.value.name == "no_space"


def test_a_node_that_is_gone_is_left_for_another():
    client = Scripted(("denied", "none"), {"revision": 5})
    with pytest.raises(RegentError):
        client.put("a", "1")
    client.said, client.endpoints = [RegentError(0, "denied", "said the test", {"gone": True}), {"revision": 5}], ["a", "b"]
    assert client.put("a", "1") == {"revision": 5}


def test_an_unknown_session_is_replaced(client):
    client.put("s", "1")
    client.session = 1
    client.put("s", "2")
    assert client.session > 1 and client.get("s") == b"2"


def test_a_watch_has_every_revision_also_across_nodes(lab, client):
    start = client.put("w/0", "x")["revision"]
    watcher = Watcher(client_of(lab), "w/", end="w0", start_revision=start)
    for i in range(1, 200):
        client.put(f"w/{i}", str(i))
    client.delete("w/7")
    wait_for("all of it", lambda: len(watcher.seen) == 201)
    assert [e[0][1] for _, e in watcher.seen[:200]] == [f"w/{i}" for i in range(200)]
    assert watcher.seen[-1][1] == [("delete", "w/7", "")]
    revisions = [r for r, _ in watcher.seen]
    assert revisions == sorted(set(revisions))


def test_a_large_revision_is_put_together_from_its_parts(lab, client):
    for i in range(0, 6000, 100):
        client.txn(then=[{"op": "put", "key": f"large/{j:05}", "value": "v"} for j in range(i, i + 100)])
    start = client.range("large/")["revision"] + 1
    watcher = Watcher(client_of(lab), "large/", end="large0", start_revision=start, no_put=True)
    client.put("large/00000", "not told")
    client.delete("large/", end="large0")
    wait_for("the delete", lambda: watcher.seen)
    assert len(watcher.seen) == 1 and [e[1] for e in watcher.seen[0][1]] == [f"large/{j:05}" for j in range(6000)]


def test_a_window_holds_the_node_back_and_loses_nothing(lab, client):
    own = client_of(lab).connect(timeout_s=60)
    start = client.put("credit/0", "v" * 1000)["revision"]
    made = own.call("watch.create", {"key": "credit/", "end": "credit0", "start_revision": start, "credit": 3000})
    for i in range(1, 100):
        client.put(f"credit/{i}", "v" * 1000)
    seen, left, ev = [], 3000, {}
    while len(seen) < 100:
        if not left:
            assert own.call("cluster.status", {}) and not own.events  # nothing came meanwhile
            left = 50000 if len(seen) > 10 else 1
            own.call("watch.credit", {"watch": made["watch"], "credit": left})
        ev = own.event()
        left -= ev["used"]
        seen += [e["kv"]["key"] for e in ev["events"]]
    assert seen == [f"credit/{i}".encode() for i in range(100)]
    while left:
        client.put("credit/more", "v" * 50000)
        ev = own.event()
        left -= ev["used"]
    last = client.put("credit/more", "gone")["revision"]
    client.call("kv.compact", revision=last)
    wait_for("this node is there, too", lambda: own.call("cluster.status", {})["compacted_revision"] >= last)
    own.call("watch.credit", {"watch": made["watch"], "credit": 1})
    assert own.event()["compacted"] >= last
    for watch in (made["watch"], own.call("watch.create", {"key": "credit/"})["watch"]):
        with pytest.raises(RegentError) as refused:
            own.call("watch.credit", {"watch": watch, "credit": 1})
        assert refused.value.name == ("not_found" if watch == made["watch"] else "precondition")
    own.close()


def test_a_slow_consumer_of_a_watch_has_all_of_it(lab, client):
    start = client.put("slow/0", "x")["revision"]
    events = client_of(lab).watch("slow/", end="slow0", start_revision=start, window=2000)
    for i in range(1, 60):
        client.put(f"slow/{i}", "x" * 500)
    assert [next(events)[1][0]["kv"]["key"] for _ in range(60)] == [f"slow/{i}".encode() for i in range(60)]


def test_progress_is_told(lab, client):
    watcher = Watcher(client_of(lab), "nothing/ever", progress_ms=1000)
    wait_for("it watches", lambda: watcher.seen)
    client.put("elsewhere", "1")
    revision = client.range("elsewhere")["revision"]
    wait_for("it is told", lambda: watcher.seen[-1][0] >= revision)
    assert all(events == [] for _, events in watcher.seen)


def test_a_compacted_start_is_an_error(client):
    client.put("c", "1")
    client.call("kv.compact", revision=client.put("c", "2")["revision"])
    with pytest.raises(RegentError) as gone:
        next(client.watch("c", start_revision=1))
    assert gone.value.name == "compacted"


def test_leases(client):
    def kept():
        """None: this machine stood still for so long that the lease had to end."""
        lease = client.lease(3000)
        with contextlib.suppress(RegentError):
            client.put("l", "mine", lease=lease.id)
        until = time.monotonic() + 6
        while time.monotonic() < until:
            held, renewed, there = lease.deadline, lease.renew(), client.get("l") == b"mine"
            if time.monotonic() > held:
                return None
            assert renewed and there and lease.deadline > held
        return lease
    lease = wait_for("it is renewed in time", kept)
    wait_for("it ends", lambda: client.get("l") is None)
    assert not lease.renew()
    other = client.lease(60000)
    client.put("l", "again", lease=other.id)
    other.revoke()
    assert client.get("l") is None


def test_a_change_of_leader_costs_no_write_and_no_event(lab, client):
    watcher = Watcher(client_of(lab), "f/", end="f0", start_revision=client.put("f/0000", "0")["revision"])
    done, stop = [], threading.Event()

    def write():
        i = 0
        with contextlib.closing(client_of(lab)) as own:
            while not stop.is_set():
                i += 1
                own.txn(compare=[{"key": "f/last", "target": "value", "op": "=", "value": str(i - 1)}] if i > 1 else [],
                        then=[{"op": "put", "key": "f/last", "value": str(i)}, {"op": "put", "key": f"f/{i:04}", "value": str(i)}])
                done.append(i)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for how in (signal.SIGKILL, signal.SIGTERM):
            n = len(done)
            wait_for("some writes", lambda n=n: len(done) > n + 20)
            leader = lab.leader()
            leader.kill(how)
            wait_for("more writes", lambda n=len(done): len(done) > n + 20)
            leader.start()
            wait_for("it is back", lambda leader=leader: leader.status()["leader_id"] != 0)
    finally:
        stop.set()
        writer.join(70)
    kvs = client.range("f/0", end="f/a")["kvs"]
    assert [int(kv["value"]) for kv in kvs[1:]] == list(range(1, len(done) + 1))  # each compared the one before it
    wait_for("all events", lambda: watcher.seen and watcher.seen[-1][1][-1][2] == str(done[-1]))
    assert [int(e[0][2]) for _, e in watcher.seen] == list(range(len(done) + 1))


def csr_of(tmp_path, name):
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                    "-keyout", tmp_path / "key", "-out", tmp_path / "csr"], check=True, capture_output=True)
    return (tmp_path / "csr").read_bytes()


def test_a_token_whose_answer_was_lost_is_redeemed_again(lab, client, tmp_path):
    token = client.call("token.create", uses=1)["token"]
    request = {"token": token, "name": "late", "address": "127.0.0.1:1", "csr": csr_of(tmp_path, "late")}
    stranger = Connection(lab.nodes[0].address, ca=lab.nodes[0].dir / "pki" / "ca.crt", timeout_s=60)
    stranger.send("token.redeem", request)
    stranger.close()  # without the answer
    wait_for("it was redeemed", lambda: "late" in [m["name"] for m in client.call("member.list")["members"]])
    assert client.call("token.list").get("tokens", []) == []
    again = Connection(lab.nodes[1].address, ca=lab.nodes[0].dir / "pki" / "ca.crt", timeout_s=60)
    grant = again.call("token.redeem", request)
    subprocess.run(["openssl", "req", "-new", "-key", tmp_path / "key", "-subj", "/CN=late", "-out", tmp_path / "csr"], check=True, capture_output=True)
    request["csr"] = (tmp_path / "csr").read_bytes()  # another request with the same key
    assert again.call("token.redeem", request)["member_id"] == grant["member_id"]
    with pytest.raises(RegentError) as used:
        again.call("token.redeem", {**request, "csr": csr_of(tmp_path, "late")})
    assert used.value.name == "denied"
    again.close()
    client.call("member.remove", name="late")


def test_without_a_certificate_little_is_answered(lab):
    stranger = Connection(lab.nodes[0].address, ca=lab.nodes[0].dir / "pki" / "ca.crt", timeout_s=60)
    assert stranger.node["access"] == "none"
    with pytest.raises(RegentError) as no:
        stranger.call("kv.range", {"key": "a", "end": ALL})
    assert no.value.name == "unauthenticated"
    stranger.close()
