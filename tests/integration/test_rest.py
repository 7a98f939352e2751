"""The REST interface of a real cluster of three nodes: against Patroni 4.1's contract, its own description, and
promtool.

    python3 -m pytest tests/integration/test_rest.py

The bodies themselves are tested from views in tests/unit/test_agent_rest.c.
"""
import contextlib
import datetime
import http.client
import json
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

import pytest

from cluster import Cluster, Node, wait_until
from ports import free_port
from realtime import Metronome

LAG_MAX = "16TB"
STALE = "Regent-Stale"
OUT_OF_TIME_MS = 250


@pytest.fixture(scope="module")
def c():
    with Cluster(sets=["tags.clonefrom=true"]) as cluster:
        cluster.form()
        yield cluster


@pytest.fixture(autouse=True)
def healthy(c):
    c.wait_healthy()


@contextlib.contextmanager
def connection(node):
    link = http.client.HTTPConnection(node.address, node.ports["rest"], timeout=30)
    try:
        yield link
    finally:
        link.close()


def ask(node, path, method="GET", body=None, headers=None):
    """(status, headers, body)"""
    with connection(node) as link:
        link.request(method, path, body=body, headers=headers or {})
        answer = link.getresponse()
        endless = answer.headers["Content-Type"] == "text/event-stream" and method == "GET"
        body = b"".join(iter(answer.readline, b"\n")) if endless else answer.read() # the first event of many
        return answer.status, answer.headers, body.decode()


def raw(node, data, shut=True):
    """What the node sends to these bytes."""
    with socket.create_connection((node.address, node.ports["rest"]), timeout=60) as s:
        parts = []
        with contextlib.suppress(OSError):  # refused before all of it was sent
            s.sendall(data)
            if shut:
                s.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while part := s.recv(65536):
                parts.append(part)
        return b"".join(parts)


def get(node, path):
    status, _, body = ask(node, path)
    assert status == 200, (node, path, status, body)
    return json.loads(body)


def code(node, path, method="GET"):
    return ask(node, path, method)[0]


def by_role(c):
    """(primary, synchronous standby, asynchronous standby)"""
    def three():
        named = {m["role"]: c[m["name"]] for m in get(c.primary(), "/cluster")["members"]}
        return named if set(named) == {"leader", "sync_standby", "replica"} else None
    named = wait_until(three, "one of each role")
    return named["leader"], named["sync_standby"], named["replica"]


# ---- health checks ----

#                         primary, sync, async
CHECKS = {
    "/": (200, 503, 503),
    "/primary": (200, 503, 503),
    "/read-write": (200, 503, 503),
    "/master": (200, 503, 503),
    "/leader": (200, 503, 503),
    "/standby-leader": (503, 503, 503),
    "/standby_leader": (503, 503, 503),
    "/replica": (503, 200, 200),
    "/read-only": (200, 200, 200),
    "/sync": (503, 200, 503),
    "/synchronous": (503, 200, 503),
    "/read-only-sync": (200, 200, 503),
    "/read-only-synchronous": (200, 200, 503),
    "/quorum": (503, 503, 503),
    "/read-only-quorum": (200, 503, 503),
    "/async": (503, 503, 200),
    "/asynchronous": (503, 503, 200),
    "/health": (200, 200, 200),
    "/liveness": (200, 200, 200),
    "/readiness": (200, 200, 200),
    f"/replica?lag={LAG_MAX}": (503, 200, 200),
    "/replica?replication_state=streaming": (503, 200, 200),
    "/replica?replication_state=else": (503, 503, 503),
    "/replica?lag=nonsense": (400, 400, 400),
    f"/async?lag={LAG_MAX}": (503, 503, 200),
    f"/readiness?mode=write&lag={LAG_MAX}": (200, 200, 200),
    "/primary?tag_no=1": (200, 503, 503),
    "/read-only?tag_no=1": (503, 503, 503),
    "/health?tag_clonefrom=false": (503, 503, 503),
    "/no-such-path": (404, 404, 404),
    "/primary/": (404, 404, 404),
    "/../patroni": (404, 404, 404),
}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_every_check_answers_by_role(c, method):
    nodes = by_role(c)
    for path, wanted in CHECKS.items():
        wait_until(lambda path=path, wanted=wanted: tuple(code(n, path, method) for n in nodes) == wanted,
                   f"{method} {path}: {wanted}, not {tuple(code(n, path, method) for n in nodes)}")


def test_a_check_has_the_status_as_its_body_and_a_probe_has_none(c):
    primary, sync, _ = by_role(c)
    for path in ("/primary", "/replica", "/health"):
        status, headers, body = ask(primary, path)
        assert headers["Content-Type"] == "application/json" and int(headers["Content-Length"]) == len(body)
        assert json.loads(body)["patroni"]["name"] == primary.name, (status, path)
        assert STALE not in headers
    for path in ("/liveness", "/readiness"):
        assert ask(sync, path)[2] == ""


def test_a_tag_of_the_configuration_is_one_of_the_checks(c):
    first, *others = c.nodes
    assert get(first, "/patroni")["tags"] == {"clonefrom": True}
    for node in others:
        assert "tags" not in get(node, "/patroni")
        assert code(node, "/health?tag_clonefrom=true") == 503
    assert code(first, "/health?tag_clonefrom=true") == 200
    tagged = [m["name"] for m in get(others[0], "/cluster")["members"] if m.get("tags") == {"clonefrom": True}]
    assert tagged == [first.name]


def test_a_standby_whose_replay_is_paused_lags(c):
    primary, _, standby = by_role(c)
    standby.sql("SELECT pg_wal_replay_pause()")
    try:
        wait_until(lambda: get(standby, "/patroni")["xlog"]["paused"], "it says that it is paused")
        primary.sql("CREATE TABLE IF NOT EXISTS paused AS SELECT g, repeat('x', 200) FROM generate_series(1, 10000) g")
        wait_until(lambda: code(standby, "/replica?lag=1MB") == 503, "it lags by more than 1 MB")
        assert code(standby, "/async?lag=1MB") == 503
        assert code(standby, f"/replica?lag={LAG_MAX}") == 200
        assert code(standby, "/replica") == 200
        wait_until(lambda: code(standby, "/readiness?lag=1MB") == 503, "it is not ready")
        wait_until(lambda: code(standby, "/readiness?lag=1MB&mode=write") == 200, "what it received is enough")
        xlog = get(standby, "/patroni")["xlog"]
        assert xlog["received_location"] > xlog["replayed_location"] + (1 << 20)
        member = wait_until(lambda: next((m for m in get(primary, "/cluster")["members"]
                                          if m["name"] == standby.name and m["replay_lag"] > 1 << 20), None), "the list")
        assert member["lag"] == member["replay_lag"]
    finally:
        standby.sql("SELECT pg_wal_replay_resume()")
    wait_until(lambda: code(standby, "/replica?lag=1MB") == 200, "it has caught up")


# ---- status ----


def test_the_status_is_what_postgresql_says(c):
    primary, sync, standby = by_role(c)
    timeline = int(primary.value("SELECT pg_walfile_name(pg_current_wal_lsn())")[:8], 16)
    for node in (primary, sync, standby):
        body = get(node, "/patroni")
        assert body["state"] == "running"
        assert body["patroni"] == {"version": "4.1.4", "scope": c.scope, "name": node.name}
        assert body["server_version"] == node.value("SELECT current_setting('server_version_num')::int")
        assert body["database_system_identifier"] == str(node.value(
            "SELECT system_identifier FROM pg_control_system()"))
        started = datetime.datetime.fromisoformat(body["postmaster_start_time"])
        assert abs(started - node.value("SELECT pg_postmaster_start_time()")) < datetime.timedelta(milliseconds=1)
        assert abs(body["dcs_last_seen"] - time.time()) < 30
        assert body["timeline"] == timeline
        assert "pause" not in body and "cluster_unlocked" not in body and "pending_restart" not in body
    body = get(primary, "/patroni")
    assert body["role"] == "primary" and set(body["xlog"]) == {"location"}
    flushed = primary.value("SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint")
    assert 0 <= flushed - body["xlog"]["location"] < 1 << 24
    rows = {r["application_name"]: r for r in body["replication"]}
    assert set(rows) == {sync.name, standby.name}
    assert set(rows[sync.name]) == {"usename", "application_name", "client_addr", "state", "sync_state", "sync_priority"}
    assert rows[sync.name]["sync_state"] in ("sync", "quorum") and rows[sync.name]["state"] == "streaming"
    assert rows[standby.name]["sync_state"] == "async" and rows[standby.name]["client_addr"] == standby.address
    body = get(sync, "/patroni")
    assert body["role"] == "replica" and body["sync_standby"] is True and body["replication_state"] == "streaming"
    assert set(body["xlog"]) == {"received_location", "replayed_location", "replayed_timestamp", "paused"}
    assert body["xlog"]["paused"] is False
    assert "sync_standby" not in get(standby, "/patroni")


def test_the_cluster_is_patronis(c):
    primary, sync, standby = by_role(c)
    for node in c.nodes:
        body = get(node, "/cluster")
        assert set(body) == {"members", "scope"} and body["scope"] == c.scope
        for m in body["members"]:
            other = c[m["name"]]
            assert (m["host"], m["port"]) == (other.address, other.ports["pg"])
            assert m["api_url"] == f"http://{other.address}:{other.ports['rest']}/patroni"
            assert m["state"] == ("running" if other is primary else "streaming")
            lags = {"receive_lag", "receive_lsn", "replay_lag", "replay_lsn", "lag", "lsn"}
            assert (lags <= set(m)) == (other is not primary)
            if other is not primary:
                assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", m["lsn"]) and m["lag"] >= 0


def test_the_configuration_is_the_record(c):
    bodies = [get(n, "/config") for n in c.nodes]
    assert bodies[0] == bodies[1] == bodies[2] == c.record("config")
    assert bodies[0]["synchronous_mode"] == "on" and bodies[0]["ttl"] == 5


def test_a_setting_that_waits_for_a_restart_shows(c):
    was = c.nodes[0].value("SHOW max_connections")
    for value, pending in ((str(int(was) + 10), True), (was, False)):
        c.nodes[0].ctl("edit-config", "-p", f"max_connections={value}")
        for node in c.nodes:
            wait_until(lambda node=node, pending=pending: get(node, "/patroni").get("pending_restart", False) is pending,
                       f"{node}: pending_restart is {pending}")
            assert metrics(node)["patroni_pending_restart",] == pending
        wait_until(lambda pending=pending: all(m.get("pending_restart", False) is pending
                                               for m in get(c.nodes[0], "/cluster")["members"]), "the members show it")


def test_there_is_no_failsafe_mode(c):
    assert code(c.nodes[0], "/failsafe") == 502


# ---- metrics ----

SAMPLE = re.compile(r'([a-z_:][a-z0-9_:]*)\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\} (-?[0-9.]+(?:e[+-]?\d+)?)')
PATRONI_NAMES = """version postgres_running postmaster_start_time primary xlog_location standby_leader replica
    sync_standby quorum_standby xlog_received_location xlog_replayed_location xlog_replayed_timestamp xlog_paused
    postgres_streaming postgres_in_archive_recovery postgres_server_version cluster_unlocked failsafe_mode_is_active
    failsafe_mode_enabled postgres_timeline dcs_last_seen pending_restart is_paused postgres_state
    failover_priority""".split()
REGENT_NAMES = """build_info lease_remaining_seconds is_leader fence_armed failovers_total
    failover_duration_seconds_count demotions_total loop_lag_seconds_count sync_standbys members dcs_ready
    replication_lag_bytes leader_token view_age_seconds""".split()


def metrics(node):
    """{(name, label=value...): number}; every line must be sound."""
    status, headers, text = ask(node, "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    types, found = {}, {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in types and line.endswith("."), line
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in types and kind in ("gauge", "counter", "histogram")
            types[name] = kind
        else:
            m = SAMPLE.fullmatch(line)
            assert m, line
            base = re.sub(r"_(bucket|sum|count)$", "", m[1])
            assert base in types or m[1] in types, line
            labels = dict(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', m[2]))
            assert labels["name"] == node.name and labels["scope"], line
            key = (m[1], *sorted((k, v) for k, v in labels.items() if k not in ("scope", "name")))
            assert key not in found, line
            found[key] = float(m[3])
    return found


def test_the_metrics_have_every_name_and_are_sound(c):
    primary, sync, standby = by_role(c)
    for node in c.nodes:
        wait_until(lambda node=node: ("etcd_server_has_leader",) in metrics(node), f"{node}: the DCS has told")
    for node in c.nodes:
        found = metrics(node)
        names = {key[0] for key in found}
        assert {f"patroni_{n}" for n in PATRONI_NAMES} <= names
        assert {f"regent_{n}" for n in REGENT_NAMES} - {"regent_demotions_total"} <= names
        assert found["patroni_version",] == 40104 and found["patroni_postgres_state",] == 5
        assert found["patroni_primary",] == (node is primary) and found["patroni_replica",] == (node is not primary)
        assert found["patroni_sync_standby",] == (node is sync)
        assert found["patroni_postgres_streaming",] == (node is not primary)
        assert (found["patroni_xlog_location",] > 0) == (node is primary)
        assert (found["patroni_xlog_replayed_location",] > 0) == (node is not primary)
        assert found["regent_is_leader",] == (node is primary) == found["regent_fence_armed",]
        assert 0 < found["regent_lease_remaining_seconds",] <= 5
        assert found["regent_sync_standbys",] == 1 and found["regent_members",] == 3
        assert found["etcd_server_has_leader",] == 1 and found["regent_raft_voters",] == 3
        assert found["etcd_mvcc_db_total_size_in_bytes",] > 0 and found["etcd_server_quota_backend_bytes",] > 0
        assert found["etcd_server_leader_changes_seen_total",] >= 1 and found["etcd_server_is_learner",] == 0
        assert found["regent_dcs_watches",] >= 1  # its agent's own
        for reason in ("failover", "switchover", "restart"):
            name, of = "regent_failover_duration_seconds", ("reason", reason)
            buckets = [v for k, v in found.items() if k[0] == f"{name}_bucket" and of in k]
            assert buckets == sorted(buckets) and len(buckets) == 10
            assert found[f"{name}_count", of] == buckets[-1] <= found["regent_failovers_total", of]
    wait_until(lambda: sum(metrics(n)["etcd_server_is_leader",] for n in c.nodes) == 1, "one leads the store")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say(c):
    for node in c.nodes:
        text = ask(node, "/metrics")[2]
        done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def root_dir():
    return pathlib.Path(__file__).resolve().parents[2]


def deploy_dir():
    return root_dir() / "deploy"


def test_every_metric_and_every_path_stands_in_the_manual(c):
    page = (root_dir() / "docs/rest.md").read_text(encoding="utf-8")
    names = {name for node in c.nodes for name in re.findall(r"^# TYPE (\S+)", ask(node, "/metrics")[2], re.M)}
    assert not [n for n in names if not n.startswith("patroni_") and not re.search(rf"`{n}[`{{]", page)]
    for path, verbs in get(c.nodes[0], "/openapi.json")["paths"].items():
        shown = {f"{verb.upper()} {path}" for verb in verbs} | ({path} if "get" in verbs else set())
        assert any(f"`{words}`" in page for words in shown), path
        assert all(f"`{verb.upper()} {path}`" in page for verb in verbs if verb not in ("get", "head", "options")), path


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_alert_rules_say_what_they_should():
    for words in (["check", "rules", "regent-alerts.yml"], ["test", "rules", "regent-alerts-test.yml"]):
        done = subprocess.run(["promtool", *words], cwd=deploy_dir() / "prometheus", text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_and_alerts_speak_of_metrics_there_are(c):
    def there():
        return {name for node in c.nodes for name in re.findall(r"^# TYPE (\S+)", ask(node, "/metrics")[2], re.M)}
    board = json.loads((deploy_dir() / "grafana" / "regent.json").read_text(encoding="utf-8"))
    exprs = [t["expr"] for p in board["panels"] for t in p["targets"]]
    exprs += [a["expr"] for a in board["annotations"]["list"]]
    exprs += re.findall(r"expr: (.*)", (deploy_dir() / "prometheus" / "regent-alerts.yml").read_text(encoding="utf-8"))
    assert len(exprs) > 30
    names = set()
    for expr in exprs:
        found = set(re.findall(r"\b(?:patroni|regent|etcd)_[a-z0-9_]+", expr))
        assert found or expr.startswith("up{"), expr
        names |= found
    names.discard("regent_disk_full_in_seconds")  # while a disk fills up
    def missing():
        known = there()
        return {n for n in names if n not in known and re.sub("_(bucket|sum|count)$", "", n) not in known}
    wait_until(lambda: not missing(), "every metric is there: slots and the DCS are looked at every few seconds", 60)


def test_prometheus_finds_every_node(c, tmp_path):
    c.wait_healthy()
    groups = get(c.nodes[0], "/sd/prometheus")
    assert {g["targets"][0]: g["labels"]["member"] for g in groups} == {f"{n.address}:{n.ports['rest']}": n.name for n in c.nodes}
    assert all(g["labels"]["cluster"] == c.scope and g["labels"]["__scheme__"] == "http" for g in groups)
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    port = free_port()
    first = c.nodes[0]
    (tmp_path / "p.yml").write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: regent\n  http_sd_configs:\n"
        f"  - url: http://{first.address}:{first.ports['rest']}/sd/prometheus\n"
        f"rule_files: [{deploy_dir()}/prometheus/regent-alerts.yml]\n", encoding="utf-8")
    server = subprocess.Popen(["prometheus", f"--config.file={tmp_path}/p.yml", f"--storage.tsdb.path={tmp_path}/data",
                               f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def scraped():
            with contextlib.suppress(OSError, ValueError, KeyError):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query=regent_is_leader", timeout=5) as answer:
                    return {r["metric"]["member"]: r["value"][1] for r in json.load(answer)["data"]["result"]}
        want = {n.name: "1" if n is c.primary() else "0" for n in c.nodes}
        wait_until(lambda: scraped() == want, "Prometheus has found and asked every node")
    finally:
        server.terminate()
        server.wait(timeout=20)


# ---- check_patroni ----


@pytest.fixture(scope="module")
def check_patroni(tmp_path_factory):
    """The program, or what pip makes of it in a place of its own; it is no package of Debian's."""
    if (path := shutil.which("check_patroni")) is not None:
        return path
    place = tmp_path_factory.mktemp("check_patroni")
    done = None
    for words in (["/usr/bin/python3", "-m", "venv", str(place)],
                  [str(place / "bin" / "pip"), "install", "-q", "--no-input", "--retries", "1", "--timeout", "10", "check-patroni>=2.2"]):
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        except (OSError, subprocess.TimeoutExpired) as e:
            pytest.skip(f"no check_patroni, and it cannot be installed: {e}")
        if done.returncode != 0:
            pytest.skip(f"no check_patroni, and it cannot be installed: {(done.stdout + done.stderr).strip()[-300:]}")
    return str(place / "bin" / "check_patroni")


def test_check_patroni_finds_what_it_looks_for(c, check_patroni):
    primary, sync, standby = by_role(c)
    timeline = str(get(primary, "/patroni")["timeline"])

    def says(node, words):
        done = subprocess.run([check_patroni, "-e", f"http://{node.address}:{node.ports['rest']}", *words.split()], capture_output=True, text=True,
                              timeout=60, check=False)
        print(node, words, done.returncode, done.stdout, done.stderr)
        return done.returncode
    ok, critical = 0, 2
    for node, wanted, commands in (  # each is a program in Python, which takes its time to start
            (primary, ok, ["cluster_has_leader", "cluster_has_replica -w 2: -c 1: --sync-warning 1: --sync-critical 1: --max-lag 1MB",
                           "cluster_node_count -c 3: --healthy-critical 3:", "cluster_is_in_maintenance", "cluster_has_scheduled_action", "node_is_alive",
                           "node_is_primary", "node_is_leader", "node_is_pending_restart", "node_patroni_version --patroni-version 4.1.4",
                           f"node_tl_has_changed --timeline {timeline}"]),
            (primary, critical, ["node_is_replica", "cluster_has_replica -c 3:", "cluster_node_count -c 4:", "cluster_config_has_changed --hash x",
                                 "node_tl_has_changed --timeline 99"]),
            (sync, ok, ["cluster_has_leader", "node_is_replica --is-sync"]),
            (standby, ok, ["node_is_replica --is-async --max-lag 1GB"]),
            (standby, critical, ["node_is_primary", "node_is_leader", "node_is_replica --is-sync"])):
        for words in commands:
            wait_until(lambda node=node, words=words, wanted=wanted: says(node, words) == wanted, f"{node} {words}: {wanted}")


# ---- its own description ----


def resolve(root, schema):
    return root["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


PYTHON = {"string": str, "integer": int, "object": dict, "array": list, "boolean": bool}


def check_body(root, schema, body, where):
    schema = resolve(root, schema)
    assert isinstance(body, PYTHON[schema["type"]]), where
    if schema["type"] == "object" and "properties" in schema:
        assert set(schema.get("required", [])) <= set(body), where
        known = schema["properties"]
        for name, value in body.items():
            if schema is not root["components"]["schemas"]["Config"]:
                assert name in known, f"{where}: {name} is not described"
            if name in known:
                assert isinstance(value, PYTHON[known[name]["type"]]), f"{where}: {name}"


def test_every_answer_is_as_described(c):
    root = get(c.nodes[0], "/openapi.json")
    assert root["openapi"].startswith("3.")
    assert {path.split("?")[0] for path, codes in CHECKS.items() if codes[0] != 404} <= set(root["paths"])
    for path, operations in root["paths"].items():
        for method, operation in operations.items():
            for node in c.nodes:
                status, headers, body = ask(node, path, method.upper())
                assert str(status) in operation["responses"], f"{method} {path}: {status}"
                content = operation["responses"][str(status)].get("content")
                if content:
                    assert headers["Content-Type"] == "application/json"
                    check_body(root, content["application/json"]["schema"], json.loads(body), f"{method} {path}")
                elif method in ("head", "options"):
                    assert body == ""


# ---- what changes something is refused without a password (test_rest_verbs.py), and bad input ----


@pytest.mark.parametrize("verb", ["PATCH /config", "PUT /config", "POST /switchover", "DELETE /switchover", "POST /failover",
                                  "POST /restart", "DELETE /restart", "POST /reload", "POST /reinitialize"])
def test_without_a_password_in_the_configuration_nothing_changes(c, verb):
    method, path = verb.split()
    before = c.record("config")
    status, _, body = ask(c.nodes[0], path, method, body='{"ttl": 30}', headers={"Content-Type": "application/json"})
    assert status == 403 and "restapi.authentication" in body and "from this machine too" in body
    assert c.record("config") == before


def test_other_methods_are_refused(c):
    for method, path in (("POST", "/nothing"), ("DELETE", "/patroni"), ("TRACE", "/primary"), ("BREW", "/")):
        status, _, body = ask(c.nodes[0], path, method)
        assert status == 501 and f"Unsupported method ('{method}')" in body
    for path in ("/switchover", "/restart", "/reinitialize"):
        assert code(c.nodes[0], path) == 404


def test_bad_requests_are_refused_and_the_node_lives_on(c):
    node = c.nodes[0]
    assert b" 413 " in raw(node, b"POST /config HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", False)
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    raw(node, b"POST /config HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + 4 * chunk)
    for bad in (b"nonsense\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 1000,
                b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: x\r\n" + b"H: " + b"y" * 100000 + b"\r\n\r\n"):
        first = raw(node, bad).split(b"\r\n", 1)[0]
        assert first == b"" or re.match(rb"HTTP/1\.[01] [45]\d\d ", first), (bad[:40], first)
    many = "&".join(f"tag_{i}=1" for i in range(100))
    assert code(node, f"/replica?{many}") == 400
    assert code(node, "/primary%00x") in (200, 404, 503) and code(node, "/%2e%2e/primary") == 404
    assert code(node, "/health") == 200


def test_slow_clients_do_not_keep_others_waiting(c):
    node = c.nodes[0]
    with contextlib.ExitStack() as stack:
        metronome = stack.enter_context(Metronome())
        for _ in range(50):
            s = stack.enter_context(socket.create_connection((node.address, node.ports["rest"]), timeout=30))
            s.sendall(b"GET /primary HTTP/1.1\r\nHo")
        begin = time.monotonic()
        assert code(node, "/health") == 200
        assert time.monotonic() - begin < 2 or metronome.worst_ms() > OUT_OF_TIME_MS


# ---- the journal ----


def test_the_journal_has_what_explain_tells_newest_first(c):
    node = c.nodes[0]
    rows = get(node, "/journal?limit=100")
    assert {"leader", "following"} & {r["rule"] for r in rows} and {r["node"] for r in rows} <= {n.name for n in c.nodes}
    assert [r["id"] for r in rows] == sorted((r["id"] for r in rows), reverse=True)
    told = {r["ID"]: r for r in json.loads(node.ctl("explain", "-n", "1000", "-f", "json").stdout)}
    for r in rows:
        assert told[r["id"]]["Reason"] == r["reason"] and told[r["id"]]["Time"] == r["time"] and told[r["id"]]["Token"] == r["token"]
    assert get(node, "/journal?limit=3")[-1] in get(node, "/journal?limit=10") and len(get(node, "/journal?limit=3")) == 3
    for bad in ("0", "101", "x", "-1"):
        status, _, body = ask(node, f"/journal?limit={bad}")
        assert status == 400 and "from 1 to 100" in body
    assert ask(node, "/journal", "HEAD")[0] == ask(node, "/journal", "OPTIONS")[0] == 200


# ---- a node without PostgreSQL ----


def test_a_witness_lives_and_tells_of_the_dcs(c):
    node = Node(c, "w1", "127.0.0.1")
    token = c.nodes[0].ctl("token", "create", "--role", "witness").stdout.strip()
    node.ctl("join", c.nodes[0].dcs_address(), "--token", token, "--name", node.name, "--listen", node.dcs_address(),
             "--data-dir", str(node.dir), "--rest-port", str(node.ports["rest"]), "--witness")
    node.start()
    try:
        wait_until(lambda: node.rest("/cluster")[0] == 200 and len(get(node, "/cluster")["members"]) == 3, "it knows")
        assert get(node, "/patroni")["role"] == "uninitialized"
        assert {path for path, codes in CHECKS.items() if 503 in codes and code(node, path) == 200} == set()
        assert code(node, "/liveness") == 200 and code(node, "/health") == 503 and code(node, "/readiness") == 503
        wait_until(lambda: metrics(node).get(("etcd_server_has_leader",)) == 1, "its DCS has told")
        assert metrics(node)["patroni_postgres_running",] == 0
        assert sorted(get(node, "/config")) == sorted(get(c.nodes[0], "/config"))
    finally:
        c.nodes[0].ctl("member", "remove", node.name, "--force", check=False)
        node.kill()


# ---- faults: these come last ----


def test_a_node_without_a_quorum_answers_from_what_it_knows(c):
    primary, sync, standby = by_role(c)
    history = get(standby, "/history")
    for node in (primary, sync):
        node.kill()
    try:
        wait_until(lambda: ask(standby, "/cluster")[1].get(STALE) == "true", "the answer is marked stale")
        with Metronome() as metronome:
            for path in ("/cluster", "/config", "/history", "/patroni", "/metrics", "/journal"):
                asked = time.monotonic()
                status, headers, _ = ask(standby, path)
                took_s = time.monotonic() - asked
                assert status == 200 and headers[STALE] == "true", path
                assert took_s < 1 or metronome.worst_ms() > OUT_OF_TIME_MS, path
        assert get(standby, "/history") == history
        for path in ("/sync", "/async", "/quorum", "/primary", "/leader"):
            assert code(standby, path) == 503
        assert code(standby, "/health") == 200 and code(standby, "/liveness") == 200
        wait_until(lambda: get(standby, "/patroni")["dcs_last_seen"] < time.time() - 2, "it was seen a while ago")
        assert metrics(standby)["regent_dcs_ready",] == 0
    finally:
        for node in (primary, sync):
            node.start()
    c.wait_healthy()
    wait_until(lambda: STALE not in ask(standby, "/cluster")[1], "it is up to date again")


def test_a_failover_is_counted_and_is_in_the_history(c):
    primary, sync, standby = by_role(c)
    before = metrics(standby)["regent_failovers_total", ("reason", "failover")]
    timeline = get(standby, "/patroni")["timeline"]
    both = []
    stop = threading.Event()

    def leads(node):
        return node.rest("/primary", "OPTIONS")[0] == 200

    def watch():
        while not stop.wait(0.05):
            said = [n for n in c.nodes if leads(n)]
            # One after the other they may; at once: when the first says so still after the second.
            if len(said) > 1 and any(leads(n) for n in said[:-1]):
                both.append(said)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        primary.kill()
        wait_until(lambda: sync.rest("/primary")[0] == 200, "the synchronous standby leads")
        wait_until(lambda: metrics(standby)["regent_failovers_total", ("reason", "failover")] == before + 1,
                   "the failover is counted")
    finally:
        stop.set()
        watcher.join()
    assert not both, "two nodes said 200 to /primary"
    wait_until(lambda: metrics(standby)["regent_failover_duration_seconds_count", ("reason", "failover")] >= 1,
               "it is timed")
    row = wait_until(lambda: next((r for r in get(standby, "/history") if r[0] == timeline), None), "the history has it")
    assert isinstance(row[1], int) and row[4] == sync.name
    assert datetime.datetime.fromisoformat(row[3]).tzinfo is not None
    primary.start()
    c.wait_healthy()


def test_a_switchover_is_counted_as_one(c):
    primary, sync, _ = by_role(c)
    before = metrics(sync)["regent_failovers_total", ("reason", "switchover")]

    def demotions():
        return sum(v for k, v in metrics(primary).items() if k[0] == "regent_demotions_total")
    demoted = demotions()
    primary.ctl("switchover", "--candidate", sync.name, "--force")
    wait_until(lambda: sync.rest("/primary")[0] == 200, f"{sync} leads")
    wait_until(lambda: metrics(sync)["regent_failovers_total", ("reason", "switchover")] == before + 1, "counted")
    wait_until(lambda: demotions() == demoted + 1, "the demotion, too")
