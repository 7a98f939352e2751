"""Two sites: a cluster that takes writes, and one that follows it; and the change of places between them."""
import json
import shutil
import socket

import pytest

from cluster import PATIENCE_S, PG_BIN, Cluster, wait_until

COPIED = "event=action action=(clone|rewind)"
TABLE = "CREATE TABLE IF NOT EXISTS kept (n bigint PRIMARY KEY)"


class Site(Cluster):
    """Its leader may be a standby leader."""

    def __init__(self, **options):
        super().__init__(**options)
        self.tell = self.dir / "tell"
        self.tell.write_text('#!/bin/sh\necho "$2 $3" >> "$1"\n')
        self.tell.chmod(0o755)

    def leader(self, besides=None):
        return next((n for n in self.nodes if n is not besides and n.rest("/leader")[0] == 200 and n.rest("/health")[0] == 200), None)

    def role(self, path):
        """The node for which this health check is 200, if any."""
        return next((n for n in self.nodes if n.rest(path)[0] == 200), None)

    def form_of(self, other):
        """The first copy is of the primary of `other`, whose passwords come with it."""
        first = self.nodes[0]
        primary = other.primary()
        secrets = self.dir / "other.yml"
        shutil.copy2(other.nodes[0].dir / "secrets.yml", secrets)
        if first.command("x")[0] == "setpriv":
            shutil.chown(secrets, "postgres")
        sets = [word for s in [*self.sets, *self.callbacks(first)] for word in ("--set", s)]
        first.ctl("init", "--scope", self.scope, "--name", first.name, "--listen", first.dcs_address(), "--data-dir", str(first.dir),
                  "--pg-data", str(first.pgdata), "--pg-bin", str(PG_BIN), "--pg-port", str(first.ports["pg"]),
                  "--rest-port", str(first.ports["rest"]), "--secrets", str(secrets),
                  "--standby-of", f"{primary.address}:{primary.ports['pg']}", *sets)
        self.password = other.password
        first.start()
        token = wait_until(lambda: self._token(first, len(self.nodes) - 1), "a token is made", PATIENCE_S)
        for node in self.nodes[1:]:
            node.setup(token=token, first=first.dcs_address(), sets=self.callbacks(node))
            node.start()

    def callbacks(self, node):
        """They write down the action and the role."""
        return [f"postgresql.callbacks.{event}={self.tell} {node.dir}/told" for event in ("on_start", "on_stop", "on_role_change")]

    @staticmethod
    def told(node):
        file = node.dir / "told"
        return [line.split()[:2] for line in file.read_text().splitlines()] if file.exists() else []

    def wait_standby(self):
        """A standby leader, and everybody else streams from it."""
        def ready():
            leader = self.role("/standby-leader")
            rest = {n for n in self.nodes if n is not leader}
            if leader is None or not self.streaming(leader) >= rest:
                return None
            told = {m["Member"]: m["State"] for m in self.members()}
            return leader if all(told.get(n.name) == "streaming" for n in rest) else None
        return wait_until(ready, "a standby leader, and standbys that stream from it")


@pytest.fixture(scope="module", name="sites")
def _sites(request):
    with Site(nodes=1, sync=False, ttl=10) as a, Site(nodes=2, sync=False, ttl=10) as b:
        try:
            a.form()
            a.primary().sql(TABLE)
            b.form_of(a)
            b.wait_standby()
            yield a, b
        finally:
            if request.session.testsfailed:
                print(a.report(), b.report(), sep="\n")


def _write(site, n):
    site.primary().sql("INSERT INTO kept VALUES (%s)", n)


def _has(node, n, deadline_s=PATIENCE_S):
    wait_until(lambda: node.value("SELECT count(*) FROM kept WHERE n = %s", n) == 1, f"{node} has row {n}", deadline_s)


def test_a_site_follows_another_and_takes_its_place(sites):
    a, b = sites
    # founded: everybody follows, nobody writes
    _write(a, 1)
    for node in b.nodes:
        _has(node, 1)
    first = b.wait_standby()
    second = next(n for n in b.nodes if n is not first)
    assert [first.answer(p)[0] for p in ("/primary", "/leader", "/standby_leader", "/read-only", "/replica")] == [503, 200, 200, 200, 503]
    assert [second.answer(p)[0] for p in ("/primary", "/leader", "/standby_leader", "/replica")] == [503, 503, 503, 200]
    assert json.loads(first.answer("/patroni")[1])["role"] == "standby_leader"
    assert "patroni_standby_leader{" in first.answer("/metrics")[1]
    assert {m["Member"]: m["Role"] for m in b.members()} == {first.name: "Standby Leader", second.name: "Replica"}

    # a switchover within the standby cluster: nobody is promoted, both go on following
    wait_until(lambda: ["on_role_change", "standby_leader"] in b.told(first), "its callback was told")
    wait_until(lambda: b.told(second) == [["on_start", "replica"]], "a standby's start was told")
    first.ctl("switchover", "--candidate", second.name, "--force")
    assert b.wait_standby() is second
    wait_until(lambda: b.told(second) == [["on_start", "replica"], ["on_role_change", "standby_leader"]], "a standby leader was told")
    wait_until(lambda: b.told(first)[-1:] == [["on_role_change", "replica"]], "one that leads no more was told")
    _write(a, 2)
    for node in b.nodes:
        _has(node, 2)
    assert second.value("SELECT timeline_id FROM pg_control_checkpoint()") == 1

    # the standby leader is lost
    second.kill()
    wait_until(lambda: b.role("/standby-leader") is first, "the other one leads")
    _write(a, 3)
    _has(first, 3)
    second.start()
    b.wait_standby()
    _has(second, 3)

    # the sites change places, and nobody's data has to be replaced
    old = a.primary()
    copies = [len(n.log_lines(COPIED)) for n in b.nodes]
    done = old.ctl("demote-cluster", "--host", first.address, "--port", str(first.ports["pg"]), "--force")
    assert "cluster is demoted" in done.stdout
    wait_until(lambda: a.role("/standby-leader") is old, "it goes on as a standby leader")
    assert a.role("/primary") is None
    done = first.ctl("promote-cluster", "--force")
    assert "cluster is promoted" in done.stdout
    wait_until(lambda: b.role("/primary") is first, "it leads")
    assert first.answer("/standby-leader")[0] == 503
    wait_until(lambda: b.told(first)[-2:] == [["on_role_change", "standby_leader"], ["on_role_change", "primary"]], "the promotion was told")
    _write(b, 4)
    _has(second, 4)
    _has(old, 4)
    assert old.sql("SELECT count(*) FROM kept") == [(4,)]
    assert not old.log_lines(COPIED)
    assert [len(n.log_lines(COPIED)) for n in b.nodes] == copies

    # each says no to what it is already
    assert first.ctl("promote-cluster", "--force", check=False).returncode == 4
    assert old.ctl("demote-cluster", "--host", "x", "--force", check=False).returncode == 4


def test_a_site_that_went_its_own_way_gives_way(sites):
    """The second site is promoted while the first still takes writes: the first is demoted too late."""
    a, b = sites  # they have changed places: b takes writes
    first = b.primary()
    standby = a.wait_standby()
    standby.ctl("promote-cluster", "--force")
    other = a.primary()
    first.sql("INSERT INTO kept VALUES (100)")
    other.sql("INSERT INTO kept VALUES (200)")
    # beyond the point where the other left it
    first.sql("INSERT INTO kept SELECT generate_series(1000, 2000)")
    # several addresses: of a node that is silent, of one that is off, and the primary's
    silent = socket.create_server(("127.0.0.1", 0))
    try:
        first.ctl("demote-cluster", "--host", f"127.0.0.1,127.0.0.1,{other.address}",
                  "--port", f"{silent.getsockname()[1]},1,{other.ports['pg']}", "--force")
        for node in b.nodes:
            _has(node, 200, 180)
            wait_until(lambda n=node: n.value("SELECT count(*) FROM kept WHERE n = 100 OR n >= 1000") == 0, f"{node} is a copy of the other site")
    finally:
        silent.close()
    leader = b.wait_standby()
    assert leader.log_lines("event=action action=(clone|rewind) .*target=@remote")
    assert not [n for n in b.nodes if n.rest("/primary")[0] == 200]
    other.sql("INSERT INTO kept VALUES (201)")
    for node in b.nodes:
        _has(node, 201)
