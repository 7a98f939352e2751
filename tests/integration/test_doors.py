"""The doors by which clients come in, with the real programs behind them: HAProxy and PgBouncer that regentd keeps
current, libpq with the string of `regentctl dsn`; through switchover, kill and the addition of a node.

    python3 -m pytest tests/integration/test_doors.py
"""
import contextlib
import json
import shutil
import signal
import subprocess
import threading
import time

import psycopg2
import pytest

from cluster import Cluster, Node, alive, wait_until
from pgbench import Bench
from ports import free_port


RETRIES_S = 120  # a template that failed is tried again after a minute, at the latest


def needs(program):
    path = shutil.which(program) or shutil.which(f"/usr/sbin/{program}")
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


class Door:
    """A program that listens, ended by its pid."""

    def __init__(self, words, log):
        with open(log, "ab") as out:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Writer:
    """Inserts one row after the other by one door, in a thread; keeps what was acknowledged and the longest gap."""

    def __init__(self, dsn, table):
        self.dsn, self.table = dsn, table
        self.acknowledged, self.gap_s = [], 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        wait_until(lambda: self.acknowledged, "a first row")
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join(timeout=30)

    def _run(self):
        number, last = 0, None
        while not self._end.is_set():
            with contextlib.suppress(psycopg2.Error), contextlib.closing(psycopg2.connect(self.dsn)) as connection:
                connection.autocommit = True
                while not self._end.is_set():
                    number += 1  # a number whose outcome is unknown is not used again
                    with connection.cursor() as cursor:
                        cursor.execute(f"INSERT INTO {self.table} VALUES (%s)", (number,))
                    now = time.monotonic()
                    self.gap_s = max(self.gap_s, now - (last or now))
                    last = now
                    self.acknowledged.append(number)
                    self._end.wait(0.005)
            self._end.wait(0.02)

    def goes_on(self):
        before = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) > before + 20, "rows are written again")


def rows(node, table):
    return {r[0] for r in node.sql(f"SELECT n FROM {table}")}


def file_text(path):
    return path.read_text(encoding="utf-8") if path.exists() else ""


@pytest.fixture(scope="module")
def c():
    with Cluster() as cluster:
        d = cluster.dir
        cluster.doors = {k: free_port() for k in ("primary", "replicas", "synchronous", "asynchronous", "statistics",
                                                   "bouncer")}
        haproxy = {f"{k}_port": cluster.doors[k] for k in ("primary", "replicas", "synchronous", "asynchronous",
                                                           "statistics")}
        templates = {
            "haproxy": {"target": f"{d}/haproxy.cfg", "check": "haproxy -c -q -f $FILE", "set": {"bind": "127.0.0.1", **haproxy},
                        "reload": f"test ! -e {d}/haproxy.pid || kill -USR2 $(cat {d}/haproxy.pid)"},
            "pgbouncer": {"target": f"{d}/pgbouncer.ini", "mode": "0600",
                          "reload": f"test ! -e {d}/pgbouncer.pid || kill -HUP $(cat {d}/pgbouncer.pid)",
                          "set": {"listen_addr": "127.0.0.1", "listen_port": cluster.doors["bouncer"], "auth_type": "plain",
                                  "auth_file": f"{d}/users.txt", "logfile": f"{d}/pgbouncer.log",
                                  "pidfile": f"{d}/pgbouncer.pid", "unix_socket_dir": str(d)}},
            "broken": {"template": f"{d}/broken.in", "target": f"{d}/broken.out", "check": "grep -q good $FILE"},
        }
        (d / "broken.in").write_text("good {{scope}} {{#members}}{{name}} {{/members}}", encoding="utf-8")
        (d / "broken.in").chmod(0o644)
        cluster.sets.append("templates=" + json.dumps(templates))
        cluster.form()
        cluster.primary().sql("CREATE TABLE by_haproxy (n int primary key); CREATE TABLE by_pgbouncer (n int primary key);"
                              "CREATE TABLE by_libpq (n int primary key)")
        (d / "users.txt").write_text(f'"postgres" "{cluster.password}"\n', encoding="utf-8")
        yield cluster


@pytest.fixture(autouse=True)
def healthy(c):
    c.wait_healthy()


def switch_to(c, node):
    if c.primary() is not node:
        wait_until(lambda: c.primary().ctl("switchover", "--candidate", node.name, check=False).returncode == 0 or
                   c.primary() is node, f"{node} leads")
        c.wait_healthy()


def sync_standby(c):
    return wait_until(lambda: next((c[m["Member"]] for m in c.members() if m["Role"] == "Sync Standby"), None), "a synchronous standby")


def kill_leader(c, besides):
    """Kills a leader that is not `besides`, waits for the next, brings the dead one back."""
    victim = c.primary()
    if victim is besides:
        switch_to(c, sync_standby(c))
        victim = c.primary()
    victim.kill()
    new = c.new_leader(victim)
    return victim, new


# ---- haproxy ----


@pytest.fixture
def haproxy(c):
    program = needs("haproxy")
    config = c.dir / "haproxy.cfg"
    wait_until(lambda: all(f"server {n.name} " in file_text(config) for n in c.nodes), "a file with every node")
    subprocess.run([program, "-c", "-f", str(config)], check=True, capture_output=True)
    door = Door([program, "-W", "-f", str(config), "-p", str(c.dir / "haproxy.pid")], c.dir / "haproxy.log")
    try:
        yield door
    finally:
        door.close()
        (c.dir / "haproxy.pid").unlink(missing_ok=True)


def by_port(c, port):
    return f"host=127.0.0.1 port={port} user=postgres password={c.password} dbname=postgres connect_timeout=3"


def port_of(c, door):
    """The node's port that answers behind this door; None when nobody does."""
    try:
        with contextlib.closing(psycopg2.connect(by_port(c, c.doors[door]))) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW port")
            return int(cursor.fetchone()[0])
    except psycopg2.Error:
        return None


def test_haproxy_follows_switchover_kill_and_a_new_node(c, haproxy):
    first = c.nodes[0]
    with Writer(by_port(c, c.doors["primary"]), "by_haproxy") as writer:
        switch_to(c, sync_standby(c))
        writer.goes_on()
        victim, new = kill_leader(c, first)
        writer.goes_on()
        assert f"server {victim.name} " in file_text(c.dir / "haproxy.cfg"), "a node that is down stays in the file"
        victim.start()
        c.wait_healthy()
        token = first.ctl("token", "create").stdout.strip()
        node = Node(c, "n4", "127.0.0.1")
        node.setup(token=token, first=first.dcs_address())
        node.start()
        c.nodes.append(node)
        c.wait_healthy()
        wait_until(lambda: "server n4 " in file_text(c.dir / "haproxy.cfg"), "the new node is in the file")
        writer.goes_on()
        wait_until(lambda: port_of(c, "primary") == c.primary().ports["pg"], "the primary behind its port")
        standbys = {n.ports["pg"] for n in c.standbys()}
        assert wait_until(lambda: port_of(c, "replicas"), "a standby") in standbys
        synchronous = wait_until(lambda: port_of(c, "synchronous"), "a synchronous standby")
        asynchronous = wait_until(lambda: port_of(c, "asynchronous"), "an asynchronous standby")
        assert {synchronous, asynchronous} <= standbys and synchronous != asynchronous
        seen = set()
        wait_until(lambda: seen.add(port_of(c, "replicas")) or standbys <= seen, "readers reach every standby, the new one too")
    assert set(writer.acknowledged) <= rows(c.primary(), "by_haproxy")
    print(f"longest gap by haproxy: {writer.gap_s:.2f} s")


# ---- pgbouncer ----


def test_pgbouncer_follows_the_leader(c):
    program = needs("pgbouncer")
    config = c.dir / "pgbouncer.ini"
    def names(node):
        return f"port={node.ports['pg']}\n" in file_text(config)
    wait_until(lambda: names(c.primary()), "the leader in the file")
    assert config.stat().st_mode & 0o777 == 0o600
    door = Door([program, str(config)], c.dir / "pgbouncer.out")
    try:
        with Writer(by_port(c, c.doors["bouncer"]), "by_pgbouncer") as writer:
            victim, new = kill_leader(c, c.nodes[0])
            wait_until(lambda: names(new), "the new leader in the file")
            writer.goes_on()
            victim.start()
            c.wait_healthy()
            switch_to(c, sync_standby(c))
            wait_until(lambda: names(c.primary()), "the leader after the switchover in the file")
            writer.goes_on()
        assert set(writer.acknowledged) <= rows(c.primary(), "by_pgbouncer")
        print(f"longest gap by pgbouncer: {writer.gap_s:.2f} s")
    finally:
        door.close()
        (c.dir / "pgbouncer.pid").unlink(missing_ok=True)


# ---- pgbench by all doors at once ----


def test_pgbench_by_every_door_through_a_failover_loses_nothing(c, haproxy):
    bouncer = Door([needs("pgbouncer"), str(c.dir / "pgbouncer.ini")], c.dir / "pgbouncer.out")
    c.primary().sql("CREATE TABLE by_pgbench (door text)")
    dsns = {"haproxy": by_port(c, c.doors["primary"]), "pgbouncer": by_port(c, c.doors["bouncer"]),
            "libpq": c.nodes[0].ctl("dsn").stdout.strip() + f" dbname=postgres user=postgres password={c.password}"}
    try:
        with contextlib.ExitStack() as stack:
            benches = [stack.enter_context(Bench(c.dir, name, dsn)) for name, dsn in dsns.items()]
            victim, new = kill_leader(c, c.nodes[0])
            for bench in benches:
                seen = bench.whole
                wait_until(lambda bench=bench, seen=seen: bench.whole > seen + 1, f"whole runs by {bench.name} again: {bench.said}")
        victim.start()
        c.wait_healthy()
        there = dict(new.sql("SELECT door, count(*) FROM by_pgbench GROUP BY door"))
        assert {b.name: b.acknowledged for b in benches if b.acknowledged > there[b.name]} == {}, there
    finally:
        bouncer.close()
        (c.dir / "pgbouncer.pid").unlink(missing_ok=True)


# ---- templates ----


def test_a_file_that_its_check_refuses_leaves_the_last_good_one(c):
    first, out = c.nodes[0], c.dir / "broken.out"
    wait_until(lambda: file_text(out).startswith("good ha n1 n2 n3"), "the first file")
    good = file_text(out)
    (c.dir / "broken.in").write_text("bad {{leader.name}}", encoding="utf-8")
    switch_to(c, sync_standby(c))
    wait_until(lambda: first.log_lines('event=template .*name=broken.*exit status 1.*the last good file stays'), "the reason in the log", RETRIES_S)
    assert file_text(out) == good
    (c.dir / "broken.in").write_text("{{no}}", encoding="utf-8")
    wait_until(lambda: first.log_lines('event=template .*broken.in:1: {{no}}: there is no such value'), "a mistake in the log", RETRIES_S)
    assert file_text(out) == good
    (c.dir / "broken.in").write_text("good again", encoding="utf-8")
    wait_until(lambda: file_text(out) == "good again", "the mended one is taken by itself", RETRIES_S)


def test_a_command_that_hangs_holds_up_nothing(c):
    out = c.dir / "broken.out"
    hang = c.dir / "hang.sh"
    node = c.nodes[1]
    wait_until(lambda: node.log_lines("regentd runs"), "it runs")
    hang.write_text("echo waiting; echo $$ > %s; sleep 600" % (c.dir / "hang.pid"), encoding="utf-8")
    text = node.config.read_text(encoding="utf-8")
    node.config.write_text(text + "\ntemplates: {haproxy: {target: %s/other.cfg, reload: 'sh %s'}}\n" % (c.dir, hang),
                           encoding="utf-8")
    try:
        if c.primary() is node:
            switch_to(c, sync_standby(c))
        node.kill()
        node.start()
        wait_until(lambda: file_text(c.dir / "hang.pid").strip(), "the command runs")
        c.wait_healthy()
        wait_until(lambda: node.log_lines("did not end within 30 s and was killed: waiting"), "it is killed and told", RETRIES_S)
        wait_until(lambda: not alive(int(file_text(c.dir / "hang.pid"))), "it is dead")
        assert file_text(c.dir / "other.cfg") and file_text(out) is not None
        assert not node.log_lines(r"event=late late_ms=\d{5}"), "its loop did not wait for the command"
    finally:
        node.config.write_text(text, encoding="utf-8")
        node.kill()
        node.start()


# ---- libpq ----


def test_dsn_finds_the_node_wanted_in_every_form(c):
    def ask(dsn, sql="SHOW port"):
        with contextlib.closing(psycopg2.connect(f"{dsn} user=postgres password={c.password}" if "://" not in dsn else dsn,
                                                 password=c.password, connect_timeout=30)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0]
    primary = c.primary()
    def dsn(*words):
        return c.nodes[0].ctl("dsn", *words).stdout.strip()
    assert ask(dsn()) == str(primary.ports["pg"])
    assert ask(dsn("-U", "postgres", "--uri")) == str(primary.ports["pg"])
    assert ask(dsn("-r", "replica"), "SELECT pg_is_in_recovery()")
    assert ask(dsn("--read-only"), "SELECT pg_is_in_recovery()")
    standby = c.standbys()[0]
    assert ask(dsn("-m", standby.name)) == str(standby.ports["pg"])
    assert dsn("-d", "it's").split("dbname=")[1].startswith("'it\\'s' ")
    assert dsn("--jdbc").startswith(f"jdbc:postgresql://127.0.0.1:{primary.ports['pg']},") and "targetServerType=primary" in dsn("--jdbc")
    for words, code in ((["-r", "boss"], 2), (["-m", "nobody"], 1), (["-r", "any", "-m", "n1"], 2), (["x"], 2)):
        assert c.nodes[0].ctl("dsn", *words, check=False).returncode == code, words


def test_libpq_follows_a_failover_with_the_dsn(c):
    dsn = c.nodes[0].ctl("dsn").stdout.strip() + f" user=postgres password={c.password}"
    with Writer(dsn, "by_libpq") as writer:
        victim, _ = kill_leader(c, c.nodes[0])
        writer.goes_on()
    victim.start()
    c.wait_healthy()
    assert set(writer.acknowledged) <= rows(c.primary(), "by_libpq")
    print(f"longest gap by libpq: {writer.gap_s:.2f} s")


# ---- generate ----


def test_generate_makes_files_that_the_programs_take(c):
    first = c.nodes[0]
    haproxy = c.dir / "by-hand.cfg"
    first.ctl("generate", "haproxy", "-o", str(haproxy))
    subprocess.run([needs("haproxy"), "-c", "-f", str(haproxy)], check=True, capture_output=True)
    keepalived = c.dir / "keepalived.conf"
    refused = first.ctl("generate", "keepalived", check=False)
    assert refused.returncode == 1 and "{{set.interface}}: not given" in refused.stderr
    first.ctl("generate", "keepalived", "--set", "interface=lo", "--set", "address=127.1.2.3/32", "-o", str(keepalived))
    assert f":{first.ports['rest']}/primary" in file_text(keepalived)
    if shutil.which("keepalived"):
        done = subprocess.run(["keepalived", "-t", "-f", str(keepalived)], capture_output=True, text=True, check=False)
        complaints = [line for line in (done.stdout + done.stderr).splitlines()
                      # without root and another interface than lo these are its due
                      if not any(known in line for known in ("loopback interface", "Unknown interface", "due to insecure"))]
        assert not complaints, complaints
    assert first.ctl("generate", "nothing", check=False).returncode == 1
    assert first.ctl("generate", check=False).returncode == 2
