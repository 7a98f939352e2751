"""A primary that hangs: seen and said, and, where the policy says so, relieved by a healthy node, once in a while."""
import contextlib
import json
import os
import signal

import pytest

from cluster import Cluster, wait_until
from load import TABLE_SQL


@pytest.fixture(name="c", scope="module")
def cluster_fixture():
    with Cluster(sync="on") as c:
        c.form()
        c.primary().sql(TABLE_SQL)
        yield c


def sick(node):
    """{"kind": ..., "reason": ...}, or None."""
    status, body = node.rest("/patroni")
    return json.loads(body).get("sick") if status else None


@contextlib.contextmanager
def stopped_postmaster(node):
    """It lives, its backends answer, and nobody new is let in."""
    pid = node.signal("postmaster", signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_by_default_a_hung_primary_is_reported_and_left_alone(c):
    c.wait_healthy()
    primary = c.primary()
    other = c.standbys()[0]
    with stopped_postmaster(primary):
        seen = wait_until(lambda: sick(primary), f"{primary} is seen to hang")
        assert seen["kind"] == "hung" and "lets nobody in" in seen["reason"], seen
        told = wait_until(lambda: [m for m in c.members() if m.get("Sick")], "list tells it")
        assert [m["Member"] for m in told] == [primary.name], told
        status = other.ctl("status", check=False)
        assert f"{primary.name} is sick: PostgreSQL hangs" in status.stdout and status.returncode == 1, status.stdout
        doctor = other.ctl("doctor", check=False)
        assert "sick: PostgreSQL hangs" in doctor.stdout and "on_sick_node is report" in doctor.stdout, doctor.stdout
        why = other.ctl("explain", "why-not", primary.name).stdout
        assert f"{primary.name} leads." in why and "It is sick: PostgreSQL hangs" in why, why
        assert f'regent_sick{{scope="ha",name="{primary.name}",kind="hung"}} 1' in primary.rest("/metrics")[1]
        wait_until(lambda: "sick" in other.ctl("explain").stdout, "explain tells it", 20)
        assert c.leader() is primary and not primary.log_lines("action=kill")
    assert len(primary.log_lines("event=sick")) == 1
    wait_until(lambda: sick(primary) is None, f"{primary} is seen to be well")


def test_by_policy_a_hung_primary_is_relieved_but_not_two_in_a_row(c):
    c.wait_healthy()
    old = c.primary()
    old.sql("INSERT INTO acked VALUES (1)")
    old.ctl("edit-config", "-s", "on_sick_node=failover")
    with stopped_postmaster(old):
        new = c.new_leader(old)
    assert old.log_lines("rule=sick_kill") and new.value("SELECT count(*) FROM acked WHERE id = 1") == 1
    assert c.record("leader")["relieves"] == old.name
    wait_until(lambda: old in c.streaming(new), f"{old} follows")
    postmaster = new.postmaster()
    with stopped_postmaster(new):
        wait_until(lambda: sick(new), f"{new} is seen to hang")
        why = old.ctl("explain", "why-not", new.name).stdout
        assert "when it lasts, a healthy node takes over" in why, why
        wait_until(lambda: "for such a reason was lately" in new.ctl("explain").stdout, "the damping is told", 30)
    assert c.leader() is new and new.postmaster() == postmaster and not new.log_lines("rule=sick_kill")
    c.wait_healthy()
