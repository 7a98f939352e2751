"""The hardware watchdog: a file plays the kernel's device (tests/tools/fake_watchdog.c) and writes down what is done to it."""
import os
import shutil
import signal
import subprocess

import pytest

pytest.importorskip("psycopg2")

from cluster import PG_BIN, Cluster, build_dir, wait_until  # noqa: E402

SHIM = build_dir() / "fake_watchdog.so"

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not SHIM.exists(), reason="fake_watchdog is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
]


class Device:
    def __init__(self, node):
        self.node = node
        self.path = node.dir / "fake-watchdog"
        self.shim = shutil.copy2(SHIM, node.cluster.bin)

    def start(self, fake=True):
        """regentd on this node, with this device."""
        env = dict(os.environ, REGENT_WATCHDOG_DEVICE=str(self.path))
        if fake:
            env["LD_PRELOAD"] = str(self.shim)
        with open(self.node.log, "ab") as log:
            self.node.process = subprocess.Popen(self.node.command("regentd", "-c", str(self.node.config)), cwd="/", env=env,
                                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def make(self):
        self.path.write_text("", encoding="ascii")
        self.path.chmod(0o666)

    def lines(self):
        return [line.split() for line in self.path.read_text(encoding="ascii").split("\n")[:-1]]

    def count(self, word):
        return sum(line[0] == word for line in self.lines())

    def counts_down(self):
        words = [line[0] for line in self.lines() if line[0] in ("on", "off")]
        return words[-1:] == ["on"]


def test_it_counts_while_the_lease_is_held_and_only_then():
    with Cluster(nodes=1, ttl=12, sets=["watchdog.mode=required"]) as c:  # time to start a daemon
        node = c["n1"]
        device = Device(node)
        node.setup(sets=c.sets)
        device.start()
        assert node.process.wait(timeout=60) == 1
        assert node.log_lines("watchdog.mode is required, but .*/fake-watchdog: No such file or directory; load the driver")
        device.make()
        device.start()
        wait_until(lambda: c.leader() is node, "it leads")
        wait_until(device.counts_down, "the watchdog counts")
        assert [line[0] for line in device.lines()[:2]] == ["time", "off"]  # stopped until there is something to guard
        assert {line[2] for line in device.lines()} == {"5"}
        fed = device.count("feed")
        wait_until(lambda: device.count("feed") > fed + 2, "it is fed")
        node.ctl("pause", "--wait")
        wait_until(lambda: not device.counts_down(), "no deadline is held in a pause: it is stopped")
        node.ctl("resume", "--wait")
        wait_until(device.counts_down, "it counts again")

        # The daemon stands still: near the deadline it is not fed any more, and stopped when nothing is left to guard.
        pid = node.signal("regentd", signal.SIGSTOP)
        wait_until(lambda: node.postmaster() is None, "the fence has killed PostgreSQL")
        wait_until(lambda: not device.counts_down(), "it is stopped")
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: c.leader() is node and device.counts_down(), "it leads and is guarded again")

        # A daemon that is back adopts the fence with the device that it holds.
        taken = device.count("time")
        postmaster = wait_until(node.postmaster, "PostgreSQL runs")  # the fence holds a deadline before
        node.signal("regentd", signal.SIGKILL)
        node.reap()
        device.start()
        fed = device.count("feed")
        wait_until(lambda: c.leader() is node and device.count("feed") > fed + 2, "it goes on")
        assert node.postmaster() == postmaster and device.count("time") == taken and device.counts_down()


def test_one_that_is_none_is_done_without_unless_it_is_required():
    with Cluster(nodes=1, ttl=15) as c:
        node = c["n1"]
        device = Device(node)
        node.setup(sets=c.sets)
        device.make()
        device.start(fake=False)
        wait_until(lambda: c.leader() is node, "it leads")
        wait_until(lambda: node.log_lines("without a hardware watchdog: it is no watchdog"), "it says so")
