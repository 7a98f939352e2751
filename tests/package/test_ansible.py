"""The Ansible role and its playbooks (deploy/ansible) against machines with systemd: deploy, deploy again and nothing changes,
update, a node leaves and comes back."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

from machine import Lab, wait_until
from test_package import PLACE, SUITE, TTL_S, package

HERE = pathlib.Path(__file__).resolve().parent
ANSIBLE = HERE.parents[1] / "deploy" / "ansible"

pytestmark = pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="ansible is not installed")


class Site:
    """The machines as Ansible knows them."""

    def __init__(self, lab, directory):
        self.m = {f"n{i}": lab.machine(f"n{i}", i) for i in (1, 2, 3)}
        self.dir = pathlib.Path(directory)
        for machine in self.m.values():
            machine.boot()
            machine.run("dpkg --purge regent")  # what it needs stays: there is no network in there

    def play(self, book, *more, kind="", nodes=("n1", "n2", "n3")):
        """Runs a playbook; {host: number of changes}."""
        hosts = {n: {"regent_address": self.m[n].address, "machine_pid1": self.m[n].pid1} for n in nodes}
        inventory = {"regent": {"hosts": hosts, "vars": {
            "ansible_connection": "machine", "ansible_python_interpreter": "/usr/bin/python3", "regent_scope": "prod",
            "regent_package": str(package(kind)), "regent_first_settings": ["bootstrap.dcs.synchronous_mode=on", f"bootstrap.dcs.ttl={TTL_S}"]}}}
        (self.dir / "inventory.json").write_text(json.dumps(inventory), encoding="utf-8")
        env = {"PATH": os.environ["PATH"], "HOME": str(self.dir), "LANG": "C.UTF-8", "ANSIBLE_NOCOLOR": "1",
               "ANSIBLE_CONNECTION_PLUGINS": str(HERE / "ansible" / "connection_plugins"), "ANSIBLE_PIPELINING": "1",
               "ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_ROLES_PATH": str(ANSIBLE / "roles")}
        done = subprocess.run(["ansible-playbook", "-i", str(self.dir / "inventory.json"), str(ANSIBLE / book), *more], cwd="/",
                              env=env, check=False, capture_output=True, text=True, timeout=3000)
        assert done.returncode == 0, done.stdout + done.stderr
        return {host: int(changed) for host, changed in re.findall(r"^(\w+) .*changed=(\d+)", done.stdout, re.M)}

    def states(self, node="n1"):
        answer = self.m[node].run("regentctl list -f json", check=False)
        return {row["Member"]: (row["Role"], row["State"]) for row in json.loads(answer.stdout)} if answer.returncode == 0 else {}

    def well(self, node="n1"):
        wait_until(lambda: self.m[node].run("regentctl status", check=False).returncode == 0, "the cluster is well")


@pytest.fixture(name="site", scope="module")
def site_fixture():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="regent-package-run.", dir="/var/tmp"))
    with tempfile.TemporaryDirectory(prefix="regent-ansible.") as own, Lab(str(PLACE / f"{SUITE}-node"), directory) as lab:
        lab.install(package())
        yield Site(lab, own)


def test_lint():
    if shutil.which("ansible-lint") is None:
        pytest.skip("ansible-lint is not installed")
    with tempfile.TemporaryDirectory(prefix="regent-ansible.") as home:
        shutil.copytree(ANSIBLE, pathlib.Path(home) / "ansible")
        done = subprocess.run(["ansible-lint", "--offline", "--nocolor", "--strict", *sorted(p.name for p in ANSIBLE.glob("*.yml")
                                                                                             if "inventory" not in p.name), "roles"],
                              cwd=pathlib.Path(home) / "ansible", env={"PATH": os.environ["PATH"], "HOME": home, "LANG": "C.UTF-8"},
                              check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cluster_is_deployed_and_a_second_run_changes_nothing(site):
    assert all(site.play("deploy.yml").values())
    site.well()
    wanted = [("Leader", "running"), ("Replica", "streaming"), ("Sync Standby", "streaming")]
    wait_until(lambda: sorted(site.states().values()) == wanted, f"a leader, a synchronous standby and another: {site.states()}")
    assert site.play("deploy.yml") == {"n1": 0, "n2": 0, "n3": 0}


def test_an_update_goes_from_node_to_node_and_postgresql_runs_on(site):
    before = {name: m.out("head -1 /var/lib/postgresql/regent/postmaster.pid") for name, m in site.m.items()}
    assert all(site.play("update.yml", kind="-next").values())
    site.well()
    wait_until(lambda: site.states().get("n1") == ("Leader", "running"), f"n1 leads: {site.states()}")
    for name, m in site.m.items():
        assert "next" in m.out("regentd --version")
        assert m.out("head -1 /var/lib/postgresql/regent/postmaster.pid") == before[name]


def test_a_node_leaves_and_another_takes_its_place(site):
    site.play("remove-node.yml", "-e", "node=n3")
    wait_until(lambda: site.states() and "n3" not in site.states(), "n3 is gone")
    site.m["n3"].run("rm -rf /etc/regent/regent.yml /var/lib/regent/* /var/lib/postgresql/regent")  # all that `leave` has left
    changed = site.play("deploy.yml", kind="-next")
    assert changed["n3"] > 0 and changed["n1"] == changed["n2"] == 0
    site.well()
    wait_until(lambda: site.states().get("n3", ("", ""))[1] == "streaming", "n3 streams")
