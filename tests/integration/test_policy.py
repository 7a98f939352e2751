"""What the policy promises beyond plain failover, on real nodes: switchovers with hung standbys, orders of operators,
outages of everything."""
import contextlib
import json
import os
import re
import shutil
import signal
import threading

import psycopg2
import pytest

from cluster import Cluster, Never, send, wait_until
from load import TABLE_SQL

PATIENCE_S = 120


@contextlib.contextmanager
def formed(**options):
    with Cluster(**options) as c:
        c.form()
        c.primary().sql(TABLE_SQL)
        yield c


@pytest.fixture(name="c", scope="module")
def cluster_fixture():
    # A dead leader leaves the record as it is for a ttl: time to kill others on a busy machine.
    with formed(sync="on", ttl=8) as c:
        yield c


@contextlib.contextmanager
def frozen_walreceiver(node):
    """Connected, and acknowledges nothing."""
    pid = wait_until(lambda: node.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'"), f"{node} streams")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def kill_together(*nodes):
    """As one power cut, and in this order: a leader that goes on takes those who are gone out of the record."""
    for pid in [pid for n in nodes for pid in n.processes()]:
        send(pid, signal.SIGKILL)
    for n in nodes:
        n.kill()


def test_a_standby_that_hangs_does_not_hold_up_a_switchover_to_another(c):
    c.wait_healthy()
    old, to = c.primary(), c.sync_standby()
    other = next(n for n in c.nodes if n not in (old, to))
    with frozen_walreceiver(other):
        old.sql("INSERT INTO acked VALUES (1)")
        old.ctl("switchover", "--candidate", to.name)
        assert c.primary() is to
        assert to.value("SELECT count(*) FROM acked WHERE id = 1") == 1
    c.wait_healthy()


def test_a_switchover_to_a_standby_that_hangs_is_called_off(c):
    c.wait_healthy()
    old, to = c.primary(), c.sync_standby()
    with frozen_walreceiver(to):
        done = old.ctl("switchover", "--candidate", to.name, check=False)
        assert done.returncode == 1 and "nothing was handed over" in done.stderr
        wait_until(lambda: c.leader() is old, "the old leader goes on", PATIENCE_S)
    c.wait_healthy()
    old.sql("INSERT INTO acked VALUES (2)")


def test_a_forced_switchover_to_a_standby_that_hangs_finds_another_leader(c):
    c.wait_healthy()
    old = c.primary()
    old.ctl("edit-config", "-s", "synchronous_mode=off")
    wait_until(lambda: c.record("sync")["mode"] == "off", "asynchronous")
    try:
        to, other = c.standbys()
        with frozen_walreceiver(to):
            done = old.ctl("switchover", "--candidate", to.name, "--force")
            assert f'over to "{other.name}"' in done.stdout, done.stdout + done.stderr
            assert c.primary() is other and old.log_lines("and the switchover is forced")
            wait_until(lambda: c.record("failover") is None, "the order has ended")
    finally:
        c.primary().ctl("edit-config", "-s", "synchronous_mode=on")
    c.wait_healthy()


# ---- who may lead ----


def tagged(node, *settings):
    usual = node.setup
    node.setup = lambda sets=(), **more: usual(sets=[*sets, *settings], **more)


def test_tags_and_the_lag_that_is_permitted_decide_who_leads():
    """Asynchronous; n2 may never lead. Once n1 is too far behind nobody does, until a person permits more."""
    with Cluster(sync="async", ttl=8) as c:
        tagged(c["n2"], "tags.nofailover=true", "tags.noloadbalance=true")
        c.form()
        n1, n2, n3 = c.nodes
        n1.sql(TABLE_SQL)
        assert n2.rest("/replica")[0] == 503 and n3.rest("/replica")[0] == 200
        says = n1.ctl("switchover", "--candidate", "n2", check=False)
        assert says.returncode == 4 and "nofailover" in says.stderr, says
        wait_until(lambda: n1.ctl("switchover", check=False).returncode == 0 or c.leader() is not n1, "somebody takes over")
        assert c.primary() is n3
        c.wait_healthy()
        with frozen_walreceiver(n1):
            n3.sql("CREATE TABLE bulk AS SELECT repeat('x', 1000) FROM generate_series(1, 30000)")
            end = int(n3.value("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn"))
            wait_until(lambda: int((c.record("members/n3") or {}).get("lsn", 0)) >= end, "n3 has said how far it is")
            n3.kill()
        wait_until(lambda: n1.log_lines("more than maximum_lag_on_failover"), "n1 says why it does not stand", PATIENCE_S)
        assert c.leader() is None
        assert "nofailover" in n1.ctl("explain", "why-not", "n2").stdout
        wait_until(lambda: "more than maximum_lag_on_failover" in n1.ctl("explain").stdout, "the journal tells it, too")
        assert "Nobody leads; the last leader was n3." in n1.ctl("explain").stdout
        n1.ctl("edit-config", "-s", "maximum_lag_on_failover=1000000000")
        assert c.new_leader(n3) is n1


# ---- without a quorum ----


def test_a_quorum_that_is_away_for_less_than_a_ttl_costs_nothing(c):
    c.wait_healthy()
    primary = c.primary()
    primary.ctl("edit-config", "-s", "ttl=20")
    token, postmaster = c.record("leader")["token"], primary.postmaster()
    wait_until(lambda: primary.lease_left_s() > 12, "a lease of the new ttl")
    frozen = [n.signal("regentd", signal.SIGSTOP) for n in c.standbys()]
    try:
        wait_until(lambda: 0 < primary.lease_left_s() < 8, "most of the lease is over")
        primary.sql("INSERT INTO acked VALUES (20)")
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: primary.lease_left_s() > 12, "the lease is renewed")
    primary.sql("INSERT INTO acked VALUES (21)")
    assert primary.postmaster() == postmaster and c.record("leader")["token"] == token
    primary.ctl("edit-config", "-s", "ttl=8")
    c.wait_healthy()


def test_a_primary_without_a_quorum_is_read_only_soon_and_nothing_is_lost_when_it_returns(c):
    c.wait_healthy()
    old = c.primary()
    old.sql("INSERT INTO acked VALUES (10)")
    old.ctl("edit-config", "-p", "work_mem=5MB")
    wait_until(lambda: old.value("SHOW work_mem") == "5MB", "the setting is in force")
    others = c.standbys()
    frozen = [n.signal("regentd", signal.SIGSTOP) for n in others]
    try:
        wait_until(lambda: old.value("SELECT pg_is_in_recovery()"), f"{old} is read-only", PATIENCE_S)
        assert old.log_lines("rule=dcs_not_ready action=start_standby")
        assert old.value("SELECT count(*) FROM acked WHERE id = 10") == 1
        old.kill()
        old.start()
        wait_until(lambda: old.value("SELECT pg_is_in_recovery()"), f"{old} is read-only also after a start alone", PATIENCE_S)
        assert old.value("SHOW work_mem") == "5MB"
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    c.wait_healthy()
    primary = c.primary()
    write(primary, 11)
    assert {10, 11} <= same_rows(c, primary)


# ---- who may lead ----


def rows(node):
    return {r[0] for r in node.sql("SELECT id FROM acked")}


def write(node, number):
    """As soon as it takes writes; the outcome of a try may be unknown."""
    wait_until(lambda: [node.try_sql("INSERT INTO acked VALUES (%s) ON CONFLICT DO NOTHING", number),
                        node.value("SELECT 1 FROM acked WHERE id = %s AND NOT pg_is_in_recovery()", number)][1], f"{node} takes writes", PATIENCE_S)


def same_rows(c, primary):
    target = primary.value("SELECT pg_current_wal_flush_lsn()")
    for n in c.nodes:
        if n is not primary:
            wait_until(lambda n=n: n.value("SELECT pg_last_wal_replay_lsn() >= %s", target), f"{n} has replayed")
    found = [rows(n) for n in c.nodes]
    assert all(f == found[0] for f in found)
    return found[0]


@contextlib.contextmanager
def without_postgresql(node, killed=None):
    """Dead, and with the worker frozen, as by a hung disk, not started again. Its daemon votes. A node that is killed is so
    just before: with it there, this one would be taken out of the record; and without it this one would soon lead."""
    first = list(killed.processes()) if killed else []
    worker, postmaster = node.pid_of("worker"), node.postmaster()
    for pid in first:
        send(pid, signal.SIGKILL)
    os.kill(worker, signal.SIGSTOP)
    os.kill(postmaster, signal.SIGKILL)
    try:
        if killed:
            killed.kill()
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)


def test_after_a_failover_explain_names_the_positions_and_any_line_gives_the_same_plan(c):
    """What if said so before; the journal says rule, reason and the positions compared; each decision, read back from the
    journal, is made again."""
    c.wait_healthy()
    old, named = c.primary(), c.sync_standby()
    other = next(n for n in c.nodes if n not in (old, named))
    said = json.loads(other.ctl("-f", "json", "what-if", "lose", old.name).stdout)
    assert (said["quorum"], said["leader"], said["bytes_lost"]) == (True, named.name, 0), said
    done = other.ctl("what-if", "lose", old.name, named.name, check=False)
    assert done.returncode == 1 and "quorum       lost: 1 of 3 voters are left, 2 are needed" in done.stdout
    assert other.ctl("what-if", "lose", "n9", check=False).returncode == 1

    def journal():
        return [line.split("\t") for line in other.ctl("-f", "tsv", "explain", "-n", "200").stdout.splitlines()]
    known = {line[0] for line in journal()}
    old.kill()
    wait_until(lambda: c.leader() is named, "the synchronous standby leads", PATIENCE_S)

    def told():
        """A line is in the journal soon, not at once."""
        lines = journal()
        won = [x for x in lines if x[2:4] == [named.name, "election"] and x[6] == "acquire" and x[0] not in known]
        return (lines, won[-1]) if won and won[-1][1] < lines[-1][1] else None
    lines, won = wait_until(told, "the journal tells of the election, and of what came after it")
    assert lines[0] == ["ID", "Time", "Node", "Rule", "Reason", "Action", "Writes", "Token"]
    assert re.search(rf"^best of 1 sealed, 1 counted: {named} at [0-9A-F]+/[0-9A-F]+ on \d+$", won[4]), won
    for line in lines[-12:]:
        assert other.ctl("explain", "--journal", line[0], "--check").stdout.startswith(f"The same plan: {line[3]}: ")
    row = other.ctl("explain", "--journal", won[0], "--row").stdout.splitlines()
    assert row[0].startswith(f"case: {named}: best of 1") and row[1] == "base: nothing"
    assert row[-1] == "=> rule=election txn=acquire"
    before = other.ctl("explain", "-n", "1", "--at", won[1]).stdout
    assert before.split()[0] <= won[1] < lines[-1][1]
    old.start()
    c.wait_healthy()


def test_an_operator_may_have_another_node_lead_whatever_the_record_says(c):
    c.wait_healthy()
    old, named = c.primary(), c.sync_standby()
    other = next(n for n in c.nodes if n not in (old, named))
    with without_postgresql(named, killed=old):
        wait_until(lambda: other.log_lines("not in the sync record.*failover --candidate"), "it says what it waits for", PATIENCE_S)
        refused = other.ctl("failover", "--candidate", other.name, check=False)
        assert refused.returncode == 4 and "--force" in refused.stderr
        assert c.leader() is None
        other.ctl("failover", "--candidate", other.name, "--force")
        assert c.primary() is other
        other.sql("INSERT INTO acked VALUES (3)")
    old.start()
    c.wait_healthy()
    assert 3 in same_rows(c, other)


def test_a_wiped_member_of_the_record_is_not_promoted(c):
    c.wait_healthy()
    old, wiped = c.primary(), c.sync_standby()
    old.sql("INSERT INTO acked VALUES (4)")
    kill_together(old, wiped)
    for part in wiped.pgdata.iterdir():
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    began = len(wiped.log_lines("no leader to clone from"))
    wiped.start()
    wait_until(lambda: len(wiped.log_lines("no leader to clone from")) > began, "there is nobody to clone from", PATIENCE_S)
    assert c.leader() is None
    old.start()
    c.wait_healthy()
    assert c.primary() is old and 4 in same_rows(c, old)


# ---- everything is off ----


def test_after_an_outage_of_everything_the_synchronous_standby_leads_when_the_leader_stays_away(c):
    c.wait_healthy()
    old, named = c.primary(), c.sync_standby()
    other = next(n for n in c.nodes if n not in (old, named))
    old.sql("INSERT INTO acked VALUES (5)")
    kill_together(old, named, other)
    other.start()
    named.start()
    wait_until(lambda: c.leader() is named, "the synchronous standby leads", PATIENCE_S)
    write(named, 6)
    old.start()
    c.wait_healthy()
    assert {5, 6} <= same_rows(c, named)


def test_after_an_outage_of_everything_the_leader_goes_on_when_the_synchronous_standby_stays_away(c):
    c.wait_healthy()
    old, named = c.primary(), c.sync_standby()
    other = next(n for n in c.nodes if n not in (old, named))
    old.sql("INSERT INTO acked VALUES (7)")
    kill_together(old, named, other)
    other.start()
    old.start()
    wait_until(lambda: c.leader() is old, "the leader goes on", PATIENCE_S)
    named.start()
    c.wait_healthy()
    assert 7 in same_rows(c, old)


def test_when_only_a_node_that_is_gone_may_lead_the_others_say_so_and_how_to_override_it(c):
    c.wait_healthy()
    old = c.primary()
    first, second = (n for n in c.nodes if n is not old)
    with without_postgresql(first), without_postgresql(second):
        wait_until(lambda: c.record("sync")["v"] == [], "the leader is alone", PATIENCE_S)
        write(old, 8)
        for n in c.nodes:
            n.kill()
    first.start()
    second.start()
    wait_until(lambda: first.log_lines(f"only {old} may lead.*failover --candidate {first} --force"), "who is waited for", PATIENCE_S)
    assert c.leader() is None
    parts = (f"Nobody leads; the last leader was {old}.", f"- {first}: election: only {old} may lead", f"- {old}: its daemon does not answer")
    said = ""

    def explained():
        nonlocal said
        said = first.ctl("explain", check=False).stdout
        return all(part in said for part in parts)
    try:
        wait_until(explained, "explain tells it", PATIENCE_S)
    except Never:
        pytest.fail(said)
    first.ctl("failover", "--candidate", first.name, "--force")
    assert c.primary() is first and 8 not in rows(first)
    old.start()
    c.wait_healthy()
    assert 8 not in same_rows(c, first)


# ---- lineage ----


def test_two_promotions_that_chose_one_number_are_told_apart():
    """n2 leads on timeline 2 and dies before anybody has heard of it; another one chooses 2 again."""
    with formed(sync="async", ttl=8) as c:
        old, first = c.primary(), next(n for n in c.nodes if n is not c.primary())
        second = next(n for n in c.nodes if n not in (old, first))
        worker = second.signal("worker", signal.SIGSTOP)
        old.kill()
        wait_until(lambda: c.leader() is first, "the first promotion", PATIENCE_S)
        write(first, -1)
        number = first.value("SELECT pg_walfile_name(pg_current_wal_lsn())")[:8]
        first.kill()
        os.kill(worker, signal.SIGCONT)
        old.start()
        leader = c.new_leader(first)
        assert leader in (old, second)
        write(leader, -2)
        assert leader.value("SELECT pg_walfile_name(pg_current_wal_lsn())")[:8] == number
        clones = len(first.log_lines("event=action_done action=clone"))
        first.start()
        c.wait_healthy()
        assert len(first.log_lines("event=action_done action=clone")) == clones + 1
        assert same_rows(c, leader) == {-2}


# ---- strict ----


def test_strict_after_a_crash_clients_come_in_when_a_standby_has_what_is_visible():
    with formed(sync="strict", ttl=8, sets=['bootstrap.dcs.on_primary_crash="restart"']) as c:
        primary, named = c.primary(), c.sync_standby()
        other = next(n for n in c.nodes if n not in (primary, named))
        before = primary.postmaster()
        with frozen_walreceiver(named), frozen_walreceiver(other):
            writer = threading.Thread(target=primary.try_sql, args=("INSERT INTO acked VALUES (9)",), daemon=True)
            writer.start()
            wait_until(lambda: primary.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == 1, "a commit waits")
            primary.signal("postmaster", signal.SIGKILL)
            writer.join(PATIENCE_S)
            wait_until(lambda: primary.postmaster() not in (None, before), "it is started again", PATIENCE_S)
            wait_until(lambda: primary.log_lines("event=action_done action=start_primary")[1:], "it is up", PATIENCE_S)
            # The commit is visible now, and on no other node.
            with pytest.raises(psycopg2.OperationalError, match="pg_hba.conf"):
                primary.sql("SELECT 1")
        wait_until(lambda: primary.try_sql("SELECT 1"), "clients are let in", PATIENCE_S)
        assert 9 in rows(primary)
        c.wait_healthy()
        assert 9 in same_rows(c, primary)
