"""A server that is there already becomes the first node of a cluster.

    python3 -m pytest tests/integration/test_adopt.py
"""
import contextlib
import os
import pathlib
import re
import shutil
import subprocess

import pytest

psycopg2 = pytest.importorskip("psycopg2")

from cluster import Cluster, PG_BIN, alive, as_user, build_dir, wait_until  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
]


def run(*words, check=True):
    done = subprocess.run([*as_user(), *map(str, words)], text=True, capture_output=True, timeout=120, cwd="/", check=False)
    assert not check or done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
    return done


def adopt(node, what, *more):
    return node.ctl("adopt", str(what), "--scope", "ha", "--name", node.name, "--listen", node.dcs_address(), "--data-dir", str(node.dir),
                    "--rest-port", str(node.ports["rest"]), "--pg-bin", str(PG_BIN), *more, check=False)


def taken_over(c, node):
    """Its superuser is Regent's own now."""
    secrets = (node.dir / "secrets.yml").read_text(encoding="utf-8")
    c.password = re.search(r'^superuser: "([^"]*)"', secrets, re.M).group(1)
    for n in c.nodes:
        n.dsn = lambda n=n: f"host={n.address} port={n.ports['pg']} user=regent dbname=postgres password={c.password}"
    node.start()
    wait_until(lambda: c.leader() is node, f"{node} leads")


def test_a_server_that_runs_is_taken_over_with_its_data_and_settings():
    with Cluster(nodes=2, sync=True, ttl=30) as c:
        n1, n2 = c.nodes
        data = c.dir / "old"
        port = n1.ports["pg"]
        run(PG_BIN / "initdb", "-D", data, "-U", "postgres", "--auth=trust")
        access = c.dir / "access.conf"
        access.write_text("local all all trust\nhost all app,regent 127.0.0.1/32 scram-sha-256\n")
        access.chmod(0o644)
        (c.dir / "more").mkdir()
        (c.dir / "more" / "app.conf").write_text("max_connections = 77 # as it grew\nwork_mem = '5MB'\n")
        with open(data / "postgresql.conf", "a", encoding="utf-8") as f:
            f.write(f"port = {port}\nunix_socket_directories = '{c.dir}'\nhba_file = '{access}'\ninclude_dir '{c.dir}/more'\n"
                    "max_prepared_transactions = 3\nauthentication_timeout = 61s\n")
        run(PG_BIN / "pg_ctl", "-D", data, "-w", "-l", c.dir / "old.log", "start")
        run(PG_BIN / "psql", "-h", c.dir, "-p", port, "-U", "postgres", "-qc",
            "CREATE ROLE app LOGIN PASSWORD 'theirs'; ALTER ROLE postgres PASSWORD 'kept'; CREATE TABLE kept (id int); GRANT ALL ON kept TO app")
        pid = int((data / "postmaster.pid").read_text().split()[0])
        try:
            done = adopt(n1, data, "--dry-run")
            assert done.returncode == 0, done
            for words in ("Restart: yes", f"process {pid}", "cluster_name: \"\" -> ha", "Data checksums are off", "wal_log_hints: off -> on"):
                assert words in done.stdout, done.stdout
            assert "Nothing has been changed" in done.stdout and not n1.config.exists() and alive(pid)
            done = adopt(n1, data, "--set", "postgresql.parameters.work_mem=6MB")
            assert done.returncode == 0 and alive(pid), done
            app = f"host=127.0.0.1 port={port} user=app dbname=postgres password=theirs connect_timeout=30"
            with contextlib.closing(psycopg2.connect(app)) as connection, connection.cursor() as cursor:
                cursor.execute("INSERT INTO kept VALUES (1)")
                connection.commit()
                n1.pgdata = data
                taken_over(c, n1)
            assert not alive(pid), "the fence guards only what it has started"
            assert "database system is shut down" in (c.dir / "old.log").read_text(), "it was stopped in order"
        finally:
            if alive(pid):
                run(PG_BIN / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
        with contextlib.closing(psycopg2.connect(app)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*), current_setting('max_connections'), current_setting('authentication_timeout'), "
                           "current_setting('work_mem') FROM kept")
            assert cursor.fetchone() == (1, "77", "61s", "6MB"), "who knew a password still does"
        assert not [line for line in n1.postgres_log() if "contains errors" in line]
        assert adopt(n1, data).returncode != 0, "once is enough"
        token = wait_until(lambda: n1.ctl("token", "create", check=False).stdout.strip(), "a token")
        users = [f"postgresql.authentication.{role}.username={name}" for role, name in
                 (("superuser", "regent"), ("replication", "regent_replication"), ("rewind", "regent_rewind"))]
        n2.setup(token=token, first=n1.dcs_address(), sets=users)
        n2.start()
        wait_until(lambda: n1.value("SELECT count(*) FROM pg_stat_replication WHERE usename = 'regent_replication'") == 1, "n2 streams")
        wait_until(lambda: n2.value("SELECT count(*) FROM kept") == 1, "and has the data")
        # A standby is no data to begin with.
        n2.kill()
        run("rm", n2.pgdata / "regent.incarnation")
        other = type(n2)(c, "n3", "127.0.0.1")
        refused = adopt(other, n2.pgdata)
        assert refused.returncode == 4 and "is a standby's: adopt its primary" in refused.stderr, refused


@pytest.mark.skipif(shutil.which("pg_createcluster") is None, reason="no postgresql-common")
def test_a_cluster_of_debian_is_taken_over_and_started_by_nobody_else():
    name = f"regent-{os.getpid()}"
    major = PG_BIN.parent.name
    etc = pathlib.Path(f"/etc/postgresql/{major}/{name}")
    with Cluster(nodes=1, sync=False, ttl=30) as c:
        n1 = c.nodes[0]
        n1.pgdata = c.dir / "debian"
        made = run("pg_createcluster", major, name, "-d", n1.pgdata, "-p", n1.ports["pg"], "--start-conf", "auto", "--", "-k", check=False)
        if made.returncode != 0:
            pytest.skip(f"pg_createcluster: {made.stderr.strip()}")
        try:
            done = adopt(n1, f"{major}/{name}", "--dry-run")
            assert done.returncode == 0 and "Restart: no" in done.stdout and f"{etc}/start.conf: disabled" in done.stdout, done
            assert "auto" in (etc / "start.conf").read_text()
            assert adopt(n1, n1.pgdata).returncode == 0, "found by its directory, too"
            assert (etc / "start.conf").read_text().splitlines()[-1] == "disabled"
            assert run("pg_ctlcluster", major, name, "start", check=False).returncode != 0
            taken_over(c, n1)
            assert n1.value("SELECT current_setting('hba_file')") == str(n1.pgdata / "pg_hba.conf")
            assert n1.value("SELECT current_setting('max_wal_size')") == "1GB", "a setting of Debian's file"
        finally:
            n1.kill()
            run("pg_dropcluster", "--stop", major, name, check=False)
        assert not etc.exists()
