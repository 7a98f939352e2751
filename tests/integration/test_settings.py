"""PostgreSQL's settings in a running cluster: what waits for a restart and why, which node must be restarted first,
what an edit refuses.

    python3 -m pytest tests/integration/test_settings.py
"""
import json
import os
import signal

import pytest

pytest.importorskip("psycopg2")

from cluster import Cluster, Never, PG_BIN, build_dir, wait_until  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
]
LOW, HIGH = "40", "55"


@pytest.fixture(scope="module", name="c")
def cluster_fixture(request):
    with Cluster(sync=False, ttl=15, sets=["bootstrap.dcs.on_primary_crash=restart",
                                   f"bootstrap.dcs.postgresql.parameters.max_connections={LOW}"]) as cluster:
        try:
            cluster.form()
            yield cluster
        finally:
            if request.session.testsfailed:
                print(cluster.report())


@pytest.fixture(autouse=True)
def healthy(c):
    c.wait_healthy()


def edit(c, *words):
    c.nodes[0].ctl("edit-config", *words)


def restart(node):
    """PostgreSQL alone ends and is started again in place."""
    old = node.postmaster()
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: node.postmaster() not in (None, old) and node.value("SELECT 1") == 1, f"{node} is back")


def limits_of(node, member):
    """What that member has told, going by what this node knows."""
    done = node.ctl("-f", "json", "dcs", "get", "--local", f"/regent/{node.cluster.scope}/members/{member.name}", check=False)
    found = json.loads(done.stdout) if done.returncode == 0 else []
    return json.loads(found[0]["value"])["limits"] if found else ""


def in_force(node):
    return node.value("SHOW max_connections")


def reasons(c):
    """{member: "max_connections: 40->55"} of `list`, where something waits."""
    return {m["Member"]: m.get("Pending restart reason") for m in c.members() if m.get("Pending restart")}


def wait_reasons(c, nodes, text):
    wanted = {n.name: text for n in nodes}
    seen = []
    try:
        wait_until(lambda: seen.append(reasons(c)) or seen[-1] == wanted, f"pending {wanted}", 60)
    except Never:
        pytest.fail(f"pending is {seen[-1]}, not {wanted}")


def test_a_raised_limit_reaches_the_standbys_first_and_a_lowered_one_the_primary(c):
    primary = c.primary()
    standbys = c.standbys()
    edit(c, "-p", f"max_connections={HIGH}")
    up = f"max_connections: {LOW}->{HIGH}"
    wait_reasons(c, c.nodes, up)
    body = json.loads(primary.rest("/patroni")[1])
    assert body["pending_restart"] is True
    assert body["pending_restart_reason"] == {"max_connections": {"old_value": LOW, "new_value": HIGH}}
    restart(primary)  # too early: its standbys could not follow
    assert in_force(primary) == LOW
    wait_reasons(c, c.nodes, up)
    for n in standbys:
        restart(n)
        assert in_force(n) == HIGH
    wait_reasons(c, [primary], up)
    restart(primary)
    assert in_force(primary) == HIGH
    wait_reasons(c, [], up)

    edit(c, "-p", f"max_connections={LOW}")
    down = f"max_connections: {HIGH}->{LOW}"
    wait_reasons(c, c.nodes, down)
    restart(standbys[0])  # too early: it must have as many as the primary
    assert in_force(standbys[0]) == HIGH
    wait_reasons(c, c.nodes, down)
    restart(primary)
    assert in_force(primary) == LOW
    for n in c.nodes:  # as this node has it
        wait_until(lambda n=n: limits_of(n, primary).startswith(LOW), f"{n} has heard what the primary has now")
    primary.sql("CHECKPOINT")
    lsn = primary.value("SELECT pg_current_wal_flush_lsn()")
    for n in standbys:
        wait_until(lambda n=n: n.value("SELECT pg_last_wal_replay_lsn() >= %s", lsn), f"{n} knows")
        n.sql("CHECKPOINT")  # else its recovery begins where the primary still had more
        restart(n)
        assert in_force(n) == LOW
    wait_reasons(c, [], down)
    assert c.primary() is primary


def test_a_standby_whose_new_primary_has_more_is_restarted(c):
    first, second = c.standbys()
    edit(c, "-p", f"max_connections={HIGH}")
    wait_reasons(c, c.nodes, f"max_connections: {LOW}->{HIGH}")
    restart(first)
    c.switch_over(first)
    c.wait_healthy()
    wait_until(lambda: in_force(second) == HIGH, f"{second} was restarted with what the primary has")
    first.sql("CREATE TABLE behind_it (id int)")
    wait_until(lambda: second.try_sql("TABLE behind_it") == [], f"{second} replays")
    wait_reasons(c, [], "")


REFUSED = [
    (["-p", "wrok_mem=8MB"], 'PostgreSQL has no parameter "wrok_mem"; the nearest known one is "work_mem"'),
    (["-p", "work_mem=8XB"], "valid units are B, kB, MB, GB and TB"),
    (["-p", "work_mem=1kB"], "outside 64 .."),
    (["-p", "synchronous_commit=perhaps"], "none of local"),
    (["-p", "port=5433"], "Regent sets it by itself"),
    (["-s", "tttl=5"], 'the nearest known one is "ttl"'),
    (["-s", "ttl=1"], "outside 2..3600"),
    (["-s", 'postgresql.pg_hba=["host all all 10.0.0.1 md5"]'], "write 10.0.0.1/32"),
]
# Refused for safety: who needs PostgreSQL for the cluster would not come in any more.
LOCKED_OUT = [
    (["-p", "max_connections=5"], "the agent and its standbys need some"),
    (["-p", "shared_preload_libraries=auto_explan"], 'no library "auto_explan"'),
    (["-s", 'postgresql.pg_hba=["host all all samenet md5","local all postgres reject"]'], "would lock the agent out"),
    (["-s", 'postgresql.pg_hba=["host replication all 0.0.0.0/0 reject"]'], "would lock replication out"),
]


@pytest.mark.parametrize("words,why,code", [(*row, 1) for row in REFUSED] + [(*row, 4) for row in LOCKED_OUT])
def test_an_edit_that_would_be_refused_later_is_refused_now(c, words, why, code):
    wait_until(lambda: c.record("settings"), "the leader has told what its PostgreSQL knows")
    before = c.record("config")
    done = c.nodes[1].ctl("edit-config", *words, check=False)
    assert done.returncode == code and why in done.stderr and "nothing changed" in done.stderr, done.stderr
    assert c.record("config") == before


def test_no_line_of_pg_hba_and_pg_ident_takes_the_cluster_s_own_ways_away(c):
    primary, standby = c.primary(), c.standbys()[0]
    edit(c, "-s", 'postgresql.pg_hba=["host all postgres samehost scram-sha-256", "local all all reject", "host all all all reject"]',
         "-s", 'postgresql.pg_ident=["regent /^(.*)$ nobody"]', "-p", "shared_preload_libraries=auto_explain")
    try:
        for n in c.nodes:
            wait_until(lambda n=n: n.value("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'reject'") == 2,
                       f"{n} has the lines")
        restart(standby)
        wait_until(lambda: standby.value("SHOW shared_preload_libraries") == "auto_explain", f"{standby} has the library")
        c.wait_healthy()
        assert c.leader() is primary
    finally:
        edit(c, "-s", "postgresql.pg_hba=null", "-s", "postgresql.pg_ident=null", "-p", "shared_preload_libraries=null")
    wait_until(lambda: standby.name in reasons(c), f"{standby} has heard of it")
    restart(standby)
    wait_reasons(c, [], "")


def test_an_edit_is_in_force_everywhere_and_is_taken_back(c):
    done = c.nodes[0].ctl("edit-config", "-p", "work_mem=9MB", "-p", "wal_buffers=1MB", "-s",
                          'postgresql.pg_ident=["m root postgres"]')
    assert "wal_buffers takes effect when PostgreSQL is restarted" in done.stdout
    assert "work_mem" not in done.stdout
    for n in c.nodes:
        wait_until(lambda n=n: n.value("SHOW work_mem") == "9MB", f"{n} has it")
        wait_until(lambda n=n: "m root postgres\n" in (n.pgdata / "pg_ident.conf").read_text(), f"{n} has the file")
    wait_reasons(c, c.nodes, "wal_buffers: 4MB->1MB")
    edit(c, "-p", "work_mem=null", "-p", "wal_buffers=null", "-s", "postgresql.pg_ident=null")
    for n in c.nodes:
        wait_until(lambda n=n: n.value("SHOW work_mem") == "4MB", f"{n} has not")
    wait_reasons(c, [], "")


def test_the_slot_of_a_member_that_stays_away_is_dropped_and_comes_back_with_it(c):
    edit(c, "-s", "member_slots_ttl=3")
    away = c.standbys()[-1]
    slot = f"regent_{away.name}"
    others = [n for n in c.nodes if n is not away]
    for n in others:
        wait_until(lambda n=n: n.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", slot) == 1, f"{n} has it")
    away.kill()
    for n in others:
        wait_until(lambda n=n: n.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", slot) == 0,
                   f"{n} lets go of the WAL that {away} would need")
    away.start()
    c.wait_healthy()
    edit(c, "-s", "member_slots_ttl=null")
    assert c.record("config")["member_slots_ttl"] == 1800
