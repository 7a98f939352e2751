"""A history: what clients asked and what came of it, in Jepsen's EDN form, one map a line.

    {:index 7, :time 1234567, :type :ok, :process 2, :f :add, :value 41, :node "n1"}

:time is nanoseconds since the run began. An operation is an :invoke and then one of :ok, :fail (certainly not done)
and :info (may have been done, now or later). After :info a process number is never used again. Faults are :info of
process :nemesis.
"""
import re
import threading
import time

TYPES = ("invoke", "ok", "fail", "info")


class History:
    def __init__(self):
        self.began_ns = time.monotonic_ns()
        self.ops = []
        self.lock = threading.Lock()

    def now(self):
        return time.monotonic_ns() - self.began_ns

    def add(self, kind, process, f, value, **more):
        assert kind in TYPES
        with self.lock:
            op = {"index": len(self.ops), "time": self.now(), "type": kind, "process": process, "f": f, "value": value, **more}
            self.ops.append(op)
        return op

    def write(self, path):
        with open(path, "w", encoding="utf-8") as out:
            for op in self.ops:
                out.write(op_to_edn(op) + "\n")


class Process:
    """One client's numbers: `step` is how many processes there are at a time."""

    def __init__(self, history, number, step):
        self.history, self.number, self.step = history, number, step

    def invoke(self, f, value, **more):
        return self.history.add("invoke", self.number, f, value, **more)

    def done(self, kind, f, value, **more):
        op = self.history.add(kind, self.number, f, value, **more)
        if kind == "info":
            self.number += self.step
        return op


def pairs(ops, f=None):
    """(invocation, completion or None) in the order of invocations; of one kind of operation when f is given."""
    opened, found = {}, []
    for op in ops:
        if op["process"] == "nemesis":
            continue
        if op["type"] == "invoke":
            opened[op["process"]] = pair = [op, None]
            if f is None or op["f"] == f:
                found.append(pair)
        else:
            pair = opened.pop(op["process"], None)
            if pair is None:
                raise ValueError(f"line {op['index']}: a completion without an invocation")
            pair[1] = op
    return [tuple(p) for p in found]


# ---- EDN, as much of it as a history needs ----


def to_edn(value):
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, dict):
        return "{" + ", ".join(f":{k} {to_edn(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (set, frozenset)):
        return "#{" + " ".join(to_edn(v) for v in sorted(value)) + "}"
    return "[" + " ".join(to_edn(v) for v in value) + "]"


def op_to_edn(op):
    parts = []
    for key, value in op.items():
        word = key in ("type", "f") or value == "nemesis"
        parts.append(f":{key} " + (f":{value}" if word else to_edn(value)))
    return "{" + ", ".join(parts) + "}"


TOKEN = re.compile(r'[\s,]*(#\{|[{}\[\]]|"(?:[^"\\]|\\.)*"|:[^\s,{}\[\]]+|[^\s,{}\[\]]+)')
WORDS = {"nil": None, "true": True, "false": False}


def from_edn(text):
    value, at = _read(text, 0)
    if text[at:].strip(" ,\n"):
        raise ValueError(f"behind the value: {text[at:at + 20]!r}")
    return value


def _read(text, at):
    match = TOKEN.match(text, at)
    if not match:
        raise ValueError(f"ends too early: {text[at:at + 20]!r}")
    token, at = match.group(1), match.end()
    if token in ("{", "[", "#{"):
        items, close = [], "]" if token == "[" else "}"
        while True:
            match = TOKEN.match(text, at)
            if match and match.group(1) == close:
                break
            item, at = _read(text, at)
            items.append(item)
        if token == "{":
            return dict(zip(items[::2], items[1::2])), match.end()
        return (set(items) if token == "#{" else items), match.end()
    if token[0] == '"':
        return re.sub(r"\\(.)", lambda m: "\n" if m.group(1) == "n" else m.group(1), token[1:-1]), at
    if token[0] == ":":
        return token[1:], at
    if token in WORDS:
        return WORDS[token], at
    return (float(token) if "." in token or "e" in token else int(token)), at


def read(path):
    with open(path, encoding="utf-8") as f:
        return [from_edn(line) for line in f if line.strip()]
