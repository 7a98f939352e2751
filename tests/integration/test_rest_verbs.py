"""REST's verbs that change something, on a real cluster: Patroni's bodies, codes and texts; who may, and who may not."""
import base64
import datetime
import http.client
import json
import ssl
import subprocess

import pytest

pytest.importorskip("psycopg2")

from cluster import Cluster, PG_BIN, build_dir, wait_until  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
]
NAME, PASSWORD = "operator", "sesame"
SETS = [f"restapi.authentication.username={NAME}", f"restapi.authentication.password={PASSWORD}"]


def basic(password=PASSWORD):
    return {"Authorization": "Basic " + base64.b64encode(f"{NAME}:{password}".encode()).decode()}


def ask(node, verb, body=None, headers=None, context=None):
    """(status, headers, body) of "POST /restart"."""
    method, path = verb.split()
    if context is None:
        link = http.client.HTTPConnection(node.address, node.ports["rest"], timeout=90)
    else:
        link = http.client.HTTPSConnection(node.address, node.ports["rest"], timeout=90, context=context)
    try:
        text = body if body is None or isinstance(body, str) else json.dumps(body)
        link.request(method, path, body=text, headers=basic() if headers is None else headers)
        answer = link.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        link.close()


def does(node, verb, body=None):
    status, _, text = ask(node, verb, body)
    return status, text


@pytest.fixture(name="cluster", scope="module")
def cluster_fixture():
    with Cluster(sets=SETS, all_sets=SETS) as cluster:
        cluster.form()
        yield cluster


@pytest.fixture(name="c")
def healthy_fixture(cluster, request):
    failures = request.session.testsfailed
    cluster.wait_healthy()
    yield cluster
    if request.session.testsfailed > failures:
        print(cluster.report())
    else:
        cluster.wait_healthy()


def by_role(c):
    def three():
        named = {m["Role"]: c[m["Member"]] for m in c.members()}
        return named if set(named) == {"Leader", "Sync Standby", "Replica"} else None
    named = wait_until(three, "one of each role")
    return named["Leader"], named["Sync Standby"], named["Replica"]


def said(c, record, field):
    """None: the record is not there, or nobody answers."""
    return (c.record(record) or {}).get(field)


def later(seconds=3600):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds")


def test_who_has_no_password_is_refused(c):
    node = c.nodes[0]
    before = c.record("config")
    for headers, text in (({}, "no auth header received"), (basic("guess"), "not authenticated"),
                          ({"Authorization": "Bearer x"}, "not authenticated")):
        status, answered, body = ask(node, "PATCH /config", {"ttl": 9}, headers)
        assert (status, body) == (401, text) and answered["WWW-Authenticate"] == 'Basic realm="Patroni"'
    assert c.record("config") == before
    # What only reads needs none.
    assert ask(node, "GET /config", headers={})[0] == 200


def test_another_sites_page_changes_nothing(c):
    """A browser adds a password that it remembers to whatever page sends the request, and says which page that is."""
    node = c.nodes[0]
    for origin in ("https://evil.example", "null", f"http://{node.address}:1"):
        assert ask(node, "PATCH /config", {"ttl": 20}, {**basic(), "Origin": origin})[::2] == (403, "this request comes from another site's page")
    own = {"Origin": f"http://{node.address}:{node.ports['rest']}"}
    assert ask(node, "POST /reload", None, {**basic(), **own})[0] == 202
    status, headers, _ = ask(node, "POST /reload", None, {**own, "X-Requested-With": "status page"})
    assert status == 401 and "WWW-Authenticate" not in headers, "the page asks for the password, not the browser"


def test_the_configuration_is_patched_and_replaced(c):
    node = c.standbys()[0]
    status, body = does(node, "PATCH /config", {"maximum_lag_on_failover": 4096, "postgresql": {"parameters": {"work_mem": "5MB"}}})
    assert status == 200 and json.loads(body)["maximum_lag_on_failover"] == 4096
    assert c.record("config")["postgresql"]["parameters"]["work_mem"] == "5MB"
    wait_until(lambda: all(n.value("SHOW work_mem") == "5MB" for n in c.nodes), "everybody has it")
    document = json.loads(body)
    assert does(node, "PATCH /config", {"postgresql": {"parameters": {"work_mem": None}}})[0] == 200
    assert "work_mem" not in json.dumps(c.record("config"))
    document["maximum_lag_on_failover"] = 1048576
    assert does(node, "PUT /config", document)[0] == 200
    assert c.record("config")["maximum_lag_on_failover"] == 1048576
    kept = c.record("config")
    wait_until(lambda: c.record("settings"), "the leader has told which parameters there are")
    for body, part in (({"ttl": 1}, "ttl"), ({"ttl": 2}, "ttl"), ({"tll": 9}, "ttl"), ("{", "not a JSON object"),
                       ({"postgresql": {"parameters": {"work_mem": "5 parsecs"}}}, "work_mem")):
        status, text = does(node, "PATCH /config", body)
        assert status == 400 and part in text, (body, status, text)
    # The same words of the CLI and of the document as a whole.
    bad = {**kept, "postgresql": {"parameters": {"work_mem": "5 parsecs"}}}
    status, text = does(node, "PUT /config", bad)
    done = node.ctl("edit-config", "-p", "work_mem=5 parsecs", check=False)
    assert (status, done.returncode) == (400, 1) and text.strip() in done.stderr, (text, done)
    assert does(node, "PATCH /config", "")[0] == 411
    assert c.record("config") == kept
    assert does(node, "PATCH /config", {"pause": True})[0] == 200
    wait_until(lambda: said(c, "sync", "disarmed") is True, "paused")
    assert does(node, "PATCH /config", {"pause": False})[0] == 200
    wait_until(lambda: said(c, "sync", "disarmed") is False, "resumed")


def test_a_restart_answers_when_it_is_done(c):
    leader, sync, _ = by_role(c)
    for node in (sync, leader):
        before = node.postmaster()
        assert does(node, "POST /restart", {}) == (200, "restarted successfully")
        assert node.postmaster() not in (None, before)
    wait_until(lambda: c.leader() is leader, "it leads as before")
    assert does(sync, "POST /restart", {"role": "primary"}) == (503, "restart conditions are not satisfied")
    assert does(sync, "DELETE /restart") == (404, "no restarts are scheduled")
    assert does(sync, "POST /restart", {"schedule": later()}) == (202, "Restart scheduled")
    wait_until(lambda: json.loads(ask(sync, "GET /patroni")[2]).get("scheduled_restart"), "it shows")
    assert does(sync, "POST /restart", {"schedule": later()}) == (409, "Another restart is already scheduled")
    assert does(sync, "DELETE /restart") == (200, "scheduled restart deleted")


def test_a_reload_and_a_reinitialize_are_begun(c):
    leader, _, replica = by_role(c)
    before = leader.value("SELECT pg_conf_load_time()")
    assert does(leader, "POST /reload") == (202, "reload scheduled")
    wait_until(lambda: leader.value("SELECT pg_conf_load_time()") > before, "read again")
    assert does(leader, "POST /reinitialize") == (503, "I am the leader, can not reinitialize")
    old = wait_until(lambda: said(c, f"members/{replica.name}", "incarnation"), "its data has a name")
    assert does(replica, "POST /reinitialize", {}) == (200, "reinitialize started")
    wait_until(lambda: said(c, f"members/{replica.name}", "incarnation") not in (None, "", old), "it has new data")


def test_a_switchover_and_a_failover_name_the_new_leader(c):
    leader, sync, replica = by_role(c)
    assert does(leader, "POST /switchover", {"leader": sync.name}) == (412, "leader name does not match")
    assert does(leader, "POST /switchover", {"leader": leader.name, "candidate": replica.name}) == (
        412, "candidate name does not match with sync_standby")
    assert does(leader, "DELETE /switchover")[0] == 404
    body = {"leader": leader.name, "candidate": sync.name}
    assert does(replica, "POST /switchover", {**body, "scheduled_at": later()}) == (202, "Switchover scheduled")
    wait_until(lambda: json.loads(ask(leader, "GET /cluster")[2]).get("scheduled_switchover", {}).get("to") == sync.name, "it shows")
    assert does(replica, "POST /switchover", body)[0] == 503
    assert does(leader, "DELETE /switchover") == (200, "scheduled switchover deleted")
    # Asked of one that is no part of it.
    assert does(replica, "POST /switchover", body) == (200, f'Successfully switched over to "{sync.name}"')
    c.wait_healthy()
    leader, sync, _ = by_role(c)
    assert does(leader, "POST /failover", {"candidate": sync.name}) == (200, f'Successfully failed over to "{sync.name}"')
    wait_until(lambda: c.leader() is sync, "it leads")


# ---- certificates and addresses ----


def openssl(directory, *words):
    subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)


def make_certificates(directory):
    """A CA, a server's and a client's certificate, and one that another CA signed."""
    openssl(directory, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    for name in ("server", "client"):
        openssl(directory, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-out", f"{name}.crt")
    openssl(directory, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=stranger", "-keyout", "stranger.key", "-out", "stranger.crt")


def context_of(directory, name=None):
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.check_hostname = False
    if name:
        context.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
    return context


def test_certificates_and_addresses_are_asked_for(tmp_path):
    tmp_path.chmod(0o755)
    make_certificates(tmp_path)
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    sets = [f"restapi.certfile={tmp_path}/server.crt", f"restapi.keyfile={tmp_path}/server.key",
            f"restapi.cafile={tmp_path}/ca.crt", "restapi.verify_client=optional"]
    with Cluster(nodes=1, sync=False, sets=sets) as cluster:
        node = cluster.nodes[0]
        node.setup(sets=cluster.sets)
        node.start()
        anybody, client, stranger = (context_of(tmp_path, name) for name in (None, "client", "stranger"))

        def answers(verb, context, body=None):
            try:
                return ask(node, verb, body, {}, context)[:3:2]
            except (OSError, http.client.HTTPException):
                return None

        wait_until(lambda: (answers("GET /primary", anybody) or [0])[0] == 200, "it leads")
        assert answers("PATCH /config", anybody, {"ttl": 6}) == (403, "client certificate required")
        assert answers("PATCH /config", stranger, {"ttl": 6}) in (None, (403, "client certificate required"))
        assert answers("PATCH /config", client, {"ttl": 6})[0] == 200
        node.kill()
        text = node.config.read_text(encoding="utf-8").replace("optional", "required")
        node.config.write_text(text, encoding="utf-8")
        node.start()
        wait_until(lambda: (answers("GET /primary", client) or [0])[0] == 200, "it leads again")
        assert answers("GET /primary", anybody) in (None, (403, "client certificate required"))
