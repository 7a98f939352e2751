"""A second opinion on registers: Porcupine, where Go and its module can be had (the version is pinned in go.mod)."""
import atexit
import functools
import json
import pathlib
import shutil
import subprocess
import tempfile

from history import pairs

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "porcupine"


@functools.lru_cache(maxsize=1)
def program():
    """(path, None) or (None, why not)."""
    go = shutil.which("go")
    if go is None:
        return None, "no Go compiler"
    directory = tempfile.mkdtemp(prefix="regent-porcupine.")
    atexit.register(shutil.rmtree, directory, True)
    out = pathlib.Path(directory) / "porcupine"
    try:
        done = subprocess.run([go, "build", "-o", str(out), "."], cwd=SOURCE, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired:
        return None, "Porcupine is not built within five minutes"
    if done.returncode != 0:
        return None, "Porcupine cannot be built: " + (done.stderr.strip().splitlines() or ["?"])[-1]
    return out, None


def operations(ops):
    for inv, ok in pairs(ops):
        if inv["f"] not in ("read", "write", "cas") or (ok and ok["type"] == "fail"):
            continue
        unknown = ok is None or ok["type"] == "info"
        if unknown and inv["f"] == "read":
            continue
        done = inv if unknown else ok
        key, *values = done["value"]
        yield {"key": key, "client": inv["process"], "call": inv["time"], "return": 0 if unknown else ok["time"], "op": inv["f"],
               "old": values[0] if inv["f"] == "cas" else None, "new": values[-1], "unknown": unknown}


def check(ops):
    path, why = program()
    if path is None:
        return {"valid": "unknown", "why": f"SKIP: {why}"}
    text = "".join(json.dumps(op) + "\n" for op in operations(ops))
    try:
        done = subprocess.run([path], input=text, capture_output=True, text=True, check=False, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as e:
        return {"valid": "unknown", "why": str(e)[-200:]}
    if done.returncode != 0:
        return {"valid": "unknown", "why": done.stderr.strip()[-200:]}
    out = json.loads(done.stdout)
    result = {"operations": out["operations"], "keys": out["keys"]}
    if out["illegal"]:
        return {"valid": False, **result, "anomalies": {"not-linearizable": out["illegal"][:20]}, "counts": {"not-linearizable": len(out["illegal"])}}
    if out["undecided"] or not out["operations"]:
        return {"valid": "unknown", **result, "why": f"{out['undecided']} keys undecided in 20 s"}
    return {"valid": True, **result}
