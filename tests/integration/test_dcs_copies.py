"""Copies of the store, and new clusters made of them: save, restore, recover."""
import contextlib
import json
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import tempfile

import pytest

from dcs_lab import PATIENCE_S, Client, DcsError, Lab, build_dir, ctl, wait_for
from ports import free_port

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "dcs_node").exists(), reason="dcs_node is not built"),
    pytest.mark.skipif(not (build_dir() / "regentctl").exists(), reason="regentctl is not built"),
]


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
        """ConnectionError: it does not answer."""
        assert self.process.poll() is None, self.log_path.read_text()
        try:
            return json.loads(self.ctl("-f", "json", "dcs", "status"))
        except AssertionError as e:
            raise ConnectionError(str(e)) from None

    def stop(self, how=signal.SIGKILL):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE_S)

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

    def wait_until_stored(self, member):
        """Until the leader has heard that all that is committed now is in this member's log."""
        target = max(m.status()["commit_index"] for m in self.members)

        def stored():
            leader = next((m for m in self.members if m.status()["state"] == "leader"), None)
            listed = json.loads(leader.ctl("-f", "json", "member", "list")) if leader else []
            return any(m["name"] == member.name and m["match_index"] >= target for m in listed)
        wait_for(f"{member.name} has stored it", stored)

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
        assert file.stat().st_mode & 0o777 == 0o600
        wait_for("nothing is left of it there", lambda n=node: not list(n.dir.glob("*.save")))
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
    load = lab.load("k-", 8)
    for i in range(4):
        load.wait_for_more(20)
        file = lab.root / f"{i}.snap"
        ctl(lab.leader(), "dcs", "snapshot", "save", file)
        ctl(lab.nodes[0], "dcs", "snapshot", "status", file)
    load.wait_for_more(20)
    load.end()


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
        revision = node.call("kv.range", key="a")["revision"]

        def last():
            with contextlib.suppress(AssertionError, IndexError):  # there is a newer one meanwhile
                file = backups / [f for f in files() if f.endswith(".snapshot")][-1]
                if json.loads(ctl(node, "-f", "json", "dcs", "snapshot", "status", str(file)))["revision"] == revision:
                    return file
            return None
        newest = wait_for("one of the last revision", last)
        wait_for("two are kept", lambda: len(files()) == 2 and not any(f.endswith(".part") for f in files()))
        assert newest.stat().st_mode & 0o777 == 0o600
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
        node.call("snapshot.save", within_ms=2000)
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
    cluster.wait_until_stored(survivor)
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
    survivor = nodes[1]
    cluster.wait_until_stored(survivor)
    for m in nodes:
        m.stop()
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
    refused = subprocess.run([build_dir() / "regentd", "-c", node.config], capture_output=True, text=True, timeout=60,
                             check=False)
    assert refused.returncode == 1 and "dcs recover` again" in refused.stderr
    node.ctl("dcs", "recover", "--force")
    assert not work.exists() and not (node.dir / "recovering").exists()
    node.start()
    wait_for("it leads", lambda: node.status()["state"] == "leader")
    assert node.keys("a")
