"""Near its deadline a real PostgreSQL is frozen: it goes on where it was when the renewal comes in time. Needs root and
cgroup v2: a cgroup of its own for the user that PostgreSQL runs as. The kill budget is long here, so that nothing
depends on how fast this machine is: from the middle of it on it would be killed."""
import os
import pathlib
import select
import shutil
import subprocess

import pytest

from cluster import wait_until
from pg_lab import Lab

BUDGET_MS = 40000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a cgroup needs root")


def cgroup2():
    """The mount point, of the whole hierarchy."""
    lines = [line.split() for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    return next((pathlib.Path(f[4]) for f in lines if "cgroup2" in f[f.index("-"):] and f[3] == "/"), None)


@pytest.fixture(name="group")
def group_fixture():
    mount = cgroup2()
    own = next((line[3:] for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::/")), None)
    if mount is None or own is None or not shutil.which("setpriv"):
        pytest.skip("no cgroup v2, or no setpriv")
    path = mount / own.lstrip("/") / f"regent-test-{os.getpid()}"
    try:
        path.mkdir()
        (path / "cgroup.kill").stat()
    except OSError as e:
        pytest.skip(f"no cgroup of our own, or none that can be killed: {e}")
    for file in (path, path / "cgroup.procs", path / "cgroup.threads", path / "cgroup.subtree_control"):
        shutil.chown(file, "postgres")
    yield path
    (path / "cgroup.kill").write_text("1")  # nothing is left in it but after a failure
    wait_until(lambda: "populated 0" in (path / "cgroup.events").read_text(), "nobody is left in the cgroup")
    for inner in path.glob("regent-postgres-*"):
        inner.rmdir()
    path.rmdir()


@pytest.fixture(name="lab")
def lab_fixture(tmp_path):
    made = Lab(tmp_path)
    try:
        yield made
    finally:
        made.close()


def is_frozen(group):
    return any("frozen 1" in e.read_text() for e in group.glob("regent-postgres-*/cgroup.events"))


def line_of(session):
    ready, _, _ = select.select([session.stdout], [], [], 60)
    assert ready, "no answer"
    return session.stdout.readline().strip()


def test_what_is_frozen_near_the_deadline_goes_on_after_the_renewal(group, lab):
    inside = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    n = lab.primary(inside=inside, kill_budget_ms=BUDGET_MS)
    n.psql("CREATE TABLE t (id int)")
    postmaster = n.view()["postmaster"]
    session = n.session()
    session.stdin.write("BEGIN;\nINSERT INTO t VALUES (1) RETURNING 'begun';\n")
    assert line_of(session) == "begun"
    n.arm(1, BUDGET_MS + 2000)
    n.wait("frozen", lambda v: is_frozen(group))
    # it does not even answer, let alone acknowledge
    with pytest.raises(subprocess.TimeoutExpired):
        n.psql("SELECT 1", timeout_s=1)
    session.stdin.write("COMMIT;\nSELECT 'done';\n")
    n.send("extend 600000")
    n.wait("thawed", lambda v: not is_frozen(group))
    assert line_of(session) == "done"
    assert n.psql("SELECT count(*) FROM t") == "1"
    assert n.view()["postmaster"] == postmaster
    session.stdin.close()
    assert session.wait(timeout=60) == 0
