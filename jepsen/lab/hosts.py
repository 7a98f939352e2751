"""Nodes as hosts of their own: network, mount, PID and IPC namespaces and, where the machine allows, a cgroup and a disk.

Process 1 of a host does nothing but collect the dead; when it is killed the kernel ends everything else in the host at
once, as a power switch would. The names of everything made on the machine begin with `rj` and this program's pid.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parents[1]
sys.path.insert(0, str(TREE / "tests" / "integration"))

import cluster as cl  # noqa: E402
from cluster import Cluster, Node, wait_until  # noqa: E402
from disks import LoopDisk  # noqa: E402
from netns import Net, drop_namespace, sh, why_not  # noqa: E402

PREFIX = "rj"
INSIDE = "REGENT_JEPSEN_INSIDE"  # "": in namespaces of an ordinary user's own; else why they cannot be had
DISKS = ("store", "wal")  # of a node, the second one mounted below the first
CGROUPS = [pathlib.Path("/sys/fs/cgroup/unified"), pathlib.Path("/sys/fs/cgroup")]
INIT = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.05)
"""
FAKETIME = ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"]


def cgroup_root():
    for root in CGROUPS:
        if (root / "cgroup.procs").exists():
            return root
    return None


def faketime():
    return next((path for path in FAKETIME if os.path.exists(path)), None)


def give_away(path):
    """To the user whom the nodes run as."""
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")


OWN = ["unshare", "--user", "--map-current-user", "--keep-caps", "--net", "--mount", "--", "sh", "-c",
       'mount -t tmpfs run /run && exec "$@"', "sh"]


def become_able():
    """An ordinary user whom the machine lets have namespaces goes on in some of his own, in which he may make more."""
    if os.geteuid() == 0 or INSIDE in os.environ:
        return
    tried = subprocess.run([*OWN, "true"], capture_output=True, text=True, check=False)
    os.environ[INSIDE] = tried.stderr.strip()
    if tried.returncode == 0:
        os.execvp(OWN[0], [*OWN, sys.executable, *sys.argv])


def _probe_hosts():
    refused = os.environ.get(INSIDE)
    return f"needs root, or namespaces for ordinary users: {refused}" if refused else why_not()


def probe():
    """{what: None or why it cannot be had}"""
    able = {}
    able["hosts"] = _probe_hosts()
    postgres = cl.PG_BIN / "postgres"
    able["postgresql"] = None if postgres.exists() else f"no {postgres} (REGENT_TEST_PG_BIN)"
    regentd = cl.build_dir() / "regentd"
    able["programs"] = None if regentd.exists() else f"no {regentd}: build it, or name a build with --build"
    able["clock"] = None if faketime() else "no libfaketime (package faketime)"
    able["cgroup"] = _probe_cgroup()
    able["switch"] = None if os.access("/dev/net/tun", os.W_OK) else "no /dev/net/tun"
    able["next"] = _probe_next()
    able["stopped-clock"] = None if stopped_clock().exists() else f"no {stopped_clock()}: build it"
    able["vm"] = "no host here is a virtual machine; `pause-clocks` freezes one and stops its clocks for all that runs in it"
    able["disk"] = _probe_disk() if os.geteuid() == 0 else "needs root: loop devices"
    return able


def stopped_clock():
    return cl.build_dir() / "stopped_clock.so"


def next_build():
    return pathlib.Path(os.environ.get("REGENT_NEXT_BUILD") or TREE / "build" / "next").resolve()


def _probe_next():
    there = (next_build() / "regentd").exists()
    return None if there else f"no {next_build()}/regentd: a second build, with -DREGENT_PRETEND_NEXT=ON (REGENT_NEXT_BUILD)"


def _probe_cgroup():
    root = cgroup_root()
    if root is None:
        return "no cgroup v2"
    path = root / f"{PREFIX}{os.getpid()}probe"
    try:
        path.mkdir()
        return None if (path / "cgroup.freeze").exists() else "cgroup v2 without freeze"
    except OSError as e:
        return f"cgroup v2: {e.strerror}"
    finally:
        with contextlib.suppress(OSError):
            path.rmdir()


def _probe_disk():
    base = pathlib.Path(f"/tmp/{PREFIX}{os.getpid()}probe")
    try:
        (base / "m").mkdir(parents=True)
        LoopDisk(base / "image", base / "m", 8).remove()
        return None
    except (OSError, subprocess.CalledProcessError) as e:
        return f"no ext4 on a loop device: {(getattr(e, 'stderr', None) or str(e)).strip()}"
    finally:
        shutil.rmtree(base, ignore_errors=True)


class HostNode(Node):
    """A node of cluster.py in a host of its own."""

    def __init__(self, cluster, name, address, namespace=None):
        super().__init__(cluster, name, address, namespace)
        self.host = next(h for h in cluster.net.hosts if h.address == address)
        self.init = None
        self.init_pid = None
        self.clock = self.usual_clock = self._stopped_clock() if cluster.clocks_stop else {}
        self.stood_ns = 0
        self.cgroup = None
        self.disks = {}
        self.switch = None
        self.bin = cluster.bin
        if cluster.able["cgroup"] is None:
            self.cgroup = cgroup_root() / f"{cluster.net.tag}{name}"
            self.cgroup.mkdir()
            for path in (self.cgroup, self.cgroup / "cgroup.procs"):
                give_away(path)  # the fence makes one of its own in it
        if cluster.disk_mib:
            cluster.share_mounts()
            self.pgdata = self.dir / "disk" / "pg"
            for part in DISKS:
                self._add_disk(part)

    def _add_disk(self, part):
        path = self.part(part)
        path.mkdir()
        self.disks[part] = LoopDisk(self.cluster.dir / f"{self.name}.{part}.image", path, self.cluster.disk_mib[part])
        give_away(path)
        path.chmod(0o700)
        os.sync()  # a mount point has to outlive the power

    def part(self, part):
        """Where that disk is mounted: the store's, with all that belongs to the node, or below it PostgreSQL's data and WAL."""
        return self.dir if part == "store" else self.pgdata.parent

    # -- the clocks

    def _stopped_clock(self):
        """The environment in which all clocks are behind by what `set_back` says."""
        shutil.copy2(stopped_clock(), self.cluster.bin)
        path = self._clock_file()
        path.write_bytes(struct.pack("=q", 0))
        path.chmod(0o644)
        return {"LD_PRELOAD": str(self.cluster.bin / stopped_clock().name), "STOPPED_CLOCK": str(path)}

    def _clock_file(self):
        return self.cluster.dir / f"{self.name}.clock"

    def set_back(self, seconds):
        self.stood_ns += int(seconds * 1e9)
        with open(self._clock_file(), "r+b") as f:  # in place: it is mapped
            f.write(struct.pack("=q", self.stood_ns))

    # -- the host

    def boot(self):
        """Process 1; its pid outside is the child of `unshare`."""
        self.init = subprocess.Popen(
            [*self._into_cgroup(), "nsenter", f"--net=/run/netns/{self.namespace}", "--", "unshare", "--mount", "--propagation", "slave",
             "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child", "--", "/usr/bin/python3", "-c", INIT],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)
        children = pathlib.Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children")
        self.init_pid = int(wait_until(lambda: children.read_text(encoding="ascii").strip(), f"{self}: its process 1"))

    def _into_cgroup(self):
        if self.cgroup is None:
            return []
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.cgroup / "cgroup.procs")]

    def up(self):
        return self.init is not None and self.init.poll() is None

    def start(self):
        if not self.up():
            self.boot()
        super().start()

    def command(self, *words):
        if words[0] != "regentd":
            return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *cl.as_user(), str(self.bin / words[0]), *words[1:]]
        inside = [f"--{what}=/proc/{self.init_pid}/ns/{kind}" for what, kind in (("net", "net"), ("mount", "mnt"), ("pid", "pid"), ("ipc", "ipc"))]
        more = {**self.clock, **self.cluster.environment}
        env = ["env", *(f"{k}={v}" for k, v in more.items())] if more else []
        return [*self._into_cgroup(), "nsenter", *inside, "--", *cl.as_user(), *env, str(self.bin / words[0]), *words[1:]]

    def kill(self):
        """The power switch."""
        if self.init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init_pid, signal.SIGKILL)
            self.thaw()
            try:
                self.init.wait(120)
            except subprocess.TimeoutExpired:
                raise cl.Never(f"{self}: its process 1 does not end") from None
            self.init = None
        wait_until(lambda: not self.processes(), f"{self}: nothing is left of it", 120)
        self.reap()

    def freeze(self, on):
        """All of it at once; alone a frozen host still answers TCP, so its port is cut as well."""
        if self.cgroup is not None:
            (self.cgroup / "cgroup.freeze").write_text("1" if on else "0", encoding="ascii")
        else:
            for pid in self.processes():
                cl.send(pid, signal.SIGSTOP if on else signal.SIGCONT)

    def thaw(self):
        """Whatever was stopped. The daemon's `nsenter` stops with it, and would not collect it when it dies."""
        self.freeze(False)
        self.freeze_disks(False)
        for pid in [self.process.pid] * self.running() + list(self.processes()):
            cl.send(pid, signal.SIGCONT)

    def postmaster(self):
        """By its command line: the pid in postmaster.pid is one of the host's own."""
        for pid, line in self.processes().items():
            words = line.split()
            if words and words[0].endswith("/postgres") and "-D" in words and not self._is_child_of_postgres(pid):
                return pid
        return None

    @staticmethod
    def _is_child_of_postgres(pid):
        status = cl.process_status(pid)
        with contextlib.suppress(OSError):
            return status is None or pathlib.Path(f"/proc/{status[1]}/comm").read_text(encoding="ascii").strip() == "postgres"
        return False

    def all_of(self, pattern):
        """The pids whose command line matches."""
        return [pid for pid, line in self.processes().items() if re.search(pattern, line)]

    def power_loss(self):
        """Nothing is acknowledged while the disk goes: that would prove nothing (disks.py)."""
        self.freeze(True)
        for disk in self.disks.values():
            disk.cut_power()
        self.kill()
        self.remount()

    def disks_fail(self, parts):
        """Every call fails from here on; frozen meanwhile, so that none is under way (disks.py)."""
        self.freeze(True)
        for part in parts:
            self.disks[part].cut_power()
        self.freeze(False)

    def freeze_disks(self, on, parts=DISKS):
        """The inner one first, which is a file system of its own."""
        for part in reversed(parts):
            if part in self.disks:
                self.disks[part].freeze(on)

    def remount(self):
        for part in reversed(DISKS):
            self.disks[part].unmount()
        for part in DISKS:
            self.disks[part].mount()

    # -- the line to it

    def bad_line(self, **directions):
        """What goes `to` it and what comes `back` passes a switch of ours from now on (switch.py)."""
        self.good_line()
        self.switch = subprocess.Popen(
            ["ip", "netns", "exec", self.cluster.net.bridge, "/usr/bin/python3", str(HERE / "switch.py"), self.host.port, json.dumps(directions)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        if self.switch.stdout.readline().strip() != b"ready":
            self.good_line()
            raise LookupError("the switch does not start")

    def good_line(self):
        if self.switch is not None:
            self.switch.terminate()
            self.switch.wait(20)
            self.switch.stdout.close()
            self.switch = None

    # -- another build

    def change_build(self):
        """From its next start on it runs the other one of the two."""
        self.bin = self.cluster.next_bin() if self.bin == self.cluster.bin else self.cluster.bin

    def tear_down(self):
        self.good_line()
        with contextlib.suppress(cl.Never):
            self.kill()
        for part in reversed(DISKS):
            if part in self.disks:
                self.disks[part].remove()
        remove_cgroup(self.cgroup)


def remove_cgroup(path):
    """With those the fence made in it."""
    if path is None or not path.exists():
        return
    for inner in [*path.glob("*/"), path]:
        for _ in range(50):
            try:
                inner.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:  # the kernel is still taking the dead out
                time.sleep(0.02)


class HostCluster(Cluster):
    node_class = HostNode

    def __init__(self, able, nodes=3, sync="on", sets=(), disk_mib=None, clocks_stop=False, environment=None):
        """disk_mib: the size of each of DISKS; None: no disks of their own."""
        self.able = able
        self.disk_mib = disk_mib
        self.clocks_stop = clocks_stop
        self.environment = environment or {}
        self.shared = False
        self.net = Net(PREFIX, nodes)
        try:
            self.net.enter()
            super().__init__(nodes=nodes, sync=sync, sets=sets, addresses=[h.address for h in self.net.hosts],
                             namespaces=[h.namespace for h in self.net.hosts])
        except BaseException:
            self.net.close()
            raise
        self.dir.joinpath("by").write_text(self.net.tag, encoding="ascii")

    def share_mounts(self):
        """A disk that is taken away goes in every host: each has a copy of all mounts that were there when it began."""
        if not self.shared:
            sh("mount", "--bind", self.dir, self.dir)
            sh("mount", "--make-shared", self.dir)
            self.shared = True

    def next_bin(self):
        """Copies of the programs of the build that a rolling upgrade goes to."""
        path = self.dir / "next"
        if not path.exists():
            path.mkdir()
            path.chmod(0o755)
            for program in self.bin.iterdir():
                newer = next_build() / program.name
                shutil.copy2(newer if newer.exists() else program, path / program.name)
        return path

    def close(self):
        for node in self.nodes:
            node.tear_down()
        if self.shared:
            subprocess.run(["umount", str(self.dir)], capture_output=True, check=False)
        self.net.close()
        super().close()

    def heal_everything(self):
        """Every host reachable, thawed and running."""
        for node in self.nodes:
            node.good_line()
            node.host.heal()
            node.host.hear_all()
            node.thaw()
            if not node.running():
                node.start()


def clean():
    """Removes what runs of programs that live no more have left: found by name, removed by exact name."""
    removed = []
    for name in sorted(os.listdir("/run/netns") if os.path.isdir("/run/netns") else []):
        match = re.fullmatch(rf"{PREFIX}(\d+)(h|n\d+)", name)
        if match and not os.path.exists(f"/proc/{match.group(1)}"):
            done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
            for pid in done.stdout.split():
                cl.send(int(pid), signal.SIGKILL)
            drop_namespace(name)
            removed.append(name)
    root = cgroup_root()
    for path in sorted(root.glob(f"{PREFIX}*") if root else []):
        match = re.fullmatch(rf"{PREFIX}(\d+)n\d+", path.name)
        if match and not os.path.exists(f"/proc/{match.group(1)}"):
            for kill in [*path.glob("*/cgroup.kill"), path / "cgroup.kill"]:
                with contextlib.suppress(OSError):
                    kill.write_text("1", encoding="ascii")
            remove_cgroup(path)
            removed.append(str(path))
    for path in sorted(pathlib.Path("/tmp").glob("rha.*")):
        by = path / "by"
        match = re.fullmatch(rf"{PREFIX}(\d+)", by.read_text(encoding="ascii")) if by.exists() else None
        if match and not os.path.exists(f"/proc/{match.group(1)}"):
            for mount in [*path.glob("n*/disk/"), *path.glob("n*/")]:
                subprocess.run(["umount", str(mount)], capture_output=True, check=False)
            for image in path.glob("*.image"):
                done = subprocess.run(["losetup", "-n", "-O", "NAME", "-j", str(image)], capture_output=True, text=True, check=False)
                for device in done.stdout.split():
                    subprocess.run(["losetup", "-d", device], capture_output=True, check=False)
            subprocess.run(["umount", str(path)], capture_output=True, check=False)
            shutil.rmtree(path, ignore_errors=True)
            removed.append(str(path))
    return removed
