"""What an operator does to the store: regentctl against real members."""
import json
import os
import subprocess
import tempfile

import pytest

from dcs_lab import Lab, build_dir

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "dcs_node").exists(), reason="dcs_node is not built"),
    pytest.mark.skipif(not (build_dir() / "regentctl").exists(), reason="regentctl is not built"),
]


@pytest.fixture(name="lab")
def lab_fixture():
    lab = Lab(tempfile.mkdtemp(prefix="adm.", dir="/tmp"))
    yield lab
    lab.close()


@pytest.fixture(name="one")
def one_fixture():
    lab = Lab(tempfile.mkdtemp(prefix="adm.", dir="/tmp"), nodes=1)
    yield lab
    lab.close()


def ctl(node, *words, code=0):
    """regentctl over TLS, asking this node; its standard output."""
    pki = node.dir / "pki"
    env = {**os.environ, "REGENT_CACERT": str(pki / "ca.crt"), "REGENT_CERT": str(pki / "node.crt"),
           "REGENT_KEY": str(pki / "node.key")}
    done = subprocess.run([build_dir() / "regentctl", "-H", node.address, *[str(w) for w in words]], env=env,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


# ---- history ----

def test_a_range_of_the_past_and_its_end_by_compaction(lab):
    follower = lab.followers()[0]
    for value in "123":
        ctl(follower, "dcs", "put", "k", value)
    then = lab.leader().status()["revision"] - 1
    assert ctl(follower, "dcs", "get", "k", "--rev", then) == "k\n2\n"
    assert ctl(follower, "dcs", "get", "k") == "k\n3\n"
    assert "in the future" in ctl(follower, "dcs", "get", "k", "--rev", then + 1000, code=1)
    compacted = json.loads(ctl(follower, "-f", "json", "dcs", "compact", then + 1))
    assert compacted["compacted_revision"] == then + 1
    assert "no longer kept" in ctl(follower, "dcs", "get", "k", "--rev", then, code=1)
    assert ctl(follower, "dcs", "get", "k", "--rev", then + 1) == "k\n3\n"
    assert "compacted" in ctl(follower, "dcs", "compact", then, code=1)
    assert "in the future" in ctl(follower, "dcs", "compact", then + 1000, code=1)
