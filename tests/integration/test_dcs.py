"""The DCS as real processes: what is acknowledged stays, whoever dies; who may take part, and who not."""
import contextlib
import itertools
import json
import shutil
import signal
import subprocess
import time

import pytest

from dcs_lab import PATIENCE_S, Client, DcsError, Node, build_dir, new_lab, wait_for

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "dcs_node").exists(), reason="dcs_node is not built"),
    pytest.mark.skipif(not (build_dir() / "dcs_tool").exists(), reason="dcs_tool is not built"),
]


def keys_of(node, prefix):
    """All keys of a prefix, linearizable, in pages."""
    keys, at = [], prefix
    while True:
        page = node.call("kv.range", key=at, end=prefix[:-1] + chr(ord(prefix[-1]) + 1), limit=5000, keys_only=True)
        keys += [kv["key"] for kv in page["kvs"]]
        if not page["more"]:
            return keys
        at = keys[-1] + "!"


def test_three_nodes_become_three_voters_and_any_of_them_answers(lab):
    listing = lab.nodes[2].call("member.list")
    assert [m["role"] for m in listing["members"]] == ["voter"] * 3
    assert (listing["voters"], listing["quorum"]) == (3, 2)
    for i, node in enumerate(lab.nodes):
        assert node.call("kv.put", key=f"a{i}", value="x")["op"] == "put"
        # Linearizable: what one node acknowledged, every other one shows.
        for other in lab.nodes:
            assert other.call("kv.range", key=f"a{i}")["count"] == 1


def test_a_transaction_on_a_follower_compares_and_branches(lab):
    node = lab.followers()[0]
    txn = {"compare": [{"key": "t", "target": "create", "op": "=", "number": 0}],
           "then": [{"op": "put", "key": "t", "value": "1"}],
           "otherwise": [{"op": "range", "key": "t"}]}
    assert node.call("kv.txn", **txn)["succeeded"]
    second = node.call("kv.txn", **txn)
    assert not second["succeeded"] and second["results"][0]["count"] == 1


def test_no_acknowledged_write_is_lost_when_the_leader_is_killed(lab):
    load = lab.load("k-", 16)
    load.wait_for_more()
    leader = lab.leader()
    leader.kill()
    fresh = lab.leader(besides=leader)
    load.wait_for_more()
    load.end()
    assert load.acknowledged() <= set(keys_of(fresh, "k-"))
    leader.start()
    target = fresh.status()["revision"]
    wait_for("the killed node has caught up", lambda: leader.status()["revision"] >= target)
    assert leader.call("kv.range", key="k-", end="k.", count_only=True, local=True)["count"] == \
        fresh.call("kv.range", key="k-", end="k.", count_only=True)["count"]


def test_the_whole_cluster_comes_back_after_a_power_cut(lab):
    lab.nodes[0].call("kv.put", key="stays", value="1")
    for node in lab.nodes:
        node.kill()
    for node in lab.nodes:
        node.start()
    lab.leader()
    assert lab.nodes[2].call("kv.range", key="stays")["count"] == 1


def test_a_leader_without_a_majority_serves_no_linearizable_read(lab):
    leader = lab.leader()
    leader.call("kv.put", key="r", value="1")
    followers = lab.followers()
    for node in followers:
        node.signal(signal.SIGSTOP)
    with pytest.raises(DcsError) as refused:
        leader.call("kv.range", key="r", deadline_ms=3000)
    assert refused.value.name in ("timeout", "unavailable")
    assert leader.call("kv.range", key="r", local=True)["count"] == 1
    for node in followers:
        node.signal(signal.SIGCONT)
    wait_for("reads again", lambda: leader.call("kv.range", key="r")["count"] == 1)


def test_a_request_never_outlives_its_deadline(lab):
    leader = lab.leader()
    for node in lab.followers():
        node.kill()
    with pytest.raises(DcsError) as refused:
        leader.call("kv.put", key="late", value="1", deadline_ms=2000)  # no answer at all: call() itself gives up
    assert refused.value.name in ("outcome_unknown", "timeout", "unavailable")


def test_leadership_moves_before_a_leader_ends(lab):
    leader = lab.leader()
    term = leader.status()["term"]
    leader.signal(signal.SIGTERM)
    fresh = lab.leader(besides=leader)
    assert leader.process.wait(PATIENCE_S) == 0
    assert fresh.status()["term"] > term


def test_leadership_can_be_sent_to_a_member_by_name(lab):
    target, other = lab.followers()
    lab.lead(target, via=other)


def test_a_watch_goes_on_without_a_gap_when_the_leader_is_lost(lab):
    path = lab.root / "events"
    with path.open("w") as out:
        watch = lab.tool("watch", "w-", "w.", 1, stdout=out)
    load = lab.load("w-", 4)
    load.wait_for_more()
    lab.leader().kill()
    load.wait_for_more()
    load.end()
    expected = sorted(keys_of(lab.leader(), "w-"))

    def events():
        found = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        assert not [e for e in found if "error" in e]
        return found

    wait_for("every key is seen", lambda: sum(len(e["events"]) for e in events()) >= len(expected))
    watch.kill()
    watch.wait()
    assert sorted(e["kv"]["key"] for event in events() for e in event["events"]) == expected
    revisions = [event["revision"] for event in events()]
    assert revisions == sorted(set(revisions))


def grant(node, ttl_ms, nonce=7):
    return node.call("lease.grant", ttl_ms=ttl_ms, nonce=nonce)["id"]


def test_a_lease_ends_on_time_although_the_leader_changed_meanwhile(lab):
    ttl_s = 6
    time.sleep(ttl_s)  # the rule holds once the next leader has been up for a TTL
    follower = lab.followers()[0]
    began = time.monotonic()
    lease = grant(follower, ttl_s * 1000)
    granted = time.monotonic()
    follower.call("kv.put", key="mine", value="1", lease=lease)
    time.sleep(max(0, granted + ttl_s / 2 - time.monotonic()))
    lab.leader().kill()
    lab.leader()
    leads = time.monotonic()
    wait_for("the key is gone", lambda: lab.any().call("kv.range", key="mine")["count"] == 0)
    ended = time.monotonic()
    assert ended - began >= ttl_s - 0.1
    assert ended - leads < ttl_s - 1, "the next leader does not begin to count anew"


def test_a_renewed_lease_stays_and_a_forgotten_one_goes(lab):
    client, ttl_s = lab.client(), 3
    turns = itertools.count(9)

    def kept():
        """False: this machine stood still for so long that the lease had to end."""
        nonce = next(turns)
        renewed = begin = time.monotonic()
        lease = client("lease.grant", ttl_ms=ttl_s * 1000, nonce=nonce)["id"]
        with contextlib.suppress(DcsError):
            client("kv.put", key="kept", value="1", lease=lease)
        for n in itertools.count(1):
            sent = time.monotonic()
            state = client("lease.renew", id=lease, nonce=nonce, n=n)
            there = client("kv.range", key="kept")["count"] == 1
            if time.monotonic() - renewed > ttl_s - 0.5:
                return False
            assert there and state["n"] == n
            renewed = sent
            if sent > begin + 2 * ttl_s:
                return True

    wait_for("it is renewed in time", kept)
    wait_for("it goes", lambda: client("kv.range", key="kept")["count"] == 0)


def test_a_node_that_was_away_too_long_is_sent_a_snapshot(lab):
    away = lab.followers()[0]
    away.kill()
    client = lab.client([n for n in lab.nodes if n is not away])
    value = "x" * 60000
    for i in range(0, 600, 20):
        client("kv.txn", then=[{"op": "put", "key": f"big-{j % 50}", "value": value} for j in range(i, i + 20)])
    away.start()
    target = lab.leader().status()["revision"]
    wait_for("it has caught up", lambda: away.status()["revision"] >= target)
    assert "snapshot_restored" in away.log()
    assert away.call("kv.range", key="big-", end="big.", count_only=True, local=True)["count"] == 50
    wait_for("no half copy is left", lambda: not list(away.dir.glob("*.part")))


def test_removal_is_refused_when_it_would_cost_the_quorum(lab):
    leader = lab.leader()
    down, up = lab.followers()
    down.kill()
    wait_for("the leader has noticed", lambda: not next(
        m for m in leader.call("member.list")["members"] if m["name"] == down.name)["reachable"])
    time.sleep(1.5)
    with pytest.raises(DcsError) as refused:
        leader.call("member.remove", name=up.name)
    assert refused.value.name == "precondition"
    assert "quorum" in refused.value.text
    # The one that is down can go; the number of voters does not rest at two.
    leader.call("member.remove", name=down.name)
    assert [m["name"] for m in leader.call("member.list")["members"]] == sorted([leader.name, up.name])
    wait_for("one voter", lambda: leader.call("member.list")["voters"] == 1)
    down.start()
    wait_for("it is refused", lambda: "was removed from the cluster" in down.log())


def test_a_leader_that_is_removed_hands_over_first(lab):
    leader = lab.leader()
    other = lab.followers()[0]
    remaining = other.call("member.remove", name=leader.name)["members"]
    assert leader.name not in [m["name"] for m in remaining]
    assert lab.leader(besides=leader) is not leader


def test_a_fifth_node_makes_five_voters(lab):
    lab.add()
    time.sleep(1)
    assert lab.leader().call("member.list")["voters"] == 3
    lab.add(role="voter")
    lab.wait_voters(5)


def test_a_token_works_once(lab):
    token = lab.nodes[0].call("token.create")["token"]
    lab.nodes.append(lab.register(token=token))
    with pytest.raises(RuntimeError) as refused:
        lab.register(token=token)
    assert "has been used" in str(refused.value)
    listed = lab.nodes[1].call("token.list")["tokens"]
    assert all(t["token"] == "" for t in listed)


def test_the_cluster_can_be_joined_when_its_first_node_is_lost(lab):
    wait_for("every voter has the key", lambda: all((n.dir / "pki" / "ca.key").exists() for n in lab.nodes))
    lab.nodes[0].kill()
    lab.leader(besides=lab.nodes[0])
    node = lab.register(via=lab.nodes[1])
    lab.nodes.append(node)
    node.start()
    wait_for("it is a member", lambda: node.status()["leader_id"] != 0)


def test_an_empty_directory_does_not_return_under_its_old_id(lab):
    node = lab.followers()[0]
    node.kill()
    for name in ("log.db", "log.db-wal", "state.db", "state.db-wal", "state.db-shm"):
        (node.dir / name).unlink(missing_ok=True)
    for path in node.dir.glob("snapshot-*"):
        path.unlink()
    node.join = [n.address for n in lab.nodes if n is not node]
    node.start(wait=False)
    wait_for("it ends", lambda: not node.alive())
    assert "directory is empty now" in node.log()


def start_fails(node, words):
    node.start(wait=False)
    assert node.process.wait(PATIENCE_S) == 1
    assert words in node.log()


def test_a_first_node_does_not_found_its_cluster_twice(one):
    node = one.nodes[0]
    node.kill()
    for path in node.dir.glob("*.db*"):
        path.unlink()
    start_fails(node, "its data is gone")


def test_one_directory_has_one_daemon(one):
    node = one.nodes[0]
    twin = Node(one, 1)
    twin.log_path = one.root / "twin.log"
    start_fails(twin, "another regentd runs in")
    assert node.status()


def test_a_port_that_is_taken_is_named(one):
    node = one.nodes[0]
    with contextlib.closing(new_lab(0)) as other:
        twin = Node(other, 1)
        twin.address = node.address
        subprocess.run([build_dir() / "dcs_node", "init", *twin.flags()], check=True)
        start_fails(twin, f"cannot listen on {node.address}")
        assert not (twin.dir / "log.db").exists()


def test_another_clusters_certificate_is_refused(one):
    with contextlib.closing(new_lab(1)) as other:
        with contextlib.closing(Client([one.nodes[0].address], other.nodes[0].dir / "pki")) as stranger, pytest.raises(ConnectionError):
            stranger("cluster.status")
        # Its data under this certificate is refused, too.
        other.nodes[0].kill()
        shutil.rmtree(other.nodes[0].dir / "pki")
        shutil.copytree(one.nodes[0].dir / "pki", other.nodes[0].dir / "pki")
        start_fails(other.nodes[0], "cluster")
