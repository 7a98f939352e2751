"""What clients of the store do, through dcs_tool: the client library of the project, which sends a write again under its
session and number when the answer was lost.
"""
import contextlib
import json
import random
import subprocess
import threading
import time

from dcs_lab import Client as Wire
from dcs_lab import DcsError, build_dir
from history import Process

UNKNOWN = ("outcome_unknown", "timeout", "internal", "io")
PREFIX = "/fault-test/"
LEASE_TTL_S = 3
MARGIN_S = 0.3  # max(200 ms, TTL / 10)
KEY_OPS = 150   # of one register, then the next is taken
PAUSE_S = 0.02
PATIENCE_S = 300  # for what has to come about: nothing is measured by it


class Client(threading.Thread):
    """One process with a connection of its own."""
    pause_s = PAUSE_S

    def __init__(self, load, number, step, seed):
        super().__init__(daemon=True)
        self.load, self.history = load, load.history
        self.process = Process(load.history, number, step)
        self.id, self.step_of = number, step
        self.rng = random.Random(f"{seed}/{number}")
        self.finish = threading.Event()
        self.wire = None
        self.count = 0
        self.fatal = None

    def run(self):
        try:
            while not self.finish.is_set():
                self.count += 1
                self.step()
                self.finish.wait(self.pause_s * self.rng.uniform(0.5, 1.5))
        except BaseException as e:
            self.fatal = e
            raise
        finally:
            self.drop()

    def call(self, method, **params):
        """ConnectionError when the tool could not open a connection at all: nothing was sent."""
        if self.wire is None:
            self.wire = Wire(self.load.endpoints(self.rng), self.load.pki)
        try:
            return self.wire(method, **params)
        except (ConnectionError, OSError):
            self.drop()
            raise ConnectionError("no connection") from None

    def drop(self):
        if self.wire is not None:
            with contextlib.suppress(OSError):
                self.wire.close()
            self.wire = None

    def attempt(self, f, value, act):
        """act() gives (value, more of the history) or None: the compares did not hold. Returns what came of it, or None."""
        self.process.invoke(f, value)
        try:
            done = act()
        except DcsError as e:
            self.process.done("info" if e.name in UNKNOWN else "fail", f, value, error=e.name)
            return None
        except ConnectionError:
            # The tool ends before it sends when no node answers; a tool that died later leaves the outcome open.
            self.process.done("info", f, value, error="connection")
            self.finish.wait(0.2)
            return None
        if done is None:
            self.process.done("fail", f, value, error="compare")
            return None
        self.process.done("ok", f, done[0], **done[1])
        return done

    def read(self, key, **more):
        found = self.call("kv.range", key=key, **more)
        kv = found["kvs"][0] if found.get("kvs") else {}
        return found, kv

    def stop(self):
        self.finish.set()

    def step(self):
        raise NotImplementedError

    def last(self):
        """Once, when the faults are over."""


class Register(Client):
    """Reads, writes and compare-and-swaps of a few keys."""

    def step(self):
        n = (self.count * self.step_of) // KEY_OPS
        key = f"{PREFIX}r/{n}/{self.rng.randrange(2)}"
        value = f"{self.id}.{self.count}"
        kind = self.rng.choice(("read", "write", "cas"))
        if kind == "read":
            self.attempt("read", [key, None], lambda: self.seen(key))
        elif kind == "write":
            self.attempt("write", [key, value], lambda: ([key, value], {"revision": self.call("kv.put", key=key, value=value)["revision"]}))
        else:
            self.swap(key, value)

    def seen(self, key):
        _, kv = self.read(key)
        return [key, kv.get("value")], {"revision": kv.get("mod_revision", 0)}

    def swap(self, key, value):
        try:
            _, kv = self.read(key, local=True)  # perhaps old: then the compare fails
        except (DcsError, ConnectionError):
            self.finish.wait(0.1)
            return
        mod = kv.get("mod_revision", 0)

        def act():
            done = self.call("kv.txn", compare=[{"key": key, "target": "mod", "op": "=", "number": mod}],
                             then=[{"op": "put", "key": key, "value": value}])
            return ([key, kv.get("value"), value], {"revision": done["revision"], "seen": mod}) if done.get("succeeded") else None
        self.attempt("cas", [key, kv.get("value"), value], act)


class Elements(Client):
    """Adds keys nobody else adds, and reads them all now and then."""

    def step(self):
        if self.rng.random() < 0.02:
            self.read_all()
            return
        element = self.count * 100 + self.id
        self.attempt("add", element, lambda: (element, {"revision": self.call("kv.put", key=f"{PREFIX}s/{element:08}", value="x")["revision"]}))

    def read_all(self):
        def act():
            keys, at = [], f"{PREFIX}s/"
            first = self.call("kv.range", key=at, end=f"{PREFIX}s0", keys_only=True)
            revision, page = first["revision"], first
            while True:
                keys += [int(kv["key"].rsplit("/", 1)[1]) for kv in page.get("kvs", [])]
                if not page.get("more"):
                    return keys, {"revision": revision}
                at = page["kvs"][-1]["key"] + "!"
                page = self.call("kv.range", key=at, end=f"{PREFIX}s0", keys_only=True, revision=revision)
        return self.attempt("read-set", None, act)

    def last(self):
        return self.id != 0 or self.read_all() is not None


class Counter(Client):
    """Increments one key by compare-and-swap, and reads it at the end."""
    key = f"{PREFIX}counter"

    def step(self):
        try:
            _, kv = self.read(self.key)
        except (DcsError, ConnectionError):
            self.finish.wait(0.1)
            return
        new = int(kv.get("value", "0")) + 1

        def act():
            done = self.call("kv.txn", compare=[{"key": self.key, "target": "mod", "op": "=", "number": kv.get("mod_revision", 0)}],
                             then=[{"op": "put", "key": self.key, "value": str(new)}])
            return (new, {"revision": done["revision"]}) if done.get("succeeded") else None
        self.attempt("increment", new, act)

    def last(self):
        def act():
            _, kv = self.read(self.key)
            return int(kv.get("value", "0")), {}
        return self.id != 0 or self.attempt("read-counter", None, act) is not None


class Once(Client):
    """Puts to a key of its own; the pair from before tells how often the store has applied one."""

    def step(self):
        key = f"{PREFIX}once/{self.id}"

        def act():
            done = self.call("kv.put", key=key, value=str(self.count), prev_kv=True)
            before = done["kvs"][0].get("version", 0) if done.get("kvs") else 0
            return [key, before], {"revision": done["revision"]}
        self.attempt("put", [key, None], act)


class Lists(Client):
    """Transactions of reads and appends over a few lists: all of them are read first, and what is written holds only when none
    has changed meanwhile."""

    def step(self):
        n = (self.count * self.step_of) // KEY_OPS
        value = []
        for i in range(self.rng.randint(1, 4)):
            key = n * 4 + self.rng.randrange(3)
            item = self.count * 10000 + self.id * 10 + i
            value.append(["append", key, item] if self.rng.random() < 0.5 else ["r", key, None])
        self.attempt("txn", value, lambda: self.commit(value))

    def commit(self, value):
        lists, mods = {}, {}
        for key in {key for _, key, _ in value}:
            _, kv = self.read(self.key(key), local=True)  # perhaps old: then a compare fails
            lists[key], mods[key] = json.loads(kv.get("value", "[]")), kv.get("mod_revision", 0)
        done = []
        for kind, key, item in value:
            if kind == "append":
                lists[key] = [*lists[key], item]
            done.append([kind, key, item if kind == "append" else lists[key]])
        reply = self.call("kv.txn", compare=[{"key": self.key(key), "target": "mod", "op": "=", "number": mod} for key, mod in mods.items()],
                          then=[{"op": "put", "key": self.key(key), "value": json.dumps(lists[key])}
                                for key in {key for kind, key, _ in value if kind == "append"}])
        return (done, {"revision": reply["revision"]}) if reply.get("succeeded") else None

    @staticmethod
    def key(number):
        return f"{PREFIX}x/{number:06}"

    def last(self):
        """Every node tells all lists."""
        if self.id != 0:
            return True
        for node in self.load.cluster.nodes:
            wire = Wire([node.dcs_address()], self.load.pki)
            try:
                found, at = {}, f"{PREFIX}x/"
                while at is not None:
                    page = wire("kv.range", key=at, end=f"{PREFIX}x0")
                    found.update({int(kv["key"].rsplit("/", 1)[1]): json.loads(kv["value"]) for kv in page.get("kvs", [])})
                    at = page["kvs"][-1]["key"] + "!" if page.get("more") else None
            except (DcsError, ConnectionError, OSError):
                return False
            finally:
                wire.close()
            self.history.add("info", "nemesis", "final", {str(k): v for k, v in found.items()}, node=node.name)
        return True


class Watched(Client):
    def step(self):
        key, value = f"{PREFIX}w/{self.rng.randrange(20)}", f"{self.id}.{self.count}"
        self.attempt("put-watched", [key, value],
                     lambda: ([key, value], {"revision": self.call("kv.put", key=key, value=value)["revision"]}))


class Watcher(threading.Thread):
    """Reads the events at one node, and resumes behind the last one when the connection ends."""

    def __init__(self, load, node):
        super().__init__(daemon=True)
        self.load, self.node = load, node
        self.next = 1
        self.finish = threading.Event()
        self.process = None
        self.fatal = None

    def run(self):
        while not self.finish.is_set():
            self.process = subprocess.Popen([build_dir() / "dcs_tool", "-p", self.load.pki, self.node.dcs_address(), "watch", f"{PREFIX}w/",
                                             f"{PREFIX}w0", str(self.next)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for line in self.process.stdout:
                self.take(json.loads(line))
            self.process.wait()
            self.finish.wait(0.2)

    def take(self, message):
        for event in message.get("events", []):
            kv = event["kv"]
            self.load.history.add("info", "nemesis", "event", [kv["key"], kv.get("value")], node=self.node.name,
                                  revision=message["revision"])
            self.next = message["revision"] + 1

    def stop(self):
        self.finish.set()
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()


class Lease(Client):
    """Grants a lease with a key on it, renews it for a while, and lets it run out."""

    def __init__(self, *args):
        super().__init__(*args)
        self.lease, self.key, self.n, self.nonce, self.left = None, None, 0, 0, 0

    pause_s = 0.4

    def step(self):
        if self.left == 0:
            self.left = self.rng.randint(2, 10)
            self.begin()
        else:
            self.left -= 1
            self.renew()

    def begin(self):
        self.lease, self.key, self.n = None, f"{PREFIX}l/{self.id}.{self.count}", 0
        asked = self.history.now()
        try:
            self.nonce = self.rng.getrandbits(48) | 1
            self.lease = self.call("lease.grant", ttl_ms=LEASE_TTL_S * 1000, nonce=self.nonce)["id"]
        except (DcsError, ConnectionError):
            self.left = 0
            return
        put = self.attempt("put-lease", self.key, lambda: (self.key, {"revision": self.call("kv.put", key=self.key, value="x", lease=self.lease)["revision"]}))
        if put is None:
            self.lease = None
            self.left = 0
            return
        self.load.keys.append(self.key)
        self.held(asked)

    def renew(self):
        asked = self.history.now()
        self.n += 1
        try:
            answer = self.call("lease.renew", id=self.lease, nonce=self.nonce, n=self.n)
        except (DcsError, ConnectionError):
            return
        if answer.get("n") == self.n and not answer.get("gone"):
            self.held(asked)

    def held(self, asked):
        """As a holder counts: from before the request was sent."""
        until = asked + int((LEASE_TTL_S - MARGIN_S) * 1e9)
        self.process.invoke("hold", [self.key, until])
        self.process.done("ok", "hold", [self.key, until])


class LeaseReader(Client):
    def step(self):
        if self.load.keys:
            self.look(self.rng.choice(self.load.keys[-8:]), "read-lease")

    def look(self, key, f):
        def act():
            _, kv = self.read(key)
            return [key, bool(kv)], {}
        return self.attempt(f, [key, None], act)

    def last(self):
        if self.id != self.step_of - 1:
            return True
        keys, end = self.load.keys[-30:], time.monotonic() + PATIENCE_S
        while any(self.is_there(key) for key in keys) and time.monotonic() < end:
            time.sleep(0.5)
        return all(self.look(key, "read-lease-end") is not None for key in keys)

    def is_there(self, key):
        try:
            return bool(self.read(key)[1])
        except (DcsError, ConnectionError):
            return True


class Lock(Client):
    """A key that exists while somebody holds it; its revision is the fencing token."""
    pause_s = 0.1
    key = f"{PREFIX}lock"

    def step(self):
        asked = self.history.now()
        try:
            nonce = self.rng.getrandbits(48) | 1
            lease = self.call("lease.grant", ttl_ms=LEASE_TTL_S * 1000, nonce=nonce)["id"]
        except (DcsError, ConnectionError):
            self.finish.wait(0.2)
            return

        def act():
            done = self.call("kv.txn", compare=[{"key": self.key, "target": "create", "op": "=", "number": 0}],
                             then=[{"op": "put", "key": self.key, "value": str(self.id), "lease": lease}])
            until = asked + int((LEASE_TTL_S - MARGIN_S) * 1e9)
            # What was acknowledged after the holder's time is nobody's hold.
            return ([done["revision"], max(until, self.history.now())], {}) if done.get("succeeded") and self.history.now() < until else None
        got = self.attempt("acquire", None, act)
        if got is None:
            with contextlib.suppress(DcsError, ConnectionError):
                self.call("lease.revoke", id=lease)
            return
        token = got[0][0]
        self.finish.wait(self.rng.uniform(0.02, 0.5))
        end = self.history.now()
        self.process.invoke("release", [token, end])
        self.process.done("ok", "release", [token, min(end, got[0][1])])
        with contextlib.suppress(DcsError, ConnectionError):
            self.call("lease.revoke", id=lease)


WORKLOADS = {"register": [Register] * 5, "set": [Elements] * 4, "counter": [Counter] * 4, "once": [Once] * 4, "watch": [Watched] * 3,
             "txn": [Lists] * 5,
             "lease": [Lease] * 3 + [LeaseReader] * 2, "lock": [Lock] * 5}


class StoreLoad:
    def __init__(self, name, cluster, history, seed):
        self.name, self.cluster, self.history = name, cluster, history
        self.pki = cluster.nodes[0].dir / "pki"
        self.keys = []
        classes = WORKLOADS[name]
        self.clients = [c(self, i, len(classes), seed) for i, c in enumerate(classes)]
        self.watchers = [Watcher(self, n) for n in cluster.nodes] if name == "watch" else []

    def endpoints(self, rng):
        addresses = [n.dcs_address() for n in self.cluster.nodes]
        rng.shuffle(addresses)
        return addresses

    def start(self):
        for t in [*self.clients, *self.watchers]:
            t.start()

    def stop(self):
        for c in self.clients:
            c.stop()
        for c in self.clients:
            c.join(120)
        for c in self.clients:
            if c.fatal:
                raise c.fatal
        self.cluster.wait_healthy(PATIENCE_S)
        for c in self.clients:
            end = time.monotonic() + PATIENCE_S
            while c.last() not in (None, True) and time.monotonic() < end:
                time.sleep(0.5)
            c.drop()
        self.catch_up()

    def catch_up(self):
        """Watchers have the last acknowledged write, or never will."""
        written = max((op["revision"] for op in self.history.ops if op["f"] == "put-watched" and op["type"] == "ok"), default=0)
        end = time.monotonic() + PATIENCE_S
        while any(w.next <= written for w in self.watchers) and time.monotonic() < end:
            time.sleep(0.1)
        for w in self.watchers:
            w.stop()
