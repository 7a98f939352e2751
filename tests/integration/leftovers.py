"""What a killed server leaves in the kernel."""
import os
import pathlib
import pwd
import subprocess


def drop_shared_memory():
    """The segments that nobody is attached to and whose maker is dead: the kernel has room for 4096 (SHMMNI), and then no
    PostgreSQL starts. A server that is started again where one was killed does the same with the one that it finds."""
    user = os.geteuid() or pwd.getpwnam("postgres").pw_uid
    orphans = []
    for line in pathlib.Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]:
        _, segment, _, _, maker, _, attached, owner = line.split()[:8]
        if (int(attached), int(owner)) == (0, user) and maker != "0" and not os.path.exists(f"/proc/{maker}"):
            orphans += ["-m", segment]
    if orphans:
        subprocess.run(["ipcrm", *orphans], capture_output=True, check=False)  # another run may have been faster
