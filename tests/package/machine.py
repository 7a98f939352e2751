"""Machines for the package test: a Debian root with systemd as PID 1, its disk an overlay that survives reboots, its
network a namespace on a bridge of the test's own.

    with Lab(base) as lab:
        n1 = lab.machine("n1", 1)
        n1.boot()
        n1.run("systemctl is-system-running")
"""
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE_S = 300
NET = "10.86.7"
BOOTED = ("running", "degraded")


class Never(AssertionError):
    """A condition did not come true before its deadline."""


def wait_until(condition, what, deadline_s=PATIENCE_S):
    """The value of condition() as soon as it is true; looked at every 50 ms."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise Never(f"not within {deadline_s:g} s: {what}")
        threading.Event().wait(0.05)


def sh(*args, check=True):
    return subprocess.run(args, check=check, capture_output=True, text=True)


def cgroup_mount():
    """Where the host has cgroup v2."""
    for line in pathlib.Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return pathlib.Path(where)
    return None


class Machine:
    def __init__(self, lab, name, number):
        self.lab, self.name = lab, name
        self.address = f"{NET}.{number}"
        self.netns = f"{lab.prefix}-{name}"
        self.dir = lab.dir / name
        self.root = self.dir / "root"
        self.cgroup = cgroup_mount() / self.netns
        self.process, self.pid1 = None, None
        for part in ("upper", "work", "root"):
            (self.dir / part).mkdir(parents=True)
        sh("mount", "-t", "overlay", "overlay", "-o",
           f"lowerdir={lab.base},upperdir={self.dir}/upper,workdir={self.dir}/work", str(self.root))
        sh("ip", "netns", "add", self.netns)
        outside = f"v{number}"
        sh("ip", "-n", lab.hub, "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", self.netns)
        sh("ip", "-n", lab.hub, "link", "set", outside, "master", "br0", "up")
        sh("ip", "-n", self.netns, "address", "add", f"{self.address}/24", "dev", "eth0")
        sh("ip", "-n", self.netns, "link", "set", "eth0", "up")
        sh("ip", "-n", self.netns, "link", "set", "lo", "up")

    def boot(self):
        assert self.process is None
        self.cgroup.mkdir(exist_ok=True)
        with open(self.dir / "console.log", "ab") as console:
            self.process = subprocess.Popen(
                [HERE / "boot", str(self.root), self.netns], stdin=subprocess.DEVNULL, stdout=console,
                stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=lambda: (self.cgroup / "cgroup.procs").write_text("0", encoding="utf-8"))
        self.pid1 = wait_until(self._find_pid1, f"{self.name}: no process 1")
        wait_until(self._booted, f"{self.name} has booted; see {self.dir}/console.log")
        return self

    def _find_pid1(self):
        assert self.process.poll() is None, f"{self.name} did not boot: see {self.dir}/console.log"
        try:
            children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="utf-8")
            for pid in children.split():
                if pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "systemd":
                    return int(pid)
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has just ended
        return None

    def _booted(self):
        return self.run("systemctl is-system-running", check=False).stdout.strip() in BOOTED

    def command(self, text):
        return ["nsenter", "-t", str(self.pid1), "-a", "env", "-i", "-C", "/", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", text]

    def run(self, text, check=True, stdin=None, timeout=900):
        done = subprocess.run(self.command(text), check=False, capture_output=True, text=True, input=stdin,
                              timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {text}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def out(self, text, **more):
        return self.run(text, **more).stdout.strip()

    def _gone(self, deadline_s):
        try:
            self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            return False
        self.process, self.pid1 = None, None
        return True

    def power_off(self):
        """In order, as `poweroff` does it."""
        self.run("systemctl poweroff", check=False)
        if not self._gone(PATIENCE_S):
            raise Never(f"{self.name} does not power off: see {self.dir}/console.log")

    def kill(self):
        """All of it, at once."""
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)  # the kernel kills PID 1, and that all of the namespace
            if not self._gone(PATIENCE_S):
                raise Never(f"{self.name} cannot be killed")

    def remove(self):
        self.kill()
        for directory, _, _ in os.walk(self.cgroup, topdown=False):
            wait_until(lambda d=directory: self._rmdir(d), f"{directory} is empty")
        sh("ip", "netns", "delete", self.netns, check=False)
        sh("umount", str(self.root), check=False)

    @staticmethod
    def _rmdir(directory):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True


class Lab:
    """Machines that share a base directory and a network."""

    def __init__(self, base, directory):
        self.base, self.dir = base, pathlib.Path(directory)
        self.prefix = f"rgpkg{os.getpid()}"
        self.hub = f"{self.prefix}-hub"
        self.machines = []

    def __enter__(self):
        sh("ip", "netns", "add", self.hub)
        sh("ip", "-n", self.hub, "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", self.hub, "link", "set", "br0", "up")
        return self

    def machine(self, name, number):
        m = Machine(self, name, number)
        self.machines.append(m)
        return m

    def install(self, deb):
        """What this package needs and the package itself, once: machines that come later are overlays of that."""
        template = self.machine("template", 9)
        (template.root / "regent.deb").write_bytes(deb.read_bytes())
        done = sh("unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-euc",
                  'mount --make-rprivate /; mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"\n'
                  'cp -L /etc/resolv.conf "$1/etc/"\n'
                  'apt() { chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive '
                  'apt-get -q -y --no-install-recommends -o Acquire::Retries=3 "${@:2}"; }\n'
                  # The lists of a root that was kept may name what the mirror has no more.
                  'for wait_s in 1 10 60; do if apt "$1" install /regent.deb; then exit; fi; '
                  'sleep $wait_s; apt "$1" update || true; done; apt "$1" install /regent.deb',
                  "install", str(template.root), check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        self.machines.remove(template)
        template.remove()
        self.base = f"{template.dir}/upper:{self.base}"

    def __exit__(self, kind, value, trace):
        for m in self.machines:
            m.remove()
        sh("ip", "netns", "delete", self.hub, check=False)
        if kind is None:
            shutil.rmtree(self.dir)
