"""What clients of PostgreSQL do. Every connection, statement and commit has a deadline of its own; an answer that did not
come, or a commit that says it was not replicated, is :info. Only what PostgreSQL refused by name is :fail.
"""
import contextlib
import hashlib
import os
import random
import subprocess
import threading

import psycopg2
import psycopg2.errors as pe

import cluster as cl
from history import Process
from load import Late, Prober, Session

STATEMENT_S = 1.5
PAUSE_S = 0.01
PATIENCE_S = 300  # for what has to come about: nothing is measured by it
# Refused by name, before anything could be committed.
REFUSED = (pe.ReadOnlySqlTransaction, pe.SerializationFailure, pe.DeadlockDetected, pe.UniqueViolation, pe.UndefinedTable,
           pe.CannotConnectNow, pe.QueryCanceled)
NOT_REPLICATED = "canceling wait for synchronous replication"
ACCOUNTS, BALANCE = 6, 100
SQL = {
    "ledger": "CREATE TABLE IF NOT EXISTS ledger (id bigint PRIMARY KEY)",
    "append": "CREATE TABLE IF NOT EXISTS lists (k int PRIMARY KEY, v int[] NOT NULL)",
    "bank": f"CREATE TABLE IF NOT EXISTS bank AS SELECT i AS id, {BALANCE} AS balance FROM generate_series(1, {ACCOUNTS}) i",
}
PROBED = "CREATE TABLE IF NOT EXISTS probed (node text, n bigint)"


class Client(threading.Thread):
    """One process, until it is stopped: every second one goes round the nodes, the others name all of them and let libpq find the
    primary."""
    any_node = False

    def __init__(self, history, cluster, number, step, seed):
        super().__init__(daemon=True)
        self.process = Process(history, number, step)
        self.nodes = cluster.nodes
        self.at = number % len(self.nodes)
        self.node = self.nodes[self.at]  # of the session
        self.finds = number % 2 == 1 and not self.any_node
        self.rng = random.Random(f"{seed}/{number}")
        self.finish = threading.Event()
        self.session = None
        self.count = 0
        self.fatal = None

    def run(self):
        try:
            while not self.finish.is_set():
                self.step()
                self.finish.wait(PAUSE_S * self.rng.uniform(0.5, 1.5))
        except BaseException as e:  # ends the run, not the thread alone
            self.fatal = e
            raise
        finally:
            self.drop()

    def connect(self):
        if not self.finds:
            self.node = self.nodes[self.at]
            return Session(self.node.dsn())
        nodes = self.rng.sample(self.nodes, len(self.nodes))  # libpq has no limit of its own for one that is silent
        session = Session(f"{nodes[0].dsn()} host={','.join(n.address for n in nodes)} port={','.join(str(n.ports['pg']) for n in nodes)} "
                          "target_session_attrs=read-write")
        self.node = next(n for n in nodes if n.address == session.connection.info.host)
        return session

    def step(self):
        try:
            if self.session is None:
                self.session = self.connect()
        except (psycopg2.Error, Late):
            self.go_on()
            return
        node = self.node
        self.count += 1
        f, value = self.next_op()
        self.process.invoke(f, value, node=node.name)
        try:
            result = self.perform(f, value)
        except REFUSED as e:
            self.process.done("fail", f, value, node=node.name, error=type(e).__name__)
            if isinstance(e, pe.ReadOnlySqlTransaction):
                self.go_on()
            else:
                self.rollback()
        except (psycopg2.Error, Late) as e:
            self.cancel_at_times()
            self.process.done("info", f, value, node=node.name, error=str(e).strip().splitlines()[0][:80] if str(e).strip() else type(e).__name__)
            self.go_on()
        else:
            unsure = any(NOT_REPLICATED in n for n in self.session.connection.notices)
            self.session.connection.notices.clear()
            self.process.done("info" if unsure else "ok", f, result, node=node.name)

    def cancel_at_times(self):
        """A user who presses ^C ends the wait for the standby: the server then says that it is committed here only."""
        if self.session is None or self.rng.random() < 0.5:
            return
        # Not connection.cancel(): that stops this whole program while a postmaster does not answer.
        with contextlib.suppress(psycopg2.Error, Late), contextlib.closing(Session(self.node.dsn())) as other:
            other.execute("SELECT pg_cancel_backend(%s)", (self.session.connection.get_backend_pid(),))

    def rollback(self):
        try:
            self.session.execute("ROLLBACK")
        except (psycopg2.Error, Late):
            self.go_on()

    def go_on(self):
        self.drop()
        self.at = (self.at + 1) % len(self.nodes)

    def drop(self):
        if self.session is not None:
            self.session.close()
            self.session = None

    def query(self, text, *args):
        return self.session.execute(text, args or None, STATEMENT_S)

    def stop(self):
        self.finish.set()

    # what a workload defines
    def next_op(self):
        raise NotImplementedError

    def perform(self, f, value):
        raise NotImplementedError


class Ledger(Client):
    """Adds numbers nobody else adds."""

    def next_op(self):
        return "add", self.count * 1000 + self.process.number % self.process.step

    def perform(self, f, value):
        self.query("INSERT INTO ledger VALUES (%s)", value)
        return value


class Append(Client):
    """Transactions of reads and appends over a few lists; each list is given up for a new one after a while."""
    isolation = "SERIALIZABLE"

    def next_op(self):
        base = self.count // 60 * 6
        value = []
        for i in range(self.rng.randint(1, 4)):
            key = base + self.rng.randrange(6)
            if self.rng.random() < 0.5:
                value.append(["r", key, None])
            else:
                value.append(["append", key, self.count * 10000 + self.process.number % self.process.step * 10 + i])
        return "txn", value

    def perform(self, f, value):
        self.query(f"BEGIN ISOLATION LEVEL {self.isolation}")
        done = []
        for kind, key, item in value:
            if kind == "r":
                rows = self.query("SELECT v FROM lists WHERE k = %s", key)
                done.append(["r", key, rows[0][0] if rows else []])
            else:
                self.query("INSERT INTO lists VALUES (%s, ARRAY[%s]) ON CONFLICT (k) DO UPDATE SET v = lists.v || EXCLUDED.v", key, item)
                done.append(["append", key, item])
        self.query("COMMIT")
        return done


class AppendRepeatable(Append):
    isolation = "REPEATABLE READ"


class AppendCommitted(Append):
    isolation = "READ COMMITTED"


class Bank(Client):
    """Transfers; the sum of all accounts is the same on every node at every moment."""

    def next_op(self):
        if self.rng.random() < 0.4:
            return "read", None
        a, b = self.rng.sample(range(1, ACCOUNTS + 1), 2)
        return "transfer", [a, b, self.rng.randint(1, 5)]

    def perform(self, f, value):
        if f == "read":
            return [r[0] for r in self.query("SELECT balance FROM bank ORDER BY id")]
        a, b, amount = value
        self.query("BEGIN")
        self.query("SELECT id FROM bank WHERE id IN (%s, %s) ORDER BY id FOR UPDATE", a, b)
        self.query("UPDATE bank SET balance = balance - %s WHERE id = %s", amount, a)
        self.query("UPDATE bank SET balance = balance + %s WHERE id = %s", amount, b)
        self.query("COMMIT")
        return value

    def step(self):
        """Reads go to standbys as well, so a read-only node is stayed at for a while."""
        super().step()
        if self.session is None and self.rng.random() < 0.3:
            self.finish.wait(0.05)


class BankReader(Bank):
    any_node = True

    def next_op(self):
        return "read", None


WORKLOADS = {"ledger": [Ledger] * 4, "append": [Append] * 5, "append-rr": [AppendRepeatable] * 5, "append-rc": [AppendCommitted] * 5,
             "bank": [Bank] * 3 + [BankReader] * 3}
TABLE_OF = {name: name.split("-", 1)[0] for name in WORKLOADS}


class SqlLoad:
    """The clients of a workload and a prober of every node at 20 Hz."""

    def __init__(self, name, cluster, history, seed):
        self.name, self.cluster, self.history = name, cluster, history
        cl.wait_until(self.make_tables, "the tables are made", PATIENCE_S)
        classes = WORKLOADS[name]
        self.clients = [c(history, cluster, i, len(classes), seed) for i, c in enumerate(classes)]
        self.probers = [Prober(n) for n in cluster.nodes]
        self.final = {}

    def make_tables(self):
        with contextlib.suppress(psycopg2.Error):  # it is not the primary any more
            self.cluster.primary().sql(f"{SQL[TABLE_OF[self.name]]}; {PROBED}")
            return True
        return False

    def start(self):
        for t in [*self.clients, *self.probers]:
            t.start()

    def alive(self):
        return any(op["type"] == "ok" for op in self.history.ops[-400:])

    def stop(self):
        for c in self.clients:
            c.stop()
        for c in self.clients:
            c.join(120)
        for p in self.probers:
            p.stop()
        for c in self.clients:
            if c.fatal:
                raise c.fatal
        self.add_probes()
        self.add_final_reads()

    def add_probes(self):
        """Acknowledged writes of the probers, with the node and the timeline they were written on; times as in the history."""
        began = self.history.began_ns / 1e9
        for p in self.probers:
            for sent, received, timeline in p.acks:
                self.history.add("info", "nemesis", "probe", [int((sent - began) * 1e9), int((received - began) * 1e9)], node=p.node,
                                 timeline=timeline)

    def add_final_reads(self):
        """On every node once all of them have replayed what the primary has; and what a dump of each looks like."""
        lsn, reads = cl.wait_until(self.final_reads, "every node can be read", 2 * PATIENCE_S)
        for node, rows, dump in reads:
            self.history.add("info", "nemesis", "final", rows, node=node.name, lsn=str(lsn), dump=dump)
        history = cl.wait_until(lambda: (self.cluster.record("history") or {}).get("entries"), "the history record", PATIENCE_S)
        self.history.add("info", "nemesis", "lineage", history)

    def final_reads(self):
        """None: a node went, or the primary changed, while they were made."""
        c = self.cluster
        c.wait_healthy(PATIENCE_S)
        try:
            lsn = c.primary().sql("SELECT pg_current_wal_flush_lsn()")[0][0]
            for n in c.standbys():
                cl.wait_until(lambda n=n: n.value("SELECT pg_last_wal_replay_lsn() >= %s", lsn), f"{n} has replayed", 60)
            return lsn, [(n, self.final_read(n), dump_hash(n)) for n in c.nodes]
        except (psycopg2.Error, cl.Never, subprocess.SubprocessError):
            return None

    def final_read(self, node):
        table = TABLE_OF[self.name]
        if table == "ledger":
            return sorted(r[0] for r in node.sql("SELECT id FROM ledger"))
        if table == "bank":
            return [r[0] for r in node.sql("SELECT balance FROM bank ORDER BY id")]
        return {str(k): v for k, v in node.sql("SELECT k, v FROM lists ORDER BY k")}


def dump_hash(node):
    """Of a logical dump, without what differs between two dumps of the same rows."""
    env = {**os.environ, "PGPASSWORD": node.cluster.password}
    done = subprocess.run([cl.PG_BIN / "pg_dump", "-h", node.address, "-p", str(node.ports["pg"]), "-U", "postgres", "postgres"],
                          env=env, capture_output=True, check=True, timeout=PATIENCE_S)
    lines = [line for line in done.stdout.splitlines() if not line.startswith((b"\\restrict", b"\\unrestrict"))]
    return hashlib.sha256(b"\n".join(lines)).hexdigest()
