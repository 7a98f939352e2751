"""What is left of a run: results.json, report.md, and a picture of it as SVG."""
import json
import statistics

WIDTH, LEFT, ROW = 1000, 60, 26
COLORS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb"]


def quantiles(values):
    """p50, p95, max."""
    if not values:
        return None
    ordered = sorted(values)
    return {"p50": round(statistics.median(ordered), 3), "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 3),
            "max": round(ordered[-1], 3)}


def picture(ops, faults, nodes, seconds):
    """Rows: acknowledged operations a second, acknowledged probes of each node (colour: timeline), faults."""
    scale = (WIDTH - LEFT - 10) / max(seconds, 1)

    def x(t):
        return round(LEFT + t * scale, 1)
    rows = ["acks/s", *nodes, "faults"]
    height = ROW * (len(rows) + 1) + 20
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="11">',
           f'<rect width="{WIDTH}" height="{height}" fill="white"/>']
    for i, name in enumerate(rows):
        out.append(f'<text x="4" y="{ROW * (i + 1)}">{name}</text>')
    buckets = {}
    for op in ops:
        if op["type"] == "ok":
            buckets[int(op["time"] / 1e9)] = buckets.get(int(op["time"] / 1e9), 0) + 1
    top = max(buckets.values(), default=1)
    for second, n in sorted(buckets.items()):
        tall = round(20 * n / top, 1)
        out.append(f'<rect x="{x(second)}" y="{ROW - tall + 4}" width="{max(scale - 1, 1):.1f}" height="{tall}" fill="#888"/>')
    spans = {}
    for op in ops:
        if op["f"] == "probe":
            second = int(op["value"][1] / 5e8)
            spans[(op["node"], op["timeline"], second)] = True
    for node, timeline, half in spans:
        y = ROW * (rows.index(node) + 1) - 12
        out.append(f'<rect x="{x(half / 2)}" y="{y}" width="{max(scale / 2, 1):.1f}" height="14" fill="{COLORS[timeline % len(COLORS)]}">'
                   f"<title>{node}, timeline {timeline}</title></rect>")
    y = ROW * len(rows) - 12
    for f in faults:
        wide = max(((f["end"] or seconds) - f["at"]) * scale, 3)
        out.append(f'<rect x="{x(f["at"])}" y="{y}" width="{wide:.1f}" height="14" fill="#cc3311" opacity="0.6"><title>{f["fault"]} {f["node"]}</title></rect>')
        out.append(f'<text x="{x(f["at"])}" y="{y + 26}" font-size="9">{f["fault"]} {f["node"]}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def verdict(result):
    return {True: "pass", False: "FAIL", "unknown": "unknown"}[result["valid"]]


def markdown(result):
    s = result["schedule"]
    lines = [f"# {s['workload']} under {s['nemesis']}, {s['mode']}, {s['nodes']} nodes, seed {s['seed']}: {verdict(result)}", "",
             f"Build {result['build']}; PostgreSQL {result['postgresql']}; {result['operations']} operations in {result['seconds']} s.", "",
             "![what happened](timeline.svg)", "", "| checker | verdict | counted |", "|---|---|---|"]
    for name, r in result["checkers"].items():
        counted = ", ".join(f"{k} {v}" for k, v in r.items() if k not in ("valid", "anomalies", "why", "counts"))
        lines.append(f"| {name} | {verdict(r)} {r.get('why', '')} | {counted} |")
    lines += ["", "| at (s) | fault | node | until | longest gap (s) |", "|---|---|---|---|---|"]
    for f, gap in zip(result["faults"], result["gaps"]):
        lines.append(f"| {f['at']:.1f} | {f['fault']} | {f['node']} | {f['end'] or 0:.1f} | {gap:.3f} |")
    for name, r in result["checkers"].items():
        for kind, found in r.get("anomalies", {}).items():
            lines += ["", f"## {name}: {kind} ({r['counts'][kind]})", ""] + [f"    {json.dumps(a)}" for a in found]
    lines += ["", "Again: `" + result["again"] + "`, or with the same schedule: `jepsen/run --replay schedule.json`", ""]
    return "\n".join(lines)


def write(directory, result, history, schedule):
    directory.mkdir(parents=True, exist_ok=True)
    history.write(directory / "history.edn")
    for name, value in (("results.json", result), ("schedule.json", schedule)):
        (directory / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    nodes = [f"n{i + 1}" for i in range(schedule["nodes"])]
    (directory / "timeline.svg").write_text(picture(history.ops, result["faults"], nodes, result["seconds"]), encoding="utf-8")
    (directory / "report.md").write_text(markdown(result), encoding="utf-8")


def table(results):
    lines = [f"{'workload':<12} {'nemesis':<26} {'mode':<7} {'seed':>5} {'ops':>7} {'faults':>6} {'failovers':>9} {'gap max':>8}  verdict"]
    for r in results:
        s = r["schedule"]
        if r["valid"] == "skip":
            lines.append(f"{s['workload']:<12} {s['nemesis']:<26} {s['mode']:<7} {s['seed']:>5} {'':>33}  SKIP: {r['why']}")
            continue
        gap = f"{max(r['gaps']):.2f} s" if r["gaps"] else "-"
        lines.append(f"{s['workload']:<12} {s['nemesis']:<26} {s['mode']:<7} {s['seed']:>5} {r['operations']:>7} {len(r['faults']):>6} "
                     f"{r['failovers']:>9} {gap:>8}  {verdict(r)}")
    return "\n".join(lines)
