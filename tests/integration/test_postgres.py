"""PostgreSQL as the engine orders it: real server, real fence, real worker."""
import pytest

from pg_lab import Lab


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    yield made
    made.close()


def test_a_new_cluster_is_made_started_and_stopped(lab):
    n = lab.node("n1")
    n.wait("looked at", lambda v: v["data"] == "empty")
    n.run("initdb", lineage="1:1")
    view = n.view()
    assert view["data"] == "ours" and len(view["incarnation"]) == 36 and view["lineage"] == "1:1"
    n.arm()
    n.run("start_primary", token=1)
    view = n.view()
    assert view["proc"] == "running" and not view["in_recovery"] and view["accepts"]
    n.run("ensure_roles")
    n.run("ensure_roles")
    assert n.psql("SELECT current_setting('data_checksums')") == "on"
    n.run("stop_fast", deadline=20000)
    view = n.wait("looked at", lambda v: v["data"] == "ours")
    assert view["proc"] == "stopped" and view["clean"] and view["shutdown_lsn"] > 0


def test_a_standby_clones_follows_and_is_promoted(lab):
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    n1.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    lsn = n1.wait("a sender", lambda v: v["senders"] and v["senders"][0]["streaming"])["lsn"]
    n2.wait("there", lambda v: v["replay_lsn"] >= lsn)
    assert n2.psql("SELECT count(*) FROM t") == "1000"
    n1.run("stop_fast", deadline=20000)
    end = n1.wait("shut down", lambda v: v["shutdown_lsn"] > 0)["shutdown_lsn"]
    n2.wait("has the shutdown checkpoint", lambda v: v["lsn"] >= end)
    n2.arm(2)
    n2.run("promote", token=2, lineage="2:2,1:1")
    view = n2.wait("its history read", lambda v: v["parent"] == 1)
    assert not view["in_recovery"] and view["timeline"] == 2
    n2.run("checkpoint")
    n2.wait("checkpointed", lambda v: v["checkpointed"])
