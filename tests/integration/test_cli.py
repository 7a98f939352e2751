"""Bad input, end to end: one clear line that names the thing, the reason and the remedy; the exit code of its kind;
nothing changed on disk. And the demo cluster: up, a killed node, down."""
import contextlib
import fcntl
import json
import os
import re
import pathlib
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import time

import pytest

pytest.importorskip("psycopg2")

from cluster import PG_BIN, as_user, build_dir, processes_of, wait_until  # noqa: E402
from ports import free_port  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not (build_dir() / "regentd").exists(), reason="regentd is not built"),
    pytest.mark.skipif(not (PG_BIN / "postgres").exists(), reason=f"no PostgreSQL in {PG_BIN}"),
]
DONE, FAILED, USAGE, REFUSED = 0, 1, 2, 4
LIMIT_S = 60


def run(program, *words, stdin=None):
    return subprocess.run([*as_user(), build_dir() / program, *[str(w) for w in words]], capture_output=True, text=True,
                          cwd="/", timeout=LIMIT_S, check=False, input=stdin)


def ctl(*words, **more):
    return run("regentctl", *words, **more)


def on_disk(directory):
    """Everything below it, with what would change when somebody wrote there."""
    return {str(p): (s.st_mtime_ns, s.st_size, s.st_mode) for p in sorted(pathlib.Path(directory).rglob("*"))
            for s in [p.lstat()]}


def says(done, code, *parts, program="regentctl"):
    """It ended with this code and one line on stderr that has all parts in it."""
    lines = done.stderr.splitlines()
    assert done.returncode == code, done
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"{program}: ") or program not in lines[0].split(":")[0], lines[0]
    for part in parts:
        assert part in lines[0], lines[0]


def end_all(directory):
    for pid in processes_of(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def scratch():
    """A directory of the user that everything runs as; what a test that failed has left in it is ended."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="rcli-", dir="/tmp"))
    try:
        if as_user():
            shutil.chown(home, "postgres", "postgres")
        yield home
    finally:
        end_all(home)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(name="home")
def home_fixture():
    with scratch() as home:
        yield home


def made(home, name="n1", **sets):
    """A node by init; starts nothing. Its configuration file."""
    ports = {k: free_port() for k in ("dcs", "rest", "pg")}
    config = home / name / "regent.yml"
    more = [w for k, v in sets.items() for w in ("--set", f"{k}={v}")]
    done = ctl("-c", config, "init", "--scope", "demo", "--name", name, "--listen", f"127.0.0.1:{ports['dcs']}",
               "--data-dir", home / name, "--pg-data", home / name / "pg", "--pg-port", ports["pg"],
               "--rest-port", ports["rest"], "--pg-bin", PG_BIN, *more)
    assert done.returncode == DONE, done.stderr
    return config, ports


def daemon(config):
    """regentd in the foreground: what it says, and its exit code, when it refuses to start."""
    done = run("regentd", "-c", config)
    return done.returncode, done.stderr


# ---- without a cluster ----


@pytest.mark.parametrize("words, parts", [
    (["lst"], ['unknown command "lst"', 'did you mean "list"']),
    (["list", "--formt"], ['list: unknown option "--formt"', "regentctl list --help"]),
    (["token", "create", "--tlt", "1h"], ["did you mean --ttl?"]),
    (["token", "create", "--ttl", "soon"], ['--ttl: "soon" is not a duration']),
    (["init", "--name", "n1"], ["--listen is missing"]),
    (["join", "127.0.0.1:1", "--name", "n", "--listen", "127.0.0.1"], ["--token is missing", "token create"]),
    (["dcs", "put", "k"], ["KEY and VALUE are needed"]),
    (["failover"], ["--candidate is missing"]),
    (["-f", "xml", "list"], ["-f takes table, json, yaml or tsv"]),
])
def test_a_wrong_use_is_told_in_one_line(words, parts):
    says(ctl(*words), USAGE, *parts)


@pytest.mark.parametrize("never, priority", [("nofailover", "failover_priority"), ("nosync", "sync_priority")])
def test_tags_that_contradict_each_other_are_refused(home, never, priority):
    config, _ = made(home, "n1", **{f"tags.{never}": "true"})
    assert run("regentd", "--check-config", "-c", config).returncode == DONE
    with config.open("a") as f:
        f.write(f"  {priority}: 5\n" if config.read_text().rstrip().endswith(f"{never}: true") else f"tags:\n  {priority}: 5\n")
    part = f"tags.{never}: true contradicts tags.{priority}: 5; leave one of them out"
    for done in (run("regentd", "--check-config", "-c", config), ctl("-c", config, "list")):
        assert done.returncode == REFUSED and part in done.stderr, done
    says(ctl("-c", home / "x.yml", "init", "--scope", "s", "--name", "n", "--listen", "127.0.0.1", "--data-dir", home / "x", "--pg-bin",
             PG_BIN, "--set", f"tags.{never}=true", "--set", f"tags.{priority}=5"), REFUSED, part)
    assert not (home / "x").exists()


def test_a_failover_wants_force():
    says(ctl("failover", "--candidate", "n2"), REFUSED, "--force")


def test_every_command_has_help():
    commands = [re.split(r"\s{2,}", line.strip())[0] for line in ctl("--help").stdout.splitlines() if line.startswith("  ")]
    assert "demo up" in commands and "dcs txn" in commands
    for command in commands:
        done = ctl(*command.split(), "--help")
        assert done.returncode == DONE and done.stdout.startswith(f"usage: regentctl {command}"), done


def shown_commands():
    """Every `regentctl ...` of the documentation: (page, words)."""
    for page in sorted((pathlib.Path(__file__).resolve().parents[2] / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        found = re.findall(r"`regentctl ([^`]+)`", text) + re.findall(r"^    +(?:\$ |sudo )?regentctl ([^#\n]+)", text, re.M)
        for line in found:
            for part in re.split(r"; (?:regentctl )?", re.sub(r"'[^']*'|\"[^\"]*\"", "X", line)):
                yield page.name, re.split(r"\s[>|<]|\s&&", part)[0].replace("[", " ").replace("]", " ").split()


def test_every_command_that_the_documentation_shows_exists_with_its_options():
    commands = [re.split(r"\s{2,}", line.strip())[0].split() for line in ctl("--help").stdout.splitlines() if line.startswith("  ")]
    assert ["dcs", "snapshot", "save"] in commands
    helps = {}
    shown = list(shown_commands())
    assert len(shown) > 50
    for page, words in shown:
        while words[0] in ("-c", "-H", "-f"):
            words = words[2:]
        if words[0].isupper() or words[0] == "──TLS":
            continue  # `regentctl COMMAND --help`, a drawing
        command = max((c for c in commands if words[:len(c)] == c), key=len, default=None)
        assert command is not None, f"{page}: there is no `regentctl {' '.join(words)}`"
        if tuple(command) not in helps:
            helps[tuple(command)] = ctl(*command, "--help").stdout + " --help"
        for word in words:
            if word.startswith("-"):
                assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", helps[tuple(command)]), \
                    f"{page}: `regentctl {' '.join(command)}` has no {word}: {helps[tuple(command)]}"


def test_wrong_keys_and_types_are_all_told_with_their_lines(home):
    config, _ = made(home)
    before = on_disk(home)
    text = config.read_text() + "tags:\n  nofailove: true\n  failover_priority: high\n"
    bad = home / "bad.yml"
    bad.write_text(text)
    bad.chmod(0o644)
    line = len(text.splitlines())
    want = [f'{bad}:{line - 1}: unknown key "tags.nofailove"; the nearest known one is "tags.nofailover"',
            f'{bad}:{line}: tags.failover_priority: "high" is not a number']
    for done in (run("regentd", "--check-config", "-c", bad), run("regentd", "-c", bad), ctl("-c", bad, "list")):
        assert done.returncode in (FAILED, USAGE), done
        assert done.stderr.splitlines()[:2] == want
    bad.unlink()
    assert {k: v for k, v in on_disk(home).items() if not k.endswith("bad.yml")} == before


def test_a_good_file_is_said_to_be_good(home):
    config, _ = made(home)
    before = on_disk(home)
    done = run("regentd", "--check-config", "-c", config)
    assert (done.returncode, done.stdout) == (DONE, f"{config}: no errors\n")
    assert on_disk(home) == before


def test_init_does_nothing_twice(home):
    config, _ = made(home)
    before = on_disk(home)
    done = ctl("-c", config, "init", "--scope", "x", "--name", "y", "--listen", "127.0.0.1", "--data-dir", home / "n1",
               "--pg-bin", PG_BIN)
    says(done, FAILED, str(config), "exists already", "remove it first")
    assert on_disk(home) == before


def test_no_postgresql_is_told_before_anything_is_written(home):
    done = ctl("-c", home / "regent.yml", "init", "--scope", "x", "--name", "y", "--listen", "127.0.0.1", "--data-dir",
               home / "d", "--pg-bin", home)
    says(done, FAILED, "no PostgreSQL server", f"{home}/postgres", "--pg-bin")
    assert not on_disk(home)


@pytest.mark.parametrize("which", ["dcs", "rest"])
def test_a_port_in_use_is_named(home, which):
    config, ports = made(home)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[which]))
        taken.listen()
        code, said = daemon(config)
    assert code == FAILED, said
    assert f"127.0.0.1:{ports[which]}" in said and "in use" in said, said
    assert not (home / "n1" / "pg").exists()
    try:
        wait_until(lambda: not processes_of(home), "nothing of it is left")
    finally:
        end_all(home)


@pytest.mark.parametrize("name, how", [
    ("node.crt", "missing"), ("node.key", "unreadable"), ("ca.crt", "missing"),
    ("node.crt", "garbage"),
])
def test_a_certificate_that_cannot_be_used_is_named(home, name, how):
    config, _ = made(home)
    file = home / "n1" / "pki" / name
    if how == "missing":
        file.unlink()
    elif how == "garbage":
        file.write_text("no certificate\n")
    else:
        file.chmod(0)
    code, said = daemon(config)
    assert code == FAILED, said
    assert str(file) in said, said
    assert not (home / "n1" / "pg").exists()


def test_no_daemon_no_answer(home):
    config, _ = made(home)
    says(ctl("-c", config, "list"), FAILED, "regent.sock", "is regentd running on this node?")


# ---- with a cluster ----


class Demo:
    def __init__(self, home):
        self.dir = home / "demo"

    def __call__(self, verb, *words):
        command = [build_dir() / "regentctl", "demo", verb, "--dir", self.dir, *[str(w) for w in words]]
        return subprocess.run([*as_user(), *command], capture_output=True, text=True, cwd="/", timeout=150, check=False)

    def ctl(self, node, *words, **more):
        return ctl("-c", self.dir / node / "regent.yml", *words, **more)

    def up(self, *words):
        done = self("up", *words)
        assert done.returncode == DONE, done.stdout + done.stderr

    def members(self, node):
        done = self.ctl(node, "list", "-f", "json")
        return {m["Member"]: m for m in json.loads(done.stdout)} if done.returncode == DONE else {}

    def leader(self, node):
        return next((m for m, x in self.members(node).items() if (x["Role"], x["State"]) == ("Leader", "running")), None)

    def address(self, node):
        return json.loads(self.ctl(node, "member", "list", "-f", "json").stdout)[0]["address"]


@pytest.fixture(name="one_node", scope="module")
def one_node_fixture():
    with scratch() as home:
        demo = Demo(home)
        demo.up("--nodes", 1)
        try:
            yield demo
        finally:
            demo("down")


@pytest.fixture(name="demo")
def demo_fixture(one_node):
    wait_until(lambda: one_node.leader("n1") == "n1", "it leads, and runs")
    return one_node


def join(demo, home, token, name, data=None):
    return ctl("-c", home / name / "regent.yml", "join", demo.address("n1"), "--token", token, "--name", name, "--listen",
               f"127.0.0.1:{free_port()}", "--data-dir", home / name, "--pg-bin", PG_BIN, "--pg-port", free_port(),
               "--rest-port", free_port(), "--pg-data", data or home / name / "pg")


def test_a_token_that_is_no_good_costs_nothing(demo, home):
    token = demo.ctl("n1", "token", "create").stdout.strip()
    short = demo.ctl("n1", "token", "create", "--ttl", "1s").stdout.strip()
    expires = time.monotonic() + 1.5
    revoked = demo.ctl("n1", "token", "create").stdout.strip()
    assert demo.ctl("n1", "token", "revoke", revoked.split(".")[1]).returncode == DONE
    first, last = token.rsplit(".", 1)
    other_ca = f"{first}.{'0' * len(last)}"
    refusals = [("nonsense", "token"), (other_ca, ""), (revoked, "make a new one with `regentctl token create`")]
    for bad, part in refusals:
        says(join(demo, home, bad, "nx"), FAILED, part)
        assert not on_disk(home)
    wait_until(lambda: time.monotonic() > expires, "the token expires")
    says(join(demo, home, short, "nx"), FAILED, "has expired", "make a new one with `regentctl token create`")
    assert not on_disk(home)
    assert join(demo, home, token, "n9").returncode == DONE
    before = on_disk(home)
    says(join(demo, home, token, "n8"), FAILED, "has been used", "make a new one with `regentctl token create`")
    assert on_disk(home) == before
    assert demo.ctl("n1", "member", "remove", "n9").returncode == DONE


def test_a_wrong_address_to_join_by_is_named_with_a_remedy(demo, home):
    token = demo.ctl("n1", "token", "create").stdout.strip()
    rest = json.loads(demo.ctl("n1", "-f", "json", "dcs", "get", "/regent/demo/members/n1").stdout)[0]["value"]
    rest = json.loads(rest)["api_url"].split("/")[2]
    for address, why in ((f"127.0.0.1:{free_port()}", "connection refused"), (rest, "does not speak TLS")):
        done = ctl("-c", home / "r.yml", "join", address, "--token", token, "--name", "n", "--listen", "127.0.0.1", "--data-dir",
                   home / "j", "--pg-bin", PG_BIN)
        says(done, FAILED, f"cannot join by {address}: ", why, "is regentd running there", "`regentctl member list`")
    assert not on_disk(home)


def test_the_keys_of_the_dcs_by_etcdctl_s_commands(demo):
    assert demo.ctl("n1", "dcs", "put", "/t/a", "1").stdout == "OK\n"
    assert demo.ctl("n1", "dcs", "get", "/t/a").stdout == "/t/a\n1\n"
    txn = 'val("/t/a") = "1"\n\nput /t/b "x y"\nget /t/a\n\nget /t/none\n'
    assert demo.ctl("n1", "dcs", "txn", stdin=txn).stdout == "SUCCESS\n\nOK\n\n/t/a\n1\n"
    assert demo.ctl("n1", "dcs", "txn", stdin=txn.replace('= "1"', '= "2"')).stdout.startswith("FAILURE\n")
    bad = demo.ctl("n1", "dcs", "txn", stdin='val("/t/a") = "1"\n\nput /t/b\n')
    says(bad, USAGE, 'line 3: "put /t/b" is not `put KEY VALUE`')
    inner = '\nput /t/a 2\ntxn {\nval("/t/a") = "1"\n\nput /t/c "{}"\n\nget /t/a\n}\nget /t/a\n'
    assert demo.ctl("n1", "dcs", "txn", stdin=inner).stdout == "SUCCESS\n\nOK\n\nSUCCESS\n\nOK\n\n/t/a\n2\n"
    get = [demo.ctl, "n1", "dcs", "get", "--prefix", "/t/"]
    keys = [kv["key"] for kv in json.loads(get[0](*get[1:], "-f", "json").stdout)]
    assert keys == ["/t/a", "/t/b", "/t/c"]
    for options, want in (["--sort-by", "modify", "--keys-only"], "/t/b /t/a /t/c"), (["--sort-by=VERSION", "--order=descend", "--limit=1"], "/t/a 2"), \
            (["--order", "descend", "--print-value-only"], "{} x y 2"), (["--count-only"], "3"), (["--limit", 2, "--keys-only"], "/t/a /t/b"):
        assert get[0](*get[1:], *options).stdout.split("\n") == [*want.replace("x y", "x_y").replace(" ", "\n").replace("_", " ").split("\n"), ""]
    b = json.loads(demo.ctl("n1", "dcs", "get", "/t/b", "-f", "json").stdout)[0]["mod_revision"]
    for bound, want in ("--min-mod-rev", "/t/a /t/b /t/c"), ("--max-mod-rev", "/t/b"), ("--max-create-rev", "/t/a /t/b"), ("--min-create-rev", "/t/b /t/c"):
        assert get[0](*get[1:], bound, b, "--keys-only").stdout.split() == want.split(), bound
    assert demo.ctl("n1", "dcs", "get", "/t/b", "/t/c", "--keys-only").stdout == demo.ctl("n1", "dcs", "get", "/t/b", "--keys-only").stdout == "/t/b\n"
    assert demo.ctl("n1", "dcs", "get", "--from-key", "/t/b", "--keys-only").stdout.startswith("/t/b\n/t/c\n")
    assert demo.ctl("n1", "dcs", "get", "/t/a", "--rev", b, "--print-value-only").stdout == "1\n"
    says(demo.ctl("n1", "dcs", "get", "/t/", "/u", "--prefix"), USAGE, "three ways to say one thing")
    says(demo.ctl("n1", "dcs", "get", "/t/", "--sort-by", "colour"), USAGE, "none of create, key, modify, value, version")
    assert demo.ctl("n1", "dcs", "del", "/t/c").stdout == "1\n"
    assert demo.ctl("n1", "dcs", "del", "--prefix", "/t/").stdout == "2\n"


def test_the_configuration_is_changed_by_name_and_type(demo):
    says(demo.ctl("n1", "edit-config", "-s", "tll=5"), FAILED, 'unknown key "tll"', 'nearest known one is "ttl"')
    says(demo.ctl("n1", "edit-config", "-s", "ttl=soon"), FAILED, "ttl")
    says(demo.ctl("n1", "edit-config", "-s", "ttl=1"), FAILED, "ttl: 1 is outside 2..3600", "nothing changed")
    says(demo.ctl("n1", "edit-config", "-s", "synchronous_mode=maybe"), FAILED, '"maybe" is none of off|on|quorum')
    before = json.loads(demo.ctl("n1", "show-config", "-f", "json").stdout)
    assert demo.ctl("n1", "edit-config", "-s", "maximum_lag_on_failover=4096").stdout == "Configuration changed\n"
    after = json.loads(demo.ctl("n1", "show-config", "-f", "json").stdout)
    assert after == {**before, "maximum_lag_on_failover": 4096}
    assert demo.ctl("n1", "edit-config", "-p", "work_mem=8MB", "-p", "a.b=1").returncode == DONE
    assert json.loads(demo.ctl("n1", "show-config", "-f", "json").stdout)["postgresql"] == {"parameters": {"work_mem": "8MB", "a.b": 1}}
    assert demo.ctl("n1", "edit-config", "-p", "a.b=null").returncode == DONE
    wait_until(lambda: demo("psql", "--", "-XAtc", "SHOW work_mem").stdout == "8MB\n", "the parameter is applied")


def on_a_terminal(demo, answer, *words):
    """The command with a terminal as its input, on which somebody types."""
    ours, its = pty.openpty()
    command = [build_dir() / "regentctl", "-c", demo.dir / "n1" / "regent.yml", *words]
    try:
        os.write(ours, answer)
        return subprocess.run([*as_user(), *command], stdin=its, capture_output=True, text=True, cwd="/", timeout=LIMIT_S, check=False)
    finally:
        os.close(ours)
        os.close(its)


def test_the_configuration_is_edited_as_a_whole(demo, home, monkeypatch):
    def shown():
        return json.loads(demo.ctl("n1", "show-config", "-f", "json").stdout)
    before = shown()
    patch, whole = home / "patch.yml", home / "whole.yml"
    whole.write_text(demo.ctl("n1", "show-config").stdout)
    patch.write_text("maximum_lag_on_failover: 8192\npostgresql:\n  parameters:\n    work_mem: 7MB\n")
    for file in (whole, patch):
        file.chmod(0o644)
    assert demo.ctl("n1", "edit-config", "demo", "--apply", patch).stdout == "Configuration changed\n"
    assert shown()["maximum_lag_on_failover"] == 8192 and shown()["postgresql"]["parameters"]["work_mem"] == "7MB"
    assert demo.ctl("n1", "edit-config", "--apply", "-", stdin='{"postgresql": {"parameters": {"work_mem": null}}}').returncode == DONE
    assert "work_mem" not in shown()["postgresql"]["parameters"]
    assert demo.ctl("n1", "edit-config", "--replace", whole, "--force", "-q").returncode == DONE
    assert shown() == before
    assert demo.ctl("n1", "edit-config", "--replace", whole).stdout == "Not changed\n"
    monkeypatch.setenv("EDITOR", "sed -i 's/^maximum_lag_on_failover:.*/maximum_lag_on_failover:4097/'")
    says(demo.ctl("n1", "edit-config"), FAILED, "the text", "nothing changed")  # no space behind the colon: no YAML
    monkeypatch.setenv("EDITOR", "sed -i 's/^maximum_lag_on_failover:.*/maximum_lag_on_failover: 4097/'")
    no = on_a_terminal(demo, b"n\n", "edit-config")
    assert no.returncode == FAILED and "+maximum_lag_on_failover: 4097" in no.stdout and "not confirmed" in no.stderr, no
    assert shown() == before
    yes = on_a_terminal(demo, b"y\n", "edit-config", "-q")
    assert yes.returncode == DONE and "+max" not in yes.stdout and "Configuration changed" in yes.stdout, yes
    assert shown() == {**before, "maximum_lag_on_failover": 4097}
    patch.write_text("ttl: [1\n")
    says(demo.ctl("n1", "edit-config", "--apply", patch), FAILED, f"{patch}:", "not valid YAML", "nothing changed")
    says(demo.ctl("n1", "edit-config", "-s", "ttl=2"), FAILED, "too short for an election timeout", "nothing changed")
    says(demo.ctl("n1", "edit-config", "--apply", "a", "--replace", "b"), USAGE, "one at most makes sense")
    monkeypatch.setenv("EDITOR", "false")
    says(demo.ctl("n1", "edit-config"), FAILED, "the editor ended with 1", "nothing changed")
    assert demo.ctl("n1", "edit-config", "--replace", whole).returncode == DONE


def test_health_in_one_screen(demo):
    done = demo.ctl("n1", "status")
    assert done.returncode == DONE, done  # one node is well, though it cannot be lost
    assert "leader       n1, running, timeline 1" in done.stdout
    assert "health       good\n" in done.stdout and "- this is the only node" in done.stdout
    rows = [(r["What"], r["Text"]) for r in json.loads(demo.ctl("n1", "-f", "json", "status").stdout)]
    assert ("leader", "n1, running, timeline 1") in rows and rows[-1] == ("health", "good")
    assert any(what == "note" and "this is the only node" in text for what, text in rows)
    assert "\nhealth\tgood\n" in demo.ctl("n1", "-f", "tsv", "status").stdout
    assert demo.ctl("n1", "dcs", "health").stdout.startswith("healthy: ")
    assert "n1" in demo.ctl("n1", "topology", "demo").stdout
    says(demo.ctl("n1", "list", "other"), USAGE, 'this node is of cluster "demo"')


class Terminal:
    """A terminal of a size, and a command of regentctl in it."""

    def __init__(self, rows, columns, *words, colours=False):
        self.colours = colours
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen([*as_user(), build_dir() / "regentctl", *[str(w) for w in words]], stdin=slave, stdout=slave,
                                        stderr=subprocess.DEVNULL, cwd="/", start_new_session=True, preexec_fn=self._begin,
                                        env={**os.environ, "TERM": "xterm", "NO_COLOR": "" if colours else "1"})
        os.close(slave)
        self.text = ""

    @staticmethod
    def _begin():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that run in the background have it ignored

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def frame(self):
        """The lines of the next whole frame."""
        def whole():
            if select.select([self.master], [], [], 0.5)[0]:
                self.text += os.read(self.master, 65536).decode()
            return "\x1b[J" in self.text
        wait_until(whole, "a frame")
        frame, _, self.text = self.text.partition("\x1b[J")
        assert frame.count("\x1b[H") == 1 and frame.startswith("\x1b[H"), frame
        lines = frame[len("\x1b[H"):].split("\r\n")
        assert lines.pop() == "" and all(line.endswith("\x1b[K") for line in lines), frame
        lines = [line[:-len("\x1b[K")] for line in lines]
        assert self.colours or "\x1b" not in "".join(lines)
        return lines

    def interrupt(self):
        os.write(self.master, b"\x03")  # Ctrl-C
        wait_until(lambda: self.process.poll() is not None, "it ends")
        assert self.process.returncode == -signal.SIGINT
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while select.select([self.master], [], [], 0)[0]:
                self.text += os.read(self.master, 65536).decode()
        os.close(self.master)
        # The cursor is shown and where lines begin, and no mode was changed.
        assert not re.search("\x1b\\[[?0-9;]*" + ("[hl]" if self.colours else "[hlm]"), self.text)
        return self.text


def test_lists_are_drawn_in_place_on_a_terminal(demo):
    config = demo.dir / "n1" / "regent.yml"
    for words, mark in ((("list", "-W"), "Leader"), (("status", "-w", "1"), "health")):
        t = Terminal(30, 100, "-c", config, *words)
        first = t.frame()
        assert any(mark in line for line in first), first
        wait_until(lambda t=t, first=first: len(t.frame()) == len(first), "another frame as long as the first")
        t.resize(4, 9)  # what does not fit is cut, so that nothing scrolls
        def small(t=t):
            lines = t.frame()
            return lines if len(lines) <= 3 and all(len(line) <= 9 for line in lines) else None
        assert wait_until(small, "a frame of the new size")
        t.interrupt()
    t = Terminal(30, 100, "-c", config, "list", "-W", colours=True)
    assert any("\x1b[32mLeader\x1b[" in line for line in t.frame())
    t.resize(4, 32)
    def narrow():
        lines = t.frame()
        plain = [re.sub("\x1b\\[[0-9]*m", "", line) for line in lines]
        return lines if len(lines) <= 3 and all(len(line) <= 32 for line in plain) and any("n1" in line for line in plain) else None
    assert all(line.endswith("\x1b[0m") for line in wait_until(narrow, "a narrow frame with colours")), "no colour runs over"
    t.interrupt()
    # Not a terminal: no control characters, one list after the other.
    with subprocess.Popen([*as_user(), build_dir() / "regentctl", "-c", config, "list", "-w", "1"], stdout=subprocess.PIPE, text=True,
                          cwd="/") as piped:
        lines = [piped.stdout.readline() for _ in range(12)]
        piped.stdout.close()
        assert piped.wait(LIMIT_S) in (FAILED, -signal.SIGPIPE), "it ends when nobody reads"
    assert sum("Leader" in line for line in lines) >= 2 and "\x1b" not in "".join(lines), lines


def runs():
    """The commands that shown.txt gives this test, in their order."""
    text = (pathlib.Path(__file__).resolve().parent / "shown.txt").read_text(encoding="utf-8")
    return re.findall(r"^    run (.*)$", text, re.M)


def test_what_the_documentation_shows_runs(demo, home):
    """Where something passing stands in the way (a record is being written, a lease is young) it is tried again."""
    where = {"REGENT_CONFIG": demo.dir / "n1" / "regent.yml", "HOME": home, "LANG": "C.UTF-8",
             "PATH": f"{build_dir()}:{PG_BIN}:/usr/sbin:/usr/bin:/sbin:/bin"}
    env = ["env", "-i", *[f"{k}={v}" for k, v in where.items()]]

    def done(command):
        tried = subprocess.run([*as_user(), *env, "sh", "-ec", command], capture_output=True, text=True, cwd=home, timeout=LIMIT_S,
                               stdin=subprocess.DEVNULL, check=False)
        if tried.returncode != DONE:
            print(command, tried.returncode, tried.stdout, tried.stderr, sep="\n")  # pytest shows it when this fails
        return tried.returncode == DONE

    commands = runs()
    assert len(commands) > 20
    for command in commands:
        wait_until(lambda command=command: done(command), command)


def test_queries_go_to_a_node_of_the_role(demo, home):
    assert demo.ctl("n1", "query", "-c", "SELECT 1 AS a, 'x' AS b, NULL AS c").stdout == "a\tb\tc\n1\tx\t\n"
    assert demo.ctl("n1", "query", "demo", "-c", "SELECT 1 AS a, 2 AS b", "--delimiter", ";").stdout == "a;b\n1;2\n"
    file = home / "q.sql"
    file.write_text("SELECT 3 AS a")
    assert json.loads(demo.ctl("n1", "query", "--file", file, "--format", "json", "-m", "n1").stdout) == [{"a": 3}]
    assert demo.ctl("n1", "query", "--file", "-", stdin="SELECT 4 AS a").stdout == "a\n4\n"
    says(demo.ctl("n1", "query", "-c", "SELEC"), FAILED, 'syntax error at or near "SELEC"')
    says(demo.ctl("n1", "query", "-r", "standby", "-c", "SELECT 1"), FAILED, "cannot connect as postgres", "standby")
    says(demo.ctl("n1", "query", "-m", "n7", "-c", "SELECT 1"), FAILED, 'no node "n7"', "regentctl list")
    says(demo.ctl("n1", "query"), USAGE, "one of -c SQL and --file FILE")
    says(demo.ctl("n1", "query", "-r", "king", "-c", "SELECT 1"), USAGE, "--role takes")


def test_roles_are_made_and_no_log_has_their_password(demo):
    """Whatever the server logs: what it gets is a verifier, and not even that is logged."""
    secret = "Ein-Kennwort-7"
    demo.ctl("n1", "edit-config", "-p", "log_statement=all", "-p", "log_min_duration_statement=0")
    wait_until(lambda: demo("psql", "--", "-XAtc", "SHOW log_statement").stdout == "all\n", "it logs all")
    done = demo.ctl("n1", "user", "create", 'a"b', "--createdb", stdin=f"{secret}\n")
    assert (done.returncode, done.stdout) == (DONE, 'Success: role a"b created\n')
    assert demo.ctl("n1", "query", "-c", "SELECT rolcreatedb, rolcanlogin, left(rolpassword, 14) FROM pg_authid "
                    "WHERE rolname = 'a\"b'").stdout.splitlines()[1] == "t\tt\tSCRAM-SHA-256$"
    assert demo.ctl("n1", "query", "-U", 'a"b', "--password", "-c", "SELECT 1 AS a", stdin=f"{secret}\n").stdout == "a\n1\n"
    says(demo.ctl("n1", "user", "create", 'a"b', stdin="x\n"), FAILED, 'role "a"b" already exists', "nothing changed")
    assert demo.ctl("n1", "user", "password", 'a"b', stdin="other\n").returncode == DONE
    says(demo.ctl("n1", "query", "-U", 'a"b', "--password", "-c", "SELECT 1", stdin=f"{secret}\n"), FAILED, "authentication failed")
    assert demo.ctl("n1", "user", "delete", 'a"b').returncode == DONE
    says(demo.ctl("n1", "user", "delete", 'a"b'), FAILED, 'role "a"b" does not exist')
    says(demo.ctl("n1", "user", "password", "postgres", stdin="x\n"), REFUSED, "Regent works with", "secrets.yml")
    says(demo.ctl("n1", "user", "create", "c", stdin="\n"), FAILED, "the password is empty")
    says(demo.ctl("n1", "user", "create"), USAGE, "one NAME is needed")
    demo.ctl("n1", "edit-config", "-p", "log_statement=null", "-p", "log_min_duration_statement=null")
    logs = [p.read_text(errors="replace") for p in demo.dir.rglob("*") if p.is_file() and (p.suffix == ".log" or p.name == "log")]
    assert any("SELECT rolcreatedb" in text for text in logs), "the statements are logged"
    assert not any(secret in text or "SCRAM-SHA-256$4096" in text for text in logs)


def test_the_doctor_says_what_to_do(demo):
    def found(level):
        rows = json.loads(demo.ctl("n1", "-f", "json", "doctor").stdout)
        assert all(("Remedy" in r) == (r["Level"] != "ok") for r in rows), rows
        return {r["Check"]: r["Finding"] for r in rows if r["Level"] == level}
    good = found("ok")
    for check in ("certificate", "leader", "n1", "ttl", "rights", "data safety", "WAL retention", "pg_hba", "configuration", "drift"):
        assert check in good, (check, good)
    assert not set(found("fail")) - {"disk"}, found("fail")  # a full machine is none of ours
    secrets = demo.dir / "n1" / "secrets.yml"
    secrets.chmod(0o644)
    demo.ctl("n1", "query", "-c", "ALTER SYSTEM SET work_mem = '3MB'")
    demo.ctl("n1", "query", "-c", "SELECT pg_reload_conf()")
    try:
        wait_until(lambda: "work_mem = 3072 by ALTER SYSTEM" in found("warn").get("drift", ""), "it is seen")
        assert found("fail")["rights"] == f"{secrets} is open to others"
        done = demo.ctl("n1", "doctor")
        assert done.returncode == FAILED and "chmod 600 it" in done.stdout and "ALTER SYSTEM RESET it" in done.stdout
    finally:
        secrets.chmod(0o600)
        demo.ctl("n1", "query", "-c", "ALTER SYSTEM RESET work_mem")
        demo.ctl("n1", "query", "-c", "SELECT pg_reload_conf()")


def test_keys_end_with_their_lease(demo):
    lease = demo.ctl("n1", "dcs", "lease", "grant", 60).stdout.strip()
    assert demo.ctl("n1", "dcs", "put", "/t/leased", "1", "--lease", lease).returncode == DONE
    leases = {str(x["id"]): x["keys"] for x in json.loads(demo.ctl("n1", "dcs", "lease", "list", "-f", "json").stdout)}
    assert leases[lease] == 1
    assert demo.ctl("n1", "dcs", "lease", "keep-alive", lease, "--once").stdout == f"lease {lease} keepalived with TTL(60)\n"
    told = demo.ctl("n1", "dcs", "lease", "timetolive", lease).stdout
    assert told.startswith(f"lease {lease} granted with TTL(60s), remaining(") and told.endswith("attached keys(1)\n")
    agents = next(x for x in leases if x != lease)
    says(demo.ctl("n1", "dcs", "lease", "keep-alive", agents, "--once"), REFUSED, "is that of an agent")
    assert demo.ctl("n1", "dcs", "lease", "revoke", lease).returncode == DONE
    assert demo.ctl("n1", "dcs", "get", "/t/leased").stdout == ""
    says(demo.ctl("n1", "dcs", "lease", "timetolive", lease), FAILED, "has ended")
    says(demo.ctl("n1", "dcs", "lease", "keep-alive", lease), FAILED, "has ended")
    says(demo.ctl("n1", "dcs", "lease", "revoke", "soon"), USAGE, "one ID of `dcs lease list` is needed")


def test_what_is_no_node_is_told(demo):
    says(demo.ctl("n1", "switchover", "--candidate", "n7"), REFUSED, 'no node "n7" is running', "regentctl list")
    says(demo.ctl("n1", "switchover", "--leader", "n7"), REFUSED, 'the leader is "n1", not "n7"', "nothing changed")
    says(demo("kill", "n7"), FAILED, 'no node "n7", but n1')


def test_init_and_join_leave_a_data_directory_alone(demo, home):
    """PostgreSQL's data of some other cluster, where the new node would have its own."""
    token = demo.ctl("n1", "token", "create").stdout.strip()
    data = home / "n2" / "pg"
    subprocess.run([*as_user(), PG_BIN / "initdb", "-D", data, "-A", "trust", "--no-sync"], check=True,
                   capture_output=True, cwd="/")
    before = on_disk(home)
    says(join(demo, home, token, "n2"), FAILED, f"{data} is not empty", "move it away", "--pg-data")
    says(ctl("-c", home / "r.yml", "init", "--scope", "s", "--name", "n", "--listen", "127.0.0.1", "--data-dir", home / "d",
             "--pg-bin", PG_BIN, "--pg-data", data), FAILED, f"{data} is not empty")
    assert on_disk(home) == before
    subprocess.run([*as_user(), "mkdir", "-p", home / "root" / "lost+found"], check=True, cwd="/")
    says(join(demo, home, token, "n2", data=home / "root"), FAILED, "lost+found", "subdirectory")


@contextlib.contextmanager
def running(config, log):
    """regentd of a node, and the end of everything that it has started."""
    with log.open("w") as out:
        process = subprocess.Popen([*as_user(), build_dir() / "regentd", "-c", config], cwd="/", stdout=out, stderr=out,
                                   start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(LIMIT_S)
        finally:
            end_all(config.parent)


def test_a_node_of_another_cluster_s_data_is_told_and_not_touched(demo, home):
    """The system identifier differs: the daemon says so, and not a byte of the data changes."""
    other = Demo(home)
    other.up("--nodes", 2)
    assert other("kill", "n2").returncode == DONE
    token = demo.ctl("n1", "token", "create").stdout.strip()
    assert join(demo, home, token, "n2").returncode == DONE
    data = home / "n2" / "pg"
    subprocess.run([*as_user(), "cp", "-a", other.dir / "n2" / "pg", data], check=True, cwd="/")
    assert other("down").returncode == DONE
    control = (data / "global" / "pg_control").read_bytes()
    log = home / "log"
    with running(home / "n2" / "regent.yml", log):
        wait_until(lambda: "belongs to another cluster (system identifier" in log.read_text(), "it is told")
        assert (data / "global" / "pg_control").read_bytes() == control
        assert "postgres" not in {pathlib.Path(what.split()[0]).name for what in processes_of(home / "n2").values()}
    demo.ctl("n1", "member", "remove", "n2")


def test_the_demo_survives_a_killed_node_and_leaves_nothing(home):
    demo = Demo(home)
    done = demo("up")
    assert done.returncode == DONE, done.stdout + done.stderr
    # What it advises works as it stands there.
    hints = [line.strip().split() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len(hints) == 6, done.stdout
    for words in (hints[0], hints[1], [*hints[2], "--", "-XAtc", "SELECT 1"]):
        tried = subprocess.run([*as_user(), *words], capture_output=True, text=True, cwd="/", timeout=LIMIT_S, check=False)
        assert tried.returncode == DONE, tried
    assert demo.ctl("n2", "status").returncode == DONE
    for command in ("history", "show-config", "topology"):
        assert demo.ctl("n2", command, "demo").returncode == DONE
    wait_until(lambda: sorted(m["Role"] for m in demo.members("n1").values()) == ["Leader", "Replica", "Sync Standby"], "three roles")
    assert demo("psql", "--", "-XAtc", "SELECT pg_is_in_recovery()").stdout == "f\n"
    old = wait_until(lambda: demo.leader("n1"), "somebody leads")
    other = next(n for n in ("n1", "n2", "n3") if n != old)
    assert demo("kill", old).returncode == DONE
    assert not processes_of(demo.dir / old)
    wait_until(lambda: demo.leader(other) not in (None, old), "another node leads")
    assert json.loads(demo("status", "-f", "json").stdout)[int(old[1]) - 1]["Member"] == old
    demo.up()
    wait_until(lambda: len(demo.members(old)) == 3, "all are there again")
    # Everything the DCS says of it goes; the data is what a new cluster begins with.
    assert demo.ctl("n1", "query", "-c", "CREATE TABLE kept AS SELECT 7 AS id").stdout == "SELECT 1\n"
    says(demo.ctl("n1", "remove", "demo"), REFUSED, "runs PostgreSQL", "--force")
    answers = f"demo\nYes I am aware\n{wait_until(lambda: demo.leader('n1'), 'somebody leads')}\n"
    assert demo.ctl("n1", "remove", "demo", "--force", stdin="demo\nno\n").returncode == REFUSED
    assert demo.ctl("n1", "remove", "demo", "--force", stdin=answers).returncode == DONE
    wait_until(lambda: sorted(m["State"] for m in demo.members("n1").values()) == ["running", "streaming", "streaming"], "anew", 60)
    assert demo.ctl("n1", "query", "-c", "SELECT id FROM kept").stdout == "id\n7\n"
    assert demo("down").returncode == DONE
    assert not demo.dir.exists()
    assert not processes_of(demo.dir)


def test_the_demo_never_takes_a_directory_that_is_not_its_own(home):
    (home / "demo").mkdir()
    (home / "demo" / "precious").write_text("x")
    demo = Demo(home)
    says(demo("up"), FAILED, "not empty and no demo cluster", "--dir")
    says(demo("down"), FAILED, "there is no demo cluster")
    assert (home / "demo" / "precious").read_text() == "x"
