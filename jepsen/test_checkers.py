"""Every checker passes a good history and sees each of these that must fail; nothing to judge is "unknown", never a pass."""
import pathlib
import random
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lab"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "integration"))

import pytest  # noqa: E402

pytest.importorskip("psycopg2")

import checkers  # noqa: E402
import faults  # noqa: E402
import history  # noqa: E402
import hosts  # noqa: E402
import porcupine  # noqa: E402
import runner  # noqa: E402
import switch  # noqa: E402


class Made:
    """Builds a history: op("ok", ...) is an invocation and its completion, 10 ns apart unless times are given."""

    def __init__(self):
        self.ops = []
        self.at = 0
        self.process = 0

    def add(self, kind, process, f, value, time=None, **more):
        self.at = self.at + 10 if time is None else time
        self.ops.append({"index": len(self.ops), "time": self.at, "type": kind, "process": process, "f": f, "value": value, **more})
        return self

    def op(self, kind, f, value, result=None, times=(None, None), **more):
        self.process += 1
        self.add("invoke", self.process, f, value, times[0])
        return self.add(kind, self.process, f, value if result is None else result, times[1], **more)

    def note(self, f, value, **more):
        return self.add("info", "nemesis", f, value, **more)


def kinds(result):
    return set(result.get("anomalies", {}))


# ---- history ----


def test_a_line_of_edn_is_read_back_as_it_was(tmp_path):
    h = history.History()
    h.add("invoke", 3, "txn", [["r", 1, None], ["append", 2, 7]], node="n1", note='a "b"\\')
    h.add("info", "nemesis", "kill-node", {"deep": [1.5, True]})
    h.write(tmp_path / "h.edn")
    assert history.read(tmp_path / "h.edn") == h.ops
    assert ":type :invoke" in (tmp_path / "h.edn").read_text() and ":process :nemesis" in (tmp_path / "h.edn").read_text()


def test_after_info_a_process_has_another_number():
    p = history.Process(history.History(), 1, 4)
    p.invoke("add", 1)
    p.done("info", "add", 1)
    p.invoke("add", 2)
    assert [op["process"] for op in p.history.ops] == [1, 1, 5]


def test_pairs_refuses_a_completion_without_an_invocation():
    with pytest.raises(ValueError):
        history.pairs(Made().add("ok", 1, "add", 1).ops)


# ---- PostgreSQL ----


def ledger(rows, *more):
    m = Made().op("ok", "add", 1).op("info", "add", 2).op("fail", "add", 3).op("ok", "add", 4)
    for node in ("n1", "n2"):
        m.note("final", list(rows), node=node, dump="x")
    return checkers.ledger(m.ops + list(more))


def test_ledger():
    assert ledger([1, 4])["valid"] is True and ledger([1, 2, 4])["valid"] is True
    assert kinds(ledger([1])) == {"lost"}
    assert kinds(ledger([1, 3, 4])) == {"refused-but-there"}
    assert kinds(ledger([1, 4, 9])) == {"nobody-wrote"}
    assert kinds(ledger([1, 4, 4])) == {"duplicate"}
    assert checkers.ledger([])["valid"] == "unknown"
    assert checkers.ledger(Made().op("ok", "add", 1).ops)["valid"] == "unknown"


def probes(*acks):
    m = Made()
    for node, timeline, sent, received in acks:
        m.note("probe", [sent, received], node=node, timeline=timeline)
    return checkers.single_primary(m.ops)


def test_single_primary():
    assert probes(("n1", 1, 0, 5), ("n1", 1, 10, 30), ("n2", 2, 15, 20))["valid"] is True
    assert kinds(probes(("n1", 1, 0, 5), ("n2", 2, 15, 20), ("n1", 1, 25, 30))) == {"overlap"}
    assert kinds(probes(("n1", 1, 0, 5), ("n2", 1, 15, 20))) == {"two-nodes-one-timeline"}
    assert probes()["valid"] == "unknown"


def test_bank():
    good = Made().op("ok", "transfer", [1, 2, 5]).op("ok", "read", None, [100] * 6)
    assert checkers.bank(good.ops)["valid"] is True
    bad = good.op("ok", "read", None, [100] * 5 + [95])
    assert kinds(checkers.bank(bad.ops)) == {"wrong-total"}
    assert checkers.bank([])["valid"] == "unknown"


def entry(timeline, token, name):
    return {"timeline": timeline, "token": token, "name": name}


def lines(entries, *acks):
    m = Made()
    for node, timeline in acks:
        m.note("probe", [0, 1], node=node, timeline=timeline)
    return checkers.lineage(m.note("lineage", entries).ops)


def test_lineage():
    assert lines([entry(1, 1, "n1"), entry(2, 3, "n2")], ("n1", 1), ("n2", 2))["valid"] is True
    assert kinds(lines([entry(1, 1, "n1"), entry(2, 1, "n2")])) == {"not-rising"}
    assert kinds(lines([entry(2, 1, "n1"), entry(2, 3, "n2")])) == {"not-rising"}
    assert kinds(lines([entry(1, 1, "n1")], ("n2", 2))) == {"not-its-timeline"}
    assert checkers.lineage([])["valid"] == "unknown"


def test_equality():
    def dumps(*hashes):
        m = Made()
        for i, h in enumerate(hashes):
            m.note("final", [], node=f"n{i}", dump=h)
        return checkers.equality(m.ops)
    assert dumps("a", "a", "a")["valid"] is True
    assert kinds(dumps("a", "a", "b")) == {"different"}
    assert dumps("a")["valid"] == "unknown"


# ---- lists ----


def lists(*txns, level="serializable", final=None):
    m = Made()
    for txn in txns:
        kind, value = (txn[0], txn[1:]) if isinstance(txn[0], str) else ("ok", txn)
        m.op(kind, "txn", [list(v) for v in value])
    if final is not None:
        m.note("final", final, node="n1", dump="x")
    return checkers.append(m.ops, level)


def r(key, *items):
    return ("r", key, list(items))


def a(key, item):
    return ("append", key, item)


def test_lists_that_are_well():
    assert lists((a(1, 1), r(2)), (r(1, 1), a(2, 2)), final={"1": [1], "2": [2]})["valid"] is True
    assert lists((a(1, 1), r(1, 1)), ("info", a(1, 2)), (r(1, 1, 2),), final={"1": [1, 2]})["valid"] is True
    assert lists(final={"1": []})["valid"] is True
    assert lists()["valid"] == "unknown"


def test_an_acknowledged_append_that_is_gone_is_lost():
    assert "lost" in kinds(lists((a(1, 1),), (a(1, 2),), final={"1": [1]}))


def test_reads_that_do_not_agree_on_the_order():
    assert "incompatible-order" in kinds(lists((a(1, 1),), (a(1, 2),), (r(1, 1, 2),), (r(1, 2),), final={"1": [1, 2]}))


def test_aborted_and_intermediate_reads():
    assert "G1a aborted read" in kinds(lists(("fail", a(1, 1)), (r(1, 1),), final={"1": []}))
    assert "G1b intermediate read" in kinds(lists((a(1, 1), a(1, 2)), (r(1, 1),), final={"1": [1, 2]}))
    assert "nobody-wrote" in kinds(lists((r(1, 9),), final={"1": [9]}))


def test_a_value_read_twice_is_a_duplicate():
    assert "duplicate" in kinds(lists((a(1, 1),), (r(1, 1, 1),), final={"1": [1]}))


def test_write_cycles_and_circular_information():
    assert "G0 write cycle" in kinds(lists((a(1, 1), a(2, 1)), (a(1, 2), a(2, 2)), final={"1": [1, 2], "2": [2, 1]}))
    assert "G1c circular information flow" in kinds(lists((a(1, 1), r(2, 2)), (a(2, 2), r(1, 1)), final={"1": [1], "2": [2]}))


def test_write_skew_is_allowed_at_repeatable_read_and_not_when_serializable():
    skew = ((r(1), a(2, 1)), (r(2), a(1, 1)))
    final = {"1": [1], "2": [1]}
    assert "G2 anti-dependency cycle" in kinds(lists(*skew, final=final))
    assert lists(*skew, level="repeatable-read", final=final)["valid"] is True
    assert lists(*skew, level="read-committed", final=final)["valid"] is True


def test_a_lost_update_is_forbidden_at_repeatable_read():
    """Both read the empty list; the second append is made on what the first did not know."""
    lost = ((r(1), a(1, 1)), (r(1), a(1, 2)))
    assert "G-single" in kinds(lists(*lost, level="repeatable-read", final={"1": [1, 2]}))
    assert lists(*lost, level="read-committed", final={"1": [1, 2]})["valid"] is True


def test_a_cycle_is_found_in_long_histories_without_recursion():
    txns = [(a(1, i),) for i in range(1, 3000)]
    assert lists(*txns, final={"1": list(range(1, 3000))})["valid"] is True


# ---- the store ----


def put(m, value, revision, times=(None, None), key="k"):
    return m.op("ok", "write", [key, value], times=times, revision=revision)


def get(m, value, revision, times=(None, None), key="k"):
    return m.op("ok", "read", [key, None], [key, value], times=times, revision=revision)


def register_cases():
    m = Made()
    yield "good", set(), get(put(put(m, "a", 2), "b", 3), "b", 3)
    yield "stale read", {"stale-read"}, get(put(put(Made(), "a", 2), "b", 3), "a", 2)
    yield "reads go back", {"stale-read"}, get(get(put(put(Made(), "a", 2), "b", 3, (25, 90)), "b", 3, (40, 50)), "a", 2, (60, 70))
    yield "an old read beside a write", set(), get(put(put(Made(), "a", 2), "b", 3, (25, 90)), "a", 2, (40, 50))
    yield "wrong value", {"wrong-value"}, get(put(put(Made(), "a", 2), "b", 3), "a", 3)
    yield "revisions against time", {"order-of-writes"}, put(put(Made(), "a", 3), "b", 2)
    yield "one revision twice", {"revision-twice"}, put(put(Made(), "a", 2), "b", 2)
    yield "lost write", {"stale-read"}, get(put(Made(), "a", 2), None, 0)
    yield "nobody wrote", {"nobody-wrote"}, get(put(Made(), "a", 2), "z", 7)
    yield "from the future", {"from-the-future"}, get(put(Made(), "a", 2, (50, 60)), "a", 2, (10, 20))
    m = Made().op("info", "write", ["k", "u"])
    yield "an unknown write that is seen", set(), get(put(m, "a", 2), "u", 3)


@pytest.mark.parametrize("name, expected, made", register_cases(), ids=lambda x: x if isinstance(x, str) else "")
def test_register(name, expected, made):
    result = checkers.register(made.ops)
    assert kinds(result) == expected and result["valid"] is (not expected), name


@pytest.mark.parametrize("name, expected, made", register_cases(), ids=lambda x: x if isinstance(x, str) else "")
def test_porcupine_is_of_the_same_mind_about_values(name, expected, made):
    if porcupine.program()[0] is None:
        pytest.skip(porcupine.program()[1])
    result = porcupine.check(made.ops)
    if name in ("good", "an old read beside a write", "an unknown write that is seen"):
        assert result["valid"] is True
    elif expected & {"stale-read", "nobody-wrote", "from-the-future"}:
        assert result["valid"] is False


def test_nothing_acknowledged_is_unknown():
    assert checkers.register([])["valid"] == "unknown"


def test_set():
    def elements(read):
        return checkers.element_set(Made().op("ok", "add", 1).op("info", "add", 2).op("fail", "add", 3).op("ok", "read-set", None, read).ops)
    assert elements([1])["valid"] is True and elements([1, 2])["valid"] is True
    assert kinds(elements([])) == {"lost"}
    assert kinds(elements([1, 1])) == {"duplicate"}
    assert kinds(elements([1, 3])) == kinds(elements([1, 9])) == {"nobody-wrote"}
    assert checkers.element_set(Made().op("ok", "read-set", None, []).op("ok", "add", 1).ops)["valid"] == "unknown"


def test_counter():
    def count(*steps, final):
        m = Made().op("info", "increment", 1)
        for value, revision in steps:
            m.op("ok", "increment", value, revision=revision)
        return checkers.counter(m.op("ok", "read-counter", None, final).ops)
    assert count((1, 5), (2, 6), final=3)["valid"] is True
    assert kinds(count((1, 5), (1, 6), final=2)) == {"value-twice"}
    assert kinds(count((1, 5), (2, 5), final=2)) == {"revision-twice"}
    assert kinds(count((1, 6), (2, 5), final=2)) == {"order"}
    assert kinds(count((1, 5), (2, 6), final=1)) == {"sum"} == kinds(count((1, 5), (2, 6), final=9))
    assert checkers.counter([])["valid"] == "unknown"


def test_once():
    def versions(*found):
        m = Made()
        for v in found:
            m.op(*(("info", "put", ["k", None]) if v is None else ("ok", "put", ["k", None], ["k", v])))
        return checkers.once(m.ops)
    assert versions(0, 1, 2)["valid"] is True and versions(0, None, 1)["valid"] is True and versions(0, None, 2)["valid"] is True
    assert kinds(versions(0, 2)) == {"applied-twice"} == kinds(versions(0, None, 3))
    assert kinds(versions(0, 1, 1)) == {"forgotten"}
    assert versions()["valid"] == "unknown"


def test_watch():
    def events(*seen):
        m = Made().op("ok", "put-watched", ["a", "1"], revision=5).op("ok", "put-watched", ["b", "2"], revision=7)
        m.op("info", "put-watched", ["c", "3"])
        for value, revision in seen:
            m.note("event", value, node="n1", revision=revision)
        return checkers.watch(m.ops)
    one, two, three = (["a", "1"], 5), (["b", "2"], 7), (["c", "3"], 8)
    assert events(one, two)["valid"] is True and events(one, two, three)["valid"] is True
    assert kinds(events(one)) == {"missed"}
    assert kinds(events(two, one)) == {"reordered"}
    assert kinds(events(one, two, two)) == {"duplicate"}
    assert kinds(events(one, (["b", "x"], 7))) == {"wrong-event"}
    assert kinds(events(one, two, (["d", "4"], 9))) == {"nobody-wrote"}
    assert events()["valid"] == "unknown"


def test_lease():
    def reads(there, at, end=False):
        m = Made().op("ok", "hold", ["k", 100], times=(5, 10))
        return checkers.lease(m.op("ok", "read-lease", ["k", None], ["k", there], times=at).op("ok", "read-lease-end", ["k", None], ["k", end]).ops)
    assert reads(True, (20, 30))["valid"] is True and reads(False, (90, 110))["valid"] is True
    assert kinds(reads(False, (20, 30))) == {"gone-too-early"}
    assert kinds(reads(True, (20, 30), end=True)) == {"never-gone"}
    assert checkers.lease([])["valid"] == "unknown"


def test_lock():
    def holders(*spans):
        m = Made()
        for token, begun, until in spans:
            m.op("ok", "acquire", None, [token, until], times=(begun - 1, begun))
        return checkers.lock(m.ops)
    assert holders((3, 10, 20), (5, 25, 40))["valid"] is True
    assert kinds(holders((3, 10, 20), (5, 15, 40))) == {"overlap"}
    assert kinds(holders((5, 10, 20), (3, 25, 40))) == {"token"}
    assert holders((3, 10, 20))["valid"] == "unknown"


# ---- schedules ----


def test_the_same_seed_makes_the_same_schedule_and_another_another():
    one = faults.make("ledger", "mix", "on", 3, 7, 60)
    assert one == faults.make("ledger", "mix", "on", 3, 7, 60) != faults.make("ledger", "mix", "on", 3, 8, 60)
    assert all(f["fault"] in faults.FAULTS for f in one["faults"])


def test_every_nemesis_makes_a_schedule():
    for nemesis in faults.nemeses():
        made = faults.make("ledger", nemesis, "on", 3, 1, 40)
        assert bool(made["faults"]) == (nemesis != "none")


def test_a_mix_of_all_has_every_fault_and_those_that_take_what_was_synced_come_alone():
    seen = set()
    for seed in range(400):
        made = faults.make("ledger", "all", "on", 3, seed, 60)["faults"]
        seen |= {f["fault"] for f in made}
        for one, two in zip(made, made[1:]):
            if two["at"] < one["at"] + one["for"]:
                assert faults.goes_with(one["fault"], two["fault"]) or faults.goes_with(two["fault"], one["fault"])
                assert not faults.ALONE & {one["fault"], two["fault"]}
    assert seen == set(faults.GROUPS["all"]) == set(faults.FAULTS)


def test_what_is_torn_or_flipped_is_the_end_of_the_wal(tmp_path):
    wal, end = tmp_path / "000000010000000000000003", 100000
    for spoil in (faults._tear_wal, faults._flip_wal):
        wal.write_bytes(b"\x55" * (1 << 18))
        spoil(wal, end, random.Random(1))
        after = wal.read_bytes()
        assert len(after) == 1 << 18 and after[:end - (1 << 16)] == b"\x55" * (end - (1 << 16)) and after[:end] != b"\x55" * end
    assert after[end:] == b"\x55" * ((1 << 18) - end)


def test_clocks_are_behind_by_the_time_of_the_pause(tmp_path):
    if not hosts.stopped_clock().exists():
        pytest.skip(f"no {hosts.stopped_clock()}")
    clock = tmp_path / "clock"
    clock.write_bytes(struct.pack("=q", 5000 * 10**9))
    told = subprocess.run(["date", "+%s"], capture_output=True, check=True,
                          env={"LD_PRELOAD": str(hosts.stopped_clock()), "STOPPED_CLOCK": str(clock)}).stdout
    assert abs(time.time() - 5000 - int(told)) < 60


def test_shrinking_finds_the_two_faults_that_matter():
    assert runner.reduce_list(list(range(9)), lambda rest: {2, 6} <= set(rest), lambda _: None) == [2, 6]


def test_a_skip_or_an_unknown_is_never_a_pass():
    assert runner.overall({"a": {"valid": True}, "b": {"valid": "unknown"}}) == "unknown"
    assert runner.overall({"a": {"valid": "unknown"}, "b": {"valid": False}}) is False
    able = {k: None for k in ("hosts", "programs", "postgresql", "disk", "clock", "cgroup")}
    assert runner.skip_reason(faults.make("ledger", "power-loss", "on", 3, 1, 40), {**able, "disk": "no loop"}) == "no loop"
    assert runner.skip_reason(faults.make("ledger", "kill", "on", 3, 1, 40), {**able, "disk": "no loop"}) is None


def test_a_gap_is_counted_from_its_fault_to_the_next():
    ops = [{"type": "ok", "f": "add", "time": int(t * 1e9)} for t in (1, 2, 5, 6, 12)]
    assert checkers.unavailability(ops, [{"at": 2.5}, {"at": 7}]) == [3.0, 6.0]


# ---- the store's transactions are judged as those of PostgreSQL ----


def test_a_lost_append_and_a_write_skew_of_the_store_are_seen():
    check = runner.CHECKS["txn"]["append"]
    good = Made().op("ok", "txn", [["append", 1, 10]]).op("ok", "txn", [["r", 1, [10]], ["append", 2, 20]])
    good.note("final", {"1": [10], "2": [20]}, node="n1")
    assert check(good.ops)["valid"] is True
    lost = Made().op("ok", "txn", [["append", 1, 10]]).op("ok", "txn", [["append", 1, 11]]).note("final", {"1": [11]}, node="n1")
    assert "lost" in kinds(check(lost.ops))
    skew = Made().op("ok", "txn", [["r", 1, []], ["append", 2, 20]]).op("ok", "txn", [["r", 2, []], ["append", 1, 10]])
    skew.note("final", {"1": [10], "2": [20]}, node="n1")
    assert check(skew.ops)["valid"] is False


# ---- the line with delay, loss, reordering, duplication ----


def sent(line, count=2000):
    """[(when it went on, number of the frame)], one frame a millisecond, in the order in which they arrive."""
    return sorted((due, n) for n in range(count) for due in line.times(n / 1000))


def test_a_line_with_jitter_alone_keeps_the_order_and_the_bounds():
    arrived = sent(switch.Line(random.Random(1), delay_ms=50, jitter_ms=100))
    assert [n for _, n in arrived] == list(range(2000))
    assert all(0.05 <= due - n / 1000 <= 0.15 + 0.1 for due, n in arrived)


def test_a_line_loses_doubles_and_reorders_as_often_as_it_is_told():
    assert 300 < 2000 - len(sent(switch.Line(random.Random(1), loss=0.2))) < 500
    assert 300 < len(sent(switch.Line(random.Random(1), duplicate=0.2))) - 2000 < 500
    numbers = [n for _, n in sent(switch.Line(random.Random(1), reorder=0.3))]
    assert sorted(numbers) == list(range(2000)) and sum(a > b for a, b in zip(numbers, numbers[1:])) > 100
    assert len(sent(switch.Line(random.Random(1)))) == 2000


# ---- damage ----


def test_flipped_and_torn_files_differ_and_the_header_does_not(tmp_path):
    data = {name: bytes(range(256)) * 64 for name in ("log.db", "state.db", "log.db-wal")}
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
    faults._flip(tmp_path, random.Random(1))
    now = {name: (tmp_path / name).read_bytes() for name in data}
    changed = [name for name in data if now[name] != data[name]]
    assert len(changed) == 1 and changed[0] != "log.db-wal" and now[changed[0]][:100] == data[changed[0]][:100]
    faults._tear(tmp_path, None)
    assert len((tmp_path / "log.db-wal").read_bytes()) == len(data["log.db-wal"]) // 2
