"""Transactions over append-only lists: the order of a list tells the order of its writers, so dependencies are known, and
an isolation level is kept when the graph of them has no cycle that the level forbids (Adya's G0, G1a, G1b, G1c, G2).

Values are unique per key. Time: linear in operations and edges (Tarjan's components, without recursion).
"""
from history import pairs

# Which kinds of edges a cycle may be made of to be forbidden: at read committed write and read dependencies; under snapshot
# isolation (PostgreSQL's repeatable read) also cycles in which no two anti-dependencies follow each other; serializable: all.
LEVELS = ("read-committed", "repeatable-read", "serializable")


def check(ops, level="serializable"):
    assert level in LEVELS
    txns, aborted, maybe = _transactions(ops)
    anomalies = []
    orders, acknowledged, reads = _orders(txns, anomalies)
    writer, last_of = {}, {}
    for i, (value, _) in enumerate(txns):
        final = {}
        for kind, key, item in value:
            if kind == "append":
                if (key, item) in writer:
                    anomalies.append(("value-twice", {"key": key, "value": item}))
                writer[(key, item)] = i
                final[key] = item
        for key, item in final.items():
            last_of[(key, i)] = item
    _dirty_reads(txns, aborted, maybe, writer, last_of, anomalies)
    edges = _edges(txns, orders, writer)
    _find_cycles(len(txns), edges, level, txns, anomalies)
    return {"anomalies": anomalies, "transactions": len(txns), "reads": reads, "acknowledged": acknowledged,
            "edges": sum(len(e) for e in edges)}


def _transactions(ops):
    """Committed ones (and unknown ones whose appends have been seen, as committed), aborted appends, unknown appends."""
    seen, aborted, maybe, committed, unknown = set(), set(), set(), [], []
    for inv, ok in pairs(ops, "txn"):
        if ok and ok["type"] == "ok":
            committed.append((ok["value"], True))
            seen.update((key, item) for kind, key, items in ok["value"] if kind == "r" for item in items)
        elif ok and ok["type"] == "fail":
            aborted.update((key, item) for kind, key, item in inv["value"] if kind == "append")
        else:
            unknown.append(inv["value"])
    for op in ops:
        if op["f"] == "final":
            final = [["r", int(key), items] for key, items in op["value"].items()]
            seen.update((key, item) for _, key, items in final for item in items)
            committed.append((final, False))
    for value in unknown:
        writes = [w for w in value if w[0] == "append"]
        if any((key, item) in seen for _, key, item in writes):
            committed.append((writes, False))
        else:
            maybe.update((key, item) for _, key, item in writes)
    return committed, aborted, maybe


def _orders(txns, anomalies):
    """Per key the longest list read, of which every other one must be a beginning."""
    longest, acknowledged, reads = {}, [], 0
    for value, acked in txns:
        for kind, key, items in value:
            if kind == "r":
                reads += 1
                if len(items) > len(longest.get(key, ())):
                    longest[key] = items
            elif acked:
                acknowledged.append((key, items))
    for value, _ in txns:
        own = {}
        for kind, key, items in value:
            if kind == "append":
                own.setdefault(key, []).append(items)
                continue
            order = longest.get(key, [])
            if items != order[:len(items)] and not _is_beginning(items, order, own.get(key, [])):
                anomalies.append(("incompatible-order", {"key": key, "read": items[-5:], "longest": order[:len(items)][-5:]}))
            if len(set(items)) != len(items):
                anomalies.append(("duplicate", {"key": key, "read": items}))
    return longest, acknowledged, reads


def _is_beginning(items, order, own):
    """A transaction reads its own appends behind what it found; at read committed others may come between and be seen."""
    without = [i for i in items if i not in own]
    kept = [i for i in order if i not in own]
    return bool(own) and without == kept[:len(without)]


def _dirty_reads(txns, aborted, maybe, writer, last_of, anomalies):
    for i, (value, _) in enumerate(txns):
        for kind, key, items in value:
            if kind != "r" or not items:
                continue
            for item in items:
                if (key, item) in aborted:
                    anomalies.append(("G1a aborted read", {"key": key, "value": item}))
                elif (key, item) not in writer and (key, item) not in maybe:
                    anomalies.append(("nobody-wrote", {"key": key, "value": item}))
            maker = writer.get((key, items[-1]))
            if maker is not None and maker != i and last_of[(key, maker)] != items[-1]:
                anomalies.append(("G1b intermediate read", {"key": key, "value": items[-1]}))


def _edges(txns, orders, writer):
    """edges[i]: {j: kinds}; kinds are of ww (j's append is the next), wr (j reads i's), rw (j's append is behind what i read)."""
    edges = [{} for _ in txns]
    place = {(key, item): n for key, order in orders.items() for n, item in enumerate(order)}

    def link(a, b, kind):
        if a is not None and b is not None and a != b:
            edges[a].setdefault(b, set()).add(kind)

    for key, order in orders.items():
        for before, now in zip(order, order[1:]):
            link(writer.get((key, before)), writer.get((key, now)), "ww")
    for i, (value, _) in enumerate(txns):
        own = set()
        for kind, key, items in value:
            if kind == "append":
                own.add((key, items))
                continue
            order = orders.get(key, [])
            foreign = [item for item in items if (key, item) not in own]
            if foreign:
                link(writer.get((key, foreign[-1])), i, "wr")
            behind = place.get((key, foreign[-1]), -1) + 1 if foreign else 0
            while behind < len(order) and (key, order[behind]) in own:
                behind += 1
            if behind < len(order):
                link(i, writer.get((key, order[behind])), "rw")
    return edges


def _find_cycles(n, edges, level, txns, anomalies):
    for name, kinds in (("G0 write cycle", {"ww"}), ("G1c circular information flow", {"ww", "wr"})):
        graph = [[j for j, k in e.items() if k & kinds] for e in edges]
        _report(name, components(n, graph), txns, anomalies)
    if any(name.startswith("G") for name, _ in anomalies) or level == "read-committed":
        return
    if level == "repeatable-read":
        # A path with no two anti-dependencies in a row: each node twice, entered by one (n + i) or not (i).
        graph = [[] for _ in range(2 * n)]
        for i, e in enumerate(edges):
            for j, kinds in e.items():
                if kinds & {"ww", "wr"}:
                    graph[i].append(j)
                    graph[n + i].append(j)
                if "rw" in kinds:
                    graph[i].append(n + j)
        found = [{x % n for x in c} for c in components(2 * n, graph)]
        _report("G-single", [c for c in found if len(c) > 1], txns, anomalies)
        return
    graph = [list(e) for e in edges]
    _report("G2 anti-dependency cycle", components(n, graph), txns, anomalies)


def _report(name, found, txns, anomalies):
    for component in found:
        anomalies.append((name, [txns[i][0] for i in sorted(component)[:4]]))


def components(n, graph):
    """Strongly connected components of more than one node."""
    index, low, on, stack, out, count = [None] * n, [0] * n, [False] * n, [], [], 0
    for root in range(n):
        if index[root] is not None:
            continue
        work = [(root, iter(graph[root]))]
        index[root] = low[root] = count
        count += 1
        stack.append(root)
        on[root] = True
        while work:
            node, rest = work[-1]
            for j in rest:
                if index[j] is None:
                    index[j] = low[j] = count
                    count += 1
                    stack.append(j)
                    on[j] = True
                    work.append((j, iter(graph[j])))
                    break
                if on[j]:
                    low[node] = min(low[node], index[j])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = set()
                    while True:
                        j = stack.pop()
                        on[j] = False
                        component.add(j)
                        if j == node:
                            break
                    if len(component) > 1:
                        out.append(component)
    return out
