"""A real PostgreSQL under regent-fence, with fence_driver as the daemon.

PostgreSQL does not run as root: then everything is started as `postgres`, from copies it can read.
"""
import contextlib
import os
import pathlib
import pwd
import queue
import shutil
import signal
import subprocess
import threading
import time

from leftovers import drop_shared_memory

BIN = pathlib.Path(os.environ.get("REGENT_TEST_PG_BIN", "/usr/lib/postgresql/15/bin"))
PATIENCE_S = 60
SETUP_SQL = """
CREATE TABLE t (id bigint);
CREATE PROCEDURE spin() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..100000000 LOOP
        INSERT INTO t VALUES (i);
        COMMIT;
    END LOOP;
END $$;
"""
# The time of a commit is what counts, not that of its statement.
LAST_COMMIT_SQL = "SELECT count(*), extract(epoch FROM max(pg_xact_commit_timestamp(xmin))) FROM t"


def build_dir():
    named = os.environ.get("REGENT_BUILD")
    if named:
        return pathlib.Path(named)
    return pathlib.Path(__file__).resolve().parents[2] / "build" / "dev"


def as_user():
    """What to put before a command so that it does not run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]


def wait_for(predicate, what, patience_s=PATIENCE_S):
    """For facts without an event of their own (rows, /proc): looked at often, with a deadline."""
    end = time.monotonic() + patience_s
    while not (value := predicate()):
        assert time.monotonic() < end, f"never: {what}"
        select_nothing(0.005)
    return value


def select_nothing(seconds):
    threading.Event().wait(seconds)


def boot_ms():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def wall_of(boot):
    """Seconds since 1970 of a CLOCK_BOOTTIME in ms."""
    return time.time() + (boot - boot_ms()) / 1000


class Driver:
    """fence_driver: the daemon's part. Events are dictionaries, in order."""

    def __init__(self, lab, *more, before=()):
        self.process = subprocess.Popen(
            [*as_user(), *before, str(lab.program("fence_driver")), str(lab.socket), *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd="/")
        self.events = queue.Queue()
        self.last = {}
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            kind, _, rest = line.strip().partition(" ")
            event = {"kind": kind, "text": rest}
            for word in rest.split():
                key, eq, value = word.partition("=")
                if eq:
                    event[key] = int(value) if value.isdigit() else value
            self.events.put(event)
        self.events.put({"kind": "end"})

    def order(self, text):
        self.process.stdin.write(text + "\n")
        self.until(lambda e: e["kind"] == "rc" and e["text"] == "ok", f"ok to {text!r}")

    def until(self, predicate, what):
        end = time.monotonic() + PATIENCE_S
        while True:
            left = end - time.monotonic()
            assert left > 0, f"never: {what}; last {self.last}"
            with contextlib.suppress(queue.Empty):
                event = self.events.get(timeout=left)
                if event["kind"] == "changed":
                    self.last = event
                if predicate(event):
                    return event
                assert event["kind"] != "end", f"driver ended before: {what}"

    def changed(self, **want):
        return self.until(
            lambda e: e["kind"] == "changed" and all(e.get(k) == v for k, v in want.items()), f"changed {want}")

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self.reader.join(PATIENCE_S)

    def leave(self):
        if self.process.poll() is None:
            self.process.stdin.write("leave\n")
            self.process.wait(timeout=PATIENCE_S)


class Lab:
    """One data directory, one fence, and daemons that come and go."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.pgdata, self.socket, self.log = self.root / "pg", self.root / "fence.sock", self.root / "pg.log"
        self.drivers, self.clients = [], []
        for name in ("regent-fence", "fence_driver", "fake_postgres"):
            shutil.copy(build_dir() / name, self.root / name)
        if os.geteuid() == 0:
            postgres = pwd.getpwnam("postgres")
            os.chown(self.root, postgres.pw_uid, postgres.pw_gid)
        self.run(BIN / "initdb", "-D", self.pgdata, "-A", "trust", "-U", "postgres", "--no-sync",
                 "--no-locale", "-E", "UTF8")
        options = ("listen_addresses=''", f"unix_socket_directories='{self.root}'", "fsync=off",
                   "track_commit_timestamp=on", "max_connections=20")
        self.run("sh", "-c", 'printf "%s\\n" "$@" >>"$0"', self.pgdata / "postgresql.conf", *options)

    def program(self, name):
        return self.root / name

    def run(self, *command):
        return subprocess.run([*as_user(), *map(str, command)], check=True, capture_output=True, text=True,
                              cwd="/", timeout=180).stdout

    def driver(self, *more):
        self.drivers.append(Driver(self, *(more or [str(self.pgdata)])))
        self.drivers[-1].changed(connected=1)
        return self.drivers[-1]

    def psql(self, sql):
        return self.run(BIN / "psql", "-XqAt", "-h", self.root, "-U", "postgres", "-c", sql, "postgres").strip()

    def answers(self):
        return subprocess.run([BIN / "pg_isready", "-q", "-h", self.root], check=False).returncode == 0

    def start(self, driver, armed="free"):
        driver.order(f"start {self.log} {armed} {BIN}/postgres -D {self.pgdata}")
        pid = driver.until(lambda e: e["kind"] == "changed" and e["postmaster"] != 0, "postmaster")["postmaster"]
        wait_for(self.answers, "PostgreSQL answers")
        return pid

    def spin(self):
        """A procedure that commits in a loop; returns when it does."""
        self.psql(SETUP_SQL)
        client = subprocess.Popen(
            [*as_user(), str(BIN / "psql"), "-XqAt", "-h", str(self.root), "-U", "postgres", "-c", "CALL spin()",
             "postgres"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        self.clients.append(client)
        wait_for(lambda: int(self.psql("SELECT count(*) FROM t")) > 100, "commits")
        return client

    def rows(self):
        return int(self.psql("SELECT count(*) FROM t"))

    def fence_pid(self):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                parent = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
                if str(self.socket).encode() in command and b"--spawned" in command and not self.is_fence(parent):
                    return int(pid)
        return None

    def is_fence(self, pid):
        """The logger is a child of the fence with its command line."""
        with contextlib.suppress(OSError):
            return str(self.socket).encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") \
                and b"--spawned" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        return False

    def processes(self):
        """Living processes that work in PGDATA, found without the code under test."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and os.readlink(f"/proc/{pid}/cwd") == str(self.pgdata):
                    found.append(int(pid))
        return found

    def last_commit(self):
        """(rows, wall time of the last commit), asked of a PostgreSQL started anew on the same data."""
        wait_for(lambda: not self.processes(), "the old PostgreSQL is gone")
        driver = self.driver()
        self.start(driver)
        rows, at = self.psql(LAST_COMMIT_SQL).split("|")
        return int(rows), float(at)

    def close(self):
        for log in (self.log, self.root / "fence.log"):
            if log.exists():
                print(f"--- {log.name}\n{log.read_text()}")  # pytest shows it when a test has failed
        for client in self.clients:
            client.kill()
            client.wait(PATIENCE_S)
        for driver in self.drivers:
            driver.signal(signal.SIGCONT)
            driver.kill()
        wait_for(self.swept, "nothing is left of the lab")
        drop_shared_memory()

    def swept(self):
        """Kills what is left; was there nothing?"""
        pids = [pid for pid in (self.fence_pid(), *self.processes()) if pid]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids
