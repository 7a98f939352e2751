"""Nodes of real PostgreSQL under real fences and workers, with pg_driver as the engine.

PostgreSQL does not run as root: then everything runs as `postgres`, from copies it can read.
"""
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import threading
import time

from cluster import processes_of, send, wait_until
from fence_lab import as_user, build_dir
from leftovers import drop_shared_memory
from ports import free_port

BIN = pathlib.Path(os.environ.get("REGENT_TEST_PG_BIN", "/usr/lib/postgresql/15/bin"))
SUPERUSER_PASSWORD = "su'per:\\1"
PATIENCE_S = 60
ACTION_S = 180  # longer than any of its own
PASSING = ("timeout", "unavailable", "limit")


class Node:
    """One pg_driver and what it runs."""

    def __init__(self, lab, name, inside=(), kill_budget_ms=None):
        """inside: what to put before the driver's command."""
        self.inside = inside
        self.more = [str(kill_budget_ms)] if kill_budget_ms else []
        self.lab = lab
        self.name = name
        self.dir = lab.dir / name
        self.pgdata = self.dir / "pg"
        self.port = free_port()
        self.process = None
        subprocess.run([*as_user(), "mkdir", "-m", "0700", str(self.dir)], check=True)

    def launch(self):
        self.lines = queue.Queue()
        self.process = subprocess.Popen(
            [*self.inside, *as_user(), str(self.lab.bin / "pg_driver"), self.name, str(self.dir), str(self.port), *self.more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd="/",
            env={**os.environ, "PG_BIN": str(BIN)})
        threading.Thread(target=self._read, args=(self.process, self.lines), daemon=True).start()

    @staticmethod
    def _read(process, lines):
        for line in process.stdout:
            lines.put(json.loads(line))
        lines.put({"eof": True})

    def send(self, line):
        self.process.stdin.write(line + "\n")

    def _next(self, key, patience_s):
        end = time.monotonic() + patience_s
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.name}: no {key} within {patience_s:g} s") from None
            assert "eof" not in line, f"{self.name}: the driver ended"
            if key in line:
                return line

    def view(self):
        self.send("view")
        return self._next("view", PATIENCE_S)["view"]

    def wait(self, what, predicate, patience_s=PATIENCE_S):
        end = time.monotonic() + patience_s
        while True:
            view = self.view()
            if predicate(view):
                return view
            assert time.monotonic() < end, f"{self.name}: never {what}: {view}"
            threading.Event().wait(0.01)

    def start(self, action, **options):
        words = [f"{k}={v}" for k, v in options.items()]
        self.send(" ".join(["run", action, *words]))

    def finish(self):
        return self._next("done", ACTION_S)

    def run(self, action, **options):
        """Again after a passing reason, as the engine does."""
        end = time.monotonic() + PATIENCE_S
        while True:
            self.start(action, **options)
            done = self.finish()
            if done["status"] not in PASSING or time.monotonic() >= end:
                break
            print(f"{self.name}: {action}: {done}: again")
        assert done["status"] == "ok", f"{self.name}: {action}: {done}"
        return done

    def target(self):
        return f"{self.name},127.0.0.1,{self.port}"

    def arm(self, token=1, ms=600_000):
        self.send(f"arm {token} {ms}")
        self.wait("armed", lambda v: v["armed"])

    def psql(self, sql, user="postgres", timeout_s=2 * PATIENCE_S, check=True):
        return subprocess.run(
            [str(BIN / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", "postgres",
             "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql],
            env={**os.environ, "PGPASSWORD": SUPERUSER_PASSWORD}, text=True, check=check,
            capture_output=True, timeout=timeout_s).stdout.strip()

    def is_replayed(self):
        """Of a view: does it have all that is written here by now? (A view may be older than the last statement.)"""
        lsn = int(self.psql("SELECT pg_current_wal_flush_lsn() - '0/0'"))
        return lambda v: v["replay_lsn"] >= lsn

    def session(self, user="postgres"):
        """A psql that stays: write to its stdin."""
        return subprocess.Popen(
            [str(BIN / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", "postgres",
             "-XAtq"],
            env={**os.environ, "PGPASSWORD": SUPERUSER_PASSWORD}, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def driver(self):
        return [self.process.pid] if self.process is not None and self.process.poll() is None else []

    def quit(self, leave=False):
        if self.process is not None and self.process.poll() is None:
            self.send("quit leave" if leave else "quit")
            self.process.wait(timeout=PATIENCE_S)


class Lab:
    def __init__(self, tmp):
        self.dir = pathlib.Path(tmp)
        self.dir.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(self.dir, "postgres")
            for parent in self.dir.parents:
                if str(parent).startswith("/tmp/") and parent.stat().st_uid == 0:
                    parent.chmod(0o755)
        self.bin = self.dir / "bin"
        self.bin.mkdir()
        self.bin.chmod(0o755)
        for name in ("pg_driver", "regent-fence"):
            shutil.copy2(build_dir() / name, self.bin / name)
            (self.bin / name).chmod(0o755)
        self.nodes = []

    def node(self, name, **options):
        n = Node(self, name, **options)
        self.nodes.append(n)
        n.launch()
        return n

    def primary(self, name="n1", **options):
        """A new cluster of one, writable."""
        n = self.node(name, **options)
        n.wait("looked at", lambda v: v["data"] == "empty")
        n.run("initdb", lineage="1:1")
        n.arm()
        n.run("start_primary", token=1)
        n.run("ensure_roles")
        return n

    def standby(self, primary, name):
        n = self.node(name)
        n.wait("looked at", lambda v: v["data"] == "empty")
        n.run("clone", target=primary.target(), lineage="1:1")
        n.run("start_standby", target=primary.target(), token=1)
        n.wait("streaming", lambda v: v["streaming"])
        return n

    def close(self):
        """What still runs of it is killed: a driver ends with its input, a fence stays for the next one."""
        def sweep():
            pids = [pid for n in self.nodes for pid in (*processes_of(n.dir), *n.driver())]
            for pid in pids:
                send(pid, signal.SIGKILL)
            return not pids
        wait_until(sweep, "nothing is left of the lab")
        drop_shared_memory()
