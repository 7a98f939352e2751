"""What a container is to regentd: it is process 1, its configuration is the environment alone, and SIGTERM is the end."""
import json
import os
import pathlib
import signal
import subprocess

import pytest

pytest.importorskip("psycopg2")

from cluster import PG_BIN, Cluster, as_user, build_dir, wait_until  # noqa: E402

NAMESPACE = ["unshare", "--user", "--map-current-user", "--pid", "--fork", "--mount-proc", "--kill-child"]

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
    pytest.mark.skipif(subprocess.run([*as_user(), *NAMESPACE, "true"], capture_output=True, check=False).returncode != 0,
                       reason="this user cannot make namespaces"),
]


def environment(node):
    return {"PATH": os.environ["PATH"], "REGENT_CONFIG": "/nonexistent/regent.yml", "REGENT_SCOPE": node.cluster.scope,
            "REGENT_NAME": node.name, "REGENT_DATA_DIR": str(node.dir), "REGENT_DCS_LISTEN": node.dcs_address(),
            "REGENT_RESTAPI_LISTEN": f"{node.address}:{node.ports['rest']}",
            "REGENT_POSTGRESQL_LISTEN": f"{node.address}:{node.ports['pg']}",
            "REGENT_POSTGRESQL_DATA_DIR": str(node.pgdata), "REGENT_POSTGRESQL_BIN_DIR": str(PG_BIN),
            "REGENT_BOOTSTRAP_DCS": "{ttl: 15}"}


def test_process_1_configured_by_the_environment_alone():
    with Cluster(nodes=1) as c:
        node = c["n1"]
        node.setup()
        node.config.unlink()
        env = environment(node)
        with open(node.log, "ab") as log:
            node.process = subprocess.Popen([*as_user(), *NAMESPACE, str(build_dir() / "regentd")], cwd="/", env=env,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

        container = node.process.pid

        def ctl(*words):
            return subprocess.run([*as_user(), str(build_dir() / "regentctl"), *words], cwd="/", env=env, text=True,
                                  capture_output=True, timeout=60, check=False)

        def leads():
            rows = ctl("list", "-f", "json")
            return rows.returncode == 0 and [(r["Role"], r["State"]) for r in json.loads(rows.stdout)] == [("Leader", "running")]
        try:
            wait_until(leads, "it leads")
            assert ctl("dcs", "status").returncode == 0  # the health check
            children = pathlib.Path(f"/proc/{container}/task/{container}/children").read_text(encoding="ascii").split()
            os.kill(int(children[0]), signal.SIGTERM)
            assert node.process.wait(timeout=60) == 0
            wait_until(lambda: not node.processes(), "nothing is left of it")
        finally:
            if node.running():
                os.kill(container, signal.SIGKILL)  # and with it all of the namespace
