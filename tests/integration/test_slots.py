"""Permanent replication slots on real PostgreSQL: made and dropped by the configuration, kept over a failover. A logical
consumer loses nothing, and repeats nothing it has confirmed; while that is not certain, the status says so."""
import contextlib
import json
import os
import re
import signal
import subprocess
import threading

import pytest

pytest.importorskip("psycopg2")

import cluster  # noqa: E402
from cluster import Cluster, build_dir, wait_until  # noqa: E402
from load import Session  # noqa: E402
from test_majors import programs  # noqa: E402

pytestmark = pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built")
LOGICAL = {"type": "logical", "database": "app", "plugin": "test_decoding"}
CONSUMES_SQL = "SELECT 1 FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE r.application_name = %s AND s.slot_name = 'app'"
ROW = re.compile(r"^table public\.event: INSERT: id\[integer\]:(\d+)")


class Consumer:
    """pg_recvlogical, begun again after each end where it had got to: it knows the last commit that it has written down."""

    def __init__(self, directory):
        self.directory = directory
        self.seen = []
        self.lsn = "0/0"
        self.process = None
        self.thread = None
        self.name = "consumer0"

    def start(self, node):
        binary = cluster.PG_BIN / "pg_recvlogical"
        words = [str(binary), "-h", node.address, "-p", str(node.ports["pg"]), "-U", "postgres", "-d", "app", "--slot=app", "--start",
                 f"--startpos={self.lsn}", "--no-loop", "-s", "1", "-F", "1",
                 "-o", "include-xids=0", "-f", "-"]
        self.name = f"consumer{int(self.name[8:]) + 1}"
        env = {**os.environ, "PGPASSWORD": node.cluster.password, "PGAPPNAME": self.name}
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env, cwd="/")
        self.thread = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.thread.start()

    def _read(self, lines):
        for line in lines:
            found = ROW.match(line)
            if found:
                self.seen.append(int(found.group(1)))

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.thread.join(60)
        self.process.stdout.close()

    def follow(self, node):
        """From another server on: the slot there is free as soon as the old connection is gone."""
        def goes_on():
            self.start(node)
            wait_until(lambda: node.value(CONSUMES_SQL, self.name) or self.process.poll() is not None, "it streams, or is refused")
            if self.process.poll() is None:
                return True
            self.stop()
            return False
        wait_until(goes_on, f"the consumer streams from {node}")


def configure(c, **config):
    """Keys of the dynamic configuration, or parts of them."""
    c.primary().ctl("edit-config", *[word for key, value in config.items() for word in ("-s", f"{key}={json.dumps(value)}")])


def slots(node):
    return {r[0]: r[1:] for r in node.try_sql("SELECT slot_name, slot_type, restart_lsn FROM pg_replication_slots") or []}


def complaints(c):
    """{member: what its record says about permanent slots}"""
    return {n.name: (c.record(f"members/{n.name}") or {}).get("slots", "") for n in c.nodes if n.running()}


def settled(c):
    """Nobody complains. A logical slot moves on at the next record of the running transactions, which a checkpoint writes;
    the physical one when its consumer does."""
    c.primary().try_sql("CHECKPOINT")
    c.primary().try_sql("SELECT pg_replication_slot_advance('archiver', pg_current_wal_lsn())")
    return not any(complaints(c).values())


def app(node, query, *args):
    with contextlib.closing(Session(node.dsn().replace("dbname=postgres", "dbname=app"), cluster.CONNECT_S)) as session:
        session.execute(query, args or None, cluster.PATIENCE_S)


@pytest.mark.parametrize("major", (15, 17))
def test_a_logical_consumer_loses_and_repeats_nothing_over_failovers(major, monkeypatch):
    if not (programs(major) / "postgres").exists():
        pytest.skip(f"no PostgreSQL {major} in {programs(major)}; REGENT_TEST_PG_{major} names the directory of its programs")
    monkeypatch.setattr(cluster, "PG_BIN", programs(major))
    with Cluster(sync="on", ttl=10, sets=['bootstrap.dcs.postgresql.parameters.wal_level="logical"']) as c:
        c.form()
        try:
            live(c, copied=major < 17)
        except BaseException:
            print(complaints(c), *[(n, n.try_sql("SELECT * FROM pg_replication_slots")) for n in c.nodes], sep="\n")
            raise


def live(c, copied):
    first = c.primary()
    first.sql("CREATE DATABASE app")
    app(first, "CREATE TABLE event (id int PRIMARY KEY)")
    first.sql("SELECT pg_create_physical_replication_slot('by_hand')")
    configure(c, slots={"app": LOGICAL, "archiver": {"type": "physical"}, "elsewhere": {"type": "physical"}},
              ignore_slots=[{"name": "elsewhere"}])
    wait_until(lambda: "app" in slots(first) and all("archiver" in slots(n) for n in c.nodes), "the slots are made")
    wait_until(lambda: any("app" in text for text in complaints(c).values()), "the standbys say that they are not safe yet")
    consumer = Consumer(c.dir)
    consumer.follow(first)
    wait_until(lambda: settled(c), "everybody has good slots", 240)
    c.wait_healthy()
    wait_until(lambda: all("app" in slots(n) for n in c.nodes), "everybody has it")
    assert not any("elsewhere" in slots(n) for n in c.nodes)

    for i in range(100):
        app(first, "INSERT INTO event VALUES (%s)", i)
    wait_until(lambda: len(consumer.seen) == 100, "the consumer has them")
    written = first.value("SELECT pg_current_wal_lsn()")
    moved_on = "SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots WHERE slot_name = 'app'"
    app(first, "INSERT INTO event VALUES (100)")
    for node in c.nodes:
        wait_until(lambda node=node: node.value(moved_on, written), f"the slot of {node} has moved on")
    wait_until(lambda: len(consumer.seen) == 101, "the consumer has that one, too")
    end = first.value("SELECT pg_current_wal_lsn()")
    wait_until(lambda: first.value(moved_on, end), "and has said so")
    consumer.stop()
    consumer.lsn = first.value("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'app'")

    # What is written while nobody consumes is still there after the failover.
    app(first, "INSERT INTO event SELECT generate_series(101, 199)")
    first.kill()
    second = c.new_leader(first)
    consumer.follow(second)
    app(second, "INSERT INTO event SELECT generate_series(200, 299)")
    wait_until(lambda: len(consumer.seen) >= 300, "the consumer has everything")
    consumer.stop()
    assert consumer.seen == list(range(300))

    # The old primary comes back, its copies are made anew, and it says so until they are good.
    first.start()
    c.wait_healthy()
    consumer.lsn = second.value("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'app'")
    consumer.follow(second)
    app(second, "INSERT INTO event VALUES (300)")
    if copied:  # PostgreSQL's own synchronization takes half a minute
        wait_until(lambda: settled(c), "everybody has good slots again", 120)
    consumer.stop()
    c.wait_healthy()

    configure(c, slots=None)
    wait_until(lambda: not any({"app", "archiver"} & set(slots(n)) for n in c.nodes), "they are dropped everywhere")
