"""The line between one host and the bridge through a program: delay, jitter, loss, reordering, duplication, each direction by
itself.

    switch.py PORT '{"to": {"delay_ms": 100, "jitter_ms": 50}, "back": {"loss": 0.1, "reorder": 0.2, "duplicate": 0.1}}'

Runs in the bridge's namespace. The host's port moves to a bridge of its own, with one TAP; another TAP takes its place at br0; frames
go from one to the other. It prints "ready", and puts the port back at SIGTERM. A TAP takes no unfinished checksums and no
oversized segments, so the kernel finishes them before a frame comes here.
"""
import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_MAX = 65536


class Line:
    """One direction. Frames stay in order but for those that are reordered."""

    def __init__(self, rng, delay_ms=0, jitter_ms=0, loss=0, reorder=0, duplicate=0):
        self.rng = rng
        self.delay_ms, self.jitter_ms, self.loss, self.reorder, self.duplicate = delay_ms, jitter_ms, loss, reorder, duplicate
        self.last = 0.0

    def times(self, now):
        """When a frame that comes now goes on: never, once or twice."""
        if self.rng.random() < self.loss:
            return []
        due = now + (self.delay_ms + self.rng.uniform(0, self.jitter_ms)) / 1000
        if self.rng.random() < self.reorder:
            out = [due + self.rng.uniform(0.001, 0.03)]  # those behind it overtake it
        else:
            self.last = max(due, self.last)
            out = [self.last]
        if self.rng.random() < self.duplicate:
            out.append(out[0] + self.rng.uniform(0, 0.01))
        return out


def sh(*words):
    subprocess.run(words, capture_output=True, check=True, stdin=subprocess.DEVNULL)


def tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def insert(port):
    near, far, own = f"{port}a", f"{port}b", f"{port}x"
    with open("/sys/class/net/br0/address", encoding="ascii") as f:
        sh("ip", "link", "set", "br0", "address", f.read().strip())  # else it is the lowest of its ports
    fds = tap(near), tap(far)
    sh("ip", "link", "add", own, "type", "bridge", "forward_delay", "0")
    sh("ip", "link", "set", own, "up")
    sh("ip", "link", "set", near, "master", own, "up")
    sh("ip", "link", "set", far, "master", "br0", "up")
    sh("ip", "link", "set", port, "master", own)
    return fds


def take_out(port):
    sh("ip", "link", "set", port, "master", "br0")
    sh("ip", "link", "del", f"{port}x")


def carry(ways):
    """ways: {fd read from: (Line, fd written to)}"""
    waiting, count = [], 0
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for fd in select.select(list(ways), [], [], timeout)[0]:
            line, to = ways[fd]
            with contextlib.suppress(BlockingIOError):
                frame = os.read(fd, FRAME_MAX)
                for due in line.times(time.monotonic()):
                    count += 1
                    heapq.heappush(waiting, (due, count, to, frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, to, frame = heapq.heappop(waiting)
            with contextlib.suppress(OSError):  # a full queue loses it, as any switch does
                os.write(to, frame)


def main():
    port, directions = sys.argv[1], json.loads(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    rng = random.Random(port)
    near, far = insert(port)
    try:
        print("ready", flush=True)
        carry({far: (Line(rng, **directions.get("to", {})), near), near: (Line(rng, **directions.get("back", {})), far)})
    finally:
        take_out(port)


if __name__ == "__main__":
    main()
