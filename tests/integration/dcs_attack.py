"""What the tests that attack the store share: a client that does nothing by itself, and what they ask members."""
import contextlib
import os
import re
import socket
import sqlite3
import ssl

import pytest

from dcs_lab import DcsError, build_dir, wait_for

HEAVY = os.environ.get("REGENT_HEAVY") == "1"

NEEDED = [
    pytest.mark.skipif(not (build_dir() / "dcs_node").exists(), reason="dcs_node is not built"),
    pytest.mark.skipif(not (build_dir() / "dcs_tool").exists(), reason="dcs_tool is not built"),
]


# ---- bytes on the wire -------------------------------------------------------------------------


def pack(v):
    """MessagePack, as far as the protocol needs it."""
    if v is None:
        return b"\xc0"
    if isinstance(v, bool):
        return b"\xc3" if v else b"\xc2"
    if isinstance(v, int):
        return b"\xcf" + v.to_bytes(8, "big")
    if isinstance(v, (str, bytes)):
        raw = v.encode() if isinstance(v, str) else v
        return (b"\xdb" if isinstance(v, str) else b"\xc6") + len(raw).to_bytes(4, "big") + raw
    if isinstance(v, dict):
        return b"\xdf" + len(v).to_bytes(4, "big") + b"".join(pack(k) + pack(x) for k, x in v.items())
    return b"\xdd" + len(v).to_bytes(4, "big") + b"".join(pack(x) for x in v)


class Short(Exception):
    pass


def unpack(b, at=0):
    """(value, position behind it); Short when bytes are missing."""
    def take(n):
        nonlocal at
        if at + n > len(b):
            raise Short
        at += n
        return bytes(b[at - n:at])

    def many(n, pairs):
        nonlocal at
        items = []
        for _ in range(2 * n if pairs else n):
            value, at = unpack(b, at)
            items.append(value)
        return dict(zip(items[::2], items[1::2])) if pairs else items

    tag = take(1)[0]
    if tag < 0x80:
        return tag, at
    if tag < 0xc0:
        value = take(tag & 0x1f) if tag >= 0xa0 else many(tag & 0xf, tag < 0x90)
        return (value.decode() if tag >= 0xa0 else value), at
    if tag in (0xc0, 0xc2, 0xc3):
        return {0xc0: None, 0xc2: False, 0xc3: True}[tag], at
    if 0xcc <= tag <= 0xcf:
        return int.from_bytes(take(1 << (tag - 0xcc)), "big"), at
    sizes = {0xc4: 1, 0xc5: 2, 0xc6: 4, 0xd9: 1, 0xda: 2, 0xdb: 4, 0xdc: 2, 0xdd: 4, 0xde: 2, 0xdf: 4}
    n = int.from_bytes(take(sizes[tag]), "big")
    if tag >= 0xdc:
        return many(n, tag >= 0xde), at
    raw = take(n)
    return (raw.decode() if tag >= 0xd9 else raw), at


class Wire:
    """A connection of our own to one node: nothing is sent again, nothing is waited for that was not asked for."""

    def __init__(self, node, local=True, timeout=30):
        if local:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(str(node.dir / "regent.sock"))
        else:
            self.sock = tls(node, socket.create_connection(("127.0.0.1", port_of(node)), timeout))
        self.buffer = bytearray()
        self.msgid = 0
        self.answer(self.send("hello", version=1))

    def send(self, method, **params):
        self.msgid += 1
        self.sock.sendall(pack([0, self.msgid, method, [params]]))
        return self.msgid

    def frame(self):
        while True:
            with contextlib.suppress(Short):
                value, at = unpack(self.buffer)
                del self.buffer[:at]
                return value
            more = self.sock.recv(1 << 20)
            if not more:
                raise ConnectionError("closed")
            self.buffer += more

    def answer(self, msgid):
        while True:
            frame = self.frame()
            if frame[0] == 1 and frame[1] == msgid:
                if frame[2]:
                    raise DcsError({"error": frame[2][1], "text": frame[2][2]})
                return frame[3]

    def __call__(self, method, **params):
        return self.answer(self.send(method, **params))

    def close(self):
        self.sock.close()


def text(key):
    return key.decode() if isinstance(key, bytes) else key


def port_of(node):
    return int(node.address.rsplit(":", 1)[1])


def tls(node, sock, certificate=True):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(node.dir / "pki" / "ca.crt")
    if certificate:
        context.load_cert_chain(node.dir / "pki" / "node.crt", node.dir / "pki" / "node.key")
    return context.wrap_socket(sock)


def fill(client, n, prefix="k-", value="v"):
    for i in range(0, n, 100):
        client("kv.txn", then=[{"op": "put", "key": f"{prefix}{j:06}", "value": value} for j in range(i, min(n, i + 100))])


# ---- members ----


def wait_until_forgotten(lab, index, every):
    """Until the leader's log begins so far behind the entry that only a snapshot helps who has no more than it. every: --snapshot-every."""
    def forgotten():
        taken = re.findall(r"event=snapshot_taken index=(\d+)", lab.leader().log())
        return taken and int(taken[-1]) > index + 2 * every
    wait_for("what it lacks is in no log any more", forgotten)


def keys_of(client, prefix, **more):
    keys, at = [], prefix
    while True:
        page = client("kv.range", key=at, end=prefix[:-1] + chr(ord(prefix[-1]) + 1), keys_only=True, **more)
        keys += [text(kv["key"]) for kv in page.get("kvs", [])]
        if not page.get("more"):
            return keys
        at = keys[-1] + "!"


def settle(lab):
    """All members run and have applied the same."""
    def same():
        status = [n.status() for n in lab.nodes]
        return len({(s["applied_index"], s["revision"]) for s in status}) == 1
    wait_for("all have applied the same", same)


def applied(node):
    """0: it does not answer."""
    with contextlib.suppress(OSError, DcsError), contextlib.closing(Wire(node)) as client:
        return client("cluster.status").get("applied_index", 0)
    return 0


def in_file(node, what="applied"):
    """The entry, or the revision, up to which state.db has been committed: the passes of half a second share a commit."""
    with contextlib.suppress(sqlite3.OperationalError), \
            contextlib.closing(sqlite3.connect(f"file:{node.dir}/state.db?mode=ro", uri=True)) as db:
        return db.execute(f"SELECT {what} FROM store").fetchone()[0]
    return 0  # busy


def rss_mib(node):
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) // 1024
