"""The DCS attacked: kills at every storage call, failing, full and damaged disks, hostile and greedy clients, cut networks.

REGENT_HEAVY=1 runs the long variants: more kills, every storage call instead of a sample, minutes of load."""
import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import pytest

from dcs_lab import DcsError, Lab, Node, build_dir, wait_for
from disks import LoopDisk, own_mounts
from netns import Net, why_not

HEAVY = os.environ.get("REGENT_HEAVY") == "1"

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "dcs_node").exists(), reason="dcs_node is not built"),
    pytest.mark.skipif(not (build_dir() / "dcs_tool").exists(), reason="dcs_tool is not built"),
]


def new_lab(nodes=3, timing=(), root=None):
    # Not pytest's tmp_path: the path of a local socket has to be short.
    return Lab(root or tempfile.mkdtemp(prefix="dcs.", dir="/tmp"), nodes, timing)


@pytest.fixture(name="lab")
def lab_fixture():
    lab = new_lab()
    yield lab
    lab.close()


@pytest.fixture(name="one")
def one_fixture():
    lab = new_lab(1)
    yield lab
    lab.close()


# ---- bytes on the wire -------------------------------------------------------------------------


def pack(v):
    """MessagePack, as far as the protocol needs it."""
    if v is None:
        return b"\xc0"
    if isinstance(v, bool):
        return b"\xc3" if v else b"\xc2"
    if isinstance(v, int):
        return b"\xcf" + v.to_bytes(8, "big")
    if isinstance(v, (str, bytes)):
        raw = v.encode() if isinstance(v, str) else v
        return (b"\xdb" if isinstance(v, str) else b"\xc6") + len(raw).to_bytes(4, "big") + raw
    if isinstance(v, dict):
        return b"\xdf" + len(v).to_bytes(4, "big") + b"".join(pack(k) + pack(x) for k, x in v.items())
    return b"\xdd" + len(v).to_bytes(4, "big") + b"".join(pack(x) for x in v)


class Short(Exception):
    pass


def unpack(b, at=0):
    """(value, position behind it); Short when bytes are missing."""
    def take(n):
        nonlocal at
        if at + n > len(b):
            raise Short
        at += n
        return bytes(b[at - n:at])

    def many(n, pairs):
        nonlocal at
        items = []
        for _ in range(2 * n if pairs else n):
            value, at = unpack(b, at)
            items.append(value)
        return dict(zip(items[::2], items[1::2])) if pairs else items

    tag = take(1)[0]
    if tag < 0x80:
        return tag, at
    if tag < 0xc0:
        value = take(tag & 0x1f) if tag >= 0xa0 else many(tag & 0xf, tag < 0x90)
        return (value.decode() if tag >= 0xa0 else value), at
    if tag in (0xc0, 0xc2, 0xc3):
        return {0xc0: None, 0xc2: False, 0xc3: True}[tag], at
    if 0xcc <= tag <= 0xcf:
        return int.from_bytes(take(1 << (tag - 0xcc)), "big"), at
    sizes = {0xc4: 1, 0xc5: 2, 0xc6: 4, 0xd9: 1, 0xda: 2, 0xdb: 4, 0xdc: 2, 0xdd: 4, 0xde: 2, 0xdf: 4}
    n = int.from_bytes(take(sizes[tag]), "big")
    if tag >= 0xdc:
        return many(n, tag >= 0xde), at
    raw = take(n)
    return (raw.decode() if tag >= 0xd9 else raw), at


class Wire:
    """A connection of our own to one node: nothing is sent again, nothing is waited for that was not asked for."""

    def __init__(self, node, local=True, timeout=5):
        if local:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(str(node.dir / "regent.sock"))
        else:
            self.sock = tls(node, socket.create_connection(("127.0.0.1", port_of(node)), timeout))
        self.buffer = bytearray()
        self.msgid = 0
        self.answer(self.send("hello", version=1))

    def send(self, method, **params):
        self.msgid += 1
        self.sock.sendall(pack([0, self.msgid, method, [params]]))
        return self.msgid

    def frame(self):
        while True:
            with contextlib.suppress(Short):
                value, at = unpack(self.buffer)
                del self.buffer[:at]
                return value
            more = self.sock.recv(1 << 20)
            if not more:
                raise ConnectionError("closed")
            self.buffer += more

    def answer(self, msgid):
        while True:
            frame = self.frame()
            if frame[0] == 1 and frame[1] == msgid:
                if frame[2]:
                    raise DcsError({"error": frame[2][1], "text": frame[2][2]})
                return frame[3]

    def __call__(self, method, **params):
        return self.answer(self.send(method, **params))

    def close(self):
        self.sock.close()


def text(key):
    return key.decode() if isinstance(key, bytes) else key


def port_of(node):
    return int(node.address.rsplit(":", 1)[1])


def tls(node, sock, certificate=True):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(node.dir / "pki" / "ca.crt")
    if certificate:
        context.load_cert_chain(node.dir / "pki" / "node.crt", node.dir / "pki" / "node.key")
    return context.wrap_socket(sock)


def fill(client, n, prefix="k-", value="v"):
    for i in range(0, n, 100):
        client("kv.txn", then=[{"op": "put", "key": f"{prefix}{j:06}", "value": value} for j in range(i, min(n, i + 100))])


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
    many = client("kv.txn", then=[{"op": "range", "key": "k-", "end": "k."}] * 128)["results"]
    assert all(r["more"] and r["count"] == 20000 for r in many)
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


def test_a_delete_of_everything_does_not_stop_the_leader(one):
    """The loop would stand still for seconds, and with it heartbeats and the renewals of leases."""
    with contextlib.closing(Wire(one.nodes[0], timeout=20)) as client:
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
        assert time.monotonic() - began < 2
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


# ---- a kill or an error at every storage call ----------------------------------------------------

CALLS = ("pwrite64", "fdatasync", "fsync", "rename", "ftruncate", "unlink")


def can_trace():
    with contextlib.suppress(OSError):
        return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0
    return False


needs_strace = pytest.mark.skipif(not can_trace(), reason="strace is missing or may not trace here")


def inject(call, what, when):
    return ["strace", "-f", "-q", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={when}"]


def end_traced(node):
    """The traced process first: strace then ends by itself."""
    with contextlib.suppress(OSError):
        for child in open(f"/proc/{node.process.pid}/task/{node.process.pid}/children", encoding="ascii").read().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        node.process.wait(5)
    node.process.kill()
    node.process.wait()


def start_traced(node, under):
    """Until it serves, or is dead."""
    before = len(node.log())
    node.start(wait=False, under=under)
    wait_for("it is up or dead", lambda: not node.alive() or "\nready\n" in "\n" + node.log()[before:])


def scripted_writes(node, acknowledged, n=20):
    """What was acknowledged is noted before the next write; ends when the node does."""
    with contextlib.suppress(OSError, DcsError):
        client = Wire(node)
        with contextlib.closing(client):
            for _ in range(n):
                key = f"{len(acknowledged):04}"
                client("kv.put", key=f"s-{key}", value=key * 50, deadline_ms=2000)
                acknowledged.append(key)


def count_calls(one, call):
    """How often the busiest thread makes it over start, writes and snapshots."""
    node, path = one.nodes[0], one.root / "trace"
    start_traced(node, ["strace", "-f", "-q", "-o", path, "-e", f"trace={call}"])
    scripted_writes(node, [])
    end_traced(node)
    per_thread = {}
    for line in path.read_text().splitlines():
        if f" {call}(" in line:
            per_thread[line.split()[0]] = per_thread.get(line.split()[0], 0) + 1
    return max(per_thread.values(), default=0)


def sample(n, k):
    """k of 1..n: the first ones, the last one, and some between; all of them in the long variant."""
    if HEAVY or n <= k:
        return range(1, n + 1)
    rng = random.Random(os.environ.get("REGENT_SEED") or time.time_ns())
    return sorted({1, 2, n, *rng.sample(range(1, n + 1), k - 3)})


def keys_of(client, prefix, **more):
    keys, at = [], prefix
    while True:
        page = client("kv.range", key=at, end=prefix[:-1] + chr(ord(prefix[-1]) + 1), keys_only=True, **more)
        keys += [text(kv["key"]) for kv in page.get("kvs", [])]
        if not page.get("more"):
            return keys
        at = keys[-1] + "!"


def assert_nothing_forgotten(node, acknowledged, revision=0):
    with contextlib.closing(Wire(node)) as client:
        have = set(keys_of(client, "s-"))
        assert {f"s-{key}" for key in acknowledged} <= have
        assert client("cluster.status").get("revision", 0) >= revision


def serves(node):
    """Answers a write (a full disk: that there is no space), or ends, within a second."""
    began = time.monotonic()
    try:
        with contextlib.closing(Wire(node, timeout=1)) as client:
            client("kv.put", key="probe", value="1", deadline_ms=1000)
            return True
    except DcsError as e:
        if e.name == "no_space":
            return True
    except OSError:
        pass
    with contextlib.suppress(subprocess.TimeoutExpired):
        node.process.wait(max(0, began + 1 - time.monotonic()))
    return not node.alive()


@needs_strace
@pytest.mark.parametrize("call", CALLS)
def test_a_kill_at_any_storage_call_forgets_nothing(call):
    one = new_lab(1, ("--snapshot-every", "7"))
    try:
        node = one.nodes[0]
        node.kill()
        n = count_calls(one, call)
        acknowledged = []
        for when in sample(n, 6):
            start_traced(node, inject(call, "signal=SIGKILL", when))
            scripted_writes(node, acknowledged)
            end_traced(node)
            node.start()
            one.leader()
            assert_nothing_forgotten(node, acknowledged, len(acknowledged))
            node.kill()
    finally:
        one.close()


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", CALLS)
def test_an_error_of_any_storage_call_is_survived_or_ends_the_process_with_one_line(call, error):
    one = new_lab(1, ("--snapshot-every", "7"))
    try:
        node = one.nodes[0]
        node.kill()
        n = count_calls(one, call)
        acknowledged = []
        for when in sample(n, 5):
            before = len(node.log())
            start_traced(node, inject(call, f"error={error}", when))
            scripted_writes(node, acknowledged)
            stuck = node.alive() and not serves(node)
            assert not stuck
            said = [line for line in node.log()[before:].splitlines() if "level=fatal" in line or line.startswith("dcs_node:")]
            assert node.alive() or len(said) == 1, (when, node.log()[before:])
            end_traced(node)
            node.start()
            one.leader()
            assert_nothing_forgotten(node, acknowledged, len(acknowledged))
            node.kill()
    finally:
        one.close()


# ---- full disks ----------------------------------------------------------------------------------


def free_bytes(path):
    v = os.statvfs(path)
    return v.f_bavail * v.f_frsize


@pytest.fixture(name="small_disk")
def small_disk_fixture():
    root = tempfile.mkdtemp(prefix="dcs.", dir="/tmp")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", root], capture_output=True, check=False)
    if done.returncode != 0:
        os.rmdir(root)
        pytest.skip("may not mount a small file system here")
    yield root
    subprocess.run(["umount", root], check=True)
    os.rmdir(root)


def fill_disk(root, leave):
    with open(f"{root}/filler", "ab", buffering=0) as f:
        while (n := free_bytes(root) - leave) > 0:
            try:
                f.write(b"\0" * min(n, 1 << 16))
            except OSError:
                return


def test_a_full_disk_refuses_clients_and_serves_ha_keys_until_there_is_room(small_disk):
    one = new_lab(1, ("--snapshot-every", "500"), root=small_disk)
    try:
        node = one.nodes[0]
        client = one.client()
        client("kv.put", key="early", value="1")
        fill_disk(small_disk, leave=8 << 20)

        def refused():
            try:
                client("kv.put", key="mine", value="x" * 1000)
            except DcsError as e:
                assert e.name == "no_space" and "free some space" in e.text
                return True
            return False

        wait_for("clients are refused", refused)
        fill_disk(small_disk, leave=0)
        lease = client("lease.grant", ttl_ms=20000, nonce=1)["id"]
        for i in range(300):
            client("kv.put", key="/regent/test/leader", value=f"{i}" * 100, lease=lease)
            client("lease.renew", id=lease, nonce=1, n=i + 1, urgent=True)
        assert refused()
        client("kv.delete", key="early")
        assert node.alive()
        # A restart on the full disk still serves.
        node.kill()
        node.start()
        one.leader()
        client("kv.put", key="/regent/test/leader", value="again")
        (node.dir.parent / "filler").unlink()

        def room():
            with contextlib.suppress(DcsError):
                return client("kv.put", key="mine", value="1")
            return None

        wait_for("clients are served again", room)
        assert node.log().count("event=disk_full") == 2 and node.log().count("event=disk_ok") == 1
    finally:
        one.close()
        with contextlib.suppress(OSError):
            os.mkdir(small_disk)


def test_a_disk_with_no_byte_left_ends_the_process_in_words_and_forgets_nothing(small_disk):
    one = new_lab(1, root=small_disk)
    try:
        node = one.nodes[0]
        acknowledged = []
        with contextlib.suppress(OSError, DcsError), contextlib.closing(Wire(node)) as client:
            for i in range(5000):
                key = f"{i:06}"
                client("kv.put", key=f"/regent/{key}", value="x" * 60000)
                acknowledged.append(key)
                if i % 20 == 0:
                    fill_disk(small_disk, leave=0)
        node.process.wait(5)
        said = [line for line in node.log().splitlines() if "level=fatal" in line]
        assert len(said) == 1 and ("full" in said[0] or "space" in said[0]), node.log()
        with contextlib.suppress(OSError):
            (node.dir.parent / "filler").unlink()
        node.start()
        one.leader()
        with contextlib.closing(Wire(node)) as client:
            have = keys_of(client, "/regent/", limit=1000)
        assert {f"/regent/{key}" for key in acknowledged} <= set(have)
    finally:
        one.close()
        with contextlib.suppress(OSError):
            os.mkdir(small_disk)


# ---- damaged files -------------------------------------------------------------------------------


def flip(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


DAMAGE = {
    "flip": flip,
    "cut in half": lambda path, rng: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path, rng: os.truncate(path, 0),
    "a little shorter": lambda path, rng: os.truncate(path, path.stat().st_size - rng.randrange(1, 1000)),
    "removed": lambda path, rng: path.unlink(),
}


@pytest.mark.parametrize("how_it_ended", [signal.SIGKILL, signal.SIGTERM])
def test_a_damaged_file_is_refused_with_the_remedy_and_nothing_is_forgotten(how_it_ended):
    one = new_lab(1, ("--snapshot-every", "30"))
    rng = random.Random(os.environ.get("REGENT_SEED") or time.time_ns())
    wanted = {f"s-{i:04}": f"{i}" * 100 for i in range(100)}
    try:
        node = one.nodes[0]
        with contextlib.closing(Wire(node)) as client:
            for key, value in wanted.items():
                client("kv.put", key=key, value=value)
        wait_for("the state is committed", lambda: node.status()["applied_index"] == node.status()["commit_index"])
        time.sleep(0.8)  # the passes of half a second share a commit of the state
        node.kill(how_it_ended)
        backup = one.root / "backup"
        shutil.copytree(node.dir, backup, ignore=shutil.ignore_patterns("regent.sock"))
        files = [f.name for f in backup.iterdir() if f.is_file() and f.name not in ("lock", "ballast") and f.stat().st_size]
        refused = 0
        for name in sorted(files):
            for how, damage in DAMAGE.items():
                for _ in range((20 if HEAVY else 4) if how == "flip" else 1):
                    shutil.rmtree(node.dir)
                    shutil.copytree(backup, node.dir)
                    damage(node.dir / name, rng)
                    before = len(node.log())
                    start_traced(node, ())
                    said = node.log()[before:]
                    if node.alive():
                        one.leader()
                        with contextlib.closing(Wire(node)) as client:
                            kvs = client("kv.range", key="s-", end="t")["kvs"]
                        assert {text(kv["key"]): text(kv["value"]) for kv in kvs} == wanted, (name, how)
                        node.kill()
                    else:
                        refused += 1
                        assert node.process.returncode == 1, (name, how, said)
                        assert said.startswith("dcs_node: cannot start: ") and said.count("\n") == 1, (name, how, said)
                        assert "member remove" in said, (name, how, said)
        assert refused > 8
    finally:
        one.close()


# ---- kills under load ----------------------------------------------------------------------------


def content(node):
    """What has to be equal on all members; of a node that has stopped."""
    import sqlite3
    with contextlib.closing(sqlite3.connect(node.dir / "state.db")) as db:
        tables = {t: db.execute(f"SELECT * FROM {t} ORDER BY 1, 2").fetchall()
                  for t in ("kv", "event", "lease", "result", "token", "member")}
        tables["session"] = db.execute("SELECT id, nonce, last_seq FROM session ORDER BY 1").fetchall()
        tables["store"] = db.execute("SELECT revision, compacted, applied FROM store").fetchall()
        return tables


def settle(lab):
    """All members run and have applied the same."""
    def same():
        status = [n.status() for n in lab.nodes]
        return all(status) and len({(s["applied_index"], s["revision"]) for s in status}) == 1
    wait_for("all have applied the same", same)


def test_kills_of_random_members_lose_nothing_and_leave_equal_states(lab):
    rng = random.Random(os.environ.get("REGENT_SEED") or time.time_ns())
    cycles = 60 if HEAVY else 12
    loads = [lab.tool("load", f"s-{i}-", 8, cycles * 800 + 3000) for i in range(2)]
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
    acknowledged = set()
    for load in loads:
        acknowledged |= {line.split()[1] for line in load.communicate(timeout=60)[0].splitlines() if line.startswith("ok ")}
    assert len(acknowledged) > 500
    leader = lab.leader()
    with contextlib.closing(Wire(leader)) as wire:
        have = set(keys_of(wire, "s-"))
    assert acknowledged <= have
    settle(lab)
    for node in lab.nodes:
        node.kill(signal.SIGTERM)
    # Stopping moves leadership: what a member did not hear of is what its log brings at the next start.
    for node in lab.nodes:
        node.start(wait=False)
    lab.leader()
    settle(lab)
    time.sleep(0.3)
    for node in lab.nodes:
        node.kill()
    first, *others = [content(n) for n in lab.nodes]
    for other in others:
        for table, rows in first.items():
            assert rows == other[table], table


# ---- hostile, greedy and slow connections --------------------------------------------------------


def rss_mib(node):
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) // 1024


def assert_serves(node, within_s=2):
    began = time.monotonic()
    with contextlib.closing(Wire(node, local=False)) as client:
        client("kv.put", key="probe", value="1")
    assert time.monotonic() - began < within_s


def test_many_large_answers_at_once_do_not_cost_the_connection(one):
    with contextlib.closing(Wire(one.nodes[0], timeout=20)) as client:
        for i in range(3):
            client("kv.put", key=f"b{i}", value="x" * 1500000)
        for i in range(60):
            client.send("kv.range", key="b0", end="c", local=i % 2 == 1)
        frames = [client.frame() for _ in range(60)]
        refused = [f[2][1] for f in frames if f[2]]
        assert set(refused) <= {"limit"} and len(refused) < 60
        assert client("kv.put", key="after", value="1")


def test_256_large_requests_in_flight_leave_memory_bounded_and_others_served(one):
    node = one.nodes[0]
    with contextlib.closing(Wire(node, timeout=30)) as client:
        thread = threading.Thread(target=lambda: [
            client.send("kv.put", key=f"w{i % 3}", value="y" * 1500000, deadline_ms=30000) for i in range(256)])
        thread.start()
        peak, answers = 0, []
        for i in range(256):
            answers.append(client.frame())
            peak = max(peak, rss_mib(node))
            if i % 64 == 0:
                assert_serves(node, 5)
        thread.join()
    assert {f[2][1] for f in answers if f[2]} <= {"limit"}
    assert peak < 250, f"{peak} MiB"


def test_a_crowd_that_never_finishes_its_requests_costs_bounded_memory_and_keeps_nobody_away(one):
    """256 clients announce a request of 1.5 MiB each, send most of it and stop. Nobody else notices; those that have to go make room."""
    node = one.nodes[0]
    put = pack([0, 9, "kv.put", [{"key": "w", "value": "y" * 1500000, "deadline_ms": 60000}]])
    before, crowd = rss_mib(node), []
    try:
        for i in range(256):
            client = Wire(node, local=i % 2 == 0, timeout=20)
            client.sock.settimeout(0.02)
            with contextlib.suppress(TimeoutError):
                client.sock.sendall(put[:-100000])
            crowd.append(client)
            if i % 64 == 63:
                assert_serves(node)
        peak = rss_mib(node)
        assert peak < before + 150, f"{before} MiB, then {peak} MiB"
        for client in crowd[24:]:  # 16 are in the way of 8, and of the next
            client.close()
        with contextlib.closing(Wire(node, local=False, timeout=60)) as patient:
            assert patient("kv.put", key="large", value="z" * 1500000, deadline_ms=60000)
        assert "event=stalled" in node.log() and rss_mib(node) < before + 150
        assert_serves(node)
    finally:
        for client in crowd:
            client.close()
    assert_serves(node)


def test_a_crowd_that_reads_no_answers_costs_bounded_memory(one):
    node = one.nodes[0]
    with contextlib.closing(Wire(node)) as client:
        client("kv.put", key="b", value="x" * 1500000)
    before, crowd = rss_mib(node), []
    try:
        for _ in range(64):
            client = Wire(node, timeout=20)
            for _ in range(8):
                client.send("kv.range", key="b")
            client("cluster.status")
            crowd.append(client)
        assert rss_mib(node) < before + 150
        assert_serves(node)
        with contextlib.closing(Wire(node)) as client, pytest.raises(DcsError) as refused:
            client("kv.range", key="b")
        assert refused.value.name == "limit"
        errors = b"".join(pack([0, i, "no.such.method.of.a.name.that.is.rather.long", [{}]]) for i in range(1000))
        assert "event=too_slow" not in node.log()
        client = Wire(node, timeout=20)
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


def test_a_crowd_that_never_finishes_its_handshake_keeps_nobody_away(one):
    node = one.nodes[0]
    before = rss_mib(node)
    crowd = []
    try:
        for i in range(600):
            s = socket.create_connection(("127.0.0.1", port_of(node)), 2, source_address=(f"127.0.0.{2 + i % 2}", 0))
            if i % 3 == 0:
                s.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(20))  # half a hello
            crowd.append(s)
            if i % 100 == 99:
                assert_serves(node)
        assert len(os.listdir(f"/proc/{node.process.pid}/fd")) < 250
        assert rss_mib(node) < before + 60
    finally:
        for s in crowd:
            s.close()


def test_a_host_that_connects_without_end_is_turned_away_before_the_handshake(one):
    node = one.nodes[0]
    for _ in range(1500):
        socket.create_connection(("127.0.0.1", port_of(node)), 2, source_address=("127.0.0.2", 0)).close()
    wait_for("it is in the log", lambda: "event=turned_away host=127.0.0.2" in node.log())
    assert node.log().count("turned_away") == 1
    assert_serves(node)
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


def test_hostile_bytes_before_and_after_authentication_close_one_connection_and_no_more(one):
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
    assert_serves(node)
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


def test_without_a_certificate_few_answers_may_wait_to_be_read(one):
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
    assert_serves(node)


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


# ---- pauses and cut networks ---------------------------------------------------------------------


def write(node, key, value, **more):
    with contextlib.closing(Wire(node)) as client:
        return client("kv.put", key=key, value=value, **more)


def test_a_leader_that_was_paused_serves_no_stale_read(lab):
    for turn in range(6 if HEAVY else 2):
        old = lab.leader()
        write(old, "turn", f"old {turn}")
        with contextlib.closing(Wire(old, timeout=20)) as client:
            old.signal(signal.SIGSTOP)
            fresh = wait_for("another leads", lambda: next(
                (n for n in lab.nodes if n is not old and (n.status() or {}).get("state") == "leader"), None))
            write(fresh, "turn", f"new {turn}")
            # Lies in its socket when it wakes up, before anything that tells of the other leader.
            reads = [client.send("kv.range", key="turn", deadline_ms=4000) for _ in range(20)]
            old.signal(signal.SIGCONT)
            for msgid in reads:
                with contextlib.suppress(DcsError):
                    assert text(client.answer(msgid)["kvs"][0]["value"]) == f"new {turn}"
        wait_for("it has caught up", lambda: old.status()["leader_id"] not in (0, old.number))


def test_a_lease_ends_on_time_although_the_leader_is_paused_and_comes_back(lab):
    time.sleep(2.5)  # the rule holds once the next leader has been up for a TTL
    old, watcher = lab.leader(), lab.followers()[0]
    with contextlib.closing(Wire(watcher)) as client:
        began = time.monotonic()
        lease = client("lease.grant", ttl_ms=2500, nonce=3)["id"]
        granted = time.monotonic()
        client("kv.put", key="mine", value="1", lease=lease)
        wait_for("it is there", lambda: client("kv.range", key="mine", local=True).get("count", 0) == 1)
        old.signal(signal.SIGSTOP)
        wait_for("it is gone", lambda: client("kv.range", key="mine", local=True).get("count", 0) == 0)
        ended = time.monotonic()
        old.signal(signal.SIGCONT)
        assert ended - began >= 2.4
        assert ended - granted < 2.5 + 1.0
        settle(lab)
        for node in lab.nodes:
            with contextlib.closing(Wire(node)) as other:
                assert other("kv.range", key="mine", local=True).get("count", 0) == 0


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


@pytest.fixture(name="net")
def net_fixture():
    reason = why_not()
    if reason:
        pytest.skip(reason)
    lab = NetLab(tempfile.mkdtemp(prefix="dcs.", dir="/tmp"))
    yield lab
    lab.close()


def leads_besides(lab, old):
    return wait_for("another leads", lambda: next(
        (n for n in lab.nodes if n is not old and (n.status() or {}).get("state") == "leader"), None), 6)


def test_an_isolated_leader_is_replaced_and_returns_within_a_second_twice(net):
    healed_s = []
    for turn in range(2):
        old = net.leader()
        write(old, "turn", f"old {turn}")
        old.host.cut()
        fresh = leads_besides(net, old)
        write(fresh, "turn", f"new {turn}")
        with contextlib.closing(Wire(old)) as client:
            with pytest.raises(DcsError) as refused:
                client("kv.range", key="turn", deadline_ms=1500)
            assert refused.value.name in ("unavailable", "timeout")
            assert text(client("kv.range", key="turn", local=True)["kvs"][0]["value"]) == f"old {turn}"
        old.host.heal()
        began = time.monotonic()
        with contextlib.closing(Wire(old)) as client:
            wait_for("it has what was written", lambda: text(
                client("kv.range", key="turn", local=True)["kvs"][0]["value"]) == f"new {turn}", 10)
        healed_s.append(time.monotonic() - began)
        assert write(old, "turn", "back")
    assert max(healed_s) < 1.5, healed_s


def test_loss_in_one_direction_does_not_depose_a_healthy_leader(net):
    leader = net.leader()
    term = leader.status()["term"]
    deaf = net.followers()[0]
    for by, to in ((deaf, leader), (leader, deaf)):
        by.host.deaf_to(to.host)
        end = time.monotonic() + 3.5
        with contextlib.closing(Wire(leader)) as client:
            while time.monotonic() < end:
                client("kv.put", key="x", value="1", deadline_ms=1000)
        by.host.hear_all()
        wait_for("it has caught up", lambda: deaf.status()["applied_index"] >= leader.status()["applied_index"] - 1, 5)
    assert leader.status()["term"] == term


def test_a_slow_follower_costs_the_leader_bounded_memory_and_nobody_else_anything(lab):
    leader, slow = lab.leader(), lab.followers()[0]
    before = rss_mib(leader)
    slow.signal(signal.SIGSTOP)
    with contextlib.closing(Wire(leader)) as client:
        for i in range(80):
            client("kv.put", key=f"f{i % 3}", value=f"{i:04}" * 100000)
    grown = rss_mib(leader) - before
    slow.signal(signal.SIGCONT)
    assert grown < 150, f"{grown} MiB"
    settle(lab)


# ---- installing a snapshot, and power loss -------------------------------------------------------


def applied(node):
    """0: it does not answer."""
    with contextlib.suppress(OSError, DcsError), contextlib.closing(Wire(node)) as client:
        return client("cluster.status").get("applied_index", 0)
    return 0


def fall_behind(lab, node):
    """Until only a snapshot helps it; the node is down afterwards."""
    node.kill()
    with contextlib.closing(Wire(lab.leader())) as client:
        for i in range(40):
            client("kv.put", key=f"s-{i:04}", value=f"{time.monotonic_ns()}" * 50)


INSTALLATION_WHEN = {"signal=SIGKILL": (1, 3, 7, 20), "error=EIO": (2, 9), "error=ENOSPC": (2, 9)}


@needs_strace
@pytest.mark.parametrize("what", INSTALLATION_WHEN)
@pytest.mark.parametrize("call", CALLS)
def test_a_kill_or_error_at_any_storage_call_of_an_installation_is_made_good(call, what):
    """The end of the node, if it comes, leaves one that starts: with the old state or the new one."""
    lab = new_lab(3, ("--snapshot-every", "8"))
    try:
        node = lab.followers()[0]
        started = installed = 0
        for when in range(1, 60) if HEAVY else INSTALLATION_WHEN[what]:
            fall_behind(lab, node)
            before = len(node.log())
            node.start(wait=False, under=inject(call, what, when))
            target = lab.leader().status()["applied_index"]
            wait_for("it is dead or has caught up", lambda: not node.alive() or
                     applied(node) >= target)
            started += "snapshot_fetch" in node.log()[before:]
            died = not node.alive()
            end_traced(node)
            node.start()
            wait_for("it has caught up", lambda: applied(node) >= target)
            installed += "snapshot_restored" in node.log()[before:]
            assert not list(node.dir.glob("*.part"))
            if not died:
                break
        settle(lab)
        with contextlib.closing(Wire(node)) as client, contextlib.closing(Wire(lab.leader())) as other:
            assert client("kv.range", key="s-", end="t", local=True)["kvs"] == other("kv.range", key="s-", end="t")["kvs"]
        assert installed
    finally:
        lab.close()


def state_files(directory):
    return [directory / f"state.db{end}" for end in ("", "-wal", "-shm") if (directory / f"state.db{end}").exists()]


def test_a_snapshot_that_was_recorded_and_not_installed_is_put_in_place_at_the_start():
    """As a crash right between the two leaves it: log.db begins behind what state.db has."""
    lab = new_lab(3, ("--snapshot-every", "8"))
    try:
        node = lab.followers()[0]
        node.kill(signal.SIGTERM)
        old = lab.root / "old"
        old.mkdir()
        for path in state_files(node.dir):
            shutil.copy(path, old)
        fall_behind(lab, node.start())
        node.start()
        target = lab.leader().status()["applied_index"]
        wait_for("it has caught up", lambda: applied(node) >= target)
        assert "snapshot_fetch" in node.log()
        node.kill(signal.SIGTERM)
        for path in state_files(node.dir):
            path.unlink()
        for path in state_files(old):
            shutil.copy(path, node.dir)
        before = len(node.log())
        whole = next(node.dir.glob("snapshot-*.db"))
        moved = whole.rename(lab.root / "moved")
        node.start(wait=False)
        assert node.process.wait(20) == 1 and whole.name in node.log()[before:].splitlines()[-1]
        moved.rename(whole)
        node.start()
        assert "snapshot_restored" in node.log()[before:]
        target = lab.leader().status()["applied_index"]
        wait_for("it has caught up again", lambda: applied(node) >= target)
        settle(lab)
        with contextlib.closing(Wire(node)) as client, contextlib.closing(Wire(lab.leader())) as other:
            assert client("kv.range", key="s-", end="t", local=True)["kvs"] == other("kv.range", key="s-", end="t")["kvs"]
    finally:
        lab.close()


@pytest.fixture(name="ext4")
def ext4_fixture():
    base = tempfile.mkdtemp(prefix="dcs.", dir="/tmp")
    root = f"{base}/m"
    os.mkdir(root)
    try:
        own_mounts()
        disk = LoopDisk(f"{base}/image", root, 128)
    except (OSError, subprocess.CalledProcessError) as e:
        shutil.rmtree(base)
        pytest.skip(f"no ext4 on a loop device here: {e}")
    yield disk
    disk.remove()
    shutil.rmtree(base)


def test_power_loss_forgets_nothing_that_was_acknowledged(ext4):
    one = new_lab(1, ("--snapshot-every", "40"), root=ext4.root)
    rng = random.Random(os.environ.get("REGENT_SEED") or time.time_ns())
    acknowledged, revision = [], 0
    try:
        node = one.nodes[0]
        for _ in range(12 if HEAVY else 4):
            scripted = threading.Thread(target=scripted_writes, args=(node, acknowledged, 5000))
            scripted.start()
            wanted = len(acknowledged) + 10
            wait_for("it writes", lambda n=wanted: len(acknowledged) > n)
            time.sleep(rng.uniform(0, 0.5))
            proven = len(acknowledged)
            ext4.cut_power()
            node.process.wait(10)
            scripted.join()
            del acknowledged[proven:]
            ext4.unmount()
            ext4.mount()
            node.start()
            one.leader()
            assert_nothing_forgotten(node, acknowledged, revision)
            revision = node.status()["revision"]
    finally:
        one.close()


def move_about(lab, stop):
    """Each new term makes every member write its file `heard` within a second."""
    for n in itertools.cycle(lab.nodes):
        if stop.wait(0.2):
            return
        with contextlib.suppress(OSError, DcsError), contextlib.closing(Wire(n)) as client:
            client("cluster.transfer", name=n.name)


def test_power_loss_of_all_members_at_once_sends_none_away(ext4):
    """What members have heard of each other is then older than what they said, or newer than what others wrote; never wrong."""
    lab = new_lab(3, ("--snapshot-every", "40"), root=ext4.root)
    rng = random.Random(os.environ.get("REGENT_SEED") or time.time_ns())
    acknowledged = []
    try:
        for _ in range(8 if HEAVY else 3):
            stop = threading.Event()
            threads = [threading.Thread(target=scripted_writes, args=(lab.leader(), acknowledged, 5000)),
                       threading.Thread(target=move_about, args=(lab, stop))]
            threads[0].start()
            wanted = len(acknowledged) + 10
            wait_for("it writes", lambda n=wanted: len(acknowledged) > n)
            threads[1].start()
            wait_for("all have written what they heard", lambda: all((n.dir / "heard").exists() for n in lab.nodes))
            time.sleep(rng.uniform(0, 1.5))
            proven = len(acknowledged)
            ext4.cut_power()
            for n in lab.nodes:
                n.kill()
            stop.set()
            for t in threads:
                t.join()
            del acknowledged[proven:]
            ext4.unmount()
            ext4.mount()
            for n in lab.nodes:
                n.start(wait=False)
            assert_nothing_forgotten(lab.leader(), acknowledged)
            settle(lab)
            assert not any(n.status().get("trouble") for n in lab.nodes)
            assert not [n for n in lab.nodes if "heard_unreadable" in n.log() or list(n.dir.glob("heard.tmp.*"))]
    finally:
        lab.close()


# ---- a directory put back to an old copy ---------------------------------------------------------


def copy_store(node, to):
    """What a snapshot of its machine would have of the store."""
    shutil.copytree(node.dir, to, ignore=shutil.ignore_patterns("regent.sock", "lock"))


def put_back(node, copy):
    shutil.rmtree(node.dir)
    shutil.copytree(copy, node.dir)


def has_left(node):
    wait_for("it has left", lambda: (node.status() or {}).get("trouble") == "quarantined")
    said = node.status()["trouble_text"]
    assert "older than what it has said" in said and f"member remove {node.name}" in said


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
    target = lab.leader().status()["applied_index"]
    wait_for("it has them", lambda: applied(node) >= target)
    node.kill()
    put_back(node, copy)
    node.start(wait=False)
    has_left(node)
    write_some(lab, node, "c-")  # the others go on, and nobody counts it
    wait_for("others show it", lambda: next(m["state"] for m in lab.leader(besides=node).call("member.list")["members"]
                                            if m["name"] == node.name) == "quarantined")
    node.kill(signal.SIGTERM)
    node.start(wait=False)
    assert node.process.wait(20) == 1 and "is quarantined" in node.log().splitlines()[-1]
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
    target = lab.leader().status()["applied_index"]
    wait_for("it has them", lambda: applied(node) >= target)
    others = [n for n in lab.nodes if n is not node]
    for n in lab.nodes:
        n.kill(signal.SIGTERM)
    put_back(node, copy)
    for n in (*others, node):
        n.start(wait=False)
    has_left(node)
    write_some(lab, node, "b-")


# ---- the identity of a node ----------------------------------------------------------------------


def joins(lab, node, under=()):
    """regentctl join, as a witness: it needs no PostgreSQL. What it said, when it failed."""
    token = lab.nodes[0].call("token.create")["token"]
    command = [build_dir() / "regentctl", "-c", lab.root / f"{node.name}.yml", "join", lab.nodes[0].address, "--token", token, "--name",
               node.name, "--listen", node.address, "--data-dir", node.dir, "--witness"]
    done = subprocess.run([*under, *command], capture_output=True, text=True, timeout=60, check=False)
    return None if done.returncode == 0 else done.stderr


def forget(lab, node):
    """What the message of a second `join` asks for."""
    shutil.rmtree(node.dir, ignore_errors=True)
    (lab.root / f"{node.name}.yml").unlink(missing_ok=True)
    if node.name in {m["name"] for m in lab.nodes[0].call("member.list")["members"]}:
        lab.nodes[0].call("member.remove", name=node.name)


@needs_strace
@pytest.mark.parametrize("what", ["signal=SIGKILL", "error=EIO", "error=ENOSPC"])
def test_a_kill_or_error_at_any_storage_call_of_joining_is_made_good(one, what):
    """Half an identity is never taken for a whole one, and nobody is in the way of the next try."""
    node = Node(one, 2)
    for call in ("mkdir", "fsync", "link", "unlink"):
        for when in range(1, 20) if HEAVY else (1, 2, 5):
            said = joins(one, node, inject(call, what, when))
            if said is None:
                assert (node.dir / "pki" / "node.crt").exists()
                forget(one, node)
                break
            if what.startswith("error"):
                assert said.startswith("regentctl: ") and said.count("\n") == 1, said
                assert not (node.dir / "pki").exists(), (call, when, said, list(node.dir.rglob("*")))
            again = joins(one, node)
            assert again is None or "exists already" in again or "is taken" in again or "member remove" in again, again
            forget(one, node)
    assert joins(one, node) is None
    node.join = [one.nodes[0].address]
    one.nodes.append(node.start())
    wait_for("it is a member", lambda: applied(node) >= one.nodes[0].status()["commit_index"] - 1)
