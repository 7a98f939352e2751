"""Faults, and schedules of them.

A schedule is data: {"workload", "nemesis", "mode", "nodes", "seed", "seconds", "faults": [{"at", "for", "fault", "target"}]}.
Times are seconds from the beginning of the load. A target is a part of the cluster (`primary`, `sync`, `standby`, `raft`)
that is looked up when the time has come, or a node's name. The same seed makes the same schedule.
"""
import contextlib
import functools
import os
import random
import signal
import subprocess
import threading
import time

import cluster as cl
from hosts import DISKS, faketime, give_away

SETTLE_S = 12  # between the end of a fault and the next one
FAULTS = {}
# Which of a machine's abilities a fault needs (hosts.probe).
NEEDS = {"power-loss": "disk", "clock-fast": "clock", "clock-slow": "clock", "clock-jump": "clock",
         "clock-drift": "clock", "pause-node": "cgroup",
         "net-slow": "switch", "net-slow-in": "switch", "net-slow-out": "switch", "net-reorder": "switch", "net-duplicate": "switch",
         "net-loss-in": "switch", "net-loss-out": "switch", "upgrade": "next", "pause-clocks": "stopped-clock"}
DAEMONS = r"regentd|regent-fence"


def fault(name, seconds=(6, 10), targets=("primary",)):
    """The function gets (cluster, node) and returns how to undo it, or None."""
    def register(function):
        FAULTS[name] = (function, seconds, targets)
        return function
    return register


def need(pid, what):
    if pid is None:
        raise LookupError(f"no {what} runs there")
    return pid


# ---- processes ----


def _kill(program):
    def act(_cluster, node):
        cl.send(need(node.pid_of(program), program), signal.SIGKILL)
        if program != "regentd":
            return None
        node.reap()
        return node.start
    return act


fault("kill-daemon", (0, 1))(_kill("regentd"))
fault("kill-daemon-stay", (7, 10))(_kill("regentd"))
fault("kill-fence", (0, 0))(_kill("fence"))
fault("kill-worker", (0, 0), ("primary", "sync"))(_kill("worker"))
fault("kill-health", (0, 0), ("primary", "sync"))(_kill("health"))
fault("kill-postmaster", (0, 0), ("primary", "primary", "sync"))(_kill("postmaster"))


@fault("kill-backend", (0, 0))
def kill_backend(_cluster, node):
    """As the kernel does when memory is short: PostgreSQL restarts itself, or does not, by its settings."""
    pids = node.all_of(r"^postgres: .*postgres postgres ")
    cl.send(need(pids[0] if pids else None, "client backend"), signal.SIGKILL)


@fault("kill-walsender", (0, 0))
def kill_walsender(_cluster, node):
    pids = node.all_of(r"^postgres: .*walsender ")
    cl.send(need(pids[0] if pids else None, "walsender"), signal.SIGTERM)


@fault("kill-node", (6, 10), ("primary", "primary", "sync", "raft"))
def kill_node(_cluster, node):
    node.kill()
    return node.start


@fault("stop-daemon", (1, 3))
def stop_daemon(_cluster, node):
    """As `systemctl stop`: it hands over first."""
    cl.send(need(node.pid_of("regentd"), "regentd"), signal.SIGTERM)

    def undo():
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.process.wait(120)
        node.start()
    return undo


def _stop(node, pids):
    for pid in pids:
        cl.send(pid, signal.SIGSTOP)

    def undo():
        for pid in pids:
            cl.send(pid, signal.SIGCONT)
        node.thaw()
    return undo


@fault("pause-daemon", (2, 10), ("primary", "primary", "sync", "raft"))
def pause_daemon(_cluster, node):
    return _stop(node, [need(node.pid_of("regentd"), "regentd")])


@fault("pause-fence", (2, 10))
def pause_fence(_cluster, node):
    return _stop(node, node.all_of(r"regent-fence"))


@fault("pause-postmaster", (2, 8))
def pause_postmaster(_cluster, node):
    return _stop(node, [need(node.postmaster(), "postmaster")])


@fault("pause-postgresql", (2, 8))
def pause_postgresql(_cluster, node):
    return _stop(node, node.all_of(r"^(\S*/)?postgres[ :]"))


@fault("pause-daemon-live-postgres", (8, 14))
def pause_daemon_live_postgres(_cluster, node):
    """Daemon and fence stand still, nobody is there to kill PostgreSQL, and the network is whole."""
    return _stop(node, node.all_of(DAEMONS))


@fault("pause-node", (6, 12), ("primary", "primary", "sync", "raft"))
def pause_node(_cluster, node):
    node.host.cut()
    node.freeze(True)

    def undo():
        node.freeze(False)
        node.host.heal()
    return undo


@fault("pause-clocks", (6, 14), ("primary", "primary", "sync", "raft"))
def pause_clocks(_cluster, node):
    """As a virtual machine that its host stops: for what runs in it no time has passed, on any clock, when it goes on."""
    node.host.cut()
    node.freeze(True)
    begun = time.monotonic()

    def undo():
        node.set_back(time.monotonic() - begun)
        node.freeze(False)
        node.host.heal()
    return undo


# ---- network ----


def _hear_all(cluster):
    def undo():
        for n in cluster.nodes:
            n.host.heal()
            n.host.hear_all()
    return undo


def _others(cluster, node):
    return [n.host for n in cluster.nodes if n is not node]


@fault("partition-isolate", (6, 12), ("primary", "primary", "sync", "raft"))
def isolate(_cluster, node):
    """From everybody, clients too."""
    node.host.cut()
    return node.host.heal


@fault("partition-peers", (6, 12), ("primary", "primary", "sync"))
def peers(cluster, node):
    """From the other nodes, while clients still reach it."""
    node.host.deaf_to(*_others(cluster, node))
    for other in _others(cluster, node):
        other.deaf_to(node.host)
    return _hear_all(cluster)


@fault("partition-halves", (6, 12), ("primary",))
def halves(cluster, node):
    """The primary and the largest minority with it on one side."""
    standbys = [n for n in cluster.nodes if n is not node]
    minority = [node, *standbys[:(len(cluster.nodes) - 1) // 2 - 1]]
    majority = [n for n in cluster.nodes if n not in minority]
    for n in minority:
        n.host.deaf_to(*(m.host for m in majority))
    for n in majority:
        n.host.deaf_to(*(m.host for m in minority))
    return _hear_all(cluster)


@fault("partition-bridge", (6, 12), ("primary", "sync"))
def bridge(cluster, node):
    """Only this node still hears everybody; the others do not hear each other."""
    rest = _others(cluster, node)
    for host in rest:
        host.deaf_to(*(h for h in rest if h is not host))
    return _hear_all(cluster)


@fault("partition-ring", (6, 12), ("primary",))
def ring(cluster, _node):
    """Everybody hears two neighbours; with three nodes that is one link cut."""
    hosts = [n.host for n in cluster.nodes]
    count = len(hosts)
    for i, host in enumerate(hosts):
        near = {hosts[i - 1], hosts[(i + 1) % count]} if count > 3 else {hosts[i - 1] if i else hosts[1], hosts[1]}
        far = [h for h in hosts if h is not host and h not in near]
        if far:
            host.deaf_to(*far)
    return _hear_all(cluster)


@fault("partition-in", (6, 12), ("primary", "sync"))
def one_way_in(cluster, node):
    """It is heard, and hears no node."""
    node.host.deaf_to(*_others(cluster, node))
    return _hear_all(cluster)


@fault("partition-out", (6, 12), ("primary", "sync"))
def one_way_out(cluster, node):
    """It hears, and no node hears it."""
    for other in _others(cluster, node):
        other.deaf_to(node.host)
    return _hear_all(cluster)


def _port(port):
    def act(cluster, node):
        node.host.deaf_to(*_others(cluster, node), port=port)
        return _hear_all(cluster)
    return act


fault("partition-dcs", (6, 12), ("primary", "sync"))(_port(7400))
fault("partition-replication", (6, 12), ("primary", "sync"))(_port(5432))
fault("partition-rest", (6, 12))(_port(8008))


@fault("packet-loss", (6, 12), ("primary", "sync"))
def packet_loss(cluster, node):
    node.host.lossy(25)
    return _hear_all(cluster)


def _line(**directions):
    def act(_cluster, node):
        node.bad_line(**directions)
        return node.good_line
    return act


SLOW = {"delay_ms": 150, "jitter_ms": 150}
LOSSY = {"loss": 0.2}
fault("net-slow", (6, 12), ("primary", "sync"))(_line(to=SLOW, back=SLOW))
fault("net-slow-in", (6, 12), ("primary", "sync"))(_line(to={"delay_ms": 400, "jitter_ms": 200}))
fault("net-slow-out", (6, 12), ("primary", "sync"))(_line(back={"delay_ms": 400, "jitter_ms": 200}))
fault("net-reorder", (6, 12), ("primary", "sync"))(_line(to={"jitter_ms": 20, "reorder": 0.3}, back={"jitter_ms": 20, "reorder": 0.3}))
fault("net-duplicate", (6, 12), ("primary", "sync"))(_line(to={"duplicate": 0.3, "reorder": 0.1}, back={"duplicate": 0.3, "reorder": 0.1}))
fault("net-loss-in", (6, 12), ("primary", "sync"))(_line(to=LOSSY))
fault("net-loss-out", (6, 12), ("primary", "sync"))(_line(back=LOSSY))


# ---- clocks: the whole node restarts with other clocks, as a machine with a bad oscillator has them ----


def _clock(*faked, monotonic=True):
    def act(_cluster, node):
        def restart(clock):
            node.kill()
            node.clock = clock
            node.start()
        setting = random.Random(node.name).choice(faked)
        restart({"LD_PRELOAD": faketime(), "FAKETIME": setting, "FAKETIME_DONT_RESET": "1",
                 "FAKETIME_DONT_FAKE_MONOTONIC": "0" if monotonic else "1"})
        return lambda: restart(node.usual_clock)
    return act


fault("clock-drift", (10, 14), ("sync", "standby"))(_clock("+0 x1.04", "+0 x0.96"))
fault("clock-fast", (10, 14), ("sync", "standby"))(_clock("+0 x2"))
fault("clock-slow", (10, 14), ("sync", "standby"))(_clock("+0 x0.5"))
fault("clock-jump", (10, 14), ("sync", "standby"))(_clock("+3600s", "-3600s", monotonic=False))


# ---- disks ----


# What they are of: a machine's one disk with everything; the one with the store; the one with PostgreSQL's data and WAL.
PARTS = {"": DISKS, "-store": ("store",), "-wal": ("wal",)}


def disk_fault(name, *more):
    def register(function):
        for suffix, parts in PARTS.items():
            NEEDS[name + suffix] = "disk"
            fault(name + suffix, *more)(functools.partial(function, parts))
        return function
    return register


@disk_fault("disk-full", (4, 8), ("primary", "sync"))
def disk_full(parts, _cluster, node):
    fillers = [node.part(part) / "filler" for part in parts]
    for path in fillers:
        with open(path, "wb") as f, contextlib.suppress(OSError):
            while True:
                f.write(b"\0" * (1 << 20))

    def undo():
        for path in fillers:
            path.unlink(missing_ok=True)
        if not node.running():  # a supervisor would have
            node.start()
    return undo


def _other_disks(node):
    def undo():
        node.kill()
        node.remount()
        node.start()
    return undo


@disk_fault("disk-eio", (4, 8), ("primary", "sync", "raft"))
def disk_eio(parts, _cluster, node):
    """Every call to the disk fails, and what runs finds that out by itself. Then it is another disk with what the broken one had
    kept."""
    node.disks_fail(parts)
    return _other_disks(node)


@disk_fault("disk-read-only", (4, 8), ("primary", "sync", "raft"))
def disk_read_only(parts, _cluster, node):
    """As after an error that the kernel has found in the file system."""
    for part in parts:
        node.disks[part].make_read_only()
    return _other_disks(node)


def _thaw(node):
    node.freeze_disks(False)
    if not node.running():  # a supervisor would have
        node.start()


@disk_fault("disk-stuck", (3, 9), ("primary", "sync", "raft"))
def disk_stuck(parts, _cluster, node):
    """What writes waits until it is over, and cannot be killed meanwhile."""
    node.freeze_disks(True, parts)
    return lambda: _thaw(node)


@disk_fault("disk-slow", (6, 12), ("primary", "sync", "raft"))
def disk_slow(parts, _cluster, node):
    """Every write waits up to 0.3 s."""
    over = threading.Event()

    def stutter():
        while not over.wait(0.1):
            node.freeze_disks(True, parts)
            over.wait(0.3)
            node.freeze_disks(False, parts)
    thread = threading.Thread(target=stutter, daemon=True)
    thread.start()

    def undo():
        over.set()
        thread.join(20)
        _thaw(node)
    return undo


def _damage(spoil):
    """Bytes of the store's files are not what they were when the node starts again. It says so and ends, and the files are put
    back; or nothing is lost by them, and it goes on with them. Until that is known nobody hears it: what has been acknowledged
    with the new files must not be forgotten with the old ones."""
    def act(_cluster, node):
        node.kill()
        store = need(next(node.dir.glob("**/log.db"), None), "log.db").parent
        kept = {path: path.read_bytes() for path in store.glob("*.db*")}
        spoil(store, random.Random(node.name))
        node.host.cut()
        node.start()
        with contextlib.suppress(cl.Never):
            cl.wait_until(lambda: not node.running(), f"{node}: an end", 5)
        node.host.heal()
        if node.running():
            return None

        def undo():
            node.kill()
            for path in store.glob("*.db*"):
                path.unlink()
            for path, data in kept.items():
                path.write_bytes(data)
                give_away(path)
                path.chmod(0o600)
            node.start()
        return undo
    return act


def _flip(store, rng):
    path = store / rng.choice(("log.db", "state.db"))
    flip_bits(path, 100, path.stat().st_size - 1, rng)  # behind the header of SQLite


def flip_bits(path, begin, end, rng):
    with open(path, "r+b") as f:
        for _ in range(20):
            at = rng.randrange(begin, end)
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ 1 << rng.randrange(8)]))


def _tear(store, _rng):
    """The newest half of what the log has not moved to its place."""
    path = store / "log.db-wal"
    os.truncate(path, path.stat().st_size // 2)


def _newest_wal(node):
    """(segment, offset) at which this standby's WAL ends, and a function that reads it from the stopped one."""
    lsn = node.value("SELECT pg_last_wal_receive_lsn()")
    high, low = (int(half, 16) for half in need(lsn, "standby that has received anything").split("/"))
    found = sorted(node.pgdata.glob(f"pg_wal/{'[0-9A-F]' * 8}{high:08X}{low >> 24:08X}"))
    return need(found[-1] if found else None, "WAL of now"), max(low & 0xffffff, 1)


def _wal_damage(spoil, store_too=False):
    """The newest WAL of a standby is not what was synced when its node starts again: its PostgreSQL has to see where the log ends
    being one, and to get the rest anew from the primary. That is why nothing else may be wrong meanwhile; and why no primary is
    treated so, of whose pages some are newer than what is left of its log."""
    def act(cluster, node):
        if node is cluster.leader():
            raise LookupError("it has become the primary")
        path, end = _newest_wal(node)

        def spoil_wal(*_):
            spoil(path, end, random.Random(node.name))
        if store_too:
            return _damage(lambda store, rng: (_tear(store, rng), spoil_wal()))(cluster, node)
        node.kill()
        spoil_wal()
        return node.start
    return act


def _flip_wal(path, end, rng):
    flip_bits(path, max(end - (1 << 16), 0), end, rng)


def _tear_wal(path, end, rng):
    """The end never arrived, not even to a whole page."""
    start = max(end - rng.randrange(1, 1 << 16), 0)
    with open(path, "r+b") as f:
        f.seek(start)
        f.write(b"\0" * (path.stat().st_size - start))


fault("torn-wal", (1, 4), ("sync", "standby"))(_wal_damage(_tear_wal))
fault("flipped-wal", (1, 4), ("sync", "standby"))(_wal_damage(_flip_wal))
fault("torn-both", (3, 6), ("sync", "standby"))(_wal_damage(_tear_wal, store_too=True))
fault("flipped-bytes", (3, 6), ("sync", "raft", "standby"))(_damage(_flip))
fault("torn-log", (3, 6), ("sync", "raft", "standby"))(_damage(_tear))


@fault("power-loss", (1, 6), ("primary", "primary", "sync", "raft"))
def power_loss(_cluster, node):
    node.power_loss()
    return node.start


# ---- what operators do ----


@fault("switchover", (0, 0))
def switchover(_cluster, node):
    node.ctl("switchover", check=False, timeout_s=40)


@fault("maintenance", (5, 9))
def maintenance(cluster, node):
    """A pause, in which PostgreSQL hangs on nothing; other faults may come meanwhile."""
    node.ctl("pause", "--timeout", "5", check=False, timeout_s=20)
    return lambda: resume(cluster)


def resume(cluster):
    """At any node that can. True: nobody is paused."""
    for n in cluster.nodes:
        if n.running():
            n.ctl("resume", "--timeout", "5", check=False, timeout_s=20)
        config = cluster.record("config")
        if config is not None and not config.get("pause"):
            return True
    return False


@fault("restart-postgresql", (0, 0), ("primary", "sync"))
def restart_postgresql(_cluster, node):
    node.ctl("restart", node.name, "--force", check=False, timeout_s=60)


@fault("reinit", (0, 0), ("sync", "standby"))
def reinit(_cluster, node):
    node.ctl("reinit", node.name, "--force", "--wait", check=False, timeout_s=90)


@fault("stop-postgresql", (3, 6), ("sync", "standby"))
def stop_postgresql(_cluster, node):
    node.ctl("stop", node.name, check=False, timeout_s=60)
    return lambda: start_postgresql(node)


def start_postgresql(node):
    """True: it is not stopped by order."""
    request = node.cluster.record(f"request/{node.name}") or {}
    return request.get("kind") != "stop" or node.ctl("start", node.name, check=False, timeout_s=60).returncode == 0


def end_orders(cluster):
    """What an operator could not take back while other faults were there."""
    cl.wait_until(lambda: resume(cluster), "a resume", 300)
    for node in cluster.nodes:
        cl.wait_until(lambda node=node: start_postgresql(node), f"a start of {node}", 300)


@fault("upgrade", (1, 3), ("standby", "sync", "primary"))
def upgrade(cluster, node):
    """Every second time of a node it is the way back, which is closed when all have been upgraded."""
    if all(n.bin == cluster.next_bin() for n in cluster.nodes):
        raise LookupError("all run the newer build")
    node.change_build()
    return stop_daemon(cluster, node)


@fault("transfer-raft", (0, 0), ("raft",))
def transfer_raft(_cluster, node):
    node.ctl("dcs", "transfer", check=False, timeout_s=20)


@fault("member-churn", (3, 6), ("sync", "standby"))
def member_churn(cluster, node):
    """A voter becomes a learner and a voter again."""
    helper = next(n for n in cluster.nodes if n is not node and n.running())
    helper.ctl("member", "demote", node.name, "--force", check=False, timeout_s=20)
    return lambda: helper.ctl("member", "promote", node.name, check=False, timeout_s=30)


@fault("config-change", (2, 4))
def config_change(_cluster, node):
    def change(*words):
        node.ctl("edit-config", *words, check=False, timeout_s=20)
    change("-s", "ttl=8", "-s", "synchronous_node_count=2", "-p", "work_mem=8MB")
    return lambda: change("-s", "ttl=5", "-s", "synchronous_node_count=1", "-p", "work_mem=4MB")


@fault("config-sync", (3, 6))
def config_sync(cluster, node):
    """Another synchronous mode and back: the set changes hands step by step."""
    def change(mode):
        for n in [node, *cluster.nodes]:
            if n.running() and n.ctl("edit-config", "-s", f"synchronous_mode={mode}", check=False, timeout_s=20).returncode == 0:
                return
    mine = {"async": "off", "strict": "on"}.get(cluster.mode, cluster.mode)
    change("quorum" if mine == "on" else "on")
    return lambda: change(mine)


# ---- nemeses: what a schedule draws from ----

GROUPS = {
    "kill": ("kill-daemon", "kill-daemon-stay", "kill-fence", "kill-worker", "kill-postmaster", "kill-backend", "kill-walsender",
             "kill-node", "stop-daemon"),
    "pause": ("pause-daemon", "pause-fence", "pause-postmaster", "pause-postgresql", "pause-daemon-live-postgres", "pause-node"),
    "partition": ("partition-isolate", "partition-peers", "partition-halves", "partition-bridge", "partition-ring", "partition-in",
                  "partition-out", "partition-dcs", "partition-replication", "partition-rest", "packet-loss"),
    "clock": ("clock-drift", "clock-fast", "clock-slow", "clock-jump"),
    "disk": ("disk-full", "power-loss"),
    "operator": ("switchover", "transfer-raft", "member-churn", "config-change", "config-sync"),
    "none": (),
}
GROUPS["mix"] = tuple(f for name, group in GROUPS.items() if name != "disk" for f in group)
GROUPS["storm"] = GROUPS["mix"] + GROUPS["disk"]
# Later than those two, whose seeds are to go on making the schedules that were published.
GROUPS["orders"] = ("maintenance", "restart-postgresql", "reinit", "stop-postgresql", "switchover")
GROUPS["everything"] = GROUPS["storm"] + GROUPS["orders"] + ("disk-eio", "kill-health")
GROUPS["network"] = ("net-slow", "net-slow-in", "net-slow-out", "net-reorder", "net-duplicate", "net-loss-in", "net-loss-out")
GROUPS["bad-disk"] = ("disk-slow", "disk-stuck", "disk-read-only", "disk-eio")
GROUPS["damage"] = ("flipped-bytes", "torn-log")
GROUPS["one-disk"] = tuple(f for f in FAULTS if f.startswith("disk-") and f.endswith(("-store", "-wal")))
GROUPS["wal-damage"] = ("torn-wal", "flipped-wal", "torn-both")
GROUPS["all"] = (*GROUPS["everything"], *GROUPS["network"], *GROUPS["bad-disk"], *GROUPS["one-disk"], *GROUPS["damage"],
                 *GROUPS["wal-damage"], "pause-clocks", "upgrade")
# What was synced and is gone is made good by the others, if they are well.
ALONE = frozenset(GROUPS["damage"] + GROUPS["wal-damage"])
# How often a fault comes with a second one, and how long the cluster then has to itself.
TOGETHER = {"mix": (0.25, SETTLE_S), "storm": (1.0, 4), "everything": (1.0, 4), "orders": (0.5, SETTLE_S),
            "all": (0.5, SETTLE_S)}


def nemeses():
    return [*GROUPS, *FAULTS]


def faults_of(nemesis):
    return GROUPS.get(nemesis, (nemesis,))


def goes_with(name, other):
    """May both be there at once? Two that treat one disk would undo each other."""
    disks = {NEEDS.get(f) for f in (name, other)} == {"disk"}
    return other not in ALONE and not (disks and {name, other} & set(GROUPS["bad-disk"] + GROUPS["one-disk"]))


def make(workload, nemesis, mode, nodes, seed, seconds):
    """The schedule of a seed: as many faults as have room; in a mix some of them are two at once, in a storm all."""
    rng = random.Random(f"{workload}/{nemesis}/{mode}/{nodes}/{seed}")
    faults, at = [], round(rng.uniform(2, 4), 1)
    names = faults_of(nemesis)
    twice, settle_s = TOGETHER.get(nemesis, (0, SETTLE_S))
    while names and (not faults or at < seconds - 10):
        name = rng.choice(names)
        _, (low, high), targets = FAULTS[name]
        item = {"at": at, "for": round(rng.uniform(low, high), 1), "fault": name, "target": rng.choice(targets)}
        faults.append(item)
        if twice and rng.random() < twice and name not in ALONE:
            second = rng.choice([other for other in names if nemesis != "all" or goes_with(name, other)])
            _, (low, high), targets = FAULTS[second]
            faults.append({"at": round(at + rng.uniform(0, 2), 1), "for": round(rng.uniform(low, high), 1), "fault": second,
                           "target": rng.choice(targets)})
        at = round(max(f["at"] + f["for"] for f in faults) + rng.uniform(settle_s - 3, settle_s + 3), 1)
    end = max([f["at"] + f["for"] for f in faults], default=0)
    return {"workload": workload, "nemesis": nemesis, "mode": mode, "nodes": nodes, "seed": seed,
            "seconds": round(max(seconds, end + 3), 1), "faults": sorted(faults, key=lambda f: f["at"])}


def needs(schedule):
    return {NEEDS[f["fault"]] for f in schedule["faults"] if f["fault"] in NEEDS}


class Nemesis(threading.Thread):
    """Plays a schedule against a cluster; what it did is in the history."""

    def __init__(self, cluster, schedule, history):
        super().__init__(daemon=True)
        self.cluster, self.schedule, self.history = cluster, schedule, history
        self.done = []
        self.stopped = threading.Event()

    def run(self):
        begun = time.monotonic()
        ends = []
        todo = sorted(((f["at"], i, f) for i, f in enumerate(self.schedule["faults"])))
        while (todo or ends) and not self.stopped.is_set():
            at, _, item = min([*todo[:1], *ends], key=lambda x: x[:2])
            if self.stopped.wait(max(0.0, begun + at - time.monotonic())):
                break
            if callable(item):
                ends.remove((at, _, item))
                item()
            else:
                todo.pop(0)
                undo = self.act(item)
                if undo:
                    ends.append((at + item["for"], len(self.done), undo))
        for _, _, undo in sorted(ends, key=lambda x: x[:2]):
            undo()

    def act(self, item):
        name = item["fault"]
        node = self.find(item["target"])
        if node is None:
            self.history.add("info", "nemesis", name, "nobody to break", target=item["target"])
            return None
        self.history.add("info", "nemesis", name, "begin", target=item["target"], node=node.name)
        entry = {"fault": name, "node": node.name, "at": self.history.now() / 1e9, "end": None}
        try:
            undo = FAULTS[name][0](self.cluster, node)
        except (LookupError, OSError, subprocess.SubprocessError, cl.Never, AssertionError) as e:
            self.history.add("info", "nemesis", name, f"could not: {e}"[:200], node=node.name)
            return None
        self.done.append(entry)

        def end():
            if undo:
                with contextlib.suppress(subprocess.SubprocessError):
                    undo()
            entry["end"] = self.history.now() / 1e9
            self.history.add("info", "nemesis", name, "end", node=node.name)
        if undo is None:
            end()
            return None
        return end

    def find(self, target):
        """The node that is it now; when nobody is, for a moment, the last word is had 3 s later."""
        with contextlib.suppress(cl.Never):
            return cl.wait_until(lambda: self._find(target), f"a {target}", 3)
        return None

    def _find(self, target):
        nodes = [n for n in self.cluster.nodes if n.running()]
        if target.startswith("n") and target[1:].isdigit():
            return self.cluster[target]
        if target == "raft":
            return next((n for n in nodes if raft_leads(n)), None)
        leader = self.cluster.leader()
        if target == "primary" or leader is None:
            return leader
        standbys = [n for n in nodes if n is not leader]
        if target == "sync":
            v = (self.cluster.record("sync") or {}).get("v", [])
            members = {m: (self.cluster.record(f"members/{m}") or {}).get("incarnation") for m in (n.name for n in standbys)}
            return next((n for n in standbys if members[n.name] in v), None) or (standbys[0] if standbys else None)
        return standbys[-1] if standbys else None

    def stop(self):
        self.stopped.set()
        self.join(120)


def raft_leads(node):
    done = node.ctl("-f", "json", "dcs", "status", check=False, timeout_s=5)
    return done.returncode == 0 and '"leader"' in done.stdout and f'"{node.name}"' in done.stdout
