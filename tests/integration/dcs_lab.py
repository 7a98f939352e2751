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

PATIENCE_S = 60
PASSES = ("unavailable", "timeout", "outcome_unknown")  # errors of a cluster between two leaders


def build_dir():
    named = os.environ.get("REGENT_BUILD")
    if named:
        return pathlib.Path(named)
    return pathlib.Path(__file__).resolve().parents[2] / "build" / "dev"


def wait_for(what, condition, patience_s=PATIENCE_S):
    """Until condition() is true; returns what it returned. No answer, or no leader, is: not yet."""
    end = time.monotonic() + patience_s
    while True:
        why = ""
        try:
            value = condition()
        except (ConnectionError, subprocess.TimeoutExpired, DcsError) as e:
            if isinstance(e, DcsError) and e.name not in PASSES:
                raise
            value, why = None, f" ({e})"
        if value:
            return value
        assert time.monotonic() < end, f"not within {patience_s} s: {what}{why}"
        time.sleep(0.02)


class DcsError(Exception):
    def __init__(self, answer):
        super().__init__(f"{answer['error']}: {answer['text']}")
        self.name = answer["error"]
        self.text = answer["text"]


def until_acknowledged(call, method, params):
    """Puts without a deadline of their own are made again when their outcome is unknown, as after two seconds without a leader."""
    puts = method == "kv.put" or (method == "kv.txn" and not params.get("compare") and {op["op"] for op in params.get("then", [])} == {"put"})
    if not puts or "deadline_ms" in params:
        return call(method, **params)
    return wait_for(method, lambda: call(method, **params))


class Client:
    """One connection that stays; calls are made one after the other."""

    def __init__(self, endpoints, pki=None):
        command = [build_dir() / "dcs_tool"]
        if pki is not None:
            command += ["-p", pki]
        self.process = subprocess.Popen([*command, ",".join(endpoints), "lines"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __call__(self, method, **params):
        return until_acknowledged(self.once, method, params)

    def once(self, method, **params):
        print(method, json.dumps(params), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise ConnectionError(self.process.stderr.read())
        answer = json.loads(line)
        if "error" in answer:
            raise DcsError(answer)
        return answer["ok"]

    def close(self):
        with contextlib.suppress(BrokenPipeError):  # it had ended before what was asked last
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait(PATIENCE_S)
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
            wait_for(f"{self.name} is up: {self.log_path}", self.status_of_the_living)
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
        return until_acknowledged(self.once, method, params)

    def once(self, method, within_ms=30000, **params):
        answer = subprocess.run([build_dir() / "dcs_tool", "-t", str(within_ms), f"unix:{self.dir}/regent.sock", "call", method,
                                 json.dumps(params)], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if not answer.stdout:
            raise ConnectionError(answer.stderr)
        value = json.loads(answer.stdout)
        if "error" in value:
            raise DcsError(value)
        return value["ok"]

    def status(self):
        """What it says of itself; ConnectionError: it does not answer."""
        end = time.monotonic() + PATIENCE_S / 2
        while True:
            try:
                return self.call("cluster.status", within_ms=3000)
            except ConnectionError:
                if not self.alive() or time.monotonic() > end:
                    raise

    def status_of_the_living(self):
        assert self.alive(), f"{self.name} has ended:\n{self.log()[-4000:]}"
        return self.status()

    def seen(self):
        """The same as status(), or {}."""
        with contextlib.suppress(ConnectionError, DcsError, subprocess.TimeoutExpired):
            return self.call("cluster.status", within_ms=3000)
        return {}


class Load:
    """Puts of numbered keys below `prefix`, until end()."""

    def __init__(self, lab, prefix, workers):
        self.path = lab.root / f"load.{len(lab.tools)}"
        with self.path.open("w") as out:
            self.process = lab.tool("load", prefix, workers, 600000, stdout=out)

    def lines(self):
        return [line.rstrip("\n") for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def acknowledged(self):
        return {line.split()[1] for line in self.lines() if line.startswith("ok ")}

    def wait_for_more(self, n=100):
        wanted = len(self.acknowledged()) + n
        wait_for(f"{n} more puts", lambda: len(self.acknowledged()) >= wanted)

    def end(self):
        """All lines, when what was under way has come to its end."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0
        return self.lines()


class Lab:
    """n nodes; `timing` are more flags of every dcs_node."""
    node_class = Node

    def __init__(self, root, nodes=3, timing=()):
        self.root = pathlib.Path(root)
        self.timing = [str(x) for x in timing]
        self.nodes = []
        self.clients = []
        self.tools = []
        try:
            self.form(nodes)
        except BaseException:
            self.close()
            raise

    def form(self, nodes):
        if nodes:
            first = self.node_class(self, 1)
            subprocess.run([build_dir() / "dcs_node", "init", *first.flags()], check=True, timeout=PATIENCE_S)
            self.nodes.append(first)
            first.start()
            wait_for("the first node leads", lambda: first.status()["state"] == "leader")
        for _ in range(1, nodes):
            self.add()
        if nodes >= 3:
            self.wait_voters(nodes if nodes % 2 else nodes - 1)

    def register(self, via=None, **token):
        """A further node with a certificate; not started."""
        via = via or self.any()
        node = self.node_class(self, len(self.nodes) + 1)
        token = token.pop("token", None) or via.call("token.create", **token)["token"]
        done = subprocess.run([*node.prefix, build_dir() / "dcs_node", "join", *node.flags(), "--token", token,
                               "--via", via.address], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        node.join = [via.address]
        return node

    def add(self, **token):
        node = self.register(**token)
        self.nodes.append(node)
        return node.start()

    def wait_voters(self, n):
        wait_for(f"{n} voters", lambda: self.any().call("member.list")["voters"] == n)

    def any(self):
        return next(n for n in self.nodes if n.alive())

    def leader(self, besides=None):
        """Of those that say they lead the one of the newest term: another may not have heard of it yet."""
        def find():
            told = [(n, n.seen()) for n in self.nodes if n.alive() and n is not besides]
            newest = max((s["term"] for _, s in told if s), default=0)
            return next((n for n, s in told if s and (s["state"], s["term"]) == ("leader", newest)), None)
        return wait_for("a leader", find)

    def lead(self, node, via=None):
        """Until it leads; asked again where it had no time to catch up."""
        def leads():
            if node.status()["state"] != "leader":
                (via or node).call("cluster.transfer", name=node.name)
            return node.status()["state"] == "leader"
        wait_for(f"{node.name} leads", leads)

    def followers(self):
        leader = self.leader()
        return [n for n in self.nodes if n is not leader and n.alive()]

    def endpoints(self):
        return [n.address for n in self.nodes]

    def client(self, nodes=None):
        c = Client([n.address for n in nodes or self.nodes], self.nodes[0].dir / "pki")
        self.clients.append(c)
        return c

    def load(self, prefix, workers):
        return Load(self, prefix, workers)

    def tool(self, *words, stdout):
        tool = subprocess.Popen([build_dir() / "dcs_tool", "-p", self.nodes[0].dir / "pki", ",".join(self.endpoints()),
                                 *[str(w) for w in words]], text=True, stdout=stdout)
        self.tools.append(tool)
        return tool

    def close(self):
        for tool in self.tools:
            tool.kill()
            tool.wait(PATIENCE_S)
        for n in self.nodes:
            if n.process is not None:
                if n.process.poll() is None:
                    n.process.send_signal(signal.SIGCONT)
                    n.process.kill()
                n.process.wait(PATIENCE_S)
        for c in self.clients:
            c.close()
        for n in self.nodes:
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
