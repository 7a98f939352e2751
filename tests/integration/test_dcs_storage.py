"""The store on bad storage: kills and errors at every storage call, full and damaged disks, power loss, half an identity.

REGENT_HEAVY=1: every storage call instead of a sample."""
import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import pytest

from dcs_attack import HEAVY, NEEDED, Wire, applied, in_file, keys_of, settle, text, wait_until_forgotten
from dcs_lab import PATIENCE_S, DcsError, Node, build_dir, new_lab, wait_for
from disks import LoopDisk, own_mounts

pytestmark = NEEDED


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
        node.process.wait(PATIENCE_S)
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


def write_until(end, node, acknowledged):
    """The same for as long as `end` is not set; what was not acknowledged is written again."""
    while not end.wait(0.02):
        scripted_writes(node, acknowledged, 1000)


@contextlib.contextmanager
def meanwhile(function, *arguments):
    """function(end, *arguments) in a thread; it returns when `end` is set."""
    end = threading.Event()
    thread = threading.Thread(target=function, args=(end, *arguments))
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


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


def assert_nothing_forgotten(node, acknowledged, revision=0):
    with contextlib.closing(Wire(node)) as client:
        have = set(keys_of(client, "s-"))
        assert {f"s-{key}" for key in acknowledged} <= have
        assert client("cluster.status").get("revision", 0) >= revision


def serves(node):
    """Answers a write (a full disk: that there is no space), or ends; one that does neither does not come back by itself."""
    try:
        with contextlib.closing(Wire(node)) as client:
            client("kv.put", key="probe", value="1", deadline_ms=20000)
            return True
    except DcsError as e:
        if e.name == "no_space":
            return True
    except OSError:
        pass
    with contextlib.suppress(subprocess.TimeoutExpired):
        node.process.wait(20)
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
    subprocess.run(["umount", "-l", root], check=True)
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
        # The log gives up the ballast when it finds no room; the state, which has none, has nothing to write then.
        wait_for("the state is on the disk", lambda: in_file(node) == node.status()["applied_index"])
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

        def ended():
            with contextlib.suppress(OSError, DcsError), contextlib.closing(Wire(node)) as client:
                for _ in range(20):
                    key = f"{len(acknowledged):06}"
                    client("kv.put", key=f"/regent/{key}", value="x" * 60000)
                    acknowledged.append(key)
                fill_disk(small_disk, leave=0)
            return not node.alive()

        fill_disk(small_disk, leave=0)
        wait_for("it ends", ended)
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
        wait_for("the state is on the disk", lambda: in_file(node) == node.status()["commit_index"])
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


# ---- installing a snapshot, and power loss -------------------------------------------------------


EVERY = 8  # entries a snapshot, and as many are kept behind it


def fall_behind(lab, node):
    """Until only a snapshot helps it; the node is down afterwards."""
    had = node.status()["last_index"]
    node.kill()
    with contextlib.closing(lab.leader().client()) as client:
        for i in range(40):
            client("kv.put", key=f"s-{i:04}", value=f"{time.monotonic_ns()}" * 50)
    wait_until_forgotten(lab, had, EVERY)


INSTALLATION_WHEN = {"signal=SIGKILL": (1, 3, 7, 20), "error=EIO": (2, 9), "error=ENOSPC": (2, 9)}


@needs_strace
@pytest.mark.parametrize("what", INSTALLATION_WHEN)
@pytest.mark.parametrize("call", CALLS)
def test_a_kill_or_error_at_any_storage_call_of_an_installation_is_made_good(call, what):
    """The end of the node, if it comes, leaves one that starts: with the old state or the new one."""
    lab = new_lab(3, ("--snapshot-every", EVERY))
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
            wait_for("no half copy is left, its own either", lambda: not list(node.dir.glob("*.part")))
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
    lab = new_lab(3, ("--snapshot-every", EVERY))
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
        assert node.process.wait(PATIENCE_S) == 1 and whole.name in node.log()[before:].splitlines()[-1]
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
    shutil.rmtree(base, ignore_errors=True)


def test_power_loss_forgets_nothing_that_was_acknowledged(ext4):
    one = new_lab(1, ("--snapshot-every", "40"), root=ext4.root)
    rng = random.Random(os.environ.get("REGENT_SEED") or time.time_ns())
    acknowledged, revision = [], 0
    try:
        node = one.nodes[0]
        for _ in range(12 if HEAVY else 4):
            with meanwhile(write_until, node, acknowledged):
                wanted = len(acknowledged) + 10
                wait_for("it writes", lambda n=wanted: len(acknowledged) > n)
                time.sleep(rng.uniform(0, 0.5))
                proven = len(acknowledged)
                ext4.cut_power()
                node.process.wait(PATIENCE_S)
            del acknowledged[proven:]
            ext4.unmount()
            ext4.mount()
            node.start()
            one.leader()
            assert_nothing_forgotten(node, acknowledged, revision)
            revision = node.status()["revision"]
    finally:
        one.close()


def move_about(end, lab):
    """Each new term makes every member write its file `heard` within a second."""
    for n in itertools.cycle(lab.nodes):
        if end.wait(0.2):
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
            with meanwhile(write_until, lab.leader(), acknowledged):
                wanted = len(acknowledged) + 10
                wait_for("it writes", lambda n=wanted: len(acknowledged) > n)
                with meanwhile(move_about, lab):
                    wait_for("all have written what they heard", lambda: all((n.dir / "heard").exists() for n in lab.nodes))
                    time.sleep(rng.uniform(0, 1.5))
                    proven = len(acknowledged)
                    ext4.cut_power()
                    for n in lab.nodes:
                        n.kill()
            del acknowledged[proven:]
            ext4.unmount()
            ext4.mount()
            for n in lab.nodes:
                n.start(wait=False)
            assert_nothing_forgotten(lab.leader(), acknowledged)
            settle(lab)
            assert not any(n.status().get("trouble") for n in lab.nodes)
            assert not [n for n in lab.nodes if "heard_unreadable" in n.log()]
            wait_for("nothing half written is left", lambda: not [n for n in lab.nodes if list(n.dir.glob("heard.tmp.*"))])
    finally:
        lab.close()


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
