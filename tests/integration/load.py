"""What clients see of a cluster: a writer that logs what was acknowledged, and a prober of every node.

Both use the asynchronous side of psycopg2, so that every step has a deadline of its own and the client adds little
to what the servers take.
"""
import contextlib
import select
import threading
import time

import psycopg2
import psycopg2.extensions as px

CONNECT_S = 0.5
STATEMENT_S = 1.0
SLOWER_MAX = 16
ROTATE_S = 0.004
TABLE_SQL = """
CREATE TABLE IF NOT EXISTS acked (id bigint PRIMARY KEY);
CREATE TABLE IF NOT EXISTS probed (node text, n bigint);
"""
# The timeline tells one primary from the next.
PROBE_SQL = "INSERT INTO probed VALUES (%s, %s) RETURNING ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int"


class Late(psycopg2.OperationalError):
    """The deadline of one step has passed; its outcome is unknown."""


class Patience:
    """With one node: twice as much after each step that was late, up to a limit, so that a slow machine is no dead one."""

    def __init__(self, most):
        self.times = 1
        self.most = most

    def limit(self, seconds):
        return seconds * self.times

    def learn(self, error):
        if isinstance(error, Late):
            self.times = min(self.most, self.times * 2)


class Session:
    """One connection, with a deadline for everything."""

    def __init__(self, dsn, connect_s=CONNECT_S):
        self.connection = psycopg2.connect(dsn, async_=True)
        try:
            self._wait(connect_s)
        except BaseException:
            self.close()
            raise

    def _wait(self, limit_s):
        end = time.monotonic() + limit_s
        while True:
            state = self.connection.poll()
            if state == px.POLL_OK:
                return
            left = end - time.monotonic()
            if left <= 0:
                raise Late(f"not within {limit_s:g} s")
            fd = [self.connection.fileno()]
            select.select(fd if state == px.POLL_READ else [], fd if state == px.POLL_WRITE else [], [], left)

    def execute(self, query, args=None, limit_s=STATEMENT_S):
        cursor = self.connection.cursor()
        cursor.execute(query, args)
        self._wait(limit_s)
        return cursor.fetchall() if cursor.description else None

    def close(self):
        with contextlib.suppress(psycopg2.Error):
            self.connection.close()


class Writer(threading.Thread):
    """Inserts 1, 2, 3, ... wherever it is let in, and remembers each acknowledgement with its time.

    An id whose outcome is not known is given up, never written again: what is compared at the end is exact. With
    slower_max=1 its own timeouts stay as they are, which is what a measurement of gaps wants.
    """

    def __init__(self, nodes, pause_s=0.002, statement_s=STATEMENT_S, slower_max=SLOWER_MAX):
        super().__init__(daemon=True)
        self.dsns = [(node.name, node.dsn()) for node in nodes]
        self.pause_s = pause_s
        self.statement_s = statement_s
        self.slower_max = slower_max
        self.acked = []  # (time, id, node)
        self.unknown = []
        self.errors = []  # (time, node, what), newest kept
        self.finish = threading.Event()

    def run(self):
        at, session, number = 0, None, 0
        patience = [Patience(self.slower_max) for _ in self.dsns]
        while not self.finish.is_set():
            name, dsn = self.dsns[at]
            sent = False
            try:
                if session is None:
                    session = Session(dsn, patience[at].limit(CONNECT_S))
                number += 1
                sent = True
                session.execute("INSERT INTO acked VALUES (%s)", (number,), patience[at].limit(self.statement_s))
                self.acked.append((time.monotonic(), number, name))
                self.finish.wait(self.pause_s)
            except psycopg2.Error as e:
                patience[at].learn(e)
                if sent and not isinstance(e, psycopg2.errors.ReadOnlySqlTransaction):
                    self.unknown.append(number)
                self.errors = self.errors[-200:] + [(time.monotonic(), name, repr(e)[:120])]
                if session is not None:
                    session.close()
                    session = None
                at = (at + 1) % len(self.dsns)
                self.finish.wait(ROTATE_S)
        if session is not None:
            session.close()

    def stop(self):
        """It has ended: what it knows does not change any more."""
        self.finish.set()
        self.join(60)
        assert not self.is_alive()
        return self

    def last(self):
        return self.acked[-1][0] if self.acked else None

    def ids(self):
        return {number for _, number, _ in self.acked}

    def gap(self, since=None, until=None):
        """The longest interval between acknowledged commits, and when it began; one that has not ended counts."""
        times = [t for t, _, _ in self.acked]
        if until is None and not self.finish.is_set():
            times.append(time.monotonic())
        longest, begun = 0.0, None
        for before, after in zip(times, times[1:]):
            if (since is None or after >= since) and (until is None or before <= until) and after - before > longest:
                longest, begun = after - before, before
        return longest, begun

    def acked_after(self, when, node=None):
        """Is there an acknowledgement later than `when` (of this node)?"""
        return any(t > when and (node is None or name == node) for t, _, name in reversed(self.acked[-2000:]))


class Prober(threading.Thread):
    """Asks one node 20 times a second whether it takes and acknowledges a write."""

    def __init__(self, node, every_s=0.05):
        super().__init__(daemon=True)
        self.node, self.dsn, self.every_s = node.name, node.dsn(), every_s
        self.acks = []  # (sent, received, timeline)
        self.finish = threading.Event()

    def run(self):
        session, n = None, 0
        while not self.finish.is_set():
            begun = time.monotonic()
            try:
                if session is None:
                    session = Session(self.dsn)
                n += 1
                sent = time.monotonic()
                rows = session.execute(PROBE_SQL, (self.node, n))
                self.acks.append((sent, time.monotonic(), rows[0][0]))
            except psycopg2.errors.ReadOnlySqlTransaction:
                pass
            except psycopg2.Error:
                if session is not None:
                    session.close()
                    session = None
            self.finish.wait(max(0.0, begun + self.every_s - time.monotonic()))
        if session is not None:
            session.close()

    def stop(self):
        """It has ended: what it knows does not change any more."""
        self.finish.set()
        self.join(60)
        assert not self.is_alive()
        return self


def two_primaries_s(probers):
    """For how long a node acknowledged after another one had acknowledged on a newer timeline; 0: never.

    A write that was sent before the newer timeline's first acknowledgement proves nothing.
    """
    acks = [(sent, received, timeline, p.node) for p in probers for sent, received, timeline in p.acks]
    first, nodes = {}, {}
    for _, received, timeline, node in acks:
        first[timeline] = min(first.get(timeline, received), received)
        nodes.setdefault(timeline, set()).add(node)
    assert all(len(n) == 1 for n in nodes.values()), f"two nodes acknowledged on one timeline: {nodes}"
    worst = 0.0
    for sent, _, timeline, _ in acks:
        newer = [begun for t, begun in first.items() if t > timeline]
        if newer:
            worst = max(worst, sent - min(newer))
    return worst
