"""One run of a schedule: cluster, load, faults, checks; and the search for a smaller schedule that fails as well."""
import contextlib
import copy
import pathlib
import shutil
import subprocess
import threading
import time

import checkers
import cluster as cl
import faults as fl
import porcupine
import report
import sql_work
import store_work
from history import History
from hosts import TREE, HostCluster, probe

DISK_MIB = {"store": 300, "wal": 700}
PATIENCE_S = 300  # for what has to come about: nothing is measured by it
CHECKS = {
    "ledger": {"ledger": checkers.ledger},
    "append": {"append": checkers.append},
    "append-rr": {"append": lambda ops: checkers.append(ops, "repeatable-read")},
    "append-rc": {"append": lambda ops: checkers.append(ops, "read-committed")},
    "bank": {"bank": checkers.bank},
    "register": {"register": checkers.register, "porcupine": porcupine.check},
    "set": {"set": checkers.element_set},
    "counter": {"counter": checkers.counter},
    "once": {"once": checkers.once},
    "txn": {"append": checkers.append},
    "watch": {"watch": checkers.watch},
    "lease": {"lease": checkers.lease},
    "lock": {"lock": checkers.lock},
}
SQL_CHECKS = {"single-primary": checkers.single_primary, "lineage": checkers.lineage, "equality": checkers.equality}
# What asynchronous mode does not promise: commits behind the lag may go, and two frozen guards leave PostgreSQL alone.
PROMISED_IN_SYNC_ONLY = ("ledger", "append", "single-primary")


def workloads():
    return list(CHECKS)


def skip_reason(schedule, able=None):
    able = able or probe()
    for what in ("hosts", "programs", "postgresql", *sorted(fl.needs(schedule))):
        if able[what]:
            return able[what]
    return None


def build_name():
    """The commit; "-dirty" when something differs that is not a result."""
    def git(*words):
        return subprocess.run(["git", "-C", str(TREE), *words], capture_output=True, text=True, check=False).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!jepsen/results", ":!docs/FAULT-TESTS.md")
    return (git("describe", "--always") or "unknown") + ("-dirty" if changed else "")


def again(s):
    return (f"jepsen/run --workload {s['workload']} --nemesis {s['nemesis']} --mode {s['mode']} --seed {s['seed']}"
            + (f" --nodes {s['nodes']}" if s["nodes"] != 3 else "") + (f" --seconds {s['asked']:g}" if "asked" in s else ""))


def judge(schedule, history):
    found = {name: check(history.ops) for name, check in CHECKS[schedule["workload"]].items()}
    if schedule["workload"] in sql_work.WORKLOADS:
        found.update({name: check(history.ops) for name, check in SQL_CHECKS.items()})
    if schedule["mode"] == "off":
        for name in PROMISED_IN_SYNC_ONLY:
            if name in found and found[name]["valid"] is False:
                found[name]["valid"] = "unknown"
                found[name]["why"] = "asynchronous mode does not promise it"
    return found


def overall(found):
    """Porcupine is a second opinion: where it cannot be had the run still has the first."""
    values = [r["valid"] for name, r in found.items() if not (name == "porcupine" and r["valid"] == "unknown")]
    return False if False in values else "unknown" if "unknown" in values else True


def prepare(schedule, able, environment):
    needs = fl.needs(schedule)
    c = HostCluster(able, nodes=schedule["nodes"], sync={"off": "async"}.get(schedule["mode"], schedule["mode"]), sets=["bootstrap.dcs.ttl=5"],
                    environment=environment, disk_mib=DISK_MIB if "disk" in needs else None, clocks_stop="stopped-clock" in needs)
    try:
        c.form(PATIENCE_S)
    except BaseException:
        print(c.report())
        c.close()
        raise
    return c


def play(c, schedule):
    history = History()
    module = sql_work.SqlLoad if schedule["workload"] in sql_work.WORKLOADS else store_work.StoreLoad
    load = module(schedule["workload"], c, history, schedule["seed"])
    load.start()
    nemesis = fl.Nemesis(c, schedule, history)
    nemesis.start()
    begun = time.monotonic()
    while time.monotonic() < begun + schedule["seconds"] or nemesis.is_alive():
        threading.Event().wait(0.2)
    nemesis.stop()
    c.heal_everything()
    history.add("info", "nemesis", "healed", None)
    stuck = None
    try:
        fl.end_orders(c)
        c.wait_healthy(PATIENCE_S)
        load.stop()
    except cl.Never as e:
        stuck = str(e)
        for client in load.clients:
            client.stop()
    return history, nemesis, stuck


def run(schedule, out, able=None, environment=None, keep_logs=False):
    """The result, also written to the directory `out`."""
    able = able or probe()
    reason = skip_reason(schedule, able)
    if reason:
        return {"valid": "skip", "why": reason, "schedule": schedule}
    began = time.monotonic()
    c = prepare(schedule, able, environment)
    try:
        history, nemesis, stuck = play(c, schedule)
        found = judge(schedule, history)
        if stuck:
            found["liveness"] = {"valid": False, "anomalies": {"not-healthy": [stuck]}, "counts": {"not-healthy": 1}}
        timelines = {op["timeline"] for op in history.ops if op["f"] == "probe"}
        result = {
            "valid": overall(found), "schedule": schedule, "build": build_name(), "postgresql": postgres_version(),
            "operations": sum(1 for op in history.ops if op["type"] == "invoke"), "seconds": round(history.now() / 1e9, 1),
            "failovers": max(0, len(timelines) - 1), "faults": nemesis.done,
            "gaps": checkers.unavailability(history.ops, nemesis.done), "checkers": found, "again": again(schedule),
            "took_s": round(time.monotonic() - began, 1),
        }
        out = pathlib.Path(out)
        report.write(out, result, history, schedule)
        if keep_logs or result["valid"] is not True:
            save_logs(c, out)
        return result
    finally:
        c.close()


def postgres_version():
    done = subprocess.run([cl.PG_BIN / "postgres", "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip().split(") ", 1)[-1].split(" ", 1)[0] if ")" in done.stdout else done.stdout.strip()


def save_logs(c, out):
    for log in [*c.dir.glob("*.log"), *c.dir.glob("n*/**/*.log")]:
        with contextlib.suppress(OSError):  # on a disk that was broken on purpose
            shutil.copyfile(log, out / ("-".join(log.relative_to(c.dir).parts)))


def shrink(schedule, out, able=None, environment=None, tries=3, say=print):
    """A smaller schedule that fails as well: faults are taken out, in halves and then one by one, while a run still fails."""
    def fails(faults):
        candidate = {**copy.deepcopy(schedule), "faults": faults}
        for n in range(tries):
            result = run(candidate, pathlib.Path(out) / f"shrink-{len(faults)}-{n}", able, environment)
            if result["valid"] is False:
                return True
        return False
    faults = reduce_list(schedule["faults"], fails, say)
    return {**schedule, "faults": faults, "seconds": max([f["at"] + f["for"] for f in faults], default=10) + 10}


def reduce_list(items, fails, say=print):
    """ddmin: a list from which nothing more can be taken while it still fails."""
    parts = 2
    while len(items) > 1:
        size = max(1, len(items) // parts)
        pieces = [items[i:i + size] for i in range(0, len(items), size)]
        for piece in range(len(pieces)):
            rest = [item for i, p in enumerate(pieces) if i != piece for item in p]
            if rest and fails(rest):
                say(f"fails with {len(rest)} of them")
                items, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(len(items), parts * 2)
    return items
