"""The fence as a service of its own (regent-postgres.service), started by the service manager."""
import contextlib
import os
import signal
import socket
import subprocess
import tempfile

import pytest

from fence_lab import BIN, Driver, Lab, as_user, build_dir, wait_for

pytestmark = [
    pytest.mark.skipif(not (BIN / "postgres").exists(), reason=f"no PostgreSQL in {BIN}"),
    pytest.mark.skipif(not (build_dir() / "fence_driver").exists(), reason="fence_driver is not built"),
]


@pytest.fixture(name="lab")
def lab_fixture():
    with tempfile.TemporaryDirectory(prefix="fence.", dir="/tmp", ignore_cleanup_errors=True) as root:
        os.chmod(root, 0o755)
        lab = Lab(root)
        yield lab
        lab.close()


@contextlib.contextmanager
def fence(lab, *options, env=None):
    process = subprocess.Popen(
        [*as_user(), str(lab.program("regent-fence")), "--socket", str(lab.socket), *options],
        stderr=subprocess.PIPE, text=True, cwd="/", env={**os.environ, **(env or {})})
    try:
        wait_for(lab.socket.exists, "the fence listens")
        yield process
    finally:
        process.kill()
        process.communicate()


def test_stopping_the_unit_kills_postgres_first(lab):
    with fence(lab) as process:
        driver = lab.driver("no-spawn")
        assert driver.last["adopted"] == 1
        lab.start(driver)
        lab.spin()
        process.send_signal(signal.SIGTERM)
        end = driver.changed(exited=1, left=0)
        assert end["requested"] == 1
        assert process.wait(timeout=10) == 0
        assert not lab.processes()
        assert not lab.socket.exists()


def test_systemd_is_told_when_it_is_ready_and_that_it_lives(lab):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(lab.root / "notify"))
        os.chmod(lab.root / "notify", 0o666)
        notify.settimeout(10)
        with fence(lab, env={"NOTIFY_SOCKET": str(lab.root / "notify"), "WATCHDOG_USEC": "200000"}):
            told = [notify.recv(100) for _ in range(3)]
    assert told[0] == b"READY=1"
    assert told[1:] == [b"WATCHDOG=1"] * 2


def test_a_second_fence_on_the_same_socket_is_refused(lab):
    with fence(lab):
        second = subprocess.run(
            [*as_user(), str(lab.program("regent-fence")), "--socket", str(lab.socket)], capture_output=True,
            text=True, timeout=10, check=False)
        assert second.returncode == 1
        assert "another fence holds" in second.stderr
        lab.driver("no-spawn")


def test_an_idle_fence_that_a_daemon_started_ends(lab):
    with fence(lab, "--spawned", "--idle-exit-ms", "100") as process:
        assert process.wait(timeout=10) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to come as another user")
def test_another_user_is_refused(lab):
    with fence(lab, "--peer", "daemon"):
        def greets(*user):
            code = ("import socket,sys; s=socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
                    "s.settimeout(10); s.connect(sys.argv[1]); "
                    "s.send((0x52464e31).to_bytes(4,'little')+(1).to_bytes(4,'little')+bytes(24)); "
                    "sys.exit(0 if s.recv(100) else 3)")
            return subprocess.run(["setpriv", *user, "--clear-groups", "--", "/usr/bin/python3", "-c", code,
                                   str(lab.socket)], stderr=subprocess.DEVNULL, check=False).returncode == 0
        assert greets("--reuid=postgres", "--regid=postgres")
        assert greets("--reuid=daemon", "--regid=daemon")
        assert not greets("--reuid=nobody", "--regid=nogroup")


@pytest.mark.parametrize("arguments", [["--bogus"], ["--socket"], ["--socket", "relative"], ["--peer", "no such"]])
def test_a_wrong_option_is_told(arguments):
    run = subprocess.run([str(build_dir() / "regent-fence"), *arguments], capture_output=True, text=True,
                         timeout=10, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("regent-fence: ")


def namespaces_work():
    try:
        return subprocess.run([*as_user(), "unshare", "-Urn", "ip", "link", "show", "lo"], capture_output=True, cwd="/",
                              check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not namespaces_work(), reason="no user and network namespaces, or no iproute2")
def test_the_virtual_address_goes_with_postgres(lab):
    inside = ["unshare", "-Urn", "sh", "-c", 'ip addr add 10.98.7.6/32 dev lo && exec "$0" "$@"']
    driver = Driver(lab, before=inside)
    lab.drivers.append(driver)
    driver.changed(connected=1)

    def has_address():
        return "10.98.7.6" in subprocess.run(
            ["nsenter", "-U", "-n", "--preserve-credentials", "-t", str(driver.process.pid), "ip", "addr"],
            capture_output=True, text=True, check=True).stdout

    driver.order("vip lo 10.98.7.6/32")
    driver.order(f"start {lab.log} free {lab.program('fake_postgres')} -D {lab.pgdata}")
    driver.until(lambda e: e["kind"] == "changed" and e["postmaster"] != 0, "postmaster")
    assert has_address()
    driver.order("arm 7 500")
    driver.changed(exited=1, left=0)
    wait_for(lambda: not has_address(), "the address goes")
