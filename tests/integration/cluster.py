"""A cluster of real nodes: regentd, its fence and real PostgreSQL, on loopback or in network namespaces.

    with Cluster(sync=True) as c:
        c.form()
        c.primary().kill()

PostgreSQL does not run as root: then the nodes run as `postgres`, from copies of the programs that this user can
read. Everything that a node has started is found through /proc and ended by its pid; nothing is left behind.
"""
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import psycopg2

from leftovers import drop_shared_memory
from load import Session
from ports import free_port

PG_BIN = pathlib.Path(os.environ.get("REGENT_TEST_PG_BIN", "/usr/lib/postgresql/15/bin"))
PROGRAMS = ("regentd", "regent-fence", "regentctl")
PATIENCE_S = 120  # a machine with other work for each of its processors has been seen to take more than 60
FORM_S = 180  # initdb and copies, on a slow disk
CONNECT_S = 10
POLL_S = 0.02
OURS = ("regentd", "regent-fence", "regent-health", "postgres", "pg_basebackup", "pg_rewind", "initdb", "pg_ctl")
LOG_TAIL = 40
SYNC_ROLES = ("Sync Standby", "Quorum Standby")
# Standbys are known by their slots: their application_name is the incarnation of their data.
STREAMING_SQL = """SELECT s.slot_name FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid
                   WHERE r.state = 'streaming'"""


class Never(AssertionError):
    """A condition did not come true before its deadline."""


def wait_until(condition, what, deadline_s=PATIENCE_S):
    """The value of condition() as soon as it is true; looked at every 20 ms."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise Never(f"not within {deadline_s:g} s: {what}")
        threading.Event().wait(POLL_S)


def build_dir():
    named = os.environ.get("REGENT_BUILD")
    return pathlib.Path(named) if named else pathlib.Path(__file__).resolve().parents[2] / "build" / "dev"


def as_user():
    """What to put before a command so that it does not run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]


# ---- processes ----


def process_status(pid):
    """(state, parent), or None when there is no such process."""
    try:
        after = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    except OSError:
        return None
    return after[0], int(after[1])


def alive(pid):
    status = process_status(pid)
    return status is not None and status[0] not in "ZX"


def _read(path):
    try:
        return pathlib.Path(path).read_bytes()
    except OSError:
        return b""


def processes_of(directory):
    """Every live process that a node in `directory` has started, {pid: what it is}."""
    mark = str(directory).encode()
    parents, found = {}, {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        status = process_status(pid)
        if status is None or status[0] in "ZX":
            continue
        parents[pid] = status[1]
        name = _read(f"/proc/{pid}/comm").strip().decode(errors="replace")
        if name not in OURS:
            continue
        line = _read(f"/proc/{pid}/cmdline")
        if any(mark in word for word in line.split(b"\0")) or _cwd(pid).startswith(mark):
            found[pid] = line.replace(b"\0", b" ").decode(errors="replace").strip() or name
    more = True
    while more:  # children that changed their directory or have a title of their own
        new = [pid for pid, parent in parents.items() if parent in found and pid not in found and pid != os.getpid()]
        for pid in new:
            found[pid] = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
        more = bool(new)
    return found


def _cwd(pid):
    try:
        return os.readlink(f"/proc/{pid}/cwd").encode()
    except OSError:
        return b""


def send(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# ---- one node ----


class Node:
    def __init__(self, cluster, name, address, namespace=None):
        self.cluster = cluster
        self.name = name
        self.address = address
        self.namespace = namespace
        self.dir = cluster.dir / name
        self.pgdata = self.dir / "pg"
        self.config = self.dir / "regent.yml"
        self.log = cluster.dir / f"{name}.log"
        self.ports = {what: fixed if namespace else free_port(address)
                      for what, fixed in (("dcs", 7400), ("rest", 8008), ("pg", 5432))}
        self.process = None

    def __repr__(self):
        return self.name

    def dcs_address(self):
        return f"{self.address}:{self.ports['dcs']}"

    # -- programs

    def command(self, *words):
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        return [*inside, *as_user(), str(self.cluster.bin / words[0]), *words[1:]]

    def ctl(self, *words, check=True, timeout_s=2 * PATIENCE_S):
        """Longer than the program's own patience. What does not end has failed, too."""
        command = self.command("regentctl", "-c", str(self.config), *words)
        try:
            done = subprocess.run(command, text=True, capture_output=True, timeout=timeout_s, cwd="/", check=False)
        except subprocess.TimeoutExpired as e:
            done = subprocess.CompletedProcess(command, None, "", f"not within {timeout_s:g} s: {e.stderr!r}")
        assert not check or done.returncode == 0, f"{self}: regentctl {' '.join(words)}: {done.returncode} {done.stderr}"
        return done

    def setup(self, token=None, first=None, sets=()):
        what = ["init", "--scope", self.cluster.scope] if token is None else ["join", first, "--token", token]
        more = [word for s in sets for word in ("--set", s)]
        return self.ctl(*what, "--name", self.name, "--listen", self.dcs_address(), "--data-dir", str(self.dir),
                        "--pg-data", str(self.pgdata), "--pg-bin", str(PG_BIN), "--pg-port", str(self.ports["pg"]),
                        "--rest-port", str(self.ports["rest"]), *more)

    def start(self):
        """The daemon, in a process group and session of its own: nothing reaches it by accident."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command("regentd", "-c", str(self.config)), cwd="/", stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)

    # -- processes

    def processes(self):
        return processes_of(self.dir)

    def pid_of(self, program):
        """regentd, fence, worker, health or postmaster; None when it does not run."""
        if program == "postmaster":
            return self.postmaster()
        for pid, line in self.processes().items():
            words = line.split()
            name = pathlib.Path(words[0]).name if words else ""
            if _read(f"/proc/{pid}/comm").strip() == b"regent-health":  # a worker that only looks whether disks can be written to
                if program == "health":
                    return pid
                continue
            is_worker = "worker" in " ".join(words[1:3])
            if program == "regentd" and name == "regentd":
                return pid
            if program in ("fence", "worker") and name == "regent-fence" and is_worker == (program == "worker"):
                return pid
        return None

    def postmaster(self):
        try:
            pid = int((self.pgdata / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        return pid if alive(pid) and _read(f"/proc/{pid}/comm").strip() == b"postgres" else None

    def signal(self, program, number):
        pid = self.pid_of(program)
        assert pid is not None, f"{self}: no {program} to signal"
        os.kill(pid, number)
        return pid

    def kill(self):
        """kill -9 of everything, as a power cut would have it: all that is there, until nothing is."""
        def sweep():
            pids = list(self.processes())
            for pid in pids:
                send(pid, signal.SIGKILL)
            return not pids
        try:
            wait_until(sweep, f"{self}: nothing is left of it")
        finally:
            self.reap()

    def reap(self):
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=PATIENCE_S)

    def running(self):
        return self.process is not None and self.process.poll() is None

    # -- PostgreSQL

    def dsn(self):
        return (f"host={self.address} port={self.ports['pg']} user=postgres dbname=postgres "
                f"password={self.cluster.password} application_name=test")

    def sql(self, query, *args):
        """Rows of one statement, in a connection and a transaction of its own; load.Late when it does not end."""
        with contextlib.closing(Session(self.dsn(), CONNECT_S)) as session:
            return session.execute(query, args or None, PATIENCE_S)

    def try_sql(self, query, *args):
        """None where PostgreSQL does not answer."""
        try:
            return self.sql(query, *args)
        except psycopg2.Error:
            return None

    def value(self, query, *args):
        rows = self.try_sql(query, *args)
        return rows[0][0] if rows else None

    # -- REST

    def rest(self, path, method="GET"):
        """(status, body); (None, "") when nobody answers."""
        connection = http.client.HTTPConnection(self.address, self.ports["rest"], timeout=3)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None, ""
        finally:
            connection.close()

    def answer(self, path, method="GET"):
        """(status, body), as soon as it answers."""
        def asked():
            told = self.rest(path, method)
            return told if told[0] is not None else None
        return wait_until(asked, f"{self} answers {method} {path}")

    def lease_left_s(self):
        """0: none, or it says nothing of one."""
        found = re.search(r"^regent_lease_remaining_seconds{[^}]*} ([0-9.]+)", self.rest("/metrics")[1], re.M)
        return float(found.group(1)) if found else 0

    def log_lines(self, pattern):
        """Lines of the daemon's log in which the pattern is found."""
        return [line for line in _read(self.log).decode(errors="replace").splitlines() if re.search(pattern, line)]

    def postgres_log(self):
        return _read(self.dir / "postgresql.log").decode(errors="replace").splitlines()

    def log_tail(self, count=LOG_TAIL):
        return "\n".join(_read(self.log).decode(errors="replace").splitlines()[-count:])


# ---- the cluster ----


class Cluster:
    """Nodes n1, n2, ...; `sets` are further --set options of init (bootstrap.dcs.loop_wait=5, ...); `sync`: a bool, or
    async, on, strict, quorum. `ttl`, in seconds: as long as the test can wait for a lease to run out, for on a machine that
    stands still for so long another node leads."""
    node_class = Node

    def __init__(self, nodes=3, sync=True, sets=(), all_sets=(), addresses=None, namespaces=None, keep=False, ttl=None):
        self.scope = "ha"
        self.keep = keep
        # A short path: it holds unix sockets.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="rha.", dir="/tmp"))
        self.dir.chmod(0o755)
        self.bin = self.dir / "bin"
        self.bin.mkdir()
        self.bin.chmod(0o755)
        for name in PROGRAMS:
            shutil.copy2(build_dir() / name, self.bin / name)
            (self.bin / name).chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(self.dir, "postgres", "postgres")
        self.mode = {True: "on", False: "async"}.get(sync, sync)
        self.sync = self.mode != "async"
        mode = {"async": "off", "strict": "on"}.get(self.mode, self.mode)
        strict = ["bootstrap.dcs.synchronous_mode_strict=true"] if self.mode == "strict" else []
        self.all_sets = all_sets  # of the nodes that join
        lease = [f"bootstrap.dcs.ttl={ttl}"] if ttl else []
        self.sets = [f'bootstrap.dcs.synchronous_mode="{mode}"', *strict, *lease, *sets]
        addresses = addresses or ["127.0.0.1"] * nodes
        self.nodes = [self.node_class(self, f"n{i + 1}", addresses[i], namespaces[i] if namespaces else None) for i in range(nodes)]
        self.password = None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is not None:
            print(self.report())
        self.close()

    def __getitem__(self, name):
        return next(n for n in self.nodes if n.name == name)

    def form(self, deadline_s=FORM_S):
        """init, start, token, join: until everybody streams."""
        first = self.nodes[0]
        first.setup(sets=self.sets)
        secrets = (first.dir / "secrets.yml").read_text(encoding="utf-8")
        self.password = re.search(r'^superuser: "([^"]*)"', secrets, re.M).group(1)
        first.start()
        token = wait_until(lambda: self._token(first, len(self.nodes) - 1), "a token is made", deadline_s)
        for node in self.nodes[1:]:
            node.setup(token=token, first=first.dcs_address(), sets=self.all_sets)
            node.start()
        self.wait_healthy(deadline_s)

    @staticmethod
    def _token(node, uses):
        done = node.ctl("token", "create", "--uses", str(max(uses, 1)), check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    def close(self):
        for node in self.nodes:
            with contextlib.suppress(Never):
                node.kill()
        drop_shared_memory()
        if self.keep or os.environ.get("REGENT_KEEP"):
            print(f"kept: {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    # -- what it looks like

    def _asked(self, *words, deadline_s=PATIENCE_S):
        """What regentctl says in JSON, on the first node that answers."""
        def answer():
            for node in self.nodes:
                if node.running():
                    done = node.ctl("-f", "json", *words, check=False, timeout_s=15)
                    if done.returncode == 0:
                        return [json.loads(done.stdout)]
            return None
        return wait_until(answer, f"a node answers: {' '.join(words)}", deadline_s)[0]

    def members(self):
        """`regentctl list`: those whose agent lives. There must be a quorum, or soon."""
        return self._asked("list")

    def leader(self, besides=None):
        """The node that has the leader key and runs, going by REST."""
        for node in self.nodes:
            if node is besides:
                continue
            if node.rest("/primary")[0] == 200:
                return node
        return None

    def primary(self):
        return wait_until(self.leader, "a leader")

    def standbys(self):
        primary = self.primary()
        return [n for n in self.nodes if n is not primary]

    def streaming(self, primary=None):
        """Names of the standbys that stream from the primary."""
        primary = primary or self.leader()
        rows = primary.try_sql(STREAMING_SQL) if primary else None
        slots = {r[0] for r in rows or []}
        return {n for n in self.nodes if f"regent_{n.name}" in slots}

    def record(self, name):
        """One HA record as a dictionary; None: absent. There must be a quorum, or soon."""
        kvs = self._asked("dcs", "get", f"/regent/{self.scope}/{name}")
        return json.loads(kvs[0]["value"]) if kvs else None

    def sync_standby(self):
        """The node that the record names, as soon as it names one."""
        def named():
            return next((m["Member"] for m in self.members() if m["Role"] == "Sync Standby"), None)
        return self[wait_until(named, "a synchronous standby")]

    def healthy(self, nodes=None):
        """One leader, everybody else streams, and in a synchronous mode the record names a standby."""
        nodes = self.nodes if nodes is None else nodes
        primary = self.leader()
        if primary is None or not self.streaming(primary) >= {n for n in nodes if n is not primary}:
            return False
        states = {m["Member"]: (m["Role"], m["State"]) for m in self.members()}
        if any(n.name not in states for n in nodes) or states[primary.name][0] != "Leader":
            return False
        if self.sync and len(nodes) > 1 and not any(role in SYNC_ROLES for role, _ in states.values()):
            return False
        return all(states[n.name][1] == ("running" if n is primary else "streaming") for n in nodes)

    def wait_healthy(self, deadline_s=PATIENCE_S, nodes=None):
        try:
            wait_until(lambda: self.healthy(nodes), "one leader and streaming standbys", deadline_s)
        except Never:
            print(self.report())
            raise

    def new_leader(self, old, deadline_s=PATIENCE_S):
        return wait_until(lambda: self.leader(besides=old), f"a leader other than {old}", deadline_s)

    def switch_over(self, to):
        """Ordered again while it is refused for a passing reason."""
        def done():
            leader = self.leader()
            return leader is to or (leader and leader.ctl("switchover", "--leader", leader.name, "--candidate", to.name, check=False).returncode == 0)
        wait_until(done, f"a switchover to {to}")
        wait_until(lambda: self.leader() is to, f"{to} leads")

    @contextlib.contextmanager
    def lease_of(self, seconds):
        """The ttl, for what has to be done within a lease on a machine where that may take its time."""
        usual = self.record("config")["ttl"]
        assert seconds > usual + 5
        self.primary().ctl("edit-config", "-s", f"ttl={seconds}")
        try:
            wait_until(lambda: self.primary().lease_left_s() > usual, "a lease of the new length")
            yield
        finally:
            self.primary().ctl("edit-config", "-s", f"ttl={usual}")
        wait_until(lambda: 0 < self.primary().lease_left_s() <= usual, "a lease of the usual length")

    def report(self):
        parts = []
        for node in self.nodes:
            parts.append(f"---- {node}: {node.log}: {json.dumps(node.processes())}\n{node.log_tail()}")
            for log in sorted(self.dir.glob(f"{node.name}/**/*.log"))[-1:]:
                parts.append(f"-- {log}\n" + "\n".join(_read(log).decode(errors="replace").splitlines()[-15:]))
        with contextlib.suppress(Exception):
            parts.append(json.dumps(self._asked("list", deadline_s=0)))
        return "\n".join(parts)
