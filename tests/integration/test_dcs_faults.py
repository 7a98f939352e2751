"""The DCS attacked: kills at every storage call, failing, full and damaged disks, hostile and greedy clients, cut networks.

REGENT_HEAVY=1 runs the long variants: more kills, every storage call instead of a sample, minutes of load."""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import pytest

from dcs_lab import Client, DcsError, Lab, build_dir, wait_for

HEAVY = os.environ.get("REGENT_HEAVY") == "1"

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "dcs_node").exists(), reason="dcs_node is not built"),
    pytest.mark.skipif(not (build_dir() / "dcs_tool").exists(), reason="dcs_tool is not built"),
]


def new_lab(nodes=3, timing=(), root=None):
    # Not pytest's tmp_path: the path of a local socket has to be short.
    return Lab(root or tempfile.mkdtemp(prefix="dcs.", dir="/tmp"), nodes, timing)


@pytest.fixture(name="lab")
def lab_fixture():
    lab = new_lab()
    yield lab
    lab.close()


@pytest.fixture(name="one")
def one_fixture():
    lab = new_lab(1)
    yield lab
    lab.close()


def fill(client, n, prefix="k-", value="v"):
    for i in range(0, n, 100):
        client("kv.txn", then=[{"op": "put", "key": f"{prefix}{j:06}", "value": value} for j in range(i, min(n, i + 100))])


# ---- greedy clients ----------------------------------------------------------------------------


def test_what_does_not_fit_into_a_message_is_paged_and_never_a_false_failure(one):
    client = one.client()
    fill(client, 20000)
    keys, at = [], "k-"
    while True:
        page = client("kv.range", key=at, end="k.")
        assert page["count"] == 20000 - len(keys)
        keys += [kv["key"] for kv in page["kvs"]]
        if not page.get("more"):
            break
        at = keys[-1] + "!"
    assert len(set(keys)) == len(keys) == 20000
    many = client("kv.txn", then=[{"op": "range", "key": "k-", "end": "k."}] * 128)["results"]
    assert all(r["more"] and r["count"] == 20000 for r in many)
    gone = client("kv.delete", key="k-", end="k.", prev_kv=True)
    assert gone["count"] == 20000 and gone["more"] and len(gone["kvs"]) > 1000


def test_a_transaction_cannot_ask_for_more_than_a_message(one):
    client = one.client()
    client("kv.put", key="big", value="x" * 600000)
    results = client("kv.txn", then=[{"op": "range", "key": "big"}] * 128)["results"]
    assert [len(r.get("kvs", [])) for r in results] == [1] + [0] * 127
    assert all(r["more"] for r in results[1:])
    results = client("kv.txn", then=[{"op": "put", "key": "big", "value": "y", "prev_kv": True},
                                     {"op": "put", "key": "big", "value": "z" * 600000}])["results"]
    assert len(results[0]["kvs"]) == 1


def test_a_watcher_of_a_delete_of_20000_keys_is_told_to_read_anew(one):
    client = one.client()
    fill(client, 20000)
    path = one.root / "events"
    with path.open("w") as out:
        watch = one.tool("watch", "k-", "k.", 0, stdout=out)
    with path.with_name("others").open("w") as out:
        other = one.tool("watch", "k-000001", "", 0, stdout=out)

    def lines(name):
        return [json.loads(line) for line in path.with_name(name).read_text().splitlines(keepends=True) if line.endswith("\n")]

    def both_watch():
        client("kv.put", key="k-000001", value="x")
        return lines("events") and lines("others")

    wait_for("both watch", both_watch)
    client("kv.delete", key="k-", end="k.")
    wait_for("one is told to read anew", lambda: lines("events")[-1].get("error") == "compacted")
    wait_for("the other has its event", lambda: lines("others")[-1].get("events", [{}])[0].get("type") == "delete")
    for process in (watch, other):
        process.kill()
        process.wait()
