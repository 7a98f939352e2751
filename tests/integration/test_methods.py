"""Data made by programs of the administrator: a cluster restored to a point in time, copies by another tool.

    python3 -m pytest tests/integration/test_methods.py
"""
import re
import shutil
import subprocess

import pytest

pytest.importorskip("psycopg2")

from cluster import Cluster, PG_BIN, as_user, build_dir, wait_until  # noqa: E402
from ports import free_port  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
]
# It makes a copy with the options that it is given; what is in the file `orders` decides.
COPY = """#!/bin/sh
echo "$@" >> {dir}/called
for word; do case $word in
    --datadir=*) to=${{word#*=}};;
    --connstring=*) from=${{word#*=}};;
esac; done
head -c 3M /dev/zero > $to/half
while [ -e {dir}/hold ]; do sleep 0.1; done
[ ! -e {dir}/fails ] || {{ echo "the tape is torn" >&2; exit 1; }}
rm $to/half
{bin}/pg_basebackup -D $to -d "$from" -c fast && echo by hand > $to/made_by_hand
"""


def run(*words):
    done = subprocess.run([*as_user(), *map(str, words)], text=True, capture_output=True, timeout=120, cwd="/", check=False)
    assert done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
    return done.stdout


class Backup:
    """A server of the past: a base backup and the WAL behind it; `here` is a restore point."""

    def __init__(self, directory):
        self.dir = directory
        self.archive = directory / "archive"
        self.base = directory / "base"
        run("mkdir", "-m", "0700", directory, self.archive)
        data, port = directory / "data", free_port()
        run(PG_BIN / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--data-checksums")
        with open(data / "postgresql.conf", "a", encoding="utf-8") as f:
            f.write(f"archive_mode = on\narchive_command = 'cp %p {self.archive}/%f'\nport = {port}\nlisten_addresses = ''\n"
                    f"unix_socket_directories = '{directory}'\nmax_prepared_transactions = 7\nmax_connections = 130\n")
        run(PG_BIN / "pg_ctl", "-D", data, "-w", "-l", directory / "log", "start")
        psql = (PG_BIN / "psql", "-h", directory, "-p", port, "-U", "postgres", "-d", "postgres", "-qAtc")
        try:
            run(*psql, "CREATE TABLE kept AS SELECT 1 AS id")
            run(PG_BIN / "pg_basebackup", "-h", directory, "-p", port, "-U", "postgres", "-D", self.base, "-c", "fast")
            run(*psql, "INSERT INTO kept VALUES (2)")
            run(*psql, "BEGIN; INSERT INTO kept VALUES (3); PREPARE TRANSACTION 'open'")
            run(*psql, "SELECT pg_create_restore_point('here')")
            run(*psql, "INSERT INTO kept VALUES (4)")
            run(*psql, "SELECT pg_switch_wal()")
        finally:
            run(PG_BIN / "pg_ctl", "-D", data, "-w", "-m", "fast", "stop")


def test_a_cluster_begins_in_the_past_and_grows_by_another_tool():
    with Cluster(sync=True, ttl=10, sets=["bootstrap.dcs.postgresql.parameters.max_prepared_transactions=10"]) as c:
        n1, n2, n3 = c.nodes
        backup = Backup(c.dir / "past")
        script = c.dir / "copy"
        script.write_text(COPY.format(dir=c.dir, bin=PG_BIN))
        script.chmod(0o755)
        restore = c.dir / "restore"
        restore.write_text(f'#!/bin/sh\nfor word; do case $word in --datadir=*) exec cp -a {backup.base}/. "${{word#*=}}";; esac; done')
        restore.chmod(0o755)
        c.sets += ["bootstrap.method=pitr", f"bootstrap.pitr.command={restore}",
                   f'bootstrap.pitr.recovery_conf.restore_command="cp {backup.archive}/%f %p"',
                   "bootstrap.pitr.recovery_conf.recovery_target_name=here"]
        c.all_sets = ["postgresql.create_replica_methods=[mine, basebackup]", f"postgresql.mine.command={script}",
                      "postgresql.mine.speed=high"]
        (c.dir / "fails").touch()
        c.form()
        assert c.primary() is n1
        assert [r[0] for r in n1.sql("SELECT id FROM kept ORDER BY 1")] == [1, 2], "to the point that was asked for"
        assert n1.value("SELECT gid FROM pg_prepared_xacts") == "open"
        n1.sql("COMMIT PREPARED 'open'")
        assert n1.value("SELECT timeline_id FROM pg_control_checkpoint()") == 2
        assert not [f for f in n1.pgdata.iterdir() if "recovery" in f.name], "nothing of it is left"
        # The first tool failed, the next one was taken; what the first had left is gone.
        assert n2.log_lines("event=method .*mine failed.*the tape is torn") and not (n2.pgdata / "half").exists()
        assert not (n2.pgdata / "made_by_hand").exists()
        calls = (c.dir / "called").read_text().splitlines()
        assert all(f"--scope=ha --datadir={n.pgdata} --role=replica --connstring=" in "".join(calls) for n in (n2, n3))
        assert all(line.startswith("--speed=high ") and "password" not in line for line in calls)
        # And the tool alone.
        wait_until(lambda: c.record("sync")["v"], "a synchronous standby")
        (c.dir / "fails").unlink()
        n3.kill()
        wait_until(lambda: n3.name not in {m["Member"] for m in c.members()}, "its lease has run out")
        shutil.rmtree(n3.pgdata)
        (c.dir / "hold").touch()
        n3.start()
        row = wait_until(lambda: next((m for m in c.members() if m.get("Copied MB", 0) >= 3), None), "what is there is counted")
        assert (row["Member"], row["State"]) == ("n3", "creating replica") and "Copied" not in row
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", row["Copying since"])
        status = n1.ctl("status", check=False).stdout
        assert re.search(r"n3 +Replica, creating replica \(\d+ MB so far, for \d+ s\)", status), status
        (c.dir / "hold").unlink()
        c.wait_healthy()
        assert (n3.pgdata / "made_by_hand").read_text() == "by hand\n"
        assert n3.value("SELECT count(*) FROM kept") == 3
        assert not [m for m in c.members() if "Copying since" in m]
