"""Clusters of the DCS alone: dcs_node processes on loopback, driven by dcs_tool over the wire protocol."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from ports import free_port

PATIENCE_S = 20


def build_dir():
    named = os.environ.get("REGENT_BUILD")
    if named:
        return pathlib.Path(named)
    return pathlib.Path(__file__).resolve().parents[2] / "build" / "dev"


def wait_for(what, condition, patience_s=PATIENCE_S):
    """Until condition() is true; returns what it returned."""
    end = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {patience_s} s: {what}"
        time.sleep(0.02)


class DcsError(Exception):
    def __init__(self, answer):
        super().__init__(f"{answer['error']}: {answer['text']}")
        self.name = answer["error"]
        self.text = answer["text"]


class Client:
    """One connection that stays; calls are made one after the other."""

    def __init__(self, endpoints, pki=None):
        command = [build_dir() / "dcs_tool"]
        if pki is not None:
            command += ["-p", pki]
        self.process = subprocess.Popen([*command, ",".join(endpoints), "lines"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __call__(self, method, **params):
        print(method, json.dumps(params), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise ConnectionError(self.process.stderr.read())
        answer = json.loads(line)
        if "error" in answer:
            raise DcsError(answer)
        return answer["ok"]

    def close(self):
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


class Node:
    prefix = ()  # what its programs are run by
    program = "dcs_node"

    def __init__(self, lab, number):
        self.lab = lab
        self.number = number
        self.name = f"n{number}"
        self.dir = lab.root / self.name
        self.address = f"127.0.0.1:{free_port()}"
        self.log_path = lab.root / f"{self.name}.log"
        self.process = None
        self.join = []

    def flags(self):
        return ["--dir", self.dir, "--name", self.name, "--listen", self.address]

    def start(self, wait=True, under=()):
        """under: a command that runs it (strace)."""
        more = [x for j in self.join for x in ("--join", j)]
        with self.log_path.open("a") as log:
            self.process = subprocess.Popen([*self.prefix, *under, build_dir() / self.program, "run", *self.flags(), *more, *self.lab.timing],
                                            stdout=log, stderr=subprocess.STDOUT)
        if wait:
            wait_for(f"{self.name} is up:\n{self.log()}", self.status)
        return self

    def log(self):
        return self.log_path.read_text() if self.log_path.exists() else ""

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(PATIENCE_S)

    def signal(self, how):
        self.process.send_signal(how)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def client(self):
        return Client([f"unix:{self.dir}/regent.sock"])

    def call(self, method, **params):
        answer = subprocess.run([build_dir() / "dcs_tool", f"unix:{self.dir}/regent.sock", "call", method,
                                 json.dumps(params)], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if not answer.stdout:
            raise ConnectionError(answer.stderr)
        value = json.loads(answer.stdout)
        if "error" in value:
            raise DcsError(value)
        return value["ok"]

    def status(self):
        with contextlib.suppress(ConnectionError, DcsError, subprocess.TimeoutExpired):
            return self.call("cluster.status")
        return None


class Lab:
    """n nodes; `timing` are more flags of every dcs_node."""
    node_class = Node

    def __init__(self, root, nodes=3, timing=()):
        self.root = pathlib.Path(root)
        self.timing = [str(x) for x in timing]
        self.nodes = []
        self.clients = []
        try:
            self.form(nodes)
        except BaseException:
            self.close()
            raise

    def form(self, nodes):
        if nodes:
            first = self.node_class(self, 1)
            subprocess.run([build_dir() / "dcs_node", "init", *first.flags()], check=True)
            self.nodes.append(first)
            first.start()
            wait_for("the first node leads", lambda: first.status()["state"] == "leader")
        for _ in range(1, nodes):
            self.add()
        if nodes >= 3:
            self.wait_voters(nodes if nodes % 2 else nodes - 1)

    def register(self, via=None, **token):
        """A further node with a certificate; not started."""
        via = via or self.nodes[0]
        node = self.node_class(self, len(self.nodes) + 1)
        token = token.pop("token", None) or via.call("token.create", **token)["token"]
        done = subprocess.run([*node.prefix, build_dir() / "dcs_node", "join", *node.flags(), "--token", token,
                               "--via", via.address], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        node.join = [via.address]
        return node

    def add(self, **token):
        node = self.register(**token)
        self.nodes.append(node)
        return node.start()

    def wait_voters(self, n):
        def good():
            with contextlib.suppress(DcsError, ConnectionError):
                return self.any().call("member.list")["voters"] == n
            return False
        wait_for(f"{n} voters", good)

    def any(self):
        return next(n for n in self.nodes if n.alive())

    def leader(self, besides=None):
        def find():
            for n in self.nodes:
                status = n.status() if n.alive() and n is not besides else None
                if status and status["state"] == "leader":
                    return n
            return None
        return wait_for("a leader", find)

    def followers(self):
        leader = self.leader()
        return [n for n in self.nodes if n is not leader and n.alive()]

    def endpoints(self):
        return [n.address for n in self.nodes]

    def client(self, nodes=None):
        c = Client([n.address for n in nodes or self.nodes], self.nodes[0].dir / "pki")
        self.clients.append(c)
        return c

    def tool(self, *words, **more):
        return subprocess.Popen([build_dir() / "dcs_tool", "-p", self.nodes[0].dir / "pki", ",".join(self.endpoints()),
                                 *[str(w) for w in words]], text=True, **{"stdout": subprocess.PIPE, **more})

    def close(self):
        for c in self.clients:
            c.close()
        for n in self.nodes:
            if n.process is not None:
                if n.process.poll() is None:
                    n.process.send_signal(signal.SIGCONT)
                    n.process.kill()
                n.process.wait()
            print(f"---- {n.name}\n{n.log()[-4000:]}")  # pytest shows it when the test failed
        shutil.rmtree(self.root, ignore_errors=True)  # what is mounted there is emptied


def new_lab(nodes=3, timing=(), root=None):
    # Not pytest's tmp_path: the path of a local socket has to be short.
    return Lab(root or tempfile.mkdtemp(prefix="dcs.", dir="/tmp"), nodes, timing)


def ctl(node, *words, code=0):
    """regentctl over TLS, asking this node; its standard output."""
    pki = node.dir / "pki"
    env = {**os.environ, "REGENT_CACERT": str(pki / "ca.crt"), "REGENT_CERT": str(pki / "node.crt"),
           "REGENT_KEY": str(pki / "node.key")}
    done = subprocess.run([build_dir() / "regentctl", "-H", node.address, *[str(w) for w in words]], env=env,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr
