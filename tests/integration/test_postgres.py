"""PostgreSQL as the engine orders it: real server, real fence, real worker."""
import contextlib
import json
import os
import pathlib
import signal
import subprocess

import pytest

from cluster import processes_of, wait_until
from pg_lab import SUPERUSER_PASSWORD, Lab, as_user


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_a_new_cluster_is_made_started_and_stopped(lab):
    n = lab.node("n1")
    n.wait("looked at", lambda v: v["data"] == "empty")
    subprocess.run([*as_user(), "mkdir", "-p", f"{n.pgdata}.new/base"], check=True)  # of one that was cut short
    n.run("initdb", lineage="1:1")
    assert not pathlib.Path(f"{n.pgdata}.new").exists()
    view = n.view()
    assert view["data"] == "ours" and len(view["incarnation"]) == 36 and view["lineage"] == "1:1"
    n.arm()
    n.run("start_primary", token=1)
    view = n.view()
    assert view["proc"] == "running" and not view["in_recovery"] and view["accepts"]
    n.run("ensure_roles")
    n.run("ensure_roles")
    assert n.psql("SELECT current_setting('data_checksums')") == "on"
    n.run("stop_fast", deadline=120000)
    view = n.wait("looked at", lambda v: v["data"] == "ours")
    assert view["proc"] == "stopped" and view["clean"] and view["shutdown_lsn"] > 0


def test_a_standby_clones_follows_and_is_promoted(lab):
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    n1.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    n1.wait("a sender", lambda v: v["senders"] and v["senders"][0]["streaming"])
    lsn = int(n1.psql("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn"))
    n2.wait("there", lambda v: v["replay_lsn"] >= lsn)
    assert n2.psql("SELECT count(*) FROM t") == "1000"
    n1.run("stop_fast", deadline=120000)
    end = n1.wait("shut down", lambda v: v["shutdown_lsn"] > 0)["shutdown_lsn"]
    n2.wait("has the shutdown checkpoint", lambda v: v["lsn"] >= end)
    n2.arm(2)
    n2.run("promote", token=2, lineage="2:2,1:1")
    view = n2.wait("its history read", lambda v: v["parent"] == 1)
    assert not view["in_recovery"] and view["timeline"] == 2
    n2.run("checkpoint")
    n2.wait("checkpointed", lambda v: v["checkpointed"])


def test_a_seal_holds_while_a_report_holds_up_replay(lab):
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    n1.run("set_sync", k=1, s=n2.view()["incarnation"])
    n1.wait("confirmed", lambda v: v["set_confirmed"])
    n1.psql("CREATE TABLE t (id int); CREATE TABLE other (id int); INSERT INTO other VALUES (1)")
    report = n2.session()
    n2.wait("replayed", n1.is_replayed())
    report.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM other;\n")
    assert report.stdout.readline().strip() == "1"
    n1.psql("DROP TABLE other")  # replay must wait for the report
    n1.psql("INSERT INTO t VALUES (1)")  # and commits are acknowledged all the same
    n2.wait("replay held up", lambda v: v["replay_lsn"] < v["lsn"])

    n2.run("seal", token=1)
    sealed = n2.view()
    assert not sealed["walreceiver"] and sealed["sealed_token"] == 1
    assert sealed["sealed_lsn"] == sealed["lsn"] > sealed["replay_lsn"]
    writer = n1.session()
    writer.stdin.write("INSERT INTO t VALUES (2);\n\\echo acknowledged\n")
    n1.wait("the writer waits",
            lambda v: n1.psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "1")
    assert n2.view()["lsn"] == sealed["sealed_lsn"]

    # Durable: the next daemon knows it.
    n2.quit(leave=True)
    n2.launch()
    n2.wait("adopted", lambda v: v["proc"] == "running" and v["data"] == "ours")
    assert n2.view()["sealed_token"] == 1 and n2.view()["sealed_lsn"] == sealed["sealed_lsn"]
    # The report goes when this one is promoted.
    n2.arm(2)
    n2.run("promote", token=2)
    assert n2.psql("SELECT string_agg(id::text, ',') FROM t") == "1"
    report.kill()
    writer.kill()


def test_a_seal_waits_until_the_wal_on_the_disk_is_replayed(lab):
    """A restarted standby lets people in before it has replayed what it had confirmed. The archive holds replay up there."""
    go = lab.dir / "go"
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    n1.run("set_sync", k=1, s=n2.view()["incarnation"])
    n1.wait("confirmed", lambda v: v["set_confirmed"])
    n1.psql("CREATE TABLE t (id int)")
    n2.wait("replayed", n1.is_replayed())
    n2.psql("SELECT pg_wal_replay_pause()")  # what follows is confirmed, and behind what a start replays first
    n1.psql("SELECT pg_switch_wal()")
    n1.psql("INSERT INTO t VALUES (1)")
    segment = n1.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    flushed = int(n1.psql("SELECT pg_current_wal_flush_lsn() - '0/0'"))
    confirmed = n2.wait("held up", lambda v: v["lsn"] >= flushed > v["replay_lsn"])["lsn"]
    n2.run("kill")
    # Longer than wal_retrieve_retry_interval: then the startup process never sleeps.
    restore = f"""case %f in {segment}) until test -e {go}; do sleep 0.1; done;; esac; sleep 0.3; false"""
    parameters = {"restore_command": restore}
    if int(n1.psql("SHOW server_version_num")) >= 150000:
        parameters["recovery_prefetch"] = "off"  # it would wait for that segment too early
    n2.send("configure " + json.dumps({"postgresql": {"parameters": parameters}}))
    n2.wait("looked at", lambda v: v["proc"] == "stopped" and v["data"] == "ours")
    n2.run("start_standby")
    n2.start("seal", token=1)
    told = n2.wait("told what it waits for", lambda v: "still being replayed" in v["trouble"])
    assert told["sealed_token"] == 0 and told["lsn"] < confirmed
    go.touch()
    done = n2.finish()
    if done["status"] != "ok":  # held up for longer than it waits
        assert "still being replayed" in done["text"], done
        n2.run("seal", token=1)
    view = n2.view()
    assert view["sealed_token"] == 1 and view["sealed_lsn"] >= confirmed and view["trouble"] == ""
    assert n2.psql("SELECT count(*) FROM t") == "1"


def test_a_sealed_standby_follows_again(lab):
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    n2.run("seal", token=1)
    assert not n2.view()["walreceiver"]
    n2.run("follow", target=n1.target(), token=2)
    view = n2.wait("streams", lambda v: v["streaming"])
    assert view["sealed_token"] == 0 and view["upstream"] == "n1" and view["follow_token"] == 2


def test_from_no_set_to_one_a_commit_is_seen_waiting(lab):
    n1 = lab.primary()
    assert n1.view()["set_known"]
    n2 = lab.standby(n1, "n2")
    incarnation = n2.view()["incarnation"]
    n1.run("set_sync", k=1, s=incarnation)
    view = n1.wait("confirmed", lambda v: v["set_confirmed"])
    assert view["set"] == {"k": 1, "s": [incarnation]} and view["old_n"] == 0
    assert n1.psql("SHOW synchronous_standby_names") == f'FIRST 1 ("{incarnation}")'
    n1.psql("CREATE TABLE t (id int)")
    # Nothing is taken as confirmed by the next daemon.
    n1.quit(leave=True)
    n1.launch()
    view = n1.wait("adopted", lambda v: v["proc"] == "running" and v["set"]["k"] == 1)
    assert not view["set_known"] and not view["set_confirmed"]
    n1.run("set_sync", k=1, s=incarnation)
    n1.wait("confirmed anew", lambda v: v["set_known"] and v["set_confirmed"])
    # A set whose standby is gone is in force, and not confirmed; the old one goes on counting.
    n1.run("set_sync", k=1, s="00000000-0000-0000-0000-000000000000")
    view = n1.view()
    assert view["old_n"] == 1 and not view["set_confirmed"]
    n1.run("set_sync", k=0)
    n1.wait("confirmed empty", lambda v: v["set_confirmed"] and v["old_n"] == 0)


def test_a_commit_that_is_given_up_while_it_waits_keeps_no_connection(lab):
    """Its backend does not see that nobody listens any more: the next one ends it."""
    n1 = lab.primary()
    probes = "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE application_name = 'regent probe'"
    seen = []
    for i in range(3):
        if i > 0:
            n1.quit(leave=True)
            n1.launch()
            n1.wait("adopted", lambda v: v["proc"] == "running" and v["data"] == "ours" and v["accepts"])
        n1.start("set_sync", k=1, s="00000000-0000-0000-0000-000000000000")
        seen.append(wait_until(lambda: {*n1.psql(probes).split()} - {*seen}, "one waits, and no other").pop())
    wait_until(lambda: n1.psql(probes) == seen[-1], "it alone is left")


def own_connections(node):
    """Of the agent, going by the titles of processes: nobody else gets one."""
    return sum("postgres postgres [local]" in line for line in processes_of(node.dir).values())


def test_a_set_is_confirmed_while_clients_have_taken_all_connections(lab):
    """Three are kept for superusers: what the agent needs for a confirmation fits."""
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    n1.psql("CREATE ROLE app LOGIN; ALTER ROLE app PASSWORD $$" + SUPERUSER_PASSWORD + "$$")
    clients = []
    refused = False
    n1.quit(leave=True)  # clients are there first, as after a failover
    try:
        while not refused:
            clients.append(n1.session("app"))
            clients[-1].stdin.write("\\echo in\n")
            refused = clients[-1].stdout.readline().strip() != "in"
            assert len(clients) < 40
        n1.launch()
        n1.send('configure {"slots": true, "members": ["n2"]}')  # housekeeping has a connection too
        n1.wait("adopted", lambda v: v["proc"] == "running" and v["data"] == "ours" and v["accepts"])
        n1.wait("housekeeping has the connection that it keeps", lambda v: own_connections(n1) == 2)
        n1.run("set_sync", k=1, s=n2.view()["incarnation"])
        n1.wait("confirmed", lambda v: v["set_confirmed"])
        # What cannot be written is given up, so that the plan goes on, and done when it can.
        names = n1.pgdata / "postgresql.regent-sync.conf"
        names.rename(f"{names}.away")
        names.mkdir()
        n1.start("set_sync", k=0)
        done = n1.finish()
        assert done["status"] == "timeout" and "could not be put in force" in done["text"], done
        names.rmdir()
        n1.wait("confirmed", lambda v: v["set_confirmed"] and v["set"]["k"] == 0)
    finally:
        for c in clients:
            c.kill()
            c.wait(timeout=60)


def test_among_unknown_sets_one_that_cannot_be_confirmed_is_given_up(lab):
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    n1.run("set_sync", k=1, s=n2.view()["incarnation"])
    n1.wait("confirmed", lambda v: v["set_confirmed"])
    n1.psql("CREATE TABLE t (id int)")
    incarnation = n2.view()["incarnation"]
    n2.run("stop_fast", deadline=120000)
    n1.quit(leave=True)
    n1.launch()
    n1.wait("adopted", lambda v: v["proc"] == "running" and v["set"]["k"] == 1 and not v["set_known"])
    # What PostgreSQL shows would have to be confirmed by a standby that is gone: the plan may choose again.
    n1.start("set_sync", k=1, s=incarnation)
    done = n1.finish()
    assert done["status"] != "ok" and "could not be confirmed" in done["text"]
    view = n1.view()
    assert not view["set_known"] and not view["set_confirmed"]
    n1.run("set_sync", k=0)
    n1.wait("confirmed empty", lambda v: v["set_known"] and v["set_confirmed"] and v["set"]["k"] == 0)
    n1.psql("INSERT INTO t VALUES (1)")


def test_alter_system_does_not_overrule_the_set(lab):
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    n1.run("set_sync", k=1, s=n2.view()["incarnation"])
    n1.wait("confirmed", lambda v: v["set_confirmed"])
    n1.psql("ALTER SYSTEM SET synchronous_standby_names = ''")
    n1.psql("SELECT pg_reload_conf()")
    n1.wait("noticed", lambda v: not v["set_known"])
    n1.run("set_sync", k=1, s=n2.view()["incarnation"])
    n1.wait("confirmed again", lambda v: v["set_confirmed"])


def test_a_diverged_primary_is_rewound(lab):
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    n1.psql("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    n2.wait("replayed", n1.is_replayed())
    n2.run("seal", token=1)
    n1.psql("INSERT INTO t VALUES (2)")  # lost, asynchronously
    n1.run("kill")
    view = n1.wait("looked at", lambda v: v["data"] == "ours")
    assert view["proc"] == "stopped" and not view["clean"] and view["recovery_ms"] > 0
    n2.arm(2)
    n2.run("promote", token=2)
    n2.run("checkpoint")
    n2.psql("INSERT INTO t VALUES (3)")
    before = n1.view()["incarnation"]
    n1.run("rewind", target=n2.target(), timeline=2, lineage="2:2,1:1")
    view = n1.view()
    assert view["data"] == "ours" and view["incarnation"] != before and view["lineage"] == "2:2,1:1"
    assert view["standby_signal"] and not view["rewind_failed"]
    assert list(n1.dir.glob("pg.diverged-*/0*")), "the diverged WAL is kept"
    n1.run("start_standby", target=n2.target(), token=2)
    n1.wait("streaming", lambda v: v["streaming"])
    lsn = n2.view()["lsn"]
    n1.wait("replayed", lambda v: v["replay_lsn"] >= lsn)
    assert n1.psql("SELECT string_agg(id::text, ',' ORDER BY id) FROM t") == "1,3"


def test_a_diverged_standby_is_stuck_and_cloned_anew(lab):
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    n3 = lab.standby(n1, "n3")
    n3.run("seal", token=1)
    n1.psql("CREATE TABLE t (id int)")
    n2.wait("ahead", lambda v: v["lsn"] > n3.view()["lsn"])
    n2.run("seal", token=1)
    n3.arm(2)
    n3.run("promote", token=2)
    n2.run("follow", target=n3.target(), token=2)
    view = n2.wait("stuck", lambda v: v["stuck"])
    assert "timeline" in view["trouble"]
    n2.run("stop_fast", deadline=120000)
    n2.run("clone", target=n3.target(), lineage="2:2,1:1")
    assert list(n2.dir.glob("pg.old-*/PG_VERSION")), "the old data is moved aside"
    n2.run("start_standby", target=n3.target(), token=2)
    n2.wait("streaming", lambda v: v["streaming"])


def test_old_data_is_deleted_only_as_configured(lab):
    """Tablespaces cannot be moved aside: without the policy nothing is touched."""
    n1 = lab.primary()
    n2 = lab.primary("n2")
    space = n2.dir / "space"
    subprocess.run([*as_user(), "mkdir", "-m", "0700", str(space)], check=True)
    n2.psql(f"CREATE TABLESPACE s LOCATION '{space}'")
    n2.psql("CREATE TABLE t TABLESPACE s AS SELECT 1")
    n2.run("stop_fast", deadline=120000)
    mark = n2.pgdata / "mark_of_the_test"
    mark.touch()
    copy = {"target": n1.target(), "lineage": "1:1"}
    n2.start("clone", **copy)
    refused = n2.finish()
    assert refused["status"] != "ok" and "tablespaces" in str(refused), refused
    assert mark.exists() and list(space.iterdir())
    n2.run("clone", **copy, remove_old=1)
    assert not mark.exists() and not list(space.iterdir())
    # where there is room for both, the old data goes when the copy is whole
    mark.touch()
    n2.run("clone", **copy, remove_old=1)
    assert not mark.exists()
    # a deletion that was cut short is finished
    mark.touch()
    (n2.pgdata / "global" / "pg_control").unlink()
    (n2.pgdata / "regent.remove").touch()
    n2.run("clone", **copy)
    assert not mark.exists() and not list(n2.dir.glob("pg.*"))
    n2.run("start_standby", target=n1.target(), token=1)
    n2.wait("streaming", lambda v: v["streaming"])


def make_dir(path):
    """Of PostgreSQL's user."""
    subprocess.run([*as_user(), "mkdir", "-p", str(path)], check=True)


def on_a_mount_of_its_own(directory):
    """What to put before a command so that for it the directory is a bind mount, of its parent's file system."""
    code = ("import ctypes, os, sys\n"
            "at = sys.argv[1]\n"
            "os.mkdir(at, 0o700)\n"
            "home = os.stat(os.path.dirname(at))\n"
            "os.chown(at, home.st_uid, home.st_gid)\n"
            "if ctypes.CDLL(None, use_errno=True).mount(at.encode(), at.encode(), None, 4096, None) != 0:\n"
            "    raise OSError(ctypes.get_errno(), 'mount --bind')\n"
            "os.execvp(sys.argv[2], sys.argv[2:])\n")
    own = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    unshare = ["unshare", *own, "--mount", "--propagation", "private"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    return [*unshare, "/usr/bin/python3", "-c", code, str(directory)]


def test_data_in_a_mount_point_is_replaced_only_as_configured(lab):
    """The mount point stays, its contents are exchanged; nothing is touched where they would have to be kept."""
    n1 = lab.primary()
    n2 = lab.node("n2", inside=on_a_mount_of_its_own(lab.dir / "n2" / "pg"))
    n2.wait("looked at", lambda v: v["data"] == "empty")
    copy = {"target": n1.target(), "lineage": "1:1"}
    n2.run("clone", **copy)
    n2.run("start_standby", target=n1.target(), token=1)
    n2.wait("streaming", lambda v: v["streaming"])
    n2.run("stop_fast", deadline=10000)
    before = n2.view()["incarnation"]
    n2.start("clone", **copy)
    refused = n2.finish()
    assert refused["status"] != "ok" and "mount point" in str(refused), refused
    assert "reinit --remove-data" in str(refused) and n2.view()["incarnation"] == before
    n2.run("clone", **copy, remove_old=1)
    n2.wait("looked at", lambda v: v["data"] == "ours" and v["incarnation"] != before)
    assert not (n2.pgdata / "regent.new").exists() and not (n2.pgdata / "regent.remove").exists()
    # A copy that was cut short, and one of which a part had taken its place already, are in nobody's way.
    make_dir(n2.pgdata / "regent.new")
    (n2.pgdata / "PG_VERSION").rename(n2.pgdata / "regent.new" / "PG_VERSION")
    (n2.pgdata / "regent.remove").touch()
    n2.run("clone", **copy)
    assert (n2.pgdata / "PG_VERSION").exists() and not (n2.pgdata / "regent.new").exists()
    n2.run("start_standby", target=n1.target(), token=1)
    n2.wait("streaming", lambda v: v["streaming"])


def test_the_root_of_a_file_system_is_no_data_directory(lab):
    """Who has lost+found in it could be copied by nobody: said before the copy, and nothing is touched."""
    n1 = lab.primary()
    n2 = lab.node("n2")
    found = n2.pgdata / "lost+found"
    make_dir(found)
    n2.wait("looked at", lambda v: v["data"] == "empty")
    n2.start("clone", target=n1.target(), lineage="1:1")
    refused = n2.finish()
    assert refused["status"] != "ok" and "lost+found" in str(refused) and "data_dir" in str(refused), refused
    assert [p.name for p in n2.pgdata.iterdir()] == ["lost+found"]
    found.rmdir()
    make_dir(n2.pgdata / "regent.new")  # of a copy that was cut short
    n2.run("clone", target=n1.target(), lineage="1:1")
    assert n2.wait("looked at", lambda v: v["data"] == "ours")


def test_an_unfinished_copy_shows(lab):
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    n2.run("stop_fast", deadline=120000)
    n2.quit()
    (n2.pgdata / "regent.incarnation").unlink()
    n2.launch()
    view = n2.wait("looked at", lambda v: v["data"] != "unknown")
    assert view["data"] == "broken" and "unfinished" in view["trouble"]
    (n2.pgdata / "regent.incarnation").write_text((n1.pgdata / "regent.incarnation").read_text())
    n2.quit()
    n2.launch()
    view = n2.wait("looked at", lambda v: v["data"] != "unknown")
    assert view["data"] == "broken" and "n1" in view["trouble"]


def test_no_secret_is_in_an_argument_or_a_log(lab):
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    secrets = ("su'per:", "re:p", 'rw"3')
    for n in (n1, n2):
        text = (n.dir / "postgresql.log").read_text() + (n.pgdata / "postgresql.conf").read_text()
        assert not any(s in text for s in secrets)
        assert (n.dir / "pgpass").stat().st_mode & 0o777 == 0o600
    assert n1.psql("SELECT count(*) FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256%'") == "3"


def test_a_start_that_fails_says_why(lab):
    n1 = lab.primary()
    n1.run("stop_fast", deadline=120000)
    n1.wait("looked at", lambda v: v["data"] == "ours")
    with (n1.pgdata / "postgresql.base.conf").open("a") as conf:
        conf.write("no_such_setting = 1\n")
    n1.start("start_primary", token=1)
    done = n1.finish()
    assert done["status"] != "ok" and "no_such_setting" in done["text"]


def test_every_node_has_a_slot_for_each_other_and_drops_those_of_members_gone(lab):
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    slots = "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots"
    n1.send('configure {"slots": true, "members": ["n2", "N-3"]}')
    n2.send('configure {"slots": true, "members": ["n1", "N-3"]}')
    n1.wait("slots", lambda v: len(n1.psql(slots).split()) == 2)
    n2.wait("slots", lambda v: len(n2.psql(slots).split()) == 2)
    n2.wait("uses its slot", lambda v: "t" == n1.psql(
        "SELECT active FROM pg_replication_slots WHERE slot_name = 'regent_n2'"))
    assert n2.psql("SELECT count(*) FROM pg_replication_slots WHERE restart_lsn IS NOT NULL") == "0"
    n1.send('configure {"slots": true, "members": ["n2"]}')  # N-3 is down: it may want its WAL
    assert len(n1.psql(slots).split()) == 2
    n1.send('configure {"slots": true, "members": ["n2"], "slot_ttl_ms": 1, '
            '"postgresql": {"parameters": {"work_mem": "7MB"}}}')
    n1.wait("one slot", lambda v: n1.psql(slots) == "regent_n2")
    n1.wait("setting", lambda v: n1.psql("SHOW work_mem") == "7MB")
    n2.wait("streaming", lambda v: v["streaming"])


def test_a_hung_server_does_not_accept_and_a_dead_one_is_seen_at_once(lab):
    n1 = lab.primary()
    pid = n1.view()["postmaster"]
    backends = [int(p) for p in n1.psql("SELECT pid FROM pg_stat_activity").split()]
    for p in [pid, *backends]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(p, signal.SIGSTOP)
    n1.wait("hung", lambda v: not v["accepts"])
    for p in [pid, *backends]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(p, signal.SIGCONT)
    n1.wait("well again", lambda v: v["accepts"])
    os.kill(pid, signal.SIGKILL)
    view = n1.wait("gone", lambda v: v["proc"] == "stopped" and v["data"] == "ours")
    assert view["crashed"] and not view["clean"] and view["recovery_ms"] > 0
    n1.run("start_primary", token=1)
    assert n1.view()["proc"] == "running"


def test_a_clone_that_is_given_up_leaves_the_old_data(lab):
    n1 = lab.primary()
    n2 = lab.standby(n1, "n2")
    before = n2.view()["incarnation"]
    n2.run("stop_fast", deadline=120000)
    n2.start("clone", target=n1.target())
    n2.send("cancel")
    done = n2.finish()
    assert done["status"] in ("cancelled", "ok")
    view = n2.wait("looked at", lambda v: v["data"] == "ours")
    assert (view["incarnation"] == before) == (done["status"] == "cancelled")
    n2.run("start_standby", target=n1.target(), token=1)
    n2.wait("streaming", lambda v: v["streaming"])
