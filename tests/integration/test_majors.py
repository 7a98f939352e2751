"""A short life of a cluster on every major version of PostgreSQL that Regent supports: formed, written to, switched over,
failed over, the old primary back by rewind or clone.

    REGENT_TEST_PG_13=/opt/pg13/bin python3 -m pytest tests/integration/test_majors.py

The programs of a major are looked for in REGENT_TEST_PG_<major> and where Debian has them; without them its test is
skipped and says so.
"""
import os
import pathlib

import pytest

pytest.importorskip("psycopg2")

import cluster  # noqa: E402
from cluster import Cluster, build_dir, wait_until  # noqa: E402

pytestmark = pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built")
MAJORS = (13, 15, 17, 18)


def programs(major):
    named = os.environ.get(f"REGENT_TEST_PG_{major}")
    return pathlib.Path(named or f"/usr/lib/postgresql/{major}/bin")


@pytest.mark.parametrize("major", MAJORS)
def test_a_cluster_lives_through_switchover_and_failover(major, monkeypatch):
    if not (programs(major) / "postgres").exists():
        pytest.skip(f"no PostgreSQL {major} in {programs(major)}; REGENT_TEST_PG_{major} names the directory of its programs")
    monkeypatch.setattr(cluster, "PG_BIN", programs(major))
    with Cluster(sync=True, ttl=10) as c:
        try:
            live(c, major)
        except BaseException:
            print(c.report())
            raise


def live(c, major):
    c.form()
    first = c.primary()
    assert first.value("SELECT current_setting('server_version_num')::int / 10000") == major
    first.sql("CREATE TABLE kept (id int PRIMARY KEY)")
    first.sql("INSERT INTO kept SELECT generate_series(1, 100)")

    wait_until(lambda: c.leader(besides=first) or first.ctl("switchover", "--leader", first.name, check=False).returncode == 0, "a switchover")
    second = c.new_leader(first)
    c.wait_healthy()
    second.sql("INSERT INTO kept SELECT generate_series(101, 200)")

    second.kill()
    third = c.new_leader(second)
    third.sql("INSERT INTO kept SELECT generate_series(201, 300)")
    second.start()
    c.wait_healthy()
    lsn = third.value("SELECT pg_current_wal_flush_lsn()")
    for node in c.standbys():
        wait_until(lambda node=node: node.value("SELECT pg_last_wal_replay_lsn() >= %s", lsn), f"{node} has replayed")
    for node in c.nodes:
        assert node.sql("SELECT count(*) FROM kept") == [(300,)]

    # What a long look asks for exists in this version, too.
    third.ctl("edit-config", "-p", "max_connections=77")
    wait_until(lambda: all(m.get("Pending restart") for m in c.members()), "a restart is pending")
