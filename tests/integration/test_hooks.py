"""Commands of the administrator that Regent waits for: post_bootstrap, pre_promote, before_stop.

    python3 -m pytest tests/integration/test_hooks.py
"""
import signal

import pytest

pytest.importorskip("psycopg2")

from cluster import Cluster, PG_BIN, build_dir, wait_until  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
]
# What it is told goes into NODE.HOOK; NODE.HOOK.fails and NODE.HOOK.hangs say what becomes of it.
HOOK = """#!/bin/sh
at={dir}/hooks/$1.$2
echo "called $3" >> $at
[ $2 != post_bootstrap ] || {bin}/psql "$3" -qc "CREATE TABLE IF NOT EXISTS made AS SELECT 'by the hook' AS who"
[ ! -e $at.hangs ] || sleep 600
[ ! -e $at.fails ]
"""


@pytest.fixture(name="c")
def cluster_fixture(request):
    with Cluster(sync=True, ttl=10, sets=["bootstrap.dcs.synchronous_node_count=2"]) as c:
        hooks = c.dir / "hooks"
        hooks.mkdir()
        hooks.chmod(0o777)
        script = c.dir / "hook"
        script.write_text(HOOK.format(dir=c.dir, bin=PG_BIN))
        script.chmod(0o755)
        for node in c.nodes:
            setup = node.setup
            names = {"bootstrap.post_bootstrap": "post_bootstrap", "postgresql.pre_promote": "pre_promote",
                     "postgresql.before_stop": "before_stop"}
            words = [f"{key}={script} {node.name} {name}" for key, name in names.items()] + ["postgresql.hook_timeout=45"]
            node.setup = lambda *args, s=setup, words=words, sets=(), **kw: s(*args, sets=[*sets, *words], **kw)
        c.told = lambda node, hook: (hooks / f"{node.name}.{hook}").read_text().splitlines() \
            if (hooks / f"{node.name}.{hook}").exists() else []
        c.order = lambda node, hook, what: (hooks / f"{node.name}.{hook}.{what}").touch()
        c.allow = lambda node, hook, what: (hooks / f"{node.name}.{hook}.{what}").unlink()
        c.form()
        try:
            yield c
        finally:
            if request.session.testsfailed:
                print(c.report())


def test_hooks_are_waited_for_and_hold_up_no_fence(c):
    old = c.primary()
    assert all(wait_until(lambda n=n: n.value("SELECT who FROM made"), f"{n} has it") == "by the hook" for n in c.nodes)
    assert len(c.told(old, "post_bootstrap")) == 1 and not any(c.told(n, "pre_promote") for n in c.nodes)
    # A switchover that the candidate's hook refuses: the old primary takes over again.
    new, other = c.standbys()
    wait_until(lambda: len(c.record("sync")["v"]) == 2, "both are in the record")
    c.order(new, "pre_promote", "fails")
    done = old.ctl("switchover", "--candidate", new.name, "--force", check=False)
    assert done.returncode == 1 and f'"{old.name}" leads again' in done.stderr, done
    assert c.told(new, "pre_promote") == ["called "]
    c.wait_healthy()
    assert c.primary() is not new
    assert c.told(old, "before_stop"), "it was told of the stop"
    # A failover: who refuses gives way to who does not.
    c.allow(new, "pre_promote", "fails")
    old = c.primary()
    new, other = c.standbys()
    wait_until(lambda: len(c.record("sync")["v"]) == 2, "both are in the record")
    c.order(new, "pre_promote", "fails")
    old.sql("INSERT INTO made VALUES ('before the failover')")
    old.kill()
    wait_until(lambda: c.leader() is other, f"{other} leads")
    assert other.value("SELECT count(*) FROM made") == 2
    assert c.told(other, "pre_promote") == ["called "]
    c.allow(new, "pre_promote", "fails")
    old.start()
    c.wait_healthy()
    # A hook that hangs before a stop, and a daemon that stands still: the fence does not wait.
    c.order(other, "before_stop", "hangs")
    before = len(c.told(other, "before_stop"))
    postmaster = other.postmaster()
    other.ctl("restart", other.name, "--force", "--timeout", "1", check=False)
    wait_until(lambda: len(c.told(other, "before_stop")) > before, "the hook runs")
    assert other.postmaster() == postmaster
    other.signal("regentd", signal.SIGSTOP)
    try:
        wait_until(lambda: other.postmaster() is None, "the fence ended PostgreSQL")
        c.new_leader(other)
    finally:
        other.signal("regentd", signal.SIGCONT)
    c.allow(other, "before_stop", "hangs")
    c.wait_healthy()
