"""The DNS server of a node, asked by dig, through a switchover.

    python3 -m pytest tests/integration/test_dns.py
"""
import contextlib
import shutil
import socket
import subprocess

import pytest

from cluster import Cluster, wait_until
from ports import free_port

pytestmark = pytest.mark.skipif(shutil.which("dig") is None, reason="dig is not installed")


@pytest.fixture(scope="module")
def c():
    port = free_port()
    with Cluster(sets=[f"dns.listen=127.0.0.1:{port}", "dns.domain=test"]) as cluster:
        cluster.dns = port
        cluster.form()
        yield cluster


def dig(c, name, kind="A", *more):
    done = subprocess.run(["dig", "+tries=1", "+time=20", "@127.0.0.1", "-p", str(c.dns), name, kind, *more], text=True,
                          capture_output=True, check=False)
    return done.stdout


def service(c, name):
    """Ports of the nodes that the name stands for: all have one address here."""
    return sorted(int(line.split()[2]) for line in dig(c, f"{name}.ha.test", "SRV", "+short").splitlines() if line)


def sync_standby(c):
    return wait_until(lambda: next((c[m["Member"]] for m in c.members() if m["Role"] == "Sync Standby"), None), "a synchronous standby")


def test_names_follow_a_switchover(c):
    c.wait_healthy()
    old = c.primary()
    wait_until(lambda: "status: NOERROR" in dig(c, "primary.ha.test"), "the first node knows the primary")
    assert " aa " in dig(c, "primary.ha.test")
    assert dig(c, "primary.ha.test", "A", "+short").split() == ["127.0.0.1"]
    wait_until(lambda: service(c, "primary") == [old.ports["pg"]], "the primary by name")
    wait_until(lambda: service(c, "replica") == sorted(n.ports["pg"] for n in c.standbys()), "the standbys by name")
    new = sync_standby(c)
    wait_until(lambda: service(c, "sync") == [new.ports["pg"]], "the synchronous standby by name")
    assert service(c, "_postgresql._tcp.n2") == [c["n2"].ports["pg"]]
    old.ctl("switchover", "--leader", old.name, "--candidate", new.name)
    wait_until(lambda: c.leader() is new, "the candidate leads")
    wait_until(lambda: service(c, "primary") == [new.ports["pg"]], "the new primary by name")
    c.wait_healthy()


def test_by_tcp_it_says_the_same_and_lives_with_bad_clients(c):
    c.wait_healthy()
    assert dig(c, "primary.ha.test", "A", "+tcp", "+short").split() == ["127.0.0.1"]
    wait_until(lambda: "ANSWER: 2" in dig(c, "replica.ha.test", "SRV", "+tcp"), "the standbys")
    with contextlib.ExitStack() as stack:
        for data in (b"\xff\xff", b"\0\2", b"GET / HTTP/1.1\r\n\r\n") * 20:  # more than there are places
            s = stack.enter_context(socket.create_connection(("127.0.0.1", c.dns), timeout=30))
            with contextlib.suppress(OSError):
                s.sendall(data)
        assert dig(c, "primary.ha.test", "A", "+tcp", "+short").split() == ["127.0.0.1"]
        assert dig(c, "primary.ha.test", "A", "+short").split() == ["127.0.0.1"]


def test_what_is_not_there_is_told_as_resolvers_expect(c):
    c.wait_healthy()
    assert "status: NXDOMAIN" in dig(c, "n9.ha.test") and "SOA" in dig(c, "n9.ha.test")
    assert "status: REFUSED" in dig(c, "example.org")
    assert "status: NOTIMP" in dig(c, "primary.ha.test", "A", "+opcode=STATUS")
    assert "REFUSED" in dig(c, "primary.ha.test", "A", "-c", "CH")
    empty = dig(c, "primary.ha.test", "AAAA")
    assert "status: NOERROR" in empty and "ANSWER: 0" in empty and "\t1\tIN\tSOA" in empty


def test_a_node_without_a_quorum_says_servfail(c):
    c.wait_healthy()
    for node in c.nodes[1:]:
        node.kill()
    wait_until(lambda: "status: SERVFAIL" in dig(c, "primary.ha.test"), "it does not tell what it cannot know")
    for node in c.nodes[1:]:
        node.start()
    c.wait_healthy()
    wait_until(lambda: service(c, "primary") == [c.primary().ports["pg"]], "and knows again")
