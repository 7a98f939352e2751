"""Where a copy of the data comes from.

    python3 -m pytest tests/integration/test_clone.py
"""
import shutil

import pytest

pytest.importorskip("psycopg2")

from cluster import Cluster, PG_BIN, build_dir, wait_until  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
]


def further(node, setting):
    """One more --set for this node alone."""
    setup = node.setup
    node.setup = lambda sets=(), **more: setup(sets=[*sets, setting], **more)


def test_a_node_is_cloned_from_the_standby_that_is_meant_for_it():
    with Cluster(sync=True, ttl=10) as c:
        n1, n2, n3 = c.nodes
        further(n2, "tags.clonefrom=true")
        further(n3, "postgresql.basebackup=[{label: by hand}, {max-rate: 6M}]")
        c.form()
        assert c.primary() is n1
        n1.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id")
        n3.kill()
        wait_until(lambda: n3.name not in {m["Member"] for m in c.members()}, "its lease has run out")
        shutil.move(n3.pgdata, f"{n3.pgdata}.gone")
        n3.start()
        half = wait_until(lambda: [m for m in c.members() if m.get("Copied")], "the progress is published")
        assert [m["Member"] for m in half] == ["n3"] and half[0]["State"] == "creating replica" and 0 < half[0]["Copied"] <= 100
        c.wait_healthy()
        assert not [m for m in c.members() if "Copied" in m]
        assert n3.log_lines(r"action=clone rule=clone target=n2 .*cloning from n2")
        assert "LABEL: by hand" in (n3.pgdata / "backup_label.old").read_text()
        assert n3.value("SELECT count(*) FROM kept") == 1000
        assert n3.value("SELECT regexp_replace(current_setting('primary_conninfo'), '.*port=''([0-9]+)''.*', '\\1')") == str(
            n1.ports["pg"]), "and streams from the leader"
