"""Clusters of other shapes than three equal nodes: two and a witness; five and seven in mode quorum; nodes without a vote."""
import json

import pytest

pytest.importorskip("psycopg2")

from cluster import Cluster, Node, build_dir, wait_until  # noqa: E402

pytestmark = pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built")


def roles(node):
    """{name: voter, learner or witness}; {} while that is not known."""
    done = node.ctl("-f", "json", "member", "list", check=False)
    return {m["name"]: m["role"] for m in json.loads(done.stdout)} if done.returncode == 0 else {}


def voting(c, count):
    node = next(n for n in c.nodes if n.running())
    return sum(role in ("voter", "witness") for role in roles(node).values()) == count


def add_witness(c):
    first, node = c.nodes[0], Node(c, "w1", "127.0.0.1")
    token = first.ctl("token", "create", "--role", "witness").stdout.strip()
    node.ctl("join", first.dcs_address(), "--token", token, "--name", node.name, "--listen", node.dcs_address(),
             "--data-dir", str(node.dir), "--rest-port", str(node.ports["rest"]), "--witness")
    node.start()
    return node


def ids(node):
    return [r[0] for r in node.sql("SELECT id FROM kept ORDER BY id")]


def recorded(c):
    return set((c.record("sync") or {}).get("v", []))


def test_two_nodes_and_a_witness_survive_the_loss_of_any_one():
    with Cluster(nodes=2, sync="on", ttl=10) as c:
        c.form()
        witness = add_witness(c)
        try:
            lose_each(c, witness)
        finally:
            witness.kill()


def lose_each(c, witness):
    wait_until(lambda: voting(c, 3), "three have a vote")
    old = c.primary()
    old.sql("CREATE TABLE kept (id int)")
    old.sql("INSERT INTO kept VALUES (1)")
    old.kill()
    new = c.new_leader(old)
    new.sql("INSERT INTO kept VALUES (2)")  # alone: not strict
    old.start()
    c.wait_healthy()
    assert ids(old) == [1, 2]

    witness.kill()
    new.sql("INSERT INTO kept VALUES (3)")
    c.switch_over(old)
    old.sql("INSERT INTO kept VALUES (4)")
    c.wait_healthy()
    assert ids(old) == [1, 2, 3, 4]


def test_five_nodes_in_mode_quorum_and_nodes_without_a_vote():
    with Cluster(nodes=5, sync="quorum", ttl=10, sets=["bootstrap.dcs.synchronous_node_count=2"]) as c:
        c.form(120)
        wait_until(lambda: voting(c, 5), "five have a vote")
        wait_until(lambda: len(recorded(c)) == 4, "four are recorded")
        assert c.record("sync")["q"] == 3

        # Two at once: two of the other four have every commit, and three are compared.
        old = c.primary()
        other = c.standbys()[0]
        old.sql("CREATE TABLE kept (id int)")
        old.sql("INSERT INTO kept SELECT generate_series(1, 100)")
        other.kill()
        old.sql("INSERT INTO kept VALUES (101)")
        old.kill()
        new = c.new_leader(old)
        assert ids(new) == list(range(1, 102))
        new.sql("INSERT INTO kept VALUES (102)")
        old.start()
        other.start()
        c.wait_healthy(120)

        # Who has no vote in the store runs its PostgreSQL like all others, and leads when it is told to.
        new.ctl("member", "target", "3")
        learner = wait_until(lambda: without_vote(c), "two have no vote")
        wait_until(lambda: (c.record("members/" + learner.name) or {}).get("incarnation") in recorded(c), "it is recorded")
        c.switch_over(learner)
        learner.sql("INSERT INTO kept VALUES (103)")
        c.wait_healthy()


def test_seven_nodes_survive_the_loss_of_any_three():
    with Cluster(nodes=7, sync="quorum", ttl=10, sets=["bootstrap.dcs.synchronous_node_count=3"]) as c:
        c.form(240)
        wait_until(lambda: voting(c, 7), "seven have a vote")
        wait_until(lambda: len(recorded(c)) == 6 and c.record("sync")["q"] == 4, "six are recorded, of which four elect")
        old = c.primary()
        others = c.standbys()[:2]
        old.sql("CREATE TABLE kept (id int)")
        old.sql("INSERT INTO kept SELECT generate_series(1, 100)")
        for node in [*others, old]:
            node.kill()
        new = c.new_leader(old)
        assert ids(new) == list(range(1, 101))
        new.sql("INSERT INTO kept VALUES (101)")  # three of the three that are left confirm it


def without_vote(c):
    """One that does not lead, when there are two."""
    leader = c.primary()
    found = [name for name, role in roles(leader).items() if role == "learner"]
    return next((c[name] for name in found if c[name] is not leader), None) if len(found) == 2 else None
