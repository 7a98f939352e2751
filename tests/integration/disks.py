"""A disk of one's own: ext4 on a loop device, whose power can be cut."""
import ctypes
import fcntl
import os
import struct
import subprocess

from netns import sh

# EXT4_IOC_SHUTDOWN; 2: without flushing the journal. An fdatasync() that is under way may succeed although
# nothing of it is on the disk (a bare loop of pwrite and fdatasync shows it, 1 in 30): what is acknowledged
# while this runs proves nothing.
SHUTDOWN = 0x8004587d


CLONE_NEWNS = 0x00020000


def own_mounts():
    """From here on, nobody else's mount namespace gets a copy of what this process mounts. With a copy the file
    system outlives its unmount(), and a power cut its mount()."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    sh("mount", "--make-rprivate", "/")


class LoopDisk:
    """Mounted at `root`. OSError or CalledProcessError where the machine does not allow it."""

    def __init__(self, image, root, size_mib):
        self.image, self.root = str(image), str(root)
        with open(self.image, "xb") as f:
            os.truncate(f.fileno(), size_mib << 20)
        self.device = sh("losetup", "-f", "--show", self.image).strip()
        try:
            sh("mkfs.ext4", "-q", "-F", self.device)
            self.mount()
        except BaseException:
            self.remove()
            raise

    def mount(self):
        sh("mount", self.device, self.root)

    def unmount(self):
        sh("umount", self.root)

    def remove(self):
        for words in (["umount", self.root], ["losetup", "-d", self.device]):
            subprocess.run(words, capture_output=True, check=False)

    def make_read_only(self):
        """As the kernel does when it finds the file system damaged."""
        sh("mount", "-o", "remount,abort", self.root)

    def freeze(self, on):
        """Writes wait, in the state D, until it is thawed. To thaw what is not frozen does nothing."""
        subprocess.run(["fsfreeze", "-f" if on else "-u", self.root], capture_output=True, check=on)

    def cut_power(self):
        """What was synced stays, what was not is gone; until it is mounted again every call fails."""
        fd = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", 2))
        finally:
            os.close(fd)
