"""The Debian package on machines with systemd: install, two commands a node, restart, upgrade, reboot, remove.

tests/package/run sets REGENT_PACKAGE_DIR (roots and packages) and REGENT_PACKAGE_SUITE. The tests go on from one another,
in the order of this file. Times are printed, never asserted."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import time

import pytest

from machine import NET, Lab, wait_until

HERE = pathlib.Path(__file__).resolve().parent
SUITE = os.environ.get("REGENT_PACKAGE_SUITE", "bookworm")
PLACE = pathlib.Path(os.environ.get("REGENT_PACKAGE_DIR", "/var/tmp/regent-package"))
SIZE_MAX_KIB = 10 * 1024
FENCE = "regent-postgres"
VIP = f"{NET}.100"
TTL_S = 20  # of the leader's lease: a daemon that restarts on a slow machine is back in time
REFUSED = 4  # regentctl's exit code: nothing was changed


def package(kind=""):
    return next((PLACE / f"{SUITE}-deb{kind}").glob("regent_*.deb"))


def say(text):
    print(f"  {SUITE}: {text}", file=sys.__stdout__, flush=True)


class Cluster:
    def __init__(self, lab):
        self.lab = lab
        self.n = {f"n{i}": lab.machine(f"n{i}", i) for i in (1, 2, 3)}
        self.asked = list(self.n.values())
        self.left = None

    def up(self):
        return [m for m in self.asked if m.pid1 is not None]

    def list(self):
        for m in self.up():
            answer = m.run("regentctl list -f json", check=False)
            if answer.returncode == 0:
                return json.loads(answer.stdout)
        return []

    def leader(self):
        for row in self.list():
            if row["Role"] == "Leader" and row["State"] == "running":
                return row["Member"]
        return None

    def synchronous(self):
        return next((row["Member"] for row in self.list() if row["Role"] == "Sync Standby"), None)

    def streaming(self, nodes=3):
        """The leader of a cluster in which all others stream; None: it is not so."""
        rows = self.list()
        leaders = [row["Member"] for row in rows if row["Role"] == "Leader"]
        states = sorted(row["State"] for row in rows)
        return leaders[0] if len(leaders) == 1 and states == ["running"] + ["streaming"] * (nodes - 1) else None

    def healthy(self, nodes=3):
        return wait_until(lambda: self.streaming(nodes), f"{nodes} nodes stream: {self.list()}")

    def order(self, node, text):
        """As soon as it is not refused any more, for what passes: a standby that lags, a record that is under way."""
        def done():
            answer = self.n[node].run(text, check=False)
            assert answer.returncode in (0, REFUSED), f"{text}: exit code {answer.returncode}\n{answer.stdout}{answer.stderr}"
            return answer.returncode == 0 and (answer.stdout.strip() or "done")
        return wait_until(done, f"{node} does not refuse: {text}")

    def switch_over(self, node, more=""):
        self.order(node, f"regentctl switchover --timeout 300 {more}")

    def make_synchronous(self, name):
        """It is the one, of two; there is no other choice while the third is away."""
        wait_until(self.synchronous, "a synchronous standby")
        if self.synchronous() == name:
            return
        third = self.n[next(n for n in self.n if n not in (name, self.healthy()))]
        third.run("systemctl stop regent")
        wait_until(lambda: self.synchronous() == name, f"{name} is the synchronous standby")
        third.run("systemctl start regent")
        self.healthy()

    def password(self):
        secrets = self.up()[0].out("cat /var/lib/regent/secrets.yml")
        return re.search(r'^superuser: "(.*)"', secrets, re.M).group(1)

    def dsn(self):
        hosts = ",".join(m.address for m in self.n.values())
        return (f"host={hosts} port=5432,5432,5432 user=postgres dbname=postgres password={self.password()} "
                "connect_timeout=2 target_session_attrs=read-write")

    def sql(self, node, text, check=True):
        """On the primary: one that is none any more refuses the connection."""
        where = f"host={self.n[node].address} port=5432 user=postgres password={self.password()} target_session_attrs=read-write"
        return self.n[node].out(f"psql -XqAt '{where}' -c \"{text}\"", check=check)

    def read(self, text):
        """From the leader, as soon as there is one: after a cold start `list` shows what was before."""
        def look():
            leader = self.leader()
            return leader and self.sql(leader, text, check=False)
        return wait_until(look, f"an answer to {text}")

    def postmaster(self, node):
        """(process id, when it began) of PostgreSQL on this node, as its pid namespace counts; None: none."""
        pid = self.n[node].out("head -1 /var/lib/postgresql/regent/postmaster.pid", check=False)
        began = self.n[node].out(f"cut -d' ' -f22 /proc/{pid}/stat", check=False) if pid else ""
        return (pid, began) if began else None


class Writer:
    def __init__(self, cluster):
        cluster.sql(cluster.healthy(), "CREATE TABLE IF NOT EXISTS written (n int); TRUNCATE written")
        self.cluster = cluster
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", cluster.lab.hub, sys.executable, HERE / "writer.py", cluster.dsn()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "first\n"

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        out, _ = self.process.communicate("stop\n", timeout=600)
        if kind is not None:
            return
        self.report = json.loads(out)
        kept = set(self.cluster.read("SELECT n FROM written").split())
        lost = [n for n in self.report["rows"] if str(n) not in kept]
        assert not lost, f"acknowledged and lost: {lost[:5]}"


@pytest.fixture(scope="module")
def cluster():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="regent-package-run.", dir="/var/tmp"))
    node = PLACE / f"{SUITE}-node"
    with Lab(str(node), directory) as first:
        first.install(package())
        subprocess.run(["ip", "-n", first.hub, "address", "add", f"{NET}.254/24", "dev", "br0"], check=True)
        c = Cluster(first)
        for m in c.n.values():
            m.boot()
        yield c


def test_the_bill_of_materials():
    sbom = json.loads(subprocess.run([HERE.parents[1] / "deploy" / "sbom", package(), PLACE / f"{SUITE}-build"], check=True,
                                     capture_output=True).stdout)
    names = {p["name"] for p in sbom["packages"]}
    assert {"regent", "libraft0", "libsqlite3-0", "libpq5"} <= names
    assert "./usr/bin/regentd" in {f["fileName"] for f in sbom["files"]}


def test_the_tarball_and_the_rpm_have_what_the_package_has():
    def files(lines):
        return {re.sub("^/lib/", "/usr/lib/", f).removesuffix(".gz") for f in lines
                if not f.endswith("/") and not re.search("/(share/doc|share/lintian|etc|lib/.build-id)/", f)}
    out = PLACE / f"{SUITE}-deb"
    listed = subprocess.run(["dpkg-deb", "--contents", package()], check=True, capture_output=True, text=True).stdout.splitlines()
    wanted = files(line.split()[5].removeprefix(".") for line in listed)
    assert {"/usr/bin/regentd", "/usr/bin/regentctl", "/usr/libexec/regent/regent-fence", "/usr/lib/systemd/system/regent.service"} <= wanted
    with tarfile.open(next(out.glob("*.tar.gz"))) as tar:
        assert files(f"/{m.name.split('/', 1)[1]}" for m in tar.getmembers() if m.isfile()) == wanted
    assert files((out / "rpm-files").read_text().splitlines()) >= wanted


def test_what_is_installed(cluster):
    n1 = cluster.n["n1"]
    size = int(n1.out("dpkg-query -W -f '${Installed-Size}' regent"))
    say(f"installed size {size} KiB")
    assert size <= SIZE_MAX_KIB
    assert n1.out("regentctl version")
    n1.run("mkdir /tmp/x && printf 'superuser: a\nreplication: b\nrewind: c\n' >/tmp/x/secrets.yml && "
           "REGENT_DATA_DIR=/tmp/x regentd --check-config -c /usr/share/doc/regent/examples/regent.yml")
    assert n1.out("stat -c '%U %a' /var/lib/regent") == "regent 700"
    assert n1.out("systemctl is-enabled regent") == "enabled"
    assert n1.out("systemctl is-active regent", check=False) == "inactive"  # there is no configuration yet
    n1.run("systemd-analyze verify --man=no regent.service regent-postgres.service regent@x.service regent-postgres@x.service")
    for unit in ("regent", FENCE):
        rating = re.search(rf"exposure level for {unit}.service: ([\d.]+)",
                           n1.out(f"systemd-analyze security --no-pager {unit}.service"))
        say(f"systemd-analyze security {unit}: {rating.group(1)}")
        assert float(rating.group(1)) < 5.0  # from 5 on it is "MEDIUM"


def test_two_commands_a_node(cluster):
    n1, n2, n3 = cluster.n.values()
    def more(m):
        return (f"--set vip.address={VIP}/24 --set vip.interface=eth0 --set postgresql.listen=0.0.0.0:5432 "
                f"--set postgresql.connect_address={m.address}:5432 --set dns.domain=db.test --set dns.listen={m.address}:53")

    said = n1.out(f"regentctl init --scope prod --name n1 --listen {n1.address} --set bootstrap.dcs.synchronous_mode=on "
                   f"--set bootstrap.dcs.ttl={TTL_S} {more(n1)}")
    assert said.endswith("Start it: systemctl start regent")
    for path, wanted in (("/etc/regent/regent.yml", "root regent 640"), ("/var/lib/regent/pki", "regent regent 700"),
                         ("/var/lib/regent/pki/ca.key", "regent regent 600"),
                         ("/var/lib/regent/secrets.yml", "regent regent 600")):
        assert n1.out(f"stat -c '%U %G %a' {path}") == wanted, path
    began = time.monotonic()
    n1.run("systemctl start regent")
    token = wait_until(lambda: n1.out("regentctl token create --uses 2", check=False), "a token")
    for m in (n2, n3):
        m.run(f"regentctl join {n1.address}:7400 --token {token} --name {m.name} --listen {m.address} {more(m)}"
              " && systemctl start regent")
    assert cluster.healthy() == "n1"
    say(f"from the first start to three streaming nodes: {time.monotonic() - began:.1f} s")
    wait_until(lambda: n1.run("regentctl status", check=False).returncode == 0, "status is healthy")


def test_who_runs_what(cluster):
    n1 = cluster.n["n1"]
    users = dict(line.split()[::-1] for line in n1.out("ps -eo user:20=,comm=").splitlines()
                 if line.split()[1] in ("regentd", "regent-fence", "postgres"))
    assert users == {"regentd": "regent", "regent-fence": "postgres", "postgres": "postgres"}
    pid, _ = cluster.postmaster("n1")
    status = n1.out(f"cat /proc/{pid}/status")
    for kind in ("Inh", "Prm", "Eff", "Amb"):
        assert int(re.search(rf"^Cap{kind}:\s*(\w+)", status, re.M).group(1), 16) == 0, kind
    assert f"/{FENCE}.service/{FENCE}-" in n1.out(f"cat /proc/{pid}/cgroup")
    assert n1.run("runuser -u postgres -- cat /var/lib/regent/pki/ca.key", check=False).returncode != 0
    assert n1.run("runuser -u nobody -- regentctl list", check=False).returncode == 1


def ask_name(cluster, node, name):
    """The addresses that this node's DNS gives for a name; asked from outside."""
    program = ("import socket, struct, sys\n"
               "q = struct.pack('>6H', 7, 0x100, 1, 0, 0, 0) + b''.join(bytes([len(w)]) + w.encode() for w in sys.argv[2].split('.'))\n"
               "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)\n"
               "s.sendto(q + struct.pack('>BHH', 0, 1, 1), (sys.argv[1], 53)); a = s.recv(512)\n"
               "print(socket.inet_ntoa(a[-4:]) if struct.unpack('>H', a[6:8])[0] == 1 and a[-6:-4] == b'\\0\\4' else '')\n")
    return subprocess.run(["ip", "netns", "exec", cluster.lab.hub, sys.executable, "-c", program, cluster.n[node].address, name],
                          check=False, capture_output=True, text=True).stdout.strip()


def test_the_virtual_address_and_the_names_follow_the_leader(cluster):
    def holders():
        return [name for name, m in cluster.n.items() if f" {VIP}/24 " in m.out("ip -o -4 address show dev eth0")]

    def follows(leader):
        through = subprocess.run(["ip", "netns", "exec", cluster.lab.hub, "timeout", "2", "bash", "-c",
                                  f"exec 3<>/dev/tcp/{VIP}/5432"], check=False, capture_output=True).returncode
        asked = next(name for name in cluster.n if name != leader)
        return holders() == [leader] and through == 0 and \
            ask_name(cluster, asked, "primary.prod.db.test") == cluster.n[leader].address
    leader = cluster.healthy()
    wait_until(lambda: follows(leader), f"{VIP} and the name are {leader}'s: {holders()}")
    wait_until(cluster.synchronous, "a synchronous standby")
    cluster.switch_over(leader)
    successor = cluster.healthy()
    assert successor != leader
    wait_until(lambda: follows(successor), f"{VIP} and the name are {successor}'s: {holders()}")
    wait_until(cluster.synchronous, "a synchronous standby")
    cluster.switch_over(successor)
    assert cluster.healthy() != successor


def test_restart_of_the_daemon_leaves_postgres_running(cluster):
    leader = cluster.healthy()
    before = cluster.postmaster(leader)
    with Writer(cluster) as w:
        cluster.n[leader].run("systemctl restart regent")
        wait_until(lambda: cluster.streaming() == leader, "the daemon leads again")
    say(f"systemctl restart regent: longest gap {w.report['gap_s']} s, {w.report['failed']} transactions failed")
    assert cluster.postmaster(leader) == before and w.report["failed"] == 0
    wait_until(lambda: "adoption" in cluster.n[leader].out("journalctl -u regent -o cat"), "the journal tells of the adoption")


def test_a_killed_daemon_is_restarted_and_adopts(cluster):
    leader = cluster.healthy()
    before = cluster.postmaster(leader)
    with Writer(cluster) as w:
        cluster.n[leader].run("systemctl kill --kill-whom=main -s KILL regent")
        wait_until(lambda: cluster.streaming() == leader, "the daemon leads again")
    say(f"daemon killed: longest gap {w.report['gap_s']} s, {w.report['failed']} transactions failed")
    assert cluster.postmaster(leader) == before and w.report["failed"] == 0


def test_the_watchdog_restarts_a_daemon_that_hangs(cluster):
    leader = cluster.healthy()
    standby = next(name for name in cluster.n if name != leader)
    m = cluster.n[standby]
    before = cluster.postmaster(standby)
    m.run("mkdir -p /run/systemd/system/regent.service.d && "
          "printf '[Service]\\nWatchdogSec=10s\\n' >/run/systemd/system/regent.service.d/quick.conf && "
          "systemctl daemon-reload && systemctl restart regent")
    cluster.healthy()
    m.run("systemctl kill --kill-whom=main -s STOP regent")
    wait_until(lambda: m.out("systemctl show -p NRestarts --value regent") not in ("", "0"), "a restart by the watchdog")
    wait_until(lambda: "Watchdog timeout" in m.out("journalctl -u regent -o cat"), "the journal tells of the watchdog")
    m.run("rm -r /run/systemd/system/regent.service.d && systemctl daemon-reload && systemctl restart regent")
    cluster.healthy()
    assert cluster.postmaster(standby) == before


def test_a_killed_fence_takes_postgres_along_and_comes_back(cluster):
    leader = cluster.healthy()
    before = cluster.postmaster(leader)
    with Writer(cluster) as w:
        cluster.n[leader].run(f"systemctl kill --kill-whom=main -s KILL {FENCE}")
        wait_until(lambda: cluster.postmaster(leader) != before, "PostgreSQL is gone")
        cluster.healthy()
    say(f"fence killed: longest gap {w.report['gap_s']} s")


def test_the_daemon_kills_postgres_when_the_fence_stalls(cluster):
    leader = cluster.healthy()
    before = cluster.postmaster(leader)
    with Writer(cluster) as w:
        cluster.n[leader].run(f"systemctl kill --kill-whom=main -s STOP {FENCE}")
        wait_until(lambda: cluster.postmaster(leader) != before, "PostgreSQL is gone")
        cluster.healthy()
    say(f"fence stopped: longest gap {w.report['gap_s']} s")


def upgrade(m):
    (m.root / "next.deb").write_bytes(package("-next").read_bytes())
    m.run("dpkg -i /next.deb")
    assert "next" in m.out("regentd --version")
    wait_until(lambda: m.run("regentctl version", check=False).returncode == 0, "the daemon answers")
    assert is_next(m)


def is_next(m):
    return "next" in m.out("regentctl version", check=False)  # the daemon, which it asks too, may not listen yet


def versions(cluster):
    """Of the cluster, as each node has it."""
    answers = [m.run("regentctl -f json dcs status", check=False) for m in cluster.n.values()]
    return {json.loads(a.stdout).get("version") if a.returncode == 0 else None for a in answers}


def test_an_upgrade_leaves_postgres_running(cluster):
    """All but one node: the next test wants two versions."""
    leader = cluster.healthy()
    last = wait_until(cluster.synchronous, "a synchronous standby")
    before = {name: cluster.postmaster(name) for name in cluster.n}
    fences = {name: m.out(f"systemctl show -p MainPID --value {FENCE}") for name, m in cluster.n.items()}
    with Writer(cluster) as w:
        for name, m in cluster.n.items():
            if name != last:
                upgrade(m)
                cluster.healthy()
    say(f"rolling upgrade: longest gap {w.report['gap_s']} s, {w.report['failed']} transactions failed")
    assert cluster.healthy() == leader and w.report["failed"] == 0
    assert {name: cluster.postmaster(name) for name in cluster.n} == before
    assert {name: m.out(f"systemctl show -p MainPID --value {FENCE}") for name, m in cluster.n.items()} == fences


def test_nodes_of_two_versions_run_in_one_cluster(cluster):
    leader = cluster.healthy()
    older = next(name for name, m in cluster.n.items() if not is_next(m))
    wait_until(lambda: versions(cluster) == {1}, "the cluster is at the version of the oldest")
    cluster.make_synchronous(older)
    cluster.switch_over(leader, f"--candidate {older}")
    assert cluster.healthy() == older
    wait_until(cluster.synchronous, "a synchronous standby")
    cluster.switch_over(leader)
    leader = cluster.healthy()
    assert leader != older
    back = cluster.n[next(name for name, m in cluster.n.items() if is_next(m) and name != leader)]
    back.run("dpkg -i /regent.deb")  # until the last one is upgraded the way back is open
    assert not is_next(back)
    cluster.healthy()
    for m in (back, cluster.n[older]):
        upgrade(m)
        cluster.healthy()
    wait_until(lambda: versions(cluster) == {2}, "the cluster is at the next version")


def test_a_stop_hands_over_first(cluster):
    leader = cluster.healthy()
    with Writer(cluster) as w:
        cluster.n[leader].run("systemctl stop regent")
        successor = wait_until(lambda: cluster.leader() not in (None, leader) and cluster.leader(), "another leader")
    say(f"systemctl stop regent on the leader: longest gap {w.report['gap_s']} s; {successor} leads")
    assert cluster.postmaster(leader) is None
    cluster.n[leader].run("systemctl start regent")
    cluster.healthy()


def test_a_reboot_of_the_leader_hands_over_first(cluster):
    leader = cluster.healthy()
    with Writer(cluster) as w:
        cluster.n[leader].power_off()
        wait_until(lambda: cluster.leader() not in (None, leader), "another leader")
    say(f"poweroff of the leader: longest gap {w.report['gap_s']} s")
    cluster.n[leader].boot()
    cluster.healthy()


@pytest.mark.parametrize("order", ["312", "231"])
def test_all_reboot_in_any_order(cluster, order):
    for m in cluster.n.values():
        m.power_off()
    for number in order:
        cluster.n[f"n{number}"].boot()
    assert cluster.read("SELECT 1") == "1"
    cluster.healthy()


def test_power_loss_of_all(cluster):
    cluster.sql(cluster.healthy(), "CREATE TABLE IF NOT EXISTS kept (n int); INSERT INTO kept VALUES (1)")
    for m in cluster.n.values():
        m.kill()
    for m in cluster.n.values():
        m.boot()
    assert cluster.read("SELECT count(*) FROM kept") == "1"
    cluster.healthy()


def test_a_second_cluster_beside_the_first(cluster):
    n1 = cluster.n["n1"]
    said = n1.out(f"regentctl -c /etc/regent/two.yml init --scope two --name t1 --listen {n1.address}:7500 "
                  "--pg-port 5433 --rest-port 8009")
    assert said.endswith("systemctl start regent@two")
    n1.run("systemctl start regent@two")
    wait_until(lambda: '"Leader"' in n1.out("regentctl -c /etc/regent/two.yml list -f json", check=False),
               "a leader of the second cluster")
    cluster.healthy()
    n1.run("systemctl stop regent@two regent-postgres@two")
    cluster.healthy()


def test_debians_own_cluster_is_adopted(cluster):
    m = cluster.n[cluster.healthy()]  # the one that is purged in the end, with this cluster on it
    major = m.out("ls /usr/lib/postgresql").split()[-1]
    ctl = "regentctl -c /etc/regent/shop.yml"
    m.run(f"pg_createcluster {major} main --port 5434 --start >/dev/null && "
          "runuser -u postgres -- psql -Xqc 'CREATE TABLE orders AS SELECT 1 AS n' -p 5434 -h /var/run/postgresql")
    adopt = f"{ctl} adopt {major}/main --scope shop --name s1 --listen {m.address}:7600 --rest-port 8010"
    said = m.out(f"{adopt} --dry-run")
    assert "Restart: yes." in said and said.endswith("Nothing has been changed (--dry-run).")
    assert f"/etc/postgresql/{major}/main/start.conf: disabled" in said
    assert m.run("test -e /etc/regent/shop.yml", check=False).returncode == 1
    said = m.out(adopt)
    assert said.endswith("systemctl start regent@shop")
    assert "online" in m.out("pg_lsclusters -h")  # it still goes on
    m.run("systemctl start regent@shop")
    # Its lines of pg_hba.conf are in force: the network is let in no more than before.
    query = ("PGPASSWORD=$(sed -n 's/^superuser: \"\\(.*\\)\"/\\1/p' /var/lib/regent-shop/secrets.yml) "
             "psql -XqAt -h /run/regent-postgres-shop -p 5434 -U regent -d postgres -c 'SELECT n FROM orders'")
    wait_until(lambda: m.run(query, check=False).returncode == 0, "the adopted server leads and answers")
    assert m.out(query) == "1"
    assert "database system is shut down" in m.out(f"cat /var/log/postgresql/postgresql-{major}-main.log")  # in order
    pid = m.out(f"head -1 /var/lib/postgresql/{major}/main/postmaster.pid")
    assert "/regent-postgres@shop.service/" in m.out(f"cat /proc/{pid}/cgroup")
    # Debian starts it no more, also not at the next boot.
    assert m.run(f"pg_ctlcluster {major} main start", check=False).returncode != 0
    m.run("systemctl start postgresql")
    assert m.out(f"head -1 /var/lib/postgresql/{major}/main/postmaster.pid") == pid
    # The last node cannot leave, and what runs is not removed by mistake.
    assert m.run(f"{ctl} leave", check=False).returncode == 4
    refused = m.run(f"{ctl} remove shop", check=False)
    assert refused.returncode == 4 and "s1 runs PostgreSQL" in refused.stderr
    refused = m.run(f"{ctl} remove shop --force", check=False, stdin="shop\nYes\n")
    assert refused.returncode == 4 and "nothing was changed" in refused.stderr
    cluster.healthy()


def test_a_leader_leaves_for_good(cluster):
    leader = cluster.healthy()
    with Writer(cluster) as w:
        said = cluster.order(leader, "regentctl leave")
        wait_until(lambda: cluster.leader() not in (None, leader), "another leader")
    say(f"regentctl leave on the leader: longest gap {w.report['gap_s']} s")
    assert said.startswith(f"{leader} has left cluster prod.") and "/var/lib/postgresql/regent" in said
    m = cluster.n[leader]
    assert m.out("systemctl is-enabled regent", check=False) == "disabled"
    other = next(o for o in cluster.n.values() if o is not m)
    assert leader not in [row["name"] for row in json.loads(other.out("regentctl member list -f json"))
                          if row["state"] == "active"]
    again = m.run("regentctl leave", check=False)
    assert again.returncode == 1
    cluster.left = m


def test_purge_leaves_the_data(cluster):
    m = cluster.left
    said = m.run("apt-get -q -y purge regent")
    assert "PostgreSQL's data is left in /var/lib/postgresql/regent" in said.stdout + said.stderr
    major = m.out("ls /usr/lib/postgresql").split()[-1]
    assert f"PostgreSQL's data is left in /var/lib/postgresql/{major}/main" in said.stdout + said.stderr
    m.run(f"test -d /var/lib/postgresql/{major}/main/base")
    assert m.run("test -d /var/lib/postgresql/regent/base && ! test -e /var/lib/regent && ! test -e /etc/regent").returncode == 0
    wait_until(lambda: m.run("pgrep -x 'regentd|regent-fence|postgres'", check=False).returncode == 1, "no process is left")
    cluster.asked.remove(m)
    cluster.healthy(2)
