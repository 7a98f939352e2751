"""A partition of the primary, and its end: one outage, not two. Needs root: hosts in network namespaces."""
import os
import shutil

import pytest

from cluster import Cluster, wait_until
from load import TABLE_SQL
from netns import Net, why_not

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


@pytest.fixture(name="net", scope="module")
def net_fixture():
    reason = why_not() or (None if shutil.which("setpriv") else "no setpriv")
    if reason:
        pytest.skip(reason)
    with Net("rgp", 3, subnet="10.78.0") as net:
        net.enter()
        yield net


def test_when_the_partition_heals_the_new_primary_goes_on(net):
    sets = ['postgresql.pg_hba=["host all all all scram-sha-256", "host replication all all scram-sha-256"]']
    # Long enough for a machine that stands still at times: there is to be one failover.
    with Cluster(sync="on", ttl=10, sets=sets, all_sets=sets, addresses=[h.address for h in net.hosts],
                 namespaces=[h.namespace for h in net.hosts]) as c:
        c.form()
        old = c.primary()
        host = net.hosts[c.nodes.index(old)]
        old.sql(TABLE_SQL)
        postmaster = old.postmaster()
        host.cut()
        new = c.new_leader(old)
        wait_until(lambda: old.postmaster() != postmaster, "the fence has killed the old primary")
        new.sql("INSERT INTO acked VALUES (1)")
        postmaster, token = new.postmaster(), c.record("leader")["token"]
        host.heal()
        c.wait_healthy()
        assert c.primary() is new and new.postmaster() == postmaster and c.record("leader")["token"] == token
        assert not new.log_lines("rule=switch_|action=stop|rule=leader_crashed|action=kill")
        assert wait_until(lambda: old.value("SELECT count(*) FROM acked WHERE id = 1"), f"{old} has the row") == 1
