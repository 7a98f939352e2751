"""Checkers: each reads a history once (or sorts it) and returns {"valid": True, False or "unknown", ...what it counted}.

"unknown" is never a pass. What is not valid is listed under "anomalies" (the first 20 of each kind).
"""
import bisect

import cycles
from history import pairs

MANY = 20


class Verdict:
    def __init__(self):
        self.anomalies = {}
        self.counts = {}
        self.unknown = None

    def wrong(self, kind, what):
        self.counts[kind] = self.counts.get(kind, 0) + 1
        found = self.anomalies.setdefault(kind, [])
        if len(found) < MANY:
            found.append(what)

    def result(self, **more):
        valid = False if self.anomalies else "unknown" if self.unknown else True
        out = {"valid": valid, **more}
        if self.unknown:
            out["why"] = self.unknown
        if self.anomalies:
            out["anomalies"] = self.anomalies
            out["counts"] = self.counts
        return out


def finals(ops):
    """The reads of every node at the end, in the order of nodes."""
    return [op for op in ops if op["f"] == "final" and op["process"] == "nemesis"]


# ---- PostgreSQL ----


def ledger(ops):
    """What was acknowledged is there; what was refused is not; nothing twice; nothing that nobody wrote."""
    v = Verdict()
    done = pairs(ops, "add")
    acked = {ok["value"] for _, ok in done if ok and ok["type"] == "ok"}
    refused = {inv["value"] for inv, ok in done if ok and ok["type"] == "fail"}
    asked = {inv["value"] for inv, _ in done}
    reads = finals(ops)
    if not reads:
        v.unknown = "no final read"
    elif not acked:
        v.unknown = "nothing was acknowledged"
    recovered = 0
    for read in reads:
        rows = set(read["value"])
        if len(rows) != len(read["value"]):
            v.wrong("duplicate", {"node": read["node"], "rows": len(read["value"]), "different": len(rows)})
        for kind, wrong in (("lost", acked - rows), ("refused-but-there", refused & rows), ("nobody-wrote", rows - asked)):
            for value in sorted(wrong):
                v.wrong(kind, {"node": read["node"], "value": value})
        recovered = len(rows - acked)
    lost = {a["value"] for a in v.anomalies.get("lost", [])}
    return v.result(acknowledged=len(acked), lost=len(lost), refused=len(refused), unknown=len(asked) - len(acked) - len(refused),
                    unknown_but_there=recovered)


def single_primary(ops):
    """Nobody acknowledges a write that was sent after somebody's acknowledgement on a newer timeline; a timeline has one node."""
    v = Verdict()
    probes = [op for op in ops if op["f"] == "probe"]
    if not probes:
        v.unknown = "no prober was answered"
    first, owner = {}, {}
    for op in probes:
        t = op["timeline"]
        first[t] = min(first.get(t, op["value"][1]), op["value"][1])
        if owner.setdefault(t, op["node"]) != op["node"]:
            v.wrong("two-nodes-one-timeline", {"timeline": t, "nodes": [owner[t], op["node"]]})
    # newest_first[i]: the earliest acknowledgement on a timeline above the i-th
    lines = sorted(first)
    earliest, after = None, {}
    for t in reversed(lines):
        after[t] = earliest
        earliest = first[t] if earliest is None else min(earliest, first[t])
    for op in probes:
        newer = after[op["timeline"]]
        if newer is not None and op["value"][0] > newer:
            v.wrong("overlap", {"node": op["node"], "timeline": op["timeline"], "late_ms": (op["value"][0] - newer) // 1_000_000})
    return v.result(acknowledged=len(probes), timelines=len(lines))


def bank(ops, total=600):
    """Every read, on whichever node, shows the same sum; so do the final ones."""
    v = Verdict()
    reads = 0
    for op in ops:
        if (op["f"] == "read" and op["type"] == "ok") or op["f"] == "final":
            reads += 1
            if sum(op["value"]) != total:
                v.wrong("wrong-total", {"index": op["index"], "node": op.get("node"), "total": sum(op["value"])})
    moved = sum(1 for op in ops if op["f"] == "transfer" and op["type"] == "ok")
    if not reads or not moved:
        v.unknown = f"{reads} reads, {moved} transfers"
    return v.result(reads=reads, transfers=moved)


def append(ops, level="serializable"):
    """Cycles of transactions over lists; final reads count as reads."""
    v = Verdict()
    found = cycles.check(ops, level)
    for kind, what in found["anomalies"]:
        v.wrong(kind, what)
    for read in finals(ops):
        rows = {int(k): values for k, values in read["value"].items()}
        for key, value in found["acknowledged"]:
            if value not in rows.get(key, ()):
                v.wrong("lost", {"node": read["node"], "key": key, "value": value})
    if not found["transactions"]:
        v.unknown = "no transaction was committed"
    elif not finals(ops):
        v.unknown = "no final read"
    return v.result(transactions=found["transactions"], reads=found["reads"], edges=found["edges"], level=level)


def lineage(ops):
    """Recorded timelines rise with their tokens and positions, and every acknowledged write was on a recorded one, by its node."""
    v = Verdict()
    recorded = next((op["value"] for op in reversed(ops) if op["f"] == "lineage"), None)
    if not recorded:
        v.unknown = "no history record"
        return v.result()
    for before, now in zip(recorded, recorded[1:]):
        if now["timeline"] <= before["timeline"] or now.get("token", 0) <= before.get("token", 0):
            v.wrong("not-rising", [before, now])
    owner = {e["timeline"]: e["name"] for e in recorded}
    wrong = {}
    for op in ops:
        if op["f"] == "probe" and owner.get(op["timeline"]) != op["node"]:
            wrong[(op["timeline"], op["node"])] = owner.get(op["timeline"])
    for (timeline, node), whose in wrong.items():
        v.wrong("not-its-timeline", {"timeline": timeline, "node": node, "recorded": whose})
    return v.result(timelines=len(recorded))


def equality(ops):
    """A logical dump is the same on all nodes."""
    v = Verdict()
    dumps = {op["node"]: op["dump"] for op in finals(ops)}
    if len(dumps) < 2:
        v.unknown = "fewer than two dumps"
    if len(set(dumps.values())) > 1:
        v.wrong("different", dumps)
    return v.result(nodes=len(dumps))


# ---- the store: a revision is the witness of the order ----


def register(ops):
    """Linearizable registers, in the time of a sort: the store names the revision of every write and of what a read saw.

    Values are unique, so a write whose answer was lost has its revision from the reads that saw it. Per key: (1) writes in
    the order of their revisions obey real time; (2) a read sees the value of the revision it names; (3) not one older than
    a write or a read that ended before it began; (4) not one that began after it ended.
    """
    v = Verdict()
    writes, reads = {}, {}  # per key: revision -> [begin, end, value]; list of (begin, end, revision, value)
    unknown = {}            # value -> invocation
    n = 0
    for inv, ok in pairs(ops):
        if inv["f"] not in ("read", "write", "cas"):
            continue
        key = inv["value"][0]
        if ok is None or ok["type"] == "info":
            if inv["f"] != "read":
                unknown[(key, inv["value"][-1])] = inv
        elif ok["type"] == "ok":
            n += 1
            if inv["f"] == "read":
                reads.setdefault(key, []).append((inv["time"], ok["time"], ok["revision"], ok["value"][1]))
            elif ok["revision"] in writes.setdefault(key, {}):
                v.wrong("revision-twice", {"key": key, "revision": ok["revision"]})
            else:
                writes[key][ok["revision"]] = [inv["time"], ok["time"], inv["value"][-1]]
                if inv["f"] == "cas":
                    reads.setdefault(key, []).append((inv["time"], ok["time"], ok["seen"], inv["value"][1]))
    for key, seen in reads.items():
        known = writes.setdefault(key, {})
        for begin, end, revision, value in seen:
            if revision and revision not in known:
                maker = unknown.get((key, value))
                if maker is None:
                    v.wrong("nobody-wrote", {"key": key, "revision": revision, "value": value})
                    continue
                known[revision] = [maker["time"], None, value]
            if revision and known[revision][2] != value:
                v.wrong("wrong-value", {"key": key, "revision": revision, "value": value, "written": known[revision][2]})
            if revision and known[revision][0] > end:
                v.wrong("from-the-future", {"key": key, "revision": revision})
        check_order(v, key, known, seen)
    for key, known in writes.items():
        if key not in reads:
            check_order(v, key, known, [])
    if not n:
        v.unknown = "nothing was acknowledged"
    return v.result(operations=n, keys=len(writes), unknown=len(unknown))


def check_order(v, key, known, seen):
    """Events by their end: whatever begins later has at least the revision of each that ended before."""
    spans = [(begin, end, revision, "write") for revision, (begin, end, _) in known.items()]
    spans += [(begin, end, revision, "read") for begin, end, revision, _ in seen]
    ends, best, top = sorted((end, revision) for _, end, revision, _ in spans if end is not None), [], 0
    for _, revision in ends:
        top = max(top, revision)
        best.append(top)
    times = [end for end, _ in ends]
    for begin, _, revision, what in spans:
        i = bisect.bisect_left(times, begin)
        if i and best[i - 1] > revision:
            v.wrong("stale-read" if what == "read" else "order-of-writes", {"key": key, "revision": revision, "after": best[i - 1]})


def element_set(ops):
    """Each acknowledged element is in the final set, once; nothing comes from nowhere; a read misses nothing acknowledged before it."""
    v = Verdict()
    acked, asked, refused = {}, set(), set()
    for inv, ok in pairs(ops, "add"):
        asked.add(inv["value"])
        if ok and ok["type"] == "ok":
            acked[inv["value"]] = ok["time"]
        elif ok and ok["type"] == "fail":
            refused.add(inv["value"])
    read = None
    for inv, ok in pairs(ops, "read-set"):
        if ok and ok["type"] == "ok":
            read = (inv, ok)
            elements = set(ok["value"])
            if len(elements) != len(ok["value"]):
                v.wrong("duplicate", {"index": ok["index"]})
            for e, t in acked.items():
                if t < inv["time"] and e not in elements:
                    v.wrong("lost" if e not in elements else "stale", {"index": ok["index"], "element": e})
            for e in elements - asked | elements & refused:
                v.wrong("nobody-wrote", {"index": ok["index"], "element": e})
    if read is None or not acked or read[0]["time"] < max(acked.values()):
        v.unknown = "no read behind the last write"
    return v.result(acknowledged=len(acked), lost=v.counts.get("lost", 0))


def counter(ops):
    """Increments by compare and swap: values and revisions are never used twice, rise in real time, and add up."""
    v = Verdict()
    spans = []
    values, revisions, ok_count, maybe = set(), set(), 0, 0
    final = None
    for inv, ok in pairs(ops):
        if inv["f"] == "increment":
            if ok is None or ok["type"] == "info":
                maybe += 1
            elif ok["type"] == "ok":
                ok_count += 1
                for kind, found, new in (("value-twice", values, ok["value"]), ("revision-twice", revisions, ok["revision"])):
                    if new in found:
                        v.wrong(kind, new)
                    found.add(new)
                spans.append((inv["time"], ok["time"], ok["revision"]))
        elif inv["f"] == "read-counter" and ok and ok["type"] == "ok":
            final = ok["value"]
    highest = 0
    by_end = sorted(spans, key=lambda s: s[1])
    i = 0
    for begin, _, revision in sorted(spans):
        while i < len(by_end) and by_end[i][1] < begin:
            highest = max(highest, by_end[i][2])
            i += 1
        if revision < highest:
            v.wrong("order", {"revision": revision, "after": highest})
    if final is None or not ok_count:
        v.unknown = "no final read"
    elif not ok_count <= final <= ok_count + maybe:
        v.wrong("sum", {"final": final, "acknowledged": ok_count, "unknown": maybe})
    return v.result(increments=ok_count, unknown=maybe, final=final)


def once(ops):
    """Puts to a key of one's own: each answer shows the version before, so one applied twice leaves a gap."""
    v = Verdict()
    applied, slack = {}, {}
    n = 0
    for inv, ok in pairs(ops, "put"):
        key = inv["value"][0]
        if ok is None or ok["type"] == "info":
            slack[key] = slack.get(key, 0) + 1
        elif ok["type"] == "ok":
            n += 1
            before, low = ok["value"][1], applied.get(key, 0)
            if not low <= before <= low + slack.get(key, 0):
                v.wrong("applied-twice" if before > low else "forgotten", {"key": key, "version": before, "expected": low})
            applied[key], slack[key] = before + 1, 0
    if not n:
        v.unknown = "nothing was acknowledged"
    return v.result(puts=n)


def watch(ops):
    """Events of each watcher: in order, none twice, and all acknowledged writes between its first and its last, as written."""
    v = Verdict()
    written, maybe = {}, set()
    for inv, ok in pairs(ops, "put-watched"):
        if ok and ok["type"] == "ok":
            written[ok["revision"]] = inv["value"]
        elif not ok or ok["type"] == "info":
            maybe.add(tuple(inv["value"]))
    revisions = sorted(written)
    watchers = {}
    for op in ops:
        if op["f"] == "event":
            watchers.setdefault(op["node"], []).append(op)
    for node, events in watchers.items():
        last, seen = 0, set()
        for op in events:
            if op["revision"] == last:
                v.wrong("duplicate", {"node": node, "revision": last})
            elif op["revision"] < last:
                v.wrong("reordered", {"node": node, "revision": op["revision"], "after": last})
            last = max(last, op["revision"])
            seen.add(op["revision"])
            known = written.get(op["revision"])
            if known is not None and known != op["value"]:
                v.wrong("wrong-event", {"node": node, "revision": op["revision"], "event": op["value"], "written": known})
            elif known is None and tuple(op["value"]) not in maybe:
                v.wrong("nobody-wrote", {"node": node, "revision": op["revision"]})
        for revision in revisions:
            if revision not in seen:
                v.wrong("missed", {"node": node, "revision": revision})
    if not watchers or not written:
        v.unknown = f"{len(watchers)} watchers, {len(written)} writes"
    return v.result(watchers=len(watchers), writes=len(written), events=sum(len(e) for e in watchers.values()))


def lease(ops):
    """A key on a lease is there for as long as its holder counts on it, and gone in the end."""
    v = Verdict()
    holds = {}
    for op in ops:
        if op["f"] == "hold" and op["type"] == "ok":
            key, until = op["value"]
            holds.setdefault(key, []).append((op["time"], until))
    reads = 0
    for inv, ok in pairs(ops, "read-lease"):
        if not ok or ok["type"] != "ok":
            continue
        reads += 1
        key, there = ok["value"]
        spans = holds.get(key, [])
        # There is a moment in the read, whatever moment it was, when the lease was good.
        if not there and any(begun <= inv["time"] and ok["time"] < until for begun, until in spans):
            v.wrong("gone-too-early", {"key": key, "index": ok["index"]})
    final = {ok["value"][0]: ok["value"][1] for _, ok in pairs(ops, "read-lease-end") if ok and ok["type"] == "ok"}
    for key, there in final.items():
        if there:
            v.wrong("never-gone", {"key": key})
    if not reads or not final:
        v.unknown = f"{reads} reads, {len(final)} at the end"
    return v.result(leases=len(holds), reads=reads)


def lock(ops):
    """Holders of a lock: fencing tokens rise, and nobody's time as holder overlaps another's."""
    v = Verdict()
    spans = []
    opened = {}
    for op in ops:
        if op["type"] != "ok" or op["f"] not in ("acquire", "hold-lock", "release"):
            continue
        if op["f"] == "acquire":
            opened[op["value"][0]] = span = [op["time"], op["value"][1], op["value"][0]]
            spans.append(span)
        elif op["value"][0] in opened:
            # A renewal moves the end of the holder's time; a release ends it when it was asked for.
            opened[op["value"][0]][1] = op["value"][1]
    spans.sort()
    for (begun, until, token), (begun2, _, token2) in zip(spans, spans[1:]):
        if token2 <= token:
            v.wrong("token", {"token": token2, "after": token})
        if begun2 < until:
            v.wrong("overlap", {"token": token2, "begun": begun2, "holder_until": until, "holder": token})
    if len(spans) < 2:
        v.unknown = f"{len(spans)} holders"
    return v.result(holders=len(spans))


def unavailability(ops, faults, f=("add", "txn", "transfer", "write", "cas", "put", "increment", "put-watched", "acquire",
                                       "hold")):
    """Per fault: the longest time without an acknowledged write that ends behind its beginning, until that of the next (s)."""
    acks = [op["time"] / 1e9 for op in ops if op["type"] == "ok" and op["f"] in f]
    out = []
    for i, item in enumerate(faults):
        end = faults[i + 1]["at"] if i + 1 < len(faults) else float("inf")
        first = bisect.bisect_left(acks, item["at"])
        inside = acks[max(0, first - 1):bisect.bisect_right(acks, end) + 1]
        out.append(round(max((min(b, end) - a for a, b in zip(inside, inside[1:])), default=0.0), 3))
    return out
