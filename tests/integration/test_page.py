"""The status page in a real browser, headless Chromium, during a failover: at three sizes, light and dark; and the
events it lives on.

    python3 -m pytest tests/integration/test_page.py
    REGENT_SHOTS=DIR ...                              keeps the pictures there
"""
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest

from cluster import Cluster, wait_until
from ports import free_port

SIZES = {"desk": (1280, 900), "tablet": (820, 1180), "phone": (390, 844)}
CHROMIUM = shutil.which("chromium")
NAME, PASSWORD = "operator", "sésame"
SETS = [f"restapi.authentication.username={NAME}", f"restapi.authentication.password={PASSWORD}"]


@pytest.fixture(scope="module")
def c():
    with Cluster(sets=SETS, all_sets=SETS) as cluster:
        cluster.form()
        yield cluster


def get(node, path, accept="*/*"):
    link = http.client.HTTPConnection(node.address, node.ports["rest"], timeout=30)
    with contextlib.closing(link):
        link.request("GET", path, headers={"Accept": accept})
        answer = link.getresponse()
        return answer.status, dict(answer.headers), answer.read().decode()


class Stream:
    """Events of a node, one after the other."""

    def __init__(self, node):
        self.link = http.client.HTTPConnection(node.address, node.ports["rest"], timeout=60)
        self.link.request("GET", "/events")
        self.answer = self.link.getresponse()

    def next(self):
        while True:
            line = self.answer.readline().decode()
            assert line, "the stream has ended"
            if line.startswith("data: "):
                return json.loads(line[6:])

    def close(self):
        self.link.close()


def test_a_browser_gets_the_page_and_a_load_balancer_the_check(c):
    primary, standby = c.primary(), c.standbys()[0]
    for node in (primary, standby):
        status, headers, body = get(node, "/", "text/html,application/xhtml+xml,*/*;q=0.8")
        assert status == 200 and headers["Content-Type"].startswith("text/html") and "<!DOCTYPE html>" in body
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "http://" not in body.replace("http://www.w3.org/2000/svg", "") and "https://" not in body, "it loads nothing from elsewhere"
    assert get(primary, "/")[0] == 200 and get(standby, "/")[0] == 503


def test_events_tell_what_is_so_and_go_on(c):
    def opened():
        s = Stream(c.standbys()[0])
        event = s.next()
        if event["lag"]["members"] and event["dcs"] and event["dcs"]["voters"] == 3:
            return s, event
        for _ in range(3):  # it has begun just now; and a stream that is left is noticed with the next event
            s.next()
        s.close()
        return None
    stream, first = wait_until(opened, "an event with a past")
    assert stream.answer.headers["Content-Type"] == "text/event-stream"
    assert first["leader"] == c.primary().name and {m["name"] for m in first["members"]} == {n.name for n in c.nodes}
    assert first["decisions"][0]["reason"]
    second = stream.next()
    assert "lag" not in second and second["wall_ms"] > first["wall_ms"]
    stream.close()


def test_streams_are_bounded_and_those_that_leave_make_room(c):
    node = c.primary()
    streams = [Stream(node) for _ in range(16)]
    assert all(s.answer.status == 200 and s.next() for s in streams)
    assert get(node, "/events")[0] == 503
    for s in streams:
        s.close()
    def room():
        stream = Stream(node)
        with contextlib.closing(stream):
            return stream.answer.status == 200
    wait_until(room, "there is room again")
    assert get(node, "/primary")[0] == 200


class Browser:
    """One page of headless Chromium, driven by its debugging protocol."""

    def __init__(self, directory):
        self.port = free_port()
        self.process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
             f"--user-data-dir={directory}/profile", f"--remote-debugging-port={self.port}", "--remote-allow-origins=*", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "HOME": str(directory)})
        import websocket
        url = wait_until(self._page, "the browser runs")
        self.socket = websocket.create_connection(url, timeout=60)
        self.number = 0
        self.problems = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def _page(self):
        with contextlib.suppress(OSError, ValueError, StopIteration):
            link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            link.request("GET", "/json")
            return next(t["webSocketDebuggerUrl"] for t in json.load(link.getresponse()) if t["type"] == "page")

    def call(self, method, **params):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.problems.append(answer["params"])
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script):
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def size(self, width, height, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def key(self, key, code):
        for kind in ("rawKeyDown", "char", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text="\r" if kind == "char" else "")

    def shot(self, path, whole=True):
        import base64
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def browser(tmp_path):
    pytest.importorskip("websocket")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    b = Browser(tmp_path)
    yield b
    b.close()


def test_the_page_follows_a_failover_at_every_size(c, browser, tmp_path):
    shots = pathlib.Path(os.environ.get("REGENT_SHOTS", tmp_path))
    c.wait_healthy()
    old = c.primary()
    watcher = c.standbys()[0]
    browser.size(*SIZES["desk"])
    browser.call("Page.navigate", url=f"http://{watcher.address}:{watcher.ports['rest']}/")
    def page(script):
        return browser.run(script)
    wait_until(lambda: page("document.getElementById('leader').textContent") == old.name, "the page names the leader")
    wait_until(lambda: page("document.getElementById('health').textContent") == "running", "all is well")
    for what in ("#members tbody tr", "#legend span"):
        wait_until(lambda what=what: page(f"document.querySelectorAll('{what}').length") == 3, f"three of {what}")
    for _ in range(3):  # some past for the picture
        old.sql("CREATE TABLE IF NOT EXISTS page (x text); INSERT INTO page SELECT repeat('x', 1000) FROM generate_series(1, 2000)")
        time.sleep(2)
    browser.shot(shots / "status-before.png")
    old.kill()
    seen = set()
    def look():
        seen.add(page("document.getElementById('health').textContent"))
        return page("document.getElementById('leader').textContent") not in (old.name, "none")
    wait_until(lambda: look() or None, "the page names another leader")
    for name, size in SIZES.items():
        for dark in (False, True):
            browser.size(*size, dark=dark)
            page("document.body.offsetWidth")
            assert page("document.documentElement.scrollWidth <= innerWidth"), f"{name}: nothing is cut off to the right"
            browser.shot(shots / f"status-{name}{'-dark' if dark else ''}.png")
    new = c.new_leader(old)
    wait_until(lambda: page("document.getElementById('leader').textContent") == new.name, "it is the one that leads")
    assert page("document.querySelectorAll('#decisions li').length") >= 1
    # by keyboard: the first stop is the link to the members, then the button if there is one, then the nodes' pages
    page("document.activeElement.blur()")
    def tab():
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        return page("document.activeElement.className || document.activeElement.id || document.activeElement.closest('table').id")
    stops = [tab(), tab(), tab()]
    assert stops[0] == "skip" and stops[1] in ("switch", "members") and stops[2] == "members", stops
    assert not browser.problems, browser.problems
    old.start()
    c.wait_healthy()
    wait_until(lambda: page("document.querySelectorAll('#members tbody tr').length") == 3, "all members are back")
    print(seen)


def test_a_switchover_by_the_page_needs_a_password_and_says_how_it_went(c, browser, tmp_path):
    shots = pathlib.Path(os.environ.get("REGENT_SHOTS", tmp_path))
    c.wait_healthy()
    old, watcher = c.primary(), c.standbys()[0]
    browser.size(*SIZES["desk"])
    browser.call("Page.navigate", url=f"http://{watcher.address}:{watcher.ports['rest']}/")
    page = browser.run
    wait_until(lambda: page("document.getElementById('switch') && !document.getElementById('switch').hidden"), "there is a button")
    candidates = {m["Member"] for m in c.members() if m["Role"] == "Sync Standby"}
    page("document.getElementById('switch').focus()")
    browser.key("Enter", 13)
    wait_until(lambda: page("document.getElementById('hand').open") is True, "the question is asked")
    assert set(page("[...document.getElementById('hand-to').options].map(o => o.value)")) == candidates, "who may be promoted without loss"
    assert old.name in page("document.getElementById('hand-what').textContent")

    def send(password):
        page(f"document.getElementById('hand-name').value = '{NAME}'; document.getElementById('hand-word').value = {json.dumps(password)};"
             "document.getElementById('hand-form').requestSubmit()")

    def told():
        text = page("document.getElementById('hand-told').textContent")
        return text if text not in ("", "under way") else None
    send("wrong")
    assert wait_until(told, "an answer") == "Name or password is wrong."
    assert c.primary() is old and page("document.getElementById('hand').open") is True
    browser.problems.clear()  # the browser notes the 401
    for name in ("desk", "phone"):
        browser.size(*SIZES[name], dark=name == "phone")
        browser.shot(shots / f"status-switchover-{name}.png", whole=False)
        assert page("document.documentElement.scrollWidth <= innerWidth")
    send(PASSWORD)
    new = c[wait_until(lambda: next((n for n in candidates if told() == f'Successfully switched over to "{n}"'), None), "it is done")]
    assert page("document.getElementById('hand-word').value") == ""
    page("document.getElementById('hand-no').click()")
    assert page("document.getElementById('hand').open") is False
    wait_until(lambda: page("document.getElementById('leader').textContent") == new.name, "the page names the new leader")
    assert c.new_leader(old) is new
    # what is not so any more is refused by the node, and told
    page(f"now.leader = '{old.name}'; ask()")
    send(PASSWORD)
    assert wait_until(told, "an answer") == "leader name does not match"
    # Together: with the next event all is as it was.
    assert page("document.getElementById('hand-no').click(); now.changes = 'no'; show(now); document.getElementById('switch').hidden") is True, \
        "a node that takes no changes offers none"
    c.wait_healthy()


def test_a_page_whose_node_has_died_says_so(c, browser):
    watcher = c.standbys()[0]
    browser.size(*SIZES["phone"])
    browser.call("Page.navigate", url=f"http://{watcher.address}:{watcher.ports['rest']}/")
    wait_until(lambda: browser.run("document.getElementById('health').textContent") == "running", "all is well")
    watcher.kill()
    wait_until(lambda: browser.run("document.getElementById('banner').hidden") is False, "the page says that it is old")
    watcher.start()
    wait_until(lambda: browser.run("document.getElementById('banner').hidden") is True, "and goes on by itself")
    c.wait_healthy()
