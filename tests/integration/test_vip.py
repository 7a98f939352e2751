"""The virtual address across hosts (network namespaces): it follows the primary, is never in two places, and goes
with its node whatever is killed there. IPv4 and IPv6. Needs root; the nodes run as `postgres` with two capabilities.

    python3 -m pytest tests/integration/test_vip.py
"""
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import psycopg2
import pytest

from cluster import Cluster, Node, wait_until
from netns import Net, sh, why_not
from pgbench import Bench

VIPS = ("10.77.0.100", "fd77::100")
# For the moment between the reset of connections and the end of the address.
DEADLINE = {"tcp_user_timeout": 5000, "keepalives_idle": 3, "keepalives_interval": 1, "keepalives_count": 2}
CAPS = "+net_admin,+net_raw"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")


class VipNode(Node):
    def command(self, *words):
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", f"--inh-caps={CAPS}",
                f"--ambient-caps={CAPS}", "--"]
        return ["ip", "netns", "exec", self.namespace, *user, str(self.cluster.bin / words[0]), *words[1:]]

    def holds(self):
        """Which of the addresses it has."""
        text = subprocess.run(["ip", "-n", self.namespace, "-o", "addr", "show", "dev", "eth0"], capture_output=True,
                              text=True, check=True).stdout
        return {v for v in VIPS if f" {v}/" in text}


class Watch:
    """Looks at every node for the addresses, all the time: two at once are a finding."""

    def __init__(self, nodes):
        self.nodes, self.twice, self.looks = nodes, [], 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join(timeout=30)
        assert self.looks > 0
        assert not self.twice, self.twice

    def _run(self):
        while not self._end.is_set():
            first = {n: n.holds() for n in self.nodes}
            again = {n: n.holds() for n in self.nodes}
            for i, n in enumerate(self.nodes):
                for m in self.nodes[i + 1:]:  # n before, m, n after: both had it when m was looked at
                    if first[n] & first[m] & again[n]:
                        self.twice.append((time.monotonic(), n, m, first, again))
            self.looks += 1
            self._end.wait(0.05)


class Knocker:
    """Connects to the address again and again; when it got through, and to which node."""

    def __init__(self, c, address):
        self.c, self.address, self.through = c, address, []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join(timeout=30)

    def _run(self):
        while not self._end.is_set():
            with contextlib.suppress(OSError, psycopg2.Error):
                socket.create_connection((self.address, 5432), timeout=0.2).close()  # without it a lost answer costs 2 s
                with contextlib.closing(psycopg2.connect(host=self.address, user="postgres", dbname="postgres", password=self.c.password,
                                                         connect_timeout=2, **DEADLINE)) as link, link.cursor() as cursor:
                    cursor.execute("CREATE TEMP TABLE t AS SELECT 1")  # a primary's alone
                    cursor.execute("SHOW data_directory")
                    self.through.append((time.monotonic(), cursor.fetchone()[0].split("/")[-2]))
            self._end.wait(0.02)

    def since(self, at, node):
        return next((t for t, name in self.through if t >= at and name == node.name), None)


class Waiting:
    """A client without any deadline that waits for an answer from a session that can give none: it is stopped."""

    def __init__(self, c, address):
        self.heard = threading.Event()
        self._link = psycopg2.connect(host=address, user="postgres", dbname="postgres", password=c.password, connect_timeout=30, keepalives=0)
        with self._link.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            os.kill(cursor.fetchone()[0], signal.SIGSTOP)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(psycopg2.Error), self._link.cursor() as cursor:
            cursor.execute("SELECT 1")
        self.heard.set()


def kernel_resets(c):
    return not any("cannot reset their connections" in (n.dir / "fence.log").read_text(encoding="utf-8") for n in c.nodes)


def knows_patroni(program):
    said = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    return "patroni" in said.stdout + said.stderr


def fetch_vip_manager(place):
    """Of Debian 13, which has it as one program that needs no other; Debian 12's knows no Patroni. Unpacked, not installed."""
    def out(*words):
        return subprocess.run([str(w) for w in words], cwd=place, capture_output=True, text=True, timeout=120, check=True).stdout

    targets = [line.split() for line in out("apt-get", "indextargets", "--format", "$(ORIGIN) $(COMPONENT) $(REPO_URI) $(CODENAME)").splitlines()]
    mirror = next(t[2] for t in targets if t[:2] == ["Debian", "main"] and "-" not in t[3])
    (place / "sources.list").write_text(f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} trixie main\n", encoding="utf-8")
    (place / "lists").mkdir()
    apt = ["apt-get", "-q", *(w for o in (f"Dir::Etc::SourceList={place}/sources.list", "Dir::Etc::SourceParts=/dev/null",
                                          f"Dir::State::Lists={place}/lists", f"Dir::Cache={place}/cache", "APT::Sandbox::User=root",
                                          "Acquire::http::Timeout=10", "Acquire::Languages=none") for w in ("-o", o))]
    out(*apt, "update")
    out(*apt, "download", "vip-manager2")
    out("dpkg-deb", "-x", next(place.glob("vip-manager2_*.deb")), place / "root")
    return str(place / "root/usr/bin/vip-manager")


@pytest.fixture(scope="module")
def vip_manager_program(tmp_path_factory):
    """None, and why: there is none. Before the namespaces, for they have no way out."""
    here = shutil.which("vip-manager")
    if here is not None and knows_patroni(here):
        return here, ""
    try:
        return fetch_vip_manager(tmp_path_factory.mktemp("vip-manager")), ""
    except (OSError, subprocess.SubprocessError, StopIteration) as e:
        return None, f"no vip-manager that knows dcs-type patroni, and Debian's cannot be had: {e!r} {getattr(e, 'stderr', '')}"[:400]


@pytest.fixture(scope="module")
def c(vip_manager_program):
    reason = why_not() or (None if shutil.which("setpriv") else "no setpriv")
    if reason:
        pytest.skip(reason)
    with Net("rgv", 3) as net:
        net.enter()
        sh("ip", "-n", net.bridge, "addr", "add", "fd77::254/64", "dev", "br0", "nodad")
        for i, host in enumerate(net.hosts):
            sh("ip", "-n", host.namespace, "addr", "add", f"fd77::{i + 1}/64", "dev", "eth0", "nodad")
        sets = [f"vip.address={VIPS[0]}/24, {VIPS[1]}/64", "vip.interface=eth0", 'postgresql.listen="*:5432"',
                'postgresql.pg_hba=["host all all all scram-sha-256", "host replication all all scram-sha-256"]']
        with Cluster(ttl=8, addresses=[h.address for h in net.hosts], namespaces=[h.namespace for h in net.hosts]) as cluster:
            cluster.nodes = [VipNode(cluster, n.name, n.address, n.namespace) for n in cluster.nodes]
            for node in cluster.nodes:
                node.more = [*sets, f"postgresql.connect_address={node.address}:5432",
                             f"vip.hook=sh {cluster.dir}/hook {node.name}"]
            (cluster.dir / "hook").write_text(f"echo $2 $VIP_INTERFACE >>{cluster.dir}/$1.hook\n", encoding="utf-8")
            (cluster.dir / "hook").chmod(0o644)
            form(cluster)
            yield cluster


def form(c):
    """As Cluster.form(), with settings for every node."""
    setup = VipNode.setup
    try:
        VipNode.setup = lambda self, token=None, first=None, sets=(): setup(self, token, first, [*sets, *self.more])
        c.form()
    finally:
        VipNode.setup = setup


@pytest.fixture(autouse=True)
def healthy(c):
    c.wait_healthy()
    wait_until(lambda: c.primary().holds() == set(VIPS), "the addresses are with the primary")


def moved(c, watch, knocker, new, since):
    """Client connections reach the new primary; how long that took after it took writers."""
    wait_until(lambda: new.holds() == set(VIPS), "the addresses are with the new primary")
    through = wait_until(lambda: knocker.since(since, new), "a client gets through")
    print(f"by {knocker.address}: {through - since:.3f} s after the new primary was seen as one")
    assert all(not n.holds() for n in c.nodes if n is not new)


@pytest.mark.parametrize("address", VIPS)
def test_it_follows_a_switchover(c, address):
    old = c.primary()
    candidate = c.sync_standby()
    with Watch(c.nodes) as watch, Knocker(c, address) as knocker:
        wait_until(lambda: knocker.through, "a client gets through before")
        old.ctl("switchover", "--candidate", candidate.name)
        new = c.new_leader(old)
        moved(c, watch, knocker, new, time.monotonic())


@pytest.mark.parametrize("address", VIPS)
def test_it_leaves_a_node_whose_daemon_is_dead(c, address):
    old = c.primary()
    with Watch(c.nodes) as watch, Knocker(c, address) as knocker:
        wait_until(lambda: knocker.through, "a client gets through before")
        waiting = Waiting(c, address)
        old.signal("regentd", signal.SIGKILL)
        if kernel_resets(c):
            assert waiting.heard.wait(60), "who waits hears that the address goes"
        new = c.new_leader(old)
        moved(c, watch, knocker, new, time.monotonic())
    old.reap()
    old.start()


def test_it_leaves_a_node_where_everything_is_killed_but_the_machine(c):
    old = c.primary()
    old.sql("CREATE TABLE by_pgbench (door text)")
    dsn = f"host={VIPS[0]} user=postgres dbname=postgres password={c.password} connect_timeout=2 " + " ".join(f"{k}={v}" for k, v in DEADLINE.items())
    with Watch(c.nodes) as watch, Knocker(c, VIPS[0]) as knocker, Bench(c.dir, "address", dsn) as bench:
        old.kill()
        new = c.new_leader(old)
        moved(c, watch, knocker, new, time.monotonic())
        seen = bench.whole
        wait_until(lambda: bench.whole > seen + 1, f"whole runs of pgbench again: {bench.said}")
    assert new.value("SELECT count(*) FROM by_pgbench") >= bench.acknowledged
    old.start()


def test_a_fence_that_is_killed_takes_the_address_along(c):
    old = c.primary()
    with Watch(c.nodes) as watch, Knocker(c, VIPS[0]) as knocker:
        wait_until(lambda: knocker.through, "a client gets through before")
        token = c.record("leader")["token"]
        old.signal("fence", signal.SIGKILL)
        wait_until(lambda: (c.record("leader") or {}).get("token", 0) > token and c.leader(), "somebody leads anew")
        moved(c, watch, knocker, c.primary(), time.monotonic())


class Client:
    """One connection through the address, held open. It lives as long as the address was never away."""

    def __init__(self, c, address):
        self._link = psycopg2.connect(host=address, user="postgres", dbname="postgres", password=c.password, connect_timeout=30, **DEADLINE)
        self._link.autocommit = True

    def ask(self):
        with self._link.cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery()")
            return cursor.fetchone()[0]


@pytest.mark.parametrize("paused", [False, True])
def test_a_daemon_that_is_restarted_finds_it_where_it_was(c, paused):
    with c.lease_of(30):
        restarted(c, paused)


def restarted(c, paused):
    primary = c.primary()
    clients = [Client(c, address) for address in VIPS]
    if paused:
        primary.ctl("pause", "--wait")
        wait_until(lambda: c.record("sync")["disarmed"], "the fence holds no deadline")
    primary.signal("regentd", signal.SIGKILL)
    primary.reap()
    primary.start()
    wait_until(lambda: primary.rest("/primary")[0] == 200, "the new daemon leads")
    assert primary.holds() == set(VIPS)
    assert [client.ask() for client in clients] == [False] * len(clients), "it was never away"
    if paused:
        primary.ctl("resume", "--wait")
        assert [client.ask() for client in clients] == [False] * len(clients)


def test_in_a_pause_it_goes_with_the_lease_and_comes_back_with_it(c):
    primary = c.primary()
    client = Client(c, VIPS[0])
    with Watch(c.nodes):
        primary.ctl("pause", "--wait")
        wait_until(lambda: c.record("sync")["disarmed"], "the fence holds no deadline")
        others = [n for n in c.nodes if n is not primary]
        assert client.ask() is False
        for node in others:
            node.kill()
        wait_until(lambda: not primary.holds(), "it goes with the lease")
        primary.sql("SELECT 1")
        for node in others:
            node.start()
        wait_until(lambda: primary.holds() == set(VIPS), "it comes back")
        client = Client(c, VIPS[0])
        primary.ctl("resume", "--wait")
        assert client.ask() is False
    c.wait_healthy()
    assert c.primary() is primary


def test_the_children_get_no_capability(c):
    node = c.primary()
    for program in ("postmaster", "worker"):
        pid = node.pid_of(program)
        if pid is None:
            continue
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            held = {line.split()[0]: int(line.split()[1], 16) for line in f if line.startswith(("CapEff", "CapPrm", "CapAmb"))}
        assert not any(held.values()), (program, held)


def keepalived(c, node, address, directory):
    file = directory / f"{node.name}.conf"
    file.write_text(node.ctl("generate", "keepalived", "--set", "interface=eth0", "--set", f"address={address}/24").stdout, encoding="utf-8")
    pids = [f"{option}{directory}/{node.name}{option}.pid" for option in ("-p", "-r")]
    return ["-n", "-l", "-P", "-f", str(file), *pids]


def vip_manager(c, node, address, directory):
    return ["--ip", address, "--netmask", "24", "--interface", "eth0", "--interval", "500", "--dcs-type", "patroni",
            "--dcs-endpoints", f"http://{node.address}:{node.ports['rest']}", "--trigger-key", "/leader", "--trigger-value", "200"]


@pytest.mark.parametrize("program, words, address", [("keepalived", keepalived, "10.77.0.200"), ("vip-manager", vip_manager, "10.77.0.201")])
def test_programs_that_move_an_address_by_rest_follow_the_primary(c, vip_manager_program, program, words, address, tmp_path):
    path, why = vip_manager_program if program == "vip-manager" else (shutil.which(program), f"{program} is not installed")
    if path is None:
        pytest.skip(why)
    def holders():
        return {n.name for n in c.nodes if f" {address}/" in subprocess.run(
            ["ip", "-n", n.namespace, "-o", "addr", "show", "dev", "eth0"], capture_output=True, text=True, check=True).stdout}
    with contextlib.ExitStack() as stack:
        for node in c.nodes:
            log = stack.enter_context(open(tmp_path / f"{node.name}.log", "wb"))
            child = subprocess.Popen(["ip", "netns", "exec", node.namespace, path, *words(c, node, address, tmp_path)], stdin=subprocess.DEVNULL,
                                     stdout=log, stderr=log)
            stack.callback(child.wait, 60)
            stack.callback(child.terminate)
        try:
            old = c.primary()
            wait_until(lambda: holders() == {old.name}, "the address is with the primary alone")
            old.ctl("switchover")
            new = c.new_leader(old)
            wait_until(lambda: holders() == {new.name}, "and with the new one")
        except BaseException:
            for node in c.nodes:
                print(f"--- {node.name}", (tmp_path / f"{node.name}.log").read_text(encoding="utf-8", errors="replace")[-2000:])
            raise


def test_the_hook_is_told_of_every_change(c):
    def told(node):
        path = c.dir / f"{node.name}.hook"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    old = c.primary()
    wait_until(lambda: told(old)[-1:] == ["up eth0"], "the primary's hook was called")
    old.ctl("switchover")
    new = c.new_leader(old)
    wait_until(lambda: told(old)[-1:] == ["down eth0"] and told(new)[-1:] == ["up eth0"], "both hooks were called")
