"""What the policy promises beyond plain failover, on real nodes: switchovers with hung standbys, orders of operators,
outages of everything."""
import contextlib
import os
import signal

import pytest

from cluster import Cluster, wait_until
from load import TABLE_SQL

PATIENCE_S = 60


@contextlib.contextmanager
def formed(**options):
    with Cluster(**options) as c:
        c.form()
        c.primary().sql(TABLE_SQL)
        yield c


@pytest.fixture(name="c", scope="module")
def cluster_fixture():
    with formed(sync="on") as c:
        yield c


@contextlib.contextmanager
def frozen_walreceiver(node):
    """Connected, and acknowledges nothing."""
    pid = node.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def sync_standby(c):
    names = [m["Member"] for m in c.members() if m["Role"] == "Sync Standby"]
    return c[names[0]]


def test_a_standby_that_hangs_does_not_hold_up_a_switchover_to_another(c):
    c.wait_healthy()
    old, to = c.primary(), sync_standby(c)
    other = next(n for n in c.nodes if n not in (old, to))
    with frozen_walreceiver(other):
        old.sql("INSERT INTO acked VALUES (1)")
        old.ctl("switchover", "--candidate", to.name)
        assert c.primary() is to
        assert to.value("SELECT count(*) FROM acked WHERE id = 1") == 1
    c.wait_healthy()


def test_a_switchover_to_a_standby_that_hangs_is_called_off(c):
    c.wait_healthy()
    old, to = c.primary(), sync_standby(c)
    with frozen_walreceiver(to):
        done = old.ctl("switchover", "--candidate", to.name, check=False)
        assert done.returncode == 1 and "nothing was handed over" in done.stderr
        wait_until(lambda: c.leader() is old, "the old leader goes on", PATIENCE_S)
    c.wait_healthy()
    old.sql("INSERT INTO acked VALUES (2)")
