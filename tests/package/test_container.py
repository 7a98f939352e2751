"""The image of deploy/container, built FROM a Debian root by buildah and run by podman: three containers make a cluster, their
health is told, a leader that dies is replaced, and one that is stopped hands over."""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from machine import NET, Lab, wait_until
from test_package import PLACE, SUITE, package, say

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = "/var/lib/regent-node"
STOP_S = 90

pytestmark = [
    pytest.mark.skipif(SUITE != "bookworm", reason="one release is enough: the image's base is what differs"),
    pytest.mark.skipif(not all(map(shutil.which, ("podman", "buildah", "runc"))), reason="podman, buildah or runc is missing"),
]


class Containers:
    def __init__(self, directory, lab):
        self.dir, self.lab = directory, lab
        self.store = ["--storage-driver", "overlay", "--root", str(directory / "store"), "--runroot", str(directory / "run")]
        self.addresses = {f"n{i}": f"{NET}.{i}" for i in (1, 2, 3)}
        self.started = []

    def tool(self, *words, check=True, timeout=1800):
        env = {"PATH": os.environ["PATH"], "HOME": str(self.dir), "TMPDIR": str(self.dir), "LANG": "C.UTF-8"}
        done = subprocess.run(words, check=False, capture_output=True, text=True, env=env, timeout=timeout, cwd="/",
                              stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def podman(self, *words, **more):
        return self.tool("podman", *self.store, "--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "none",
                         *words, **more)

    def build(self):
        """As a user would, but for the base: there is no registry here."""
        buildah = ["buildah", *self.store]
        base = self.tool(*buildah, "from", "scratch").stdout.strip()
        self.tool(*buildah, "add", "--quiet", base, str(PLACE / f"{SUITE}-node"), "/")
        self.tool(*buildah, "commit", "--quiet", "--rm", base, "localhost/base")
        shutil.copy2(package(), self.dir / "regent.deb")
        self.tool(*buildah, "build", "--isolation", "chroot", "--format", "docker", "--layers=false", "--pull-never", "--quiet",
                  "--build-arg", "BASE=localhost/base", "-t", "localhost/regent", "-f", str(ROOT / "deploy/container/Containerfile"),
                  str(self.dir))

    def network(self, name):
        """A namespace of its own, on the lab's bridge."""
        netns, outside = f"{self.lab.prefix}-{name}", f"c{name}"
        for words in (("netns", "add", netns),
                      ("-n", self.lab.hub, "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", netns),
                      ("-n", self.lab.hub, "link", "set", outside, "master", "br0", "up"),
                      ("-n", netns, "address", "add", f"{self.addresses[name]}/24", "dev", "eth0"),
                      ("-n", netns, "link", "set", "eth0", "up"), ("-n", netns, "link", "set", "lo", "up")):
            self.tool("ip", *words)
        return netns

    def run(self, name, *words):
        return ["run", *words, "--network", f"ns:/run/netns/{self.lab.prefix}-{name}", "--volume", f"{name}:{DATA}",
                "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=20000:20000", "--pids-limit", "0"]

    def once(self, name, *words):
        """regentctl, in a container of its own."""
        return self.podman(*self.run(name, "--rm", "--entrypoint", "regentctl"), "localhost/regent", *words)

    def start(self, name):
        self.podman(*self.run(name, "--detach", "--name", f"{self.lab.prefix}-{name}", "--replace", "--healthcheck-interval", "disable",
                              "--stop-timeout", str(STOP_S)), "localhost/regent")
        self.started.append(name)

    def ctl(self, name, *words, check=True):
        return self.podman("exec", f"{self.lab.prefix}-{name}", "regentctl", *words, check=check)

    def rows(self, name):
        done = self.ctl(name, "list", "-f", "json", check=False)
        return {r["Member"]: (r["Role"], r["State"]) for r in json.loads(done.stdout)} if done.returncode == 0 else {}

    def leader(self, asked):
        return next((m for m, row in self.rows(asked).items() if row == ("Leader", "running")), None)

    def streaming(self, asked):
        return sorted(state for _, state in self.rows(asked).values()) == ["running", "streaming", "streaming"]

    def close(self):
        for name in self.addresses:
            self.podman("rm", "--force", "--time", "0", f"{self.lab.prefix}-{name}", check=False)
            self.tool("ip", "netns", "delete", f"{self.lab.prefix}-{name}", check=False)
        self.tool("umount", str(self.dir / "store" / "overlay"), check=False)


@pytest.fixture(name="c", scope="module")
def containers_fixture():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="regent-container.", dir="/var/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, True)
        lab = stack.enter_context(Lab(None, tempfile.mkdtemp(dir=directory)))
        c = Containers(directory, lab)
        stack.callback(c.close)
        c.build()
        for name in c.addresses:
            c.network(name)
        yield c


def test_three_containers_are_a_cluster(c):
    where = ["--data-dir", DATA, "--pg-data", f"{DATA}/postgres", "--set", "bootstrap.dcs.synchronous_mode=on"]
    c.once("n1", "init", "--scope", "shop", "--name", "n1", "--listen", c.addresses["n1"], *where)
    c.start("n1")
    wait_until(lambda: c.leader("n1") == "n1", "n1 leads")
    token = c.ctl("n1", "token", "create", "--uses", "2").stdout.strip()
    for name in ("n2", "n3"):
        c.once(name, "join", f"{c.addresses['n1']}:7400", "--token", token, "--name", name, "--listen", c.addresses[name], *where[:4])
        c.start(name)
    wait_until(lambda: c.streaming("n1"), f"three nodes stream: {c.rows('n1')}")
    for name in c.addresses:
        assert c.podman("healthcheck", "run", f"{c.lab.prefix}-{name}").returncode == 0
        assert c.podman("exec", f"{c.lab.prefix}-{name}", "cat", "/proc/1/comm").stdout == "regentd\n"


def test_a_leader_that_dies_is_replaced_and_comes_back(c):
    wait_until(lambda: ("Sync Standby", "streaming") in c.rows("n3").values(), "a synchronous standby")
    c.podman("kill", "--signal", "KILL", f"{c.lab.prefix}-n1")
    successor = wait_until(lambda: c.leader("n3") not in (None, "n1") and c.leader("n3"), "another leads")
    c.podman("start", f"{c.lab.prefix}-n1")
    wait_until(lambda: c.streaming("n3"), f"n1 is back: {c.rows('n3')}")
    assert c.leader("n3") == successor


def test_a_stop_hands_over_and_leaves_nothing(c):
    leader = wait_until(lambda: c.leader("n1"), "a leader")
    asked = next(name for name in c.addresses if name != leader)
    wait_until(lambda: ("Sync Standby", "streaming") in c.rows(asked).values(), "a synchronous standby")
    c.podman("stop", f"{c.lab.prefix}-{leader}")
    wait_until(lambda: c.leader(asked) not in (None, leader), "another leads")
    state = json.loads(c.podman("inspect", f"{c.lab.prefix}-{leader}").stdout)[0]["State"]
    say(f"podman stop of the leader: exit code {state['ExitCode']}")
    assert state["ExitCode"] == 0
