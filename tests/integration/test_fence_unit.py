"""The fence as a service of its own (regent-postgres.service), started by the service manager."""
import contextlib
import os
import pathlib
import re
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
        try:
            yield lab
        finally:
            lab.close()


@contextlib.contextmanager
def fence(lab, *options, env=None):
    """It listens, or has ended already."""
    process = subprocess.Popen(
        [*as_user(), str(lab.program("regent-fence")), "--socket", str(lab.socket), *options],
        stderr=subprocess.PIPE, text=True, cwd="/", env={**os.environ, **(env or {})})
    try:
        wait_for(lambda: lab.socket.exists() or process.poll() is not None, "the fence listens")
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
        assert process.wait(timeout=60) == 0
        assert not lab.processes()
        assert not lab.socket.exists()


def test_systemd_is_told_when_it_is_ready_and_that_it_lives(lab):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(lab.root / "notify"))
        os.chmod(lab.root / "notify", 0o666)
        notify.settimeout(60)
        with fence(lab, env={"NOTIFY_SOCKET": str(lab.root / "notify"), "WATCHDOG_USEC": "200000"}):
            told = [notify.recv(100) for _ in range(3)]
    assert told[0] == b"READY=1"
    assert told[1:] == [b"WATCHDOG=1"] * 2


def test_a_second_fence_on_the_same_socket_is_refused(lab):
    with fence(lab):
        second = subprocess.run(
            [*as_user(), str(lab.program("regent-fence")), "--socket", str(lab.socket)], capture_output=True,
            text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert "another fence holds" in second.stderr
        lab.driver("no-spawn")


def test_an_idle_fence_that_a_daemon_started_ends(lab):
    with fence(lab, "--spawned", "--idle-exit-ms", "100") as process:
        assert process.wait(timeout=60) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to come as another user")
def test_another_user_is_refused(lab):
    with fence(lab, "--peer", "daemon"):
        def greets(*user):
            code = ("import socket,sys; s=socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
                    "s.settimeout(60); s.connect(sys.argv[1]); "
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
                         timeout=60, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("regent-fence: ")


def namespaces_work():
    try:
        return subprocess.run([*as_user(), "unshare", "-Urn", "ip", "link", "show", "lo"], capture_output=True, cwd="/",
                              check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def vip_driver(lab):
    """A fence alone in a network of its own, with one interface; run(words) works in there."""
    if not namespaces_work():
        pytest.skip("no user and network namespaces, or no iproute2")
    driver = Driver(lab, before=["unshare", "-Urn", "sh", "-c", 'ip link set lo up && ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up && exec "$0" "$@"'])
    lab.drivers.append(driver)
    driver.changed(connected=1)

    def run(*words):
        return subprocess.run(["nsenter", "-U", "-n", "--preserve-credentials", "-t", str(driver.process.pid), *words],
                              capture_output=True, text=True, check=True).stdout
    driver.run = run
    driver.has = lambda address: f" {address}/" in run("ip", "addr")

    def lives_s(address):
        """How long the kernel will keep it; None: it has not got it."""
        found = re.search(rf" {re.escape(address)}/.*\n +valid_lft (\w+)", run("ip", "addr"))
        return float(found.group(1).replace("forever", "inf").removesuffix("sec")) if found else None
    driver.lives_s = lives_s
    return driver


def start_armed(lab, driver, ms):
    driver.order(f"arm 7 {ms}")
    driver.changed(armed=1)
    driver.order(f"start {lab.log} armed {lab.program('fake_postgres')} -D {lab.pgdata}")
    driver.until(lambda e: e["kind"] == "changed" and e["postmaster"] != 0, "postmaster")


@pytest.mark.parametrize("address, bits", [("10.98.7.6", 24), ("fd98::6", 64)])
def test_the_virtual_address_goes_with_postgres(lab, vip_driver, address, bits):
    start_armed(lab, vip_driver, 600000)
    vip_driver.order(f"vip up v0 {address}/{bits}")
    lives_s = wait_for(lambda: vip_driver.lives_s(address), "the address is there")
    assert 300 < lives_s <= 600, "it ends with the deadline, in the kernel too"
    vip_driver.order("arm 7 3000")
    vip_driver.changed(exited=1, left=0)
    assert not vip_driver.has(address), "it goes before PostgreSQL does"


def test_the_virtual_address_goes_when_asked_and_needs_a_deadline(lab, vip_driver):
    vip_driver.order("vip up v0 10.98.7.6/24")
    vip_driver.order("state")
    assert not vip_driver.has("10.98.7.6")
    start_armed(lab, vip_driver, 600000)
    vip_driver.order("vip up v0 10.98.7.6/24")
    wait_for(lambda: vip_driver.has("10.98.7.6"), "up")
    vip_driver.order("vip down v0 10.98.7.6/24")
    wait_for(lambda: not vip_driver.has("10.98.7.6"), "down")
    vip_driver.order("vip up v0 10.98.7.6/24")
    wait_for(lambda: vip_driver.has("10.98.7.6"), "up again")
    vip_driver.order("kill")
    wait_for(lambda: not vip_driver.has("10.98.7.6"), "gone with a kill")


def test_the_virtual_address_outlives_the_deadline_in_a_pause_but_not_the_lease(lab, vip_driver):
    address = "10.98.7.6"
    start_armed(lab, vip_driver, 600000)
    vip_driver.order(f"vip up v0 {address}/24")
    wait_for(lambda: vip_driver.has(address), "up")
    vip_driver.order("disarm")
    vip_driver.changed(armed=0)
    assert vip_driver.has(address), "it stays"
    vip_driver.order(f"vip up v0 {address}/24 300000")
    wait_for(lambda: (vip_driver.lives_s(address) or 600) <= 300, "the lease's end")
    vip_driver.order(f"vip up v0 {address}/24 3000")  # and no renewal after it
    wait_for(lambda: not vip_driver.has(address), "gone")
    vip_driver.order("state")
    assert vip_driver.last["postmaster"] != 0, "PostgreSQL goes on"
    vip_driver.order(f"vip up v0 {address}/24 300000")
    wait_for(lambda: vip_driver.has(address), "the lease is held anew")
    vip_driver.order("arm 7 300000")
    vip_driver.changed(armed=1)
    assert vip_driver.has(address)


# A server that answers nothing and cannot be told to end, and a client from another address that waits for an answer.
WAITS = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
for listens_by in {family, socket.AF_INET6}:
    sys.stdin.readline()
    with socket.socket(listens_by) as server, socket.socket(family) as client, socket.socket(family) as bystander:
        if listens_by == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("", 0))
        server.listen()
        for s in (client, bystander):
            s.settimeout(60)
            s.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        client.connect((sys.argv[1], server.getsockname()[1]))
        bystander.connect((bystander.getsockname()[0], server.getsockname()[1]))
        held = [server.accept() for _ in range(2)]
        client.sendall(b"a question")
        print("waits", flush=True)
        try:
            client.recv(1)
        except ConnectionResetError:
            print("reset", flush=True)
        bystander.sendall(b"another")
        print("others", sum(s.recv(9) == b"another" for s, peer in held if peer[1] == bystander.getsockname()[1]), flush=True)
"""


@pytest.mark.parametrize("address, bits", [("10.98.7.6", 24), ("fd98::6", 64)])
def test_who_waits_for_an_answer_of_the_virtual_address_hears_that_it_goes(lab, vip_driver, address, bits):
    start_armed(lab, vip_driver, 600000)
    with subprocess.Popen(["nsenter", "-U", "-n", "--preserve-credentials", "-t", str(vip_driver.process.pid),
                           "timeout", "240", "/usr/bin/python3", "-c", WAITS, address],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as waits:
        for leaves in ([f"vip down v0 {address}/{bits}"] if ":" not in address else []) + ["arm 7 3000"]:  # by order; near its deadline
            vip_driver.order(f"vip up v0 {address}/{bits}")
            wait_for(lambda: vip_driver.has(address), "up")
            log = lab.root / "fence.log"
            if log.exists() and "cannot reset their connections" in log.read_text(encoding="utf-8"):
                waits.kill()
                pytest.skip("a kernel without CONFIG_INET_DIAG_DESTROY")
            waits.stdin.write("on\n")
            waits.stdin.flush()
            assert waits.stdout.readline() == "waits\n"
            vip_driver.order(leaves)
            assert waits.stdout.readline() == "reset\n"
            assert waits.stdout.readline() == "others 1\n", "a connection to another address goes on"
            wait_for(lambda: not vip_driver.has(address), "gone")
    assert waits.returncode == 0


def test_the_kernel_takes_the_virtual_address_when_nobody_is_left(lab, vip_driver):
    start_armed(lab, vip_driver, 600000)
    vip_driver.order("vip up v0 10.98.7.6/24")
    wait_for(lambda: vip_driver.has("10.98.7.6"), "up")
    holder = subprocess.Popen(["nsenter", "-U", "-n", "--preserve-credentials", "-t", str(vip_driver.process.pid), "sleep", "300"])
    try:
        wait_for(lambda: "sleep" in pathlib.Path(f"/proc/{holder.pid}/comm").read_text(encoding="ascii"), "somebody keeps the namespace")
        fence = lab.fence_pid()
        vip_driver.order("arm 7 8000")
        wait_for(lambda: (vip_driver.lives_s("10.98.7.6") or 0) <= 8, "the kernel knows the new end")
        os.kill(vip_driver.process.pid, signal.SIGKILL)
        os.kill(fence, signal.SIGKILL)
        def gone():
            return " 10.98.7.6/" not in subprocess.run(
                ["nsenter", "-U", "-n", "--preserve-credentials", "-t", str(holder.pid), "ip", "addr"],
                capture_output=True, text=True, check=True).stdout
        wait_for(gone, "the lifetime ends")
    finally:
        holder.kill()
        holder.wait()
