"""pgbench through a door, while things happen."""
import re
import subprocess
import threading

from cluster import PG_BIN, wait_until


class Bench:
    """pgbench by one door, run after run, with a connection for each transaction."""

    def __init__(self, directory, name, dsn):
        self.script = directory / f"{name}.sql"
        self.script.write_text(f"INSERT INTO by_pgbench VALUES ('{name}');\n", encoding="utf-8")
        self.words = [str(PG_BIN / "pgbench"), "-n", "-C", "-c", "2", "-t", "10", "-f", str(self.script), dsn]
        self.name, self.acknowledged, self.whole, self.said = name, 0, 0, ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        wait_until(lambda: self.whole > 0, f"a whole run by {self.name}: {self.said}")
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()

    def _run(self):
        while not self._end.is_set():
            with subprocess.Popen(self.words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
                clock = threading.Timer(30, run.kill)  # an answer that was lost is waited for
                clock.start()
                self.said = run.communicate()[0]
                clock.cancel()
            found = re.search(r"transactions actually processed: (\d+)", self.said)
            self.acknowledged += int(found[1]) if found else 0
            self.whole += run.returncode == 0
            self._end.wait(0.1)
