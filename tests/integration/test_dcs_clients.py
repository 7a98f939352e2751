"""Greedy, hostile and slow clients of the store: bounded memory, nobody else kept away, no false failure."""
import contextlib
import json
import os
import random
import socket
import ssl
import threading
import time

import pytest

from dcs_attack import HEAVY, NEEDED, Wire, fill, pack, port_of, rss_mib, tls
from dcs_lab import DcsError, wait_for
from realtime import Metronome

pytestmark = NEEDED
OUT_OF_TIME_MS = 250


@pytest.fixture(name="metronome", autouse=True)
def metronome_fixture():
    """A bound of a second or two says nothing about a node that had no processor, or no disk, for a part of it."""
    with Metronome(disk=True) as metronome:
        yield metronome


# ---- greedy clients ----------------------------------------------------------------------------


def test_what_does_not_fit_into_a_message_is_paged_and_never_a_false_failure(one):
    client = one.client()
    fill(client, 20000)
    keys, at = [], "k-"
    while True:
        page = client("kv.range", key=at, end="k.")
        assert page["count"] == 20000 - len(keys)
        keys += [kv["key"] for kv in page["kvs"]]
        if not page.get("more"):
            break
        at = keys[-1] + "!"
    assert len(set(keys)) == len(keys) == 20000
    whole = {"op": "range", "key": "k-", "end": "k."}
    few = {"op": "range", "key": keys[0], "end": keys[200]}
    results = client("kv.txn", then=[whole, *[few] * 60])["results"]
    assert results[0]["more"] and [r["count"] for r in results] == [20000, *[200] * 60]
    assert sum(len(r.get("kvs", [])) for r in results) <= 4096 and results[-1]["more"]
    with pytest.raises(DcsError) as refused:  # every member would count them all as it applies it
        client("kv.txn", then=[whole, whole])
    assert refused.value.name == "limit"
    gone = client("kv.delete", key="k-", end="k.", prev_kv=True)
    assert gone["count"] == 20000 and gone["more"] and len(gone["kvs"]) > 1000


def test_a_transaction_cannot_ask_for_more_than_a_message(one):
    client = one.client()
    client("kv.put", key="big", value="x" * 600000)
    results = client("kv.txn", then=[{"op": "range", "key": "big"}] * 128)["results"]
    assert [len(r.get("kvs", [])) for r in results] == [1] + [0] * 127
    assert all(r["more"] for r in results[1:])
    results = client("kv.txn", then=[{"op": "put", "key": "big", "value": "y", "prev_kv": True},
                                     {"op": "put", "key": "big", "value": "z" * 600000}])["results"]
    assert len(results[0]["kvs"]) == 1


def test_a_delete_of_everything_does_not_stop_the_leader(one, metronome):
    """The loop would stand still for seconds, and with it heartbeats and the renewals of leases."""
    with contextlib.closing(Wire(one.nodes[0])) as client:
        for i in range(0, 33000, 125):
            client("kv.txn", then=[{"op": "put", "key": f"k-{j:06}", "value": "v"} for j in range(i, i + 125)])
        for delete in (lambda: client("kv.delete", key="k-", end="k."),
                       lambda: client("kv.txn", then=[{"op": "delete", "key": "k-", "end": "k-02"},
                                                      {"op": "delete", "key": "k-02", "end": "k."}])):
            with pytest.raises(DcsError) as refused:
                delete()
            assert refused.value.name == "limit"
        began = time.monotonic()
        assert client("kv.delete", key="k-", end="k-03")["count"] == 30000
        assert time.monotonic() - began < 2 or metronome.worst_ms() > OUT_OF_TIME_MS
        assert client("kv.delete", key="k-", end="k.")["count"] == 3000


def test_a_watcher_of_a_delete_of_20000_keys_is_told_of_each_in_parts(one):
    client = one.client()
    fill(client, 20000)
    path = one.root / "events"
    with path.open("w") as out:
        watch = one.tool("watch", "k-", "k.", 0, stdout=out)
    with path.with_name("others").open("w") as out:
        other = one.tool("watch", "k-000001", "", 0, stdout=out)

    def lines(name):
        return [json.loads(line) for line in path.with_name(name).read_text().splitlines(keepends=True) if line.endswith("\n")]

    def both_watch():
        client("kv.put", key="k-000001", value="x")
        return lines("events") and lines("others")

    wait_for("both watch", both_watch)
    client("kv.delete", key="k-", end="k.")
    wait_for("it has the last part", lambda: not lines("events")[-1].get("more") and lines("events")[-1]["events"][-1]["type"] == "delete")
    parts = [e for e in lines("events") if e["events"][0]["type"] == "delete"]
    assert len(parts) > 1 and len({e["revision"] for e in parts}) == 1
    assert [e["kv"]["key"] for p in parts for e in p["events"]] == [f"k-{i:06}" for i in range(20000)]
    wait_for("the other has its event", lambda: lines("others")[-1].get("events", [{}])[0].get("type") == "delete")
    for process in (watch, other):
        process.kill()
        process.wait()


# ---- hostile, greedy and slow connections --------------------------------------------------------


def assert_serves(node, metronome, within_s=2):
    began = time.monotonic()
    with contextlib.closing(Wire(node, local=False)) as client:
        client("kv.put", key="probe", value="1", deadline_ms=30000)
    assert time.monotonic() - began < within_s or metronome.worst_ms() > OUT_OF_TIME_MS


def test_many_large_answers_at_once_do_not_cost_the_connection(one):
    with contextlib.closing(Wire(one.nodes[0], timeout=60)) as client:
        for i in range(3):
            client("kv.put", key=f"b{i}", value="x" * 1500000)
        for i in range(60):
            client.send("kv.range", key="b0", end="c", local=i % 2 == 1)
        frames = [client.frame() for _ in range(60)]
        refused = [f[2][1] for f in frames if f[2]]
        assert set(refused) <= {"limit"} and len(refused) < 60
        assert client("kv.put", key="after", value="1")


def test_256_large_requests_in_flight_leave_memory_bounded_and_others_served(one, metronome):
    node = one.nodes[0]
    with contextlib.closing(Wire(node, timeout=60)) as client:
        thread = threading.Thread(target=lambda: [
            client.send("kv.put", key=f"w{i % 3}", value="y" * 1500000, deadline_ms=60000) for i in range(256)])
        thread.start()
        peak, answers = 0, []
        for i in range(256):
            answers.append(client.frame())
            peak = max(peak, rss_mib(node))
            if i % 64 == 0:
                assert_serves(node, metronome, 5)
        thread.join()
    assert {f[2][1] for f in answers if f[2]} <= {"limit"}
    assert peak < 250, f"{peak} MiB"


def test_a_crowd_that_never_finishes_its_requests_costs_bounded_memory_and_keeps_nobody_away(one, metronome):
    """256 clients announce a request of 1.5 MiB each, send most of it and stop. Nobody else notices; those that have to go make room."""
    node = one.nodes[0]
    put = pack([0, 9, "kv.put", [{"key": "w", "value": "y" * 1500000, "deadline_ms": 60000}]])
    before, crowd = rss_mib(node), []
    try:
        for i in range(256):
            client = Wire(node, local=i % 2 == 0, timeout=60)
            client.sock.settimeout(0.02)
            with contextlib.suppress(TimeoutError):
                client.sock.sendall(put[:-100000])
            crowd.append(client)
            if i % 64 == 63:
                assert_serves(node, metronome)
        peak = rss_mib(node)
        assert peak < before + 150, f"{before} MiB, then {peak} MiB"
        for client in crowd[24:]:  # 16 are in the way of 8, and of the next
            client.close()
        with contextlib.closing(Wire(node, local=False, timeout=60)) as patient:
            assert patient("kv.put", key="large", value="z" * 1500000, deadline_ms=60000)
        assert "event=stalled" in node.log() and rss_mib(node) < before + 150
        assert_serves(node, metronome)
    finally:
        for client in crowd:
            client.close()
    assert_serves(node, metronome)


def test_a_crowd_that_reads_no_answers_costs_bounded_memory(one, metronome):
    node = one.nodes[0]
    with contextlib.closing(Wire(node)) as client:
        client("kv.put", key="b", value="x" * 1500000)
    before, crowd = rss_mib(node), []
    try:
        for _ in range(64):
            client = Wire(node, timeout=60)
            for _ in range(8):
                client.send("kv.range", key="b")
            client("cluster.status")
            crowd.append(client)
        assert rss_mib(node) < before + 150
        assert_serves(node, metronome)
        with contextlib.closing(Wire(node)) as client, pytest.raises(DcsError) as refused:
            client("kv.range", key="b")
        assert refused.value.name == "limit"
        errors = b"".join(pack([0, i, "no.such.method.of.a.name.that.is.rather.long", [{}]]) for i in range(1000))
        assert "event=too_slow" not in node.log()
        client = Wire(node, timeout=60)
        crowd.append(client)
        with contextlib.suppress(ConnectionError):
            for _ in range(60):  # errors are answers, too
                client.sock.sendall(errors)
        wait_for("it is closed", lambda: "event=too_slow" in node.log())
    finally:
        for client in crowd:
            client.close()
    with contextlib.closing(Wire(node)) as client:
        wait_for("there is room again", lambda: not isinstance(read(client, "b"), DcsError))


def read(client, key):
    try:
        return client("kv.range", key=key)
    except DcsError as e:
        return e


def test_a_crowd_that_never_finishes_its_handshake_keeps_nobody_away(one, metronome):
    node = one.nodes[0]
    before = rss_mib(node)
    crowd = []
    try:
        for i in range(600):
            s = socket.create_connection(("127.0.0.1", port_of(node)), 30, source_address=(f"127.0.0.{2 + i % 2}", 0))
            if i % 3 == 0:
                s.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(20))  # half a hello
            crowd.append(s)
            if i % 100 == 99:
                assert_serves(node, metronome)
        assert len(os.listdir(f"/proc/{node.process.pid}/fd")) < 250
        assert rss_mib(node) < before + 60
    finally:
        for s in crowd:
            s.close()


def test_a_host_that_connects_without_end_is_turned_away_before_the_handshake(one, metronome):
    node = one.nodes[0]

    def turned_away():
        for _ in range(100):
            socket.create_connection(("127.0.0.1", port_of(node)), 30, source_address=("127.0.0.2", 0)).close()
        return "event=turned_away host=127.0.0.2" in node.log()
    wait_for("it is in the log", turned_away)
    assert node.log().count("turned_away") == 1
    assert_serves(node, metronome)
    with contextlib.closing(Wire(node, local=False)) as other:  # from another address
        assert other("cluster.status")["state"] == "leader"


def hostile_bytes(rng):
    frames = [
        rng.randbytes(rng.randrange(1, 5000)),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xdd\xff\xff\xff\xff" * 10,                     # arrays that promise more than there is
        b"\x91" * 5000,                                   # depth
        b"\xc6\x7f\xff\xff\xff" + b"x" * 100000,          # 2 GiB of bytes
        pack([0, 1, "hello", [{"version": 1}]]) + b"\xc1",
        pack([0, 1, "hello", [{"version": "one"}]]) + pack([1, 1, None, {}]) + pack([2, "raft.frame", [{"data": b"x" * 99}]]),
        pack([0, 1, "kv.put", [{"key": b"k", "value": b"x" * (3 << 20)}]]),
        pack([0, 1 << 40, "no.such", [{}]]) * 50,
    ]
    return rng.choice(frames)


def test_hostile_bytes_before_and_after_authentication_close_one_connection_and_no_more(one, metronome):
    node = one.nodes[0]
    rng = random.Random(os.environ.get("REGENT_SEED") or time.time_ns())
    before = rss_mib(node)
    for i in range(2000 if HEAVY else 60):
        with contextlib.suppress(OSError), contextlib.closing(
                socket.create_connection(("127.0.0.1", port_of(node)), 2)) as raw:
            s = raw if i % 3 == 0 else tls(node, raw, certificate=i % 3 == 1)
            s.sendall(hostile_bytes(rng))
            s.settimeout(0.02)
            s.recv(1000)
    with contextlib.closing(Wire(node)) as client, pytest.raises(OSError):
        client.sock.sendall(b"\xc1" * 100)
        while True:
            client.frame()
    assert_serves(node, metronome)
    assert rss_mib(node) < before + 60
    assert "level=fatal" not in node.log()


def test_without_a_certificate_nothing_but_the_open_methods_is_answered(one):
    node = one.nodes[0]
    client = Wire.__new__(Wire)
    client.sock, client.buffer, client.msgid = tls(node, socket.create_connection(
        ("127.0.0.1", port_of(node)), 5), certificate=False), bytearray(), 0
    with pytest.raises(DcsError) as too_old:
        client("hello", version=0)
    assert too_old.value.name == "unsupported"
    assert client("hello", version=7, what_is_this="new")["version"] == 1
    assert client("hello", version=1)["access"] == "none"
    for method in ("kv.range", "kv.put", "watch.create", "cluster.status", "ca.fetch", "snapshot.read", "raft.confirm"):
        with pytest.raises(DcsError) as refused:
            client(method, key="a")
        assert refused.value.name in ("unauthenticated", "denied"), method
    client.close()


def test_without_a_certificate_few_answers_may_wait_to_be_read(one, metronome):
    node, request, got = one.nodes[0], b"", 0
    plain = socket.socket()
    plain.settimeout(20)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    plain.connect(("127.0.0.1", port_of(node)))
    for i in range(500):
        request += pack([0, i, "kv.range", [{"key": "a"}]])
    with contextlib.closing(tls(node, plain, certificate=False)) as client:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for _ in range(300):  # of 20 MiB of answers
                client.sendall(request)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while more := client.recv(1 << 16):
                got += len(more)
    assert got < 10 * 1024 * 1024, "what the kernel keeps, and a little"
    assert_serves(node, metronome)


def test_a_watcher_that_does_not_read_is_cut_off_and_can_resume(one):
    node = one.nodes[0]
    with contextlib.closing(Wire(node)) as slow, contextlib.closing(Wire(node)) as writer:
        slow("watch.create", key="w", end="x")
        before = rss_mib(node)
        for i in range(60):
            writer("kv.put", key=f"w{i % 5}", value=f"{i:04}" * 100000)
        assert rss_mib(node) < before + 150
        seen, watch_ended = [], False
        while not watch_ended:
            event = slow.frame()[2][0]
            watch_ended = event.get("cancelled", False)
            seen += [] if watch_ended else [event["revision"]]
        assert seen == list(range(seen[0], seen[-1] + 1)) and len(seen) < 60
        last = seen[-1]
        while last < 60:
            slow("watch.create", key="w", end="x", start_revision=last + 1)
            while last < 60:
                frame = slow.frame()
                event = frame[2][0] if frame[0] == 2 else {}
                if event.get("cancelled"):
                    break
                if "revision" in event:
                    assert event["revision"] == last + 1
                    last += 1
