"""Disks of the primary that are full, or that take a write and do not bring it back. Needs root: file systems of
its own, on loop devices."""
import contextlib
import json
import os
import shutil
import subprocess
import threading

import pytest

from cluster import Cluster, process_status, wait_until
from disks import LoopDisk, own_mounts
from load import TABLE_SQL

MIB = 1 << 20
SIZE_MIB = 400
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture(name="c", scope="module")
def cluster_fixture(tmp_path_factory):
    """Every node has PGDATA on a disk of its own."""
    base = tmp_path_factory.mktemp("disk")
    sets = ["on_sick_node=failover", "sick_failover_interval=1"]
    with Cluster(sync="on", ttl=10, sets=[f"bootstrap.dcs.{s}" for s in sets]) as c, contextlib.ExitStack() as disks:
        for node in c.nodes:
            mount = c.dir / f"{node.name}.disk"
            mount.mkdir()
            try:
                own_mounts()
                node.disk = LoopDisk(f"{base}/{node.name}", mount, SIZE_MIB)
            except (OSError, subprocess.CalledProcessError) as e:
                pytest.skip(f"no loop device: {e}")
            disks.callback(node.disk.remove)
            shutil.chown(mount, "postgres", "postgres")
            node.pgdata = mount / "pg"
        disks.callback(c.close)
        c.form()
        c.primary().sql(TABLE_SQL)
        yield c


def sick(node):
    """Kind of what is wrong; None: nothing."""
    return json.loads(node.answer("/patroni")[1]).get("sick", {}).get("kind")


@contextlib.contextmanager
def filled(node, left_mib):
    """All but so much of the disk is taken."""
    path = f"{node.disk.root}/filler"
    room = os.statvfs(node.disk.root)
    with open(path, "xb") as f:
        os.posix_fallocate(f.fileno(), 0, room.f_bavail * room.f_frsize - left_mib * MIB)
    try:
        yield
    finally:
        os.unlink(path)


@contextlib.contextmanager
def frozen(node, number):
    """Every write waits, and cannot be killed; that of a row of this number is under way."""
    writer = threading.Thread(target=node.try_sql, args=("INSERT INTO acked VALUES (%s)", number), daemon=True)
    subprocess.run(["fsfreeze", "-f", node.disk.root], check=True)
    try:
        writer.start()
        wait_until(lambda: any("INSERT" in line and (process_status(pid) or "-")[0] == "D"
                               for pid, line in node.processes().items()), "a commit waits for the disk")
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", node.disk.root], check=True)
        writer.join(60)


def has_row(node, number):
    return node.value("SELECT count(*) FROM acked WHERE id = %s", number) == 1


def test_a_full_disk_hands_over_like_a_switchover(c):
    c.wait_healthy()
    old = c.primary()
    old.sql("INSERT INTO acked VALUES (1)")
    with filled(old, 4):
        wait_until(lambda: sick(old) == "full", "it is seen to be full")
        new = c.new_leader(old)
        assert old.log_lines("rule=switch_handover"), old.log_tail()
        assert c.record("leader")["relieves"] == old.name
        assert has_row(new, 1)
    c.wait_healthy()


def test_a_stuck_disk_lets_the_lease_run_out(c):
    c.wait_healthy()
    old = c.primary()
    old.sql("INSERT INTO acked VALUES (2)")
    with frozen(old, 4):
        wait_until(lambda: sick(old) == "stuck", "a write is seen not to come back")
        new = c.new_leader(old)
        assert old.log_lines("rule=sick_kill") and not old.log_lines("rule=sick_release")
        assert has_row(new, 2)
        new.sql("INSERT INTO acked VALUES (3)")
    c.wait_healthy()
    assert has_row(old, 3)


def test_an_archive_that_fails_while_the_disk_fills_up(c):
    c.wait_healthy()
    old = c.primary()
    old.ctl("edit-config", "-p", "archive_mode=on", "-p", "archive_command=/bin/false")
    old.ctl("restart", old.name)
    wait_until(lambda: old.try_sql("SELECT pg_switch_wal()"), "a segment is to be archived")
    wait_until(lambda: old.value("SELECT last_failed_time IS NOT NULL FROM pg_stat_archiver"), "it is refused")
    wait_until(lambda: sick(old) is None, "nothing else is wrong", 180)
    with filled(old, SIZE_MIB // 12):
        wait_until(lambda: sick(old) == "archive", "the archive is seen to fail")
        c.new_leader(old)
        wait_until(lambda: "is not archived" in old.ctl("explain", "-n", "200").stdout, "the journal tells why")
    c.wait_healthy()
