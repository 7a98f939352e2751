"""A primary that hangs: seen and said, and, where the policy says so, relieved by a healthy node, once in a while."""
import contextlib
import json
import os
import re
import signal

import pytest

from cluster import Cluster, wait_until
from load import TABLE_SQL


@pytest.fixture(name="c", scope="module")
def cluster_fixture():
    with Cluster(sync="on", ttl=10) as c:
        c.form()
        c.primary().sql(TABLE_SQL)
        yield c


def sick(node):
    """{"kind": ..., "reason": ...}, or None."""
    return json.loads(node.answer("/patroni")[1]).get("sick")


def is_hung(node):
    seen = sick(node)
    return seen if seen and seen["kind"] == "hung" else None


def told_of(node):
    """Kind after kind, and "well"."""
    return [re.search("kind=([a-z]+)|event=(well)", line).group(1) or "well" for line in node.log_lines("event=(sick|well) ")]


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
    wait_until(lambda: not any(map(sick, c.nodes)), "all are well", 180)
    before = len(told_of(primary))
    with stopped_postmaster(primary):
        seen = wait_until(lambda: is_hung(primary), f"{primary} is seen to hang")
        assert "lets nobody in" in seen["reason"], seen
        wait_until(lambda: [m["Member"] for m in c.members() if m.get("Sick")] == [primary.name], "list tells it")
        status = other.ctl("status", check=False)
        assert f"{primary.name} is sick: PostgreSQL hangs" in status.stdout and status.returncode == 1, status.stdout
        doctor = other.ctl("doctor", check=False)
        assert "sick: PostgreSQL hangs" in doctor.stdout and "on_sick_node is report" in doctor.stdout, doctor.stdout
        why = other.ctl("explain", "why-not", primary.name).stdout
        assert f"{primary.name} leads." in why and "It is sick: PostgreSQL hangs" in why, why
        assert f'regent_sick{{scope="ha",name="{primary.name}",kind="hung"}} 1' in primary.rest("/metrics")[1]
        wait_until(lambda: "sick" in other.ctl("explain").stdout, "explain tells it")
        assert c.primary() is primary and not primary.log_lines("action=kill")
    told = told_of(primary)[before:]
    assert "hung" in told and not any(a == b for a, b in zip(told, told[1:])), f"a change is told once: {told}"
    wait_until(lambda: sick(primary) is None, f"{primary} is seen to be well", 180)


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
        wait_until(lambda: is_hung(new), f"{new} is seen to hang")
        why = old.ctl("explain", "why-not", new.name).stdout
        assert "when it lasts, a healthy node takes over" in why, why
        wait_until(lambda: "for such a reason was lately" in new.ctl("explain").stdout, "the damping is told")
    assert c.primary() is new and new.postmaster() == postmaster and not new.log_lines("rule=sick_kill")
    c.wait_healthy()
