"""A paused cluster: PostgreSQL is left alone, whatever happens to the store; orders of people still work; and at no time
can two nodes lead."""
import datetime
import signal

import pytest

pytest.importorskip("psycopg2")

from cluster import Cluster, PG_BIN, build_dir, process_status, wait_until  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
]
TTL_S = 8
REFUSED = 4


@pytest.fixture(name="c", scope="module")
def cluster_fixture():
    with Cluster(ttl=TTL_S) as cluster:
        cluster.form()
        cluster.primary().sql("CREATE TABLE t (id int)")
        yield cluster


@pytest.fixture(name="paused")
def paused_fixture(c, request):
    failures = request.session.testsfailed
    c.wait_healthy()
    node = c.nodes[0]
    done = node.ctl("pause", "--wait", "--timeout", "100")
    assert done.stdout == "Success: cluster management is paused\n"
    assert " Maintenance mode: on" in node.ctl("list").stdout
    yield c
    if request.session.testsfailed > failures:
        print(c.report())
        return
    if c.record("config")["pause"]:
        c.nodes[0].ctl("resume", "--wait", "--timeout", "100")
    c.wait_healthy()
    assert "Maintenance" not in c.nodes[0].ctl("list").stdout


def disarmed(c):
    return c.record("sync")["disarmed"]


def test_a_primary_outlives_the_loss_of_the_store(paused):
    primary = paused.primary()
    standbys = paused.standbys()
    postmaster = primary.postmaster()
    assert disarmed(paused)
    says = primary.ctl("pause", check=False)
    assert says.returncode == 1 and "already paused" in says.stderr
    for node in standbys:
        node.kill()
    # Its lease ends, and the fence looks on: the REST check says so by the clock.
    wait_until(lambda: primary.rest("/leader")[0] == 503, "the lease has ended")
    wait_until(lambda: primary.log_lines(r"rule=dcs_not_ready"), "without the store")
    primary.sql("SET synchronous_commit = local; INSERT INTO t VALUES (1)")  # nobody is there to wait for
    for node in standbys:
        node.start()
    wait_until(lambda: paused.leader() is primary, "it has its key again")
    assert primary.postmaster() == postmaster
    done = primary.ctl("resume", "--wait", "--timeout", "100")
    assert done.stdout == "Success: cluster management is resumed\n"
    assert not disarmed(paused)
    paused.wait_healthy()
    assert paused.primary() is primary and primary.postmaster() == postmaster


def test_nobody_takes_over_from_a_holder_without_a_deadline(paused):
    primary = paused.primary()
    standbys = paused.standbys()
    primary.kill()
    other = standbys[0]
    wait_until(lambda: paused.record("leader") is None, "its key has run out")
    says = other.ctl("resume", "--timeout", "8", check=False)
    assert says.returncode == REFUSED and f"{primary.name} has not reported" in says.stderr, says
    assert paused.leader() is None and disarmed(paused)
    # An operator knows that it is down.
    done = other.ctl("resume", "--force")
    assert done.stdout == "Success: cluster management is resumed\n"
    assert paused.new_leader(primary) in standbys
    primary.start()
    paused.wait_healthy()


def test_a_crashed_primary_waits_for_an_order(paused):
    primary = paused.primary()
    other = paused.standbys()[0]
    primary.signal("postmaster", signal.SIGKILL)
    wait_until(lambda: paused.record("leader") is None, "the key is released")
    wait_until(lambda: primary.log_lines(r"rule=pause_release"), "it says why")
    assert paused.leader() is None
    other.ctl("failover", "--candidate", other.name, "--force")
    assert paused.primary() is other
    assert primary.postmaster() is None  # it was not this node that stopped it
    primary.ctl("resume")


def test_a_switchover_by_name_works(paused):
    primary = paused.primary()
    candidate = paused.sync_standby()
    later = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).isoformat(timespec="seconds")
    for words, part in [(["switchover"], "say --candidate"),
                        (["switchover", "--candidate", candidate.name, "--scheduled", later], "scheduled"),
                        (["restart", candidate.name, "--scheduled", later], "scheduled")]:
        says = primary.ctl(*words, check=False)
        assert says.returncode == REFUSED and part in says.stderr, (words, says)
    assert paused.record("failover") is None
    primary.ctl("switchover", "--candidate", candidate.name)
    assert paused.primary() is candidate
    # Those whose PostgreSQL runs follow by a reload, and the one that was stopped for it starts again.
    paused.wait_healthy()
    assert paused.record("config")["pause"]


def test_a_daemon_that_ends_leaves_postgresql_running(paused):
    primary = paused.primary()
    postmaster = primary.postmaster()
    primary.signal("regentd", signal.SIGTERM)
    wait_until(lambda: not primary.running(), "the daemon has ended")
    primary.reap()
    wait_until(lambda: paused.record("leader") is None, "its key has run out")
    primary.sql("SET synchronous_commit = local; INSERT INTO t VALUES (2)")
    assert process_status(postmaster) is not None
    primary.start()
    wait_until(lambda: paused.leader() is primary, "the next daemon takes the key again")
    assert primary.postmaster() == postmaster
