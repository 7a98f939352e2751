"""Hosts as network namespaces, each at a port of one bridge that has a namespace of its own.

    with Net("rgx", 3) as net:      # names rgx<pid>h (the bridge), rgx<pid>n1, ...; address 10.77.0.254 and .1, .2, ...
        net.enter()                 # this program speaks to the hosts from the bridge's namespace
        net.hosts[0].cut()          # silent: no RST, the carrier stays

Everything is removed by its exact name.
"""
import ctypes
import os
import subprocess

CLONE_NEWNET = 0x40000000
TABLE = "regent_test"


def sh(*words):
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout


def why_not():
    """None where namespaces, bridges and nft work, else the reason."""
    name = f"rgprobe{os.getpid()}"
    try:
        sh("ip", "netns", "add", name)
        sh("ip", "netns", "exec", name, "nft", "list", "tables")
        sh("ip", "netns", "exec", name, "bridge", "link")
        return None
    except (OSError, subprocess.CalledProcessError) as e:
        return f"no network namespaces, nft or bridge here: {getattr(e, 'stderr', None) or e}".strip()
    finally:
        drop_namespace(name)


def drop_namespace(name):
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def setns(fd):
    """Takes the descriptor."""
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


class Host:
    def __init__(self, net, number):
        self.net = net
        self.namespace = f"{net.tag}n{number}"
        self.port = f"p{number}"
        self.address = f"{net.subnet}.{number}"

    def make(self):
        net = self.net
        net.add_namespace(self.namespace)
        sh("ip", "link", "add", "eth0", "netns", self.namespace, "type", "veth", "peer", "name", self.port, "netns", net.bridge)
        sh("ip", "-n", net.bridge, "link", "set", self.port, "master", "br0", "up")
        sh("ip", "-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        sh("ip", "-n", self.namespace, "link", "set", "eth0", "up")

    def inside(self, *words):
        return sh("ip", "netns", "exec", self.namespace, *words)

    def _port_state(self, number):
        sh("ip", "netns", "exec", self.net.bridge, "bridge", "link", "set", "dev", self.port, "state", number)

    def cut(self):
        self._port_state(0)

    def heal(self):
        self._port_state(3)

    def deaf_to(self, *others, port=None):
        """Drops what arrives from these hosts; with a port only the connections to and from that port."""
        self.inside("nft", f"add table ip {TABLE}; add chain ip {TABLE} in {{ type filter hook input priority 0 ; }}")
        for other in others:
            for match in ([""] if port is None else [f"tcp dport {port}", f"tcp sport {port}"]):
                self.inside("nft", f"add rule ip {TABLE} in ip saddr {other.address} {match} drop")

    def lossy(self, percent):
        self.inside("nft", f"add table ip {TABLE}; add chain ip {TABLE} in {{ type filter hook input priority 0 ; }}; "
                           f"add rule ip {TABLE} in iifname eth0 numgen random mod 100 < {percent} drop")

    def hear_all(self):
        subprocess.run(["ip", "netns", "exec", self.namespace, "nft", "delete", "table", "ip", TABLE], capture_output=True, check=False)


class Net:
    def __init__(self, prefix, count=0, subnet="10.77.0"):
        self.tag = f"{prefix}{os.getpid()}"
        self.bridge = f"{self.tag}h"
        self.subnet = subnet
        self.namespaces = []
        self.hosts = []
        self.outside = None
        try:
            self.add_namespace(self.bridge)
            sh("ip", "-n", self.bridge, "link", "add", "br0", "type", "bridge", "forward_delay", 0)
            sh("ip", "-n", self.bridge, "addr", "add", f"{subnet}.254/24", "dev", "br0")
            sh("ip", "-n", self.bridge, "link", "set", "br0", "up")
            for _ in range(count):
                self.add()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def add_namespace(self, name):
        self.namespaces.append(name)
        sh("ip", "netns", "add", name)
        sh("ip", "-n", name, "link", "set", "lo", "up")

    def add(self):
        host = Host(self, len(self.hosts) + 1)
        self.hosts.append(host)
        host.make()
        return host

    def enter(self):
        """This thread, and those it starts from now on, are in the bridge's namespace, until close()."""
        self.outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        setns(os.open(f"/run/netns/{self.bridge}", os.O_RDONLY))

    def close(self):
        if self.outside is not None:
            setns(self.outside)
            self.outside = None
        while self.namespaces:
            drop_namespace(self.namespaces.pop())
