"""Tags that change whom a standby follows: `replicatefrom` behind another standby through failovers, `nostream` behind an
archive."""
import pytest

pytest.importorskip("psycopg2")

from cluster import Cluster, build_dir, wait_until  # noqa: E402

pytestmark = pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built")
SENDERS_SQL = """SELECT s.slot_name FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid
                 WHERE r.state = 'streaming' AND s.restart_lsn IS NOT NULL"""


def below(node):
    """Members that stream from it, by their slots there."""
    return {r[0] for r in node.try_sql(SENDERS_SQL) or []}


def tags(c, node):
    return next((m.get("Tags") for m in c.members() if m["Member"] == node.name), None)


def retag(node, *tags_of):
    """Its configuration file anew, with these tags; the daemon is begun again."""
    text = node.config.read_text(encoding="utf-8").split("\ntags:")[0]
    lines = "".join(f"\n  {t}" for t in tags_of)
    node.config.write_text(text + f"\ntags:{lines}\n", encoding="utf-8")
    node.kill()
    node.start()


def has(node, number):
    return node.value("SELECT count(*) FROM kept WHERE id = %s", number) == 1


def test_a_cascade_lives_through_failovers():
    with Cluster(sync="on", ttl=10) as c:
        c.form()
        first, middle, last = c.nodes
        wait_until(lambda: c.leader() is first, "the first leads")
        first.sql("CREATE TABLE kept (id int)")
        retag(last, "replicatefrom: n2")
        wait_until(lambda: below(first) == {"regent_n2"} and below(middle) == {"regent_n3"}, "n3 streams from n2")
        wait_until(lambda: tags(c, last) == {"replicatefrom": "n2"}, "the tag is shown")
        wait_until(lambda: c.record("sync")["v"] == [(c.record("members/n2") or {}).get("incarnation")], "the record names n2 alone")
        wait_until(lambda: "+ n3" in first.ctl("topology", check=False).stdout, "it is shown below n2")
        first.sql("INSERT INTO kept VALUES (1)")
        wait_until(lambda: has(last, 1), "it arrives at the end")
        # Its slot on the leader holds nothing while it streams from elsewhere.
        wait_until(lambda: first.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'regent_n3' AND restart_lsn IS NULL") == 1,
                   "no WAL is kept for it twice")
        refused = first.ctl("switchover", "--candidate", "n3", check=False)
        assert refused.returncode == 4 and "n3" in refused.stderr, refused

        # The leader goes: the middle is promoted, and the last stays behind it.
        first.kill()
        wait_until(lambda: c.leader() is middle, "n2 leads")
        middle.sql("INSERT INTO kept VALUES (2)")
        wait_until(lambda: has(last, 2), "it arrives at the end again")
        first.start()
        wait_until(lambda: below(middle) == {"regent_n1", "regent_n3"}, "both stream from n2")

        # n1 leads again; then the middle goes: the last falls back to the leader until it is there again.
        c.switch_over(first)
        wait_until(lambda: below(first) == {"regent_n2"} and below(middle) == {"regent_n3"}, "the cascade is back")
        middle.kill()
        wait_until(lambda: below(first) == {"regent_n3"}, "n3 streams from the leader")
        first.sql("INSERT INTO kept VALUES (3)")
        wait_until(lambda: has(last, 3), "it arrives without the middle")
        middle.start()
        wait_until(lambda: below(first) == {"regent_n2"} and below(middle) == {"regent_n3"}, "the cascade is back again")
        wait_until(lambda: has(middle, 3), "the middle has it")

        # From the archive alone.
        archive = c.dir / "archive"
        archive.mkdir()
        first.ctl("edit-config", "-p", "archive_mode=on", "-p", f"archive_command=cp %p {archive}/%f",
                  "-p", f"restore_command=cp {archive}/%f %p")
        for node in (middle, first):
            wait_until(lambda node=node: node.ctl("restart", node.name, "--force", check=False).returncode == 0, f"{node} is restarted")
        wait_until(lambda: c.leader() is not None, "a leader")
        retag(last, "nostream: true")
        wait_until(lambda: any(m["Member"] == "n3" and m["State"] == "in archive recovery" for m in c.members()), "n3 reads the archive")
        leader = c.primary()
        leader.sql("INSERT INTO kept VALUES (4)")
        leader.sql("SELECT pg_switch_wal()")
        wait_until(lambda: has(last, 4), "it arrives by the archive")
        assert "regent_n3" not in below(leader) | below(middle)
        assert tags(c, last) == {"nostream": True}
