"""The fence with a real PostgreSQL: a procedure that commits in a loop must have stopped in time, whoever
of fence and daemon is killed or stopped. Rows are counted after PostgreSQL has been started anew."""
import contextlib
import os
import pathlib
import signal
import tempfile

import pytest

from fence_lab import BIN, Lab, boot_ms, build_dir, wait_for, wall_of
from realtime import in_real_time

pytestmark = [
    pytest.mark.skipif(not (BIN / "postgres").exists(), reason=f"no PostgreSQL in {BIN}"),
    pytest.mark.skipif(not (build_dir() / "fence_driver").exists(), reason="fence_driver is not built"),
]


@contextlib.contextmanager
def new_lab():
    # Not pytest's tmp_path: PostgreSQL's socket path has to be short, and `postgres` to pass.
    with tempfile.TemporaryDirectory(prefix="fence.", dir="/tmp", ignore_cleanup_errors=True) as root:
        os.chmod(root, 0o755)
        lab = Lab(root)
        try:
            yield lab
        finally:
            lab.close()


@pytest.fixture(name="lab")
def lab_fixture():
    with new_lab() as lab:
        yield lab


def armed_and_spinning(lab, ttl_ms, keep=True):
    driver = lab.driver()
    lab.start(driver)
    driver.order("arm 7 60000")
    driver.changed(armed=1, token=7)
    lab.spin()
    if keep:
        driver.order(f"keep {ttl_ms}")
    # The lease proper begins here: shortening is an order, never an extension.
    driver.order(f"arm 8 {ttl_ms}")
    driver.changed(armed=1, token=8)
    return driver


def assert_silent_after(lab, boot, grace_ms=0):
    rows, at = lab.last_commit()
    assert rows > 100
    late_ms = (at - wall_of(boot)) * 1000
    print(f"last commit {late_ms:.0f} ms after")
    assert late_ms <= grace_ms


@in_real_time(new_lab)
def test_a_deadline_that_is_not_extended(lab):
    driver = armed_and_spinning(lab, 1000, keep=False)
    deadline = driver.last["deadline"]
    end = driver.changed(exited=1, left=0)
    assert end["fenced"] == 1 and end["requested"] == 0 and end["armed"] == 0
    assert end["swept"] <= deadline
    assert not lab.processes()
    driver.leave()
    assert_silent_after(lab, deadline)


@in_real_time(new_lab)
def test_an_extended_deadline_disturbs_nobody(lab):
    driver = armed_and_spinning(lab, 700)
    before, start = lab.rows(), boot_ms()
    wait_for(lambda: boot_ms() > start + 1500, "two leases")
    assert lab.rows() > before
    assert driver.last["armed"] == 1 and driver.last["exited"] == 0


@in_real_time(new_lab)
def test_the_fence_is_killed(lab):
    driver = armed_and_spinning(lab, 5000)
    os.kill(lab.fence_pid(), signal.SIGKILL)
    killed = boot_ms()
    driver.until(lambda e: e["kind"] == "lost", "lost")
    driver.changed(connected=1, exited=1, left=0, adopted=0)
    assert not lab.processes()
    driver.leave()
    assert_silent_after(lab, killed, 200)


@in_real_time(new_lab)
def test_the_fence_is_stopped(lab):
    driver = armed_and_spinning(lab, 5000)
    os.kill(lab.fence_pid(), signal.SIGSTOP)
    stopped = boot_ms()
    driver.changed(connected=1, exited=1, left=0, adopted=0)
    driver.leave()
    assert_silent_after(lab, stopped, 1000)


@in_real_time(new_lab)
def test_the_daemon_is_stopped(lab):
    driver = armed_and_spinning(lab, 1000)
    driver.signal(signal.SIGSTOP)
    stopped = boot_ms()
    wait_for(lambda: not lab.processes(), "the fence kills")
    driver.signal(signal.SIGCONT)
    end = driver.changed(exited=1, left=0)
    assert end["fenced"] == 1 and end["swept"] <= stopped + 1000
    driver.leave()
    assert_silent_after(lab, stopped, 1000)


@in_real_time(new_lab)
def test_both_are_killed(lab):
    driver = armed_and_spinning(lab, 30000)
    fence = lab.fence_pid()
    driver.kill()
    os.kill(fence, signal.SIGKILL)
    killed = boot_ms()
    # The kernel's SIGQUIT alone: PR_SET_PDEATHSIG.
    assert_silent_after(lab, killed, 200)


def test_the_daemon_is_killed_and_returns_in_time(lab):
    driver = armed_and_spinning(lab, 60000)
    driver.order("remember 41 42")
    driver.kill()
    again = lab.driver()
    assert again.last["adopted"] == 1 and again.last["armed"] == 1 and again.last["token"] == 8
    assert (again.last["lease"], again.last["nonce"]) == (41, 42)
    assert again.last["starts"] == 1 and again.last["exited"] == 0
    again.order("keep 60000")
    before = lab.rows()
    wait_for(lambda: lab.rows() > before, "the procedure goes on")
    assert lab.clients[0].poll() is None


@in_real_time(new_lab)
def test_the_daemon_is_killed_and_kept_down(lab):
    driver = armed_and_spinning(lab, 1000)
    driver.kill()
    killed = boot_ms()
    wait_for(lambda: not lab.processes(), "the fence kills")
    again = lab.driver()
    assert again.last["fenced"] == 1 and again.last["swept"] <= killed + 1000
    again.leave()
    assert_silent_after(lab, killed, 1000)


@in_real_time(new_lab)
def test_a_frozen_postgres_is_killed_frozen(lab):
    driver = armed_and_spinning(lab, 1000, keep=False)
    deadline = driver.last["deadline"]
    for pid in lab.processes():
        os.kill(pid, signal.SIGSTOP)
    end = driver.changed(exited=1, left=0)
    assert end["swept"] <= deadline
    driver.leave()
    assert_silent_after(lab, deadline)


def test_a_fast_stop_is_not_a_fault(lab):
    driver = lab.driver()
    lab.start(driver)
    driver.order(f"signal {int(signal.SIGINT)}")
    end = driver.changed(exited=1, left=0)
    assert end["requested"] == 1 and end["fenced"] == 0 and end["status"] == 0


@in_real_time(new_lab)
def test_a_killed_postmaster_leaves_no_backend(lab):
    driver = armed_and_spinning(lab, 5000)
    os.kill(driver.last["postmaster"], signal.SIGKILL)
    killed = boot_ms()
    end = driver.changed(exited=1, left=0)
    assert end["requested"] == 0 and end["fenced"] == 0
    driver.leave()
    assert_silent_after(lab, killed, 100)


def test_what_an_older_fence_left_keeps_a_second_postmaster_from_starting(lab):
    # As if both had been killed and a backend hung: a PostgreSQL that nobody's fence knows.
    lab.run(BIN / "pg_ctl", "-D", lab.pgdata, "-l", lab.log, "-w", "start")
    driver = lab.driver()
    assert driver.last["left"] == 1
    driver.process.stdin.write(f"start {lab.log} free {BIN}/postgres -D {lab.pgdata}\n")
    driver.until(lambda e: e["kind"] == "rc" and e["text"] == "exists", "refusal")
    driver.order("kill")
    driver.changed(left=0)
    assert not lab.processes()
    lab.start(driver)


@in_real_time(new_lab)
def test_its_log_says_why(lab):
    driver = armed_and_spinning(lab, 500, keep=False)
    driver.changed(exited=1, left=0)
    log = pathlib.Path(lab.root / "fence.log")
    wait_for(lambda: "event=swept" in log.read_text(), "the log")
    assert "event=fenced" in log.read_text()
