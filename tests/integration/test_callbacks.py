"""Programs of the administrator that are told what happens to PostgreSQL.

    python3 -m pytest tests/integration/test_callbacks.py
"""
import os
import pathlib
import re
import signal

import pytest

pytest.importorskip("psycopg2")

from cluster import Cluster, PG_BIN, build_dir, wait_until  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
]
EVENTS = ("on_start", "on_stop", "on_reload", "on_role_change", "on_restart")


@pytest.fixture(name="c")
def cluster_fixture(tmp_path, request, monkeypatch):
    told = tmp_path / "told"
    told.mkdir()
    for directory in (told, *tmp_path.parents):
        if str(directory).startswith(("/tmp/pytest", str(tmp_path))):
            directory.chmod(0o777)
    told.chmod(0o777)
    # It writes down what it was given, and by whom: the daemon's directory is the working one's sibling.
    script = tmp_path / "tell"
    script.write_text(f'#!/bin/sh\necho "$2 $3 $4" >> {told}/$1\n[ "$2" != on_reload ] || until [ -e {told}/end ]; do sleep 1; done\n')
    script.chmod(0o755)
    monkeypatch.setenv("REGENT_RESTAPI_AUTHENTICATION_PASSWORD", "not for everybody")
    with Cluster(sync=False, ttl=30) as cluster:
        cluster.told = lambda node: (told / node.name).read_text().splitlines() if (told / node.name).exists() else []
        setup = type(cluster.nodes[0]).setup

        def with_callbacks(node, *args, sets=(), **kwargs):
            return setup(node, *args, sets=[*sets, *(f"postgresql.callbacks.{e}={script} {node.name}" for e in EVENTS)],
                         **kwargs)
        for node in cluster.nodes:
            node.setup = with_callbacks.__get__(node)
        try:
            cluster.form()
            yield cluster
        finally:
            (told / "end").touch()
            if request.session.testsfailed:
                print(cluster.report(), {n.name: cluster.told(n) for n in cluster.nodes})


def were_called(c, node, *wanted):
    """The last calls, going by the daemon's log: a newer event ends the script of the one before, maybe before it has written anything."""
    calls = [re.search(r"action=(\S+) role=(\S+)", line).groups() for line in node.log_lines("event=callback .*calling")]
    return tuple(f"{action} {role} ha" for action, role in calls[-len(wanted):]) == wanted and c.told(node)[-1:] == [wanted[-1]]


def test_each_event_is_told_once_and_nothing_waits_for_it(c):
    old = c.primary()
    new, other = c.standbys()
    assert all(b"REGENT_" not in pathlib.Path(f"/proc/{pid}/environ").read_bytes() for pid in
               (old.pid_of("fence"), old.postmaster())), "passwords of the configuration go nowhere"
    wait_until(lambda: c.told(old)[:1] == ["on_start primary ha"] and c.told(new)[:1] == ["on_start replica ha"], "their starts were told")
    # The file of a node is read again: by a signal, and when it is asked for.
    text = new.config.read_text(encoding="utf-8")
    new.config.write_text(text.replace("callbacks:", "parameters: {work_mem: 7MB}\n  pg_hba: [local all all md5, host all all all md5, "
                                       "hostssl all all all md5]\n  callbacks:") + "tags: {nosync: true}\n")
    new.signal("regentd", signal.SIGHUP)
    wait_until(lambda: new.value("SHOW work_mem") == "7MB", "SIGHUP put it in force")
    wait_until(lambda: new.log_lines("event=reread .*in force: postgresql.parameters"), "it says what is in force")
    wait_until(lambda: new.log_lines("event=reread .*started again: tags.nosync"), "and what waits")
    waits = "keys of its file wait for a new start of regentd: tags.nosync"
    wait_until(lambda: waits in old.ctl("doctor", check=False).stdout, "doctor tells it, on any node")
    wait_until(lambda: new.log_lines("event=pg_hba .*hostssl record cannot match because SSL is disabled"), "PostgreSQL's own word")
    new.config.write_text("scope: [")
    new.signal("regentd", signal.SIGHUP)
    wait_until(lambda: new.log_lines("level=error .*event=reread .*nothing is changed: .*not valid YAML"), "a bad file is told")
    new.config.write_text(text)
    new.ctl("reload", new.name, "--force")
    wait_until(lambda: new.value("SHOW work_mem") == "4MB", "so did an order")
    wait_until(lambda: waits not in old.ctl("doctor", check=False).stdout, "nothing waits any more")
    # A callback that hangs holds up nothing.
    old.ctl("edit-config", "-p", "work_mem=9MB")
    for n in c.nodes:
        wait_until(lambda n=n: "on_reload" in " ".join(c.told(n)), f"{n} was told of the reload")
    c.switch_over(new)
    c.wait_healthy()
    wait_until(lambda: c.told(new)[-1:] == ["on_role_change primary ha"], "the new primary was told")
    wait_until(lambda: were_called(c, old, "on_stop primary ha", "on_role_change replica ha"), "the old one was told")
    os.kill(other.postmaster(), signal.SIGKILL)
    wait_until(lambda: were_called(c, other, "on_stop replica ha", "on_start replica ha"), "a crash was told")
    assert not any("on_restart" in line for n in c.nodes for line in c.told(n))
    other.ctl("restart", other.name, "--force")
    wait_until(lambda: were_called(c, other, "on_start replica ha", "on_restart replica ha"), "a restart was told")
