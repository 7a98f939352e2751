"""What a person orders: restart, reload, reinitialize, stop and start of one PostgreSQL, now or at a time."""
import datetime
import subprocess

import pytest

pytest.importorskip("psycopg2")

from cluster import Cluster, PG_BIN, as_user, build_dir, wait_until  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
]
FAILED, USAGE, REFUSED = 1, 2, 4


@pytest.fixture(name="cluster", scope="module")
def cluster_fixture():
    with Cluster(ttl=15) as cluster:
        cluster.form()
        cluster.primary().sql("CREATE TABLE t (id int)")
        yield cluster


@pytest.fixture(name="c")
def healthy_fixture(cluster, request):
    failures = request.session.testsfailed
    cluster.wait_healthy()
    yield cluster
    if request.session.testsfailed > failures:
        print(cluster.report())
    else:
        cluster.wait_healthy()


def at(seconds):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds")


def columns(c, member):
    return next((m for m in c.members() if m["Member"] == member.name), {})


def schedule_soon(node, *words):
    """In a moment, and later where the order does not arrive before that."""
    def taken(later=[2]):
        later[0] *= 2
        done = node.ctl(*words, "--scheduled", at(later[0]), check=False)
        assert done.returncode == 0 or "in the past" in done.stderr, done
        return done.returncode == 0
    wait_until(taken, f"it is scheduled: {words}")


def test_a_restart_takes_the_pending_settings_and_moves_nothing(c):
    primary = c.primary()
    postmasters = {n: n.postmaster() for n in c.nodes}
    primary.ctl("edit-config", "-p", "track_commit_timestamp=on", "-p", "max_replication_slots=4")
    wait_until(lambda: all(columns(c, n).get("Pending restart") == "*" for n in c.nodes), "all wait for a restart")
    done = primary.ctl("restart", "--pending")
    lines = done.stdout.splitlines()
    assert sorted(lines) == [f"Success: restart on member n{i}" for i in (1, 2, 3)]
    assert lines[-1].endswith(primary.name), "the leader's is the last"
    assert c.primary() is primary
    assert primary.value("SELECT timeline_id FROM pg_control_checkpoint()") == 1
    for node in c.nodes:
        assert node.postmaster() != postmasters[node]
        wait_until(lambda node=node: node.value("SHOW track_commit_timestamp") == "on", f"{node} has it")
    wait_until(lambda: not any("Pending restart" in columns(c, n) for n in c.nodes), "nobody waits any more")
    assert "2 of 4 of max_replication_slots are in use" in primary.ctl("doctor", check=False).stdout
    # Once more: nothing waits, so the condition does not hold.
    says = primary.ctl("restart", primary.name, "--pending", check=False)
    assert says.returncode == FAILED and "restart conditions are not satisfied" in says.stderr


def test_conditions_and_names_that_do_not_fit_are_told(c):
    primary = c.primary()
    postmaster = primary.postmaster()
    lagging = wait_until(lambda: next((m["Member"] for m in c.members() if m["Role"] == "Replica"), None), "one that is not synchronous")
    for words, code, part in [
            (["restart", "n9"], FAILED, 'no node "n9" is running'),
            (["restart", "--role", "king"], USAGE, "--role takes"),
            (["restart", "--pg-version", "x"], USAGE, "is no version"),
            (["restart", primary.name, "--pg-version", "9.6"], FAILED, "restart conditions are not satisfied"),
            (["restart", "--scheduled", "2020-01-01T00:00:00Z"], REFUSED, "in the past"),
            (["restart", "--scheduled", "2099-01-01T00:00:00"], USAGE, "is not a time with its zone"),
            (["reinit", primary.name], REFUSED, "is the leader"),
            (["reinit"], USAGE, "which MEMBER?"),
            (["stop", primary.name], FAILED, "switch over first"),
            (["switchover", "--scheduled", "2020-01-01T00:00:00Z"], REFUSED, "in the past"),
            (["switchover", "--candidate", "n9"], REFUSED, 'no node "n9" is running'),
            (["switchover", "ha", "--primary", "n9"], REFUSED, f'the leader is "{primary}", not "n9"'),
            (["switchover", "--candidate", primary.name], REFUSED, "is the leader already"),
            (["switchover", "--candidate", lagging], REFUSED, f"refused: {lagging} is not in the synchronous set"),
            (["failover", "--candidate", lagging], REFUSED, "may lose commits"),
            (["failover", "--candidate", "n9", "--force"], REFUSED, 'no node "n9" is running'),
            (["failover", "--candidate", "n2", "--force", "--scheduled", at(60)], USAGE, "can't be scheduled")]:
        says = primary.ctl(*words, check=False)
        assert says.returncode == code and part in says.stderr, (words, says)
        assert len(says.stderr.splitlines()) == 1
    assert primary.postmaster() == postmaster


def test_a_reload_has_postgresql_read_its_configuration(c):
    node = c.standbys()[0]
    before = node.value("SELECT pg_conf_load_time()")
    assert node.ctl("reload", node.name).stdout == f"Success: reload on member {node.name}\n"
    wait_until(lambda: node.value("SELECT pg_conf_load_time()") > before, "read again")


def test_a_reinitialized_standby_has_new_data_and_the_old_is_beside_it(c):
    primary = c.primary()
    node = c.sync_standby()
    old = c.record(f"members/{node.name}")["incarnation"]
    (node.pgdata / "mark").write_text("old", encoding="ascii")
    assert node.ctl("reinit", node.name, "--wait", timeout_s=280).stdout == f"Success: reinitialize for member {node.name}\n"
    wait_until(lambda: (c.record(f"members/{node.name}") or {}).get("incarnation", old) not in ("", old), "it has new data")
    assert not (node.pgdata / "mark").exists()
    aside = [p for p in node.dir.glob("pg*/mark")]
    assert len(aside) == 1 and aside[0].read_text(encoding="ascii") == "old"
    # It was out of the record before its data went.
    left = [line for line in primary.log_lines("event=plan rule=leader_sync") if "sync record" in line]
    assert left and primary.value("SELECT count(*) FROM t") is not None


def test_data_that_cannot_be_moved_aside_is_deleted_when_a_person_says_so(c):
    """As if there were tablespaces. Of those of other servers in the same place nothing goes."""
    node = c.standbys()[0]
    version = (node.pgdata / "PG_VERSION").read_text(encoding="ascii").strip()
    space = node.dir / "space"
    subprocess.run([*as_user(), "mkdir", "-p", str(space / f"PG_{version}_1" / "5"), str(space / "PG_9.0_1")], check=True)
    (node.pgdata / "pg_tblspc" / "99999").symlink_to(space)
    before = sorted(node.dir.iterdir())
    says = node.ctl("reinit", node.name, "--remove-data", check=False)
    assert says.returncode == REFUSED and f"the data of {node.name} is deleted" in says.stderr and "--force" in says.stderr
    assert c.record(f"request/{node.name}") is None
    node.ctl("reinit", node.name, "--remove-data", "--force", "--wait", timeout_s=280)
    assert node.log_lines("rule=request_clone .*deleting the old data and cloning")
    assert sorted(node.dir.iterdir()) == before, "nothing is beside it"
    assert not list((node.pgdata / "pg_tblspc").iterdir()) and [p.name for p in space.iterdir()] == ["PG_9.0_1"]


def test_a_standby_that_is_stopped_stays_so_until_it_is_started(c):
    node = c.standbys()[0]
    node.ctl("stop", node.name)
    assert node.postmaster() is None
    wait_until(lambda: node.log_lines("rule=request_hold"), "it is held")
    says = node.ctl("restart", node.name, check=False)
    assert says.returncode == FAILED and "already" in says.stderr
    # Also a new daemon holds it.
    node.kill()
    held = len(node.log_lines("rule=request_hold"))
    node.start()
    wait_until(lambda: len(node.log_lines("rule=request_hold")) > held, "it is still held")
    assert node.postmaster() is None
    assert node.ctl("start", node.name).stdout == f"Success: start on member {node.name}\n"
    assert node.postmaster() is not None


def test_it_is_explained_who_could_lead_and_what_can_be_lost(c):
    primary, sync = c.primary(), c.sync_standby()
    other = next(n for n in c.standbys() if n is not sync)
    assert f"{primary.name} leads." in primary.ctl("explain", "why-not", primary.name).stdout
    wait_until(lambda: "Nothing stands in its way" in primary.ctl("explain", "why-not", sync.name).stdout, "the synchronous standby may")
    text = primary.ctl("explain", "why-not", other.name).stdout
    assert "it is not in the record" in text and "Its last decision" in text
    assert primary.ctl("explain", "why-not", "n9", check=False).returncode == FAILED
    text = primary.ctl("explain", "durability").stdout
    assert "synchronous_mode is on." in text and "Any one node is lost" in text


def test_what_is_scheduled_shows_can_be_taken_back_and_is_done(c):
    primary = c.primary()
    node = c.standbys()[0]
    postmaster = node.postmaster()
    later = at(3600)
    assert "scheduled on member" in primary.ctl("restart", node.name, "--scheduled", later).stdout
    wait_until(lambda: columns(c, node).get("Scheduled restart", "").startswith(later[:16]), "it is listed")
    says = primary.ctl("restart", node.name, check=False)
    assert says.returncode == FAILED and "scheduled already" in says.stderr
    assert primary.ctl("flush", node.name, "restart").stdout == f"Success: flush scheduled restart on member {node.name}\n"
    assert primary.ctl("flush", node.name, "restart").stdout == f"No scheduled restart on member {node.name}\n"
    schedule_soon(primary, "restart", node.name)
    wait_until(lambda: node.postmaster() not in (None, postmaster), "it is restarted in its time")
    wait_until(lambda: c.record(f"request/{node.name}") is None, "and that is told")

    candidate = c.sync_standby()
    primary.ctl("switchover", "--candidate", candidate.name, "--scheduled", later)
    text = primary.ctl("list").stdout
    assert f" Switchover scheduled at: {later[:16]}" in text and f"from: {primary.name}" in text
    assert "deleted" in primary.ctl("flush", "switchover").stdout
    assert primary.ctl("flush", "switchover", check=False).returncode == FAILED
    schedule_soon(primary, "switchover", "--candidate", candidate.name)
    assert c.new_leader(primary) is candidate
