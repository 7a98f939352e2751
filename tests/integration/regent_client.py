"""A client of the store, written from docs/PROTOCOL.md alone: nothing but Python's own library, no program and no
file of this project. The names of sections below are that page's.

    client = Client(["10.0.0.1:7400", "10.0.0.2:7400"], ca="ca.crt", cert="node.crt", key="node.key")
    client.put("a", "1")                               # applied once, whatever happens on the way
    client.txn(compare=[...], then=[...], otherwise=[...])
    lease = client.lease(5000); client.put("a", "2", lease=lease.id); lease.renew()
    for revision, events in client.watch("a", end="b"): ...
"""
import random
import socket
import ssl
import struct
import time

ALL = b"\0"  # "end": all keys from `key` on


class RegentError(Exception):
    """An answer with an error. outcome: "none" (nothing was applied) or "unknown" (it may have been)."""

    def __init__(self, code, name, message, details):
        super().__init__(f"{name}: {message}")
        self.code, self.name, self.message = code, name, message
        self.outcome = details.get("outcome", "none")
        self.leader, self.gone = details.get("leader", ""), details.get("gone", False)
        self.no_session = name == "precondition" and message.startswith("session")


class Unknown(Exception):
    """The write may have been applied, and that could not be found out in time."""


# ---- Frames: MessagePack --------------------------------------------------------------------------


def pack(v):
    if v is None:
        return b"\xc0"
    if isinstance(v, bool):
        return b"\xc3" if v else b"\xc2"
    if isinstance(v, int):
        return b"\xcf" + struct.pack(">Q", v) if v >= 0 else b"\xd3" + struct.pack(">q", v)
    if isinstance(v, str):
        raw = v.encode()
        return b"\xdb" + struct.pack(">I", len(raw)) + raw
    if isinstance(v, (bytes, bytearray)):
        return b"\xc6" + struct.pack(">I", len(v)) + bytes(v)
    if isinstance(v, dict):
        return b"\xdf" + struct.pack(">I", len(v)) + b"".join(pack(k) + pack(x) for k, x in v.items())
    return b"\xdd" + struct.pack(">I", len(v)) + b"".join(pack(x) for x in v)


class Short(Exception):
    """The value is not all there yet."""


class Unpacker:
    SIGNED = {0xd0: ">b", 0xd1: ">h", 0xd2: ">i", 0xd3: ">q"}
    SIZED = {0xc4: 1, 0xc5: 2, 0xc6: 4, 0xd9: 1, 0xda: 2, 0xdb: 4, 0xdc: 2, 0xdd: 4, 0xde: 2, 0xdf: 4}

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise Short
        self.at += n
        return bytes(self.data[self.at - n:self.at])

    def many(self, n, pairs):
        if not pairs:
            return [self.value() for _ in range(n)]
        items = [self.value() for _ in range(2 * n)]
        return dict(zip(items[::2], items[1::2]))

    def value(self):
        tag = self.take(1)[0]
        if tag < 0x80 or tag >= 0xe0:
            return tag if tag < 0x80 else tag - 0x100
        if tag < 0xa0:
            return self.many(tag & 0xf, tag < 0x90)
        if tag < 0xc0:
            return self.take(tag & 0x1f).decode()
        if tag in (0xc0, 0xc2, 0xc3):
            return {0xc0: None, 0xc2: False, 0xc3: True}[tag]
        if 0xcc <= tag <= 0xcf:
            return int.from_bytes(self.take(1 << (tag - 0xcc)), "big")
        if tag in self.SIGNED:
            return struct.unpack(self.SIGNED[tag], self.take(1 << (tag - 0xd0)))[0]
        n = int.from_bytes(self.take(self.SIZED[tag]), "big")
        if tag >= 0xdc:
            return self.many(n, tag >= 0xde)
        raw = self.take(n)
        return raw if tag < 0xd9 else raw.decode()


def unpack(data):
    """(value, bytes it took); Short."""
    u = Unpacker(data)
    return u.value(), u.at


# ---- Transport, Frames, hello ---------------------------------------------------------------------


class Connection:
    """To one node. endpoint: HOST:PORT, [V6]:PORT, or the path of a local socket."""

    def __init__(self, endpoint, ca=None, cert=None, key=None, timeout_s=5, cluster_id=None):
        if "/" in endpoint:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout_s)
            self.sock.connect(endpoint)
        else:
            host, port = endpoint.rsplit(":", 1)
            plain = socket.create_connection((host.strip("[]"), int(port)), timeout_s)
            try:
                self.sock = self.secure(plain, ca, cert, key)
            except BaseException:
                plain.close()
                raise
        self.buffer, self.next_id, self.events = bytearray(), 0, []
        try:
            hello = {"version": 1, "name": "regent_client.py", "role": "client"}
            if cluster_id:
                hello["cluster_id"] = cluster_id
            self.node = self.call("hello", hello)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def secure(plain, ca, cert, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # who a peer is stands in its certificate
        context.load_verify_locations(ca)
        if cert:
            context.load_cert_chain(cert, key)
        sock = context.wrap_socket(plain)
        names = sock.getpeercert().get("subjectAltName", ())
        if not any(kind == "URI" and name.startswith("regent://") for kind, name in names):
            raise ssl.SSLError("the server's certificate is not that of a node")
        return sock

    def send(self, method, params):
        self.next_id += 1
        self.sock.sendall(pack([0, self.next_id, method, [params]]))
        return self.next_id

    def frame(self):
        while True:
            try:
                value, n = unpack(self.buffer)
                del self.buffer[:n]
                return value
            except Short:
                more = self.sock.recv(1 << 16)
                if not more:
                    raise ConnectionError("the node closed the connection") from None
                self.buffer += more

    def answer(self, msgid):
        while True:
            frame = self.frame()
            if frame[0] == 2 and frame[1] == "watch.event":
                self.events.append(frame[2][0])
            elif frame[0] == 1 and frame[1] == msgid:
                if frame[2] is not None:
                    raise RegentError(*frame[2])
                return frame[3]

    def call(self, method, params):
        return self.answer(self.send(method, params))

    def event(self):
        """The next watch.event."""
        while not self.events:
            frame = self.frame()
            if frame[0] == 2 and frame[1] == "watch.event":
                self.events.append(frame[2][0])
        return self.events.pop(0)

    def close(self):
        self.sock.close()


# ---- Sessions: each write applied once -------------------------------------------------------------


class Client:
    def __init__(self, endpoints, ca=None, cert=None, key=None, deadline_s=20):
        self.endpoints, self.deadline_s = list(endpoints), deadline_s
        self.pki = {"ca": ca, "cert": cert, "key": key}
        self.connection, self.session, self.seq, self.nonce = None, 0, 0, 0
        self.cluster_id = None

    def connect(self, timeout_s=2):
        endpoint = self.endpoints[0]
        try:
            c = Connection(endpoint, **self.pki, timeout_s=timeout_s, cluster_id=self.cluster_id)
        except (OSError, RegentError):
            self.endpoints.append(self.endpoints.pop(0))  # the next one is another
            raise
        self.cluster_id = c.node["cluster_id"]
        return c

    def drop(self):
        if self.connection:
            self.connection.close()
            self.endpoints.append(self.endpoints.pop(0))
        self.connection = None

    def attempt(self, method, params, until):
        if self.connection is None:
            self.connection = self.connect()
        left_s = max(0.05, until - time.monotonic())
        self.connection.sock.settimeout(left_s)
        return self.connection.call(method, params)

    def again(self, method, params, until, safe):
        """Sends until it is answered. safe: it may be sent although it may have been applied before."""
        doubt = False
        while True:
            try:
                return self.attempt(method, params, until)
            except RegentError as e:
                elsewhere = e.gone and len(self.endpoints) > 1
                if elsewhere:
                    self.drop()
                if e.outcome == "unknown":
                    doubt = True
                elif not elsewhere and not doubt and e.name != "unavailable":
                    raise
                elif e.name in KEPT and not e.no_session:
                    raise  # the result of the first sending
                elif doubt and e.name not in PASSES and not elsewhere:
                    raise Unknown(method) from e
                last = e
            except OSError as e:
                if self.connection is not None:
                    doubt = True  # it may have been sent
                self.drop()
                last = e
            if doubt and not safe:
                raise Unknown(method) from last
            if time.monotonic() > until:
                raise (Unknown(method) if doubt and method not in READS else last)
            time.sleep(random.uniform(0.02, 0.2))

    def call(self, method, **params):
        return self.again(method, params, time.monotonic() + self.deadline_s, method in READS or method in REPEATABLE)

    def write(self, method, **params):
        if not self.session:
            self.nonce = self.nonce or random.getrandbits(63) | 1
            self.session = self.call("session.open", nonce=self.nonce)["session"]
        self.seq += 1
        params.update(session=self.session, seq=self.seq)
        try:
            return self.again(method, params, time.monotonic() + self.deadline_s, True)
        except RegentError as e:
            if not e.no_session:
                raise
        self.session = self.seq = self.nonce = 0  # certainly not applied: anew, in another one
        return self.write(method, **params)

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    # ---- Keys ----

    def range(self, key, **more):
        return self.call("kv.range", key=key, **more)

    def get(self, key, **more):
        kvs = self.range(key, **more).get("kvs", [])
        return kvs[0]["value"] if kvs else None

    def put(self, key, value, **more):
        return self.write("kv.put", key=key, value=value, **more)

    def delete(self, key, **more):
        return self.write("kv.delete", key=key, **more)

    def txn(self, **parts):
        return self.write("kv.txn", **parts)

    def lease(self, ttl_ms):
        return Lease(self, ttl_ms)

    def watch(self, key, start_revision=0, window=1 << 20, **more):
        """Yields (revision, events), whole revisions in order, without a gap, for ever. With progress_ms also (revision, []).
        Who takes them slowly holds up the node's sending and nothing else."""
        position = start_revision
        while True:
            connection = None
            try:
                connection = self.connect()
                made = connection.call("watch.create", {"key": key, "start_revision": position, "credit": window, **more})
                position = position or made["revision"] + 1
                connection.sock.settimeout(None)
                for revision, events in whole_revisions(connection, made["watch"], window):
                    position = revision + 1
                    yield revision, events
            except OSError:
                time.sleep(random.uniform(0.02, 0.2))
            except RegentError as e:
                if e.gone and len(self.endpoints) > 1:
                    self.endpoints.append(self.endpoints.pop(0))
                elif e.name not in ("unavailable", "limit"):
                    raise
                time.sleep(random.uniform(0.02, 0.2))
            finally:
                if connection:
                    connection.close()


READS = {"kv.range", "lease.info", "member.list", "token.list", "cluster.status", "hash.read", "sql.query"}
KEPT = {"not_found", "exists", "precondition"}
PASSES = {"unavailable", "timeout", "cancelled", "limit", "no_space"}
REPEATABLE = {"session.open", "lease.renew", "cert.renew", "token.redeem"}


def whole_revisions(connection, watch, window):
    """Ends when the watch does, to be made again; raises `compacted`."""
    gathered, left = [], window
    while True:
        ev = connection.event()
        left -= ev.get("used", 0)
        if ev.get("compacted"):
            raise RegentError(11, "compacted", "the history is gone: read anew", {})
        if ev.get("cancelled"):
            return
        gathered += ev.get("events", [])
        if not ev.get("more"):
            yield ev["revision"], gathered
            gathered = []
        if left <= window // 2:
            connection.send("watch.credit", {"watch": watch, "credit": window - left})
            left = window


# ---- Leases ---------------------------------------------------------------------------------------


class Lease:
    """deadline: on time.monotonic(); after it the holder must have stopped."""

    def __init__(self, client, ttl_ms):
        self.client, self.ttl_ms, self.n = client, ttl_ms, 0
        self.nonce = time.time_ns()  # rises from one life of the holder to the next
        sent = time.monotonic()
        self.id = client.write("lease.grant", ttl_ms=ttl_ms, nonce=self.nonce)["id"]
        self.held(sent)

    def held(self, sent):
        margin_ms = max(200, self.ttl_ms / 10)
        self.deadline = sent + (self.ttl_ms - margin_ms) / 1000

    def renew(self):
        """False: the lease is gone."""
        self.n += 1
        sent = time.monotonic()
        state = self.client.call("lease.renew", id=self.id, nonce=self.nonce, n=self.n)
        if state.get("gone"):
            return False
        if (state.get("nonce"), state.get("n")) == (self.nonce, self.n):
            self.held(sent)
        return True

    def revoke(self):
        self.client.write("lease.revoke", id=self.id)
