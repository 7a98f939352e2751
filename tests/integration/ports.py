"""TCP ports for what a test starts."""
import os
import socket

FIRST, COUNT = 20000, 9000  # outside the usual range of outgoing connections
_given = set()


def free_port(address="127.0.0.1"):
    """A port that nobody has now, and that no other part of this test run is given."""
    port = (os.getpid() * 37 + len(_given) * 7) % COUNT
    while True:
        port = (port + 1) % COUNT
        if (address, port) in _given:
            continue
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as s:
            try:
                s.bind((address, FIRST + port))
            except OSError:
                continue
        _given.add((address, port))
        return FIRST + port
