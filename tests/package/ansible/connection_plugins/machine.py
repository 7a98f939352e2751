"""Ansible's way into a machine of tests/package/machine.py: its process 1 is the variable machine_pid1."""
import subprocess

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
    name: machine
    short_description: a machine in namespaces
    description: runs commands in the namespaces of a process
    author: The Regent maintainers
    options:
      pid1:
        description: process 1 of the machine, as this host counts
        vars: [{name: machine_pid1}]
"""


class Connection(ConnectionBase):
    transport = "machine"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def _inside(self, *words):
        return ["nsenter", "-t", str(self.get_option("pid1")), "-a", "env", "-i", "-C", "/", "HOME=/root", "LANG=C.UTF-8",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *words]

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        given = {"input": in_data} if in_data is not None else {"stdin": subprocess.DEVNULL}
        done = subprocess.run(self._inside("sh", "-c", cmd), capture_output=True, check=False, **given)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path, out_path):
        with open(in_path, "rb") as f:
            done = subprocess.run(self._inside("sh", "-c", f"cat >'{out_path}'"), stdin=f, capture_output=True, check=False)
        if done.returncode != 0:
            raise AnsibleConnectionFailure(f"{out_path}: {done.stderr.decode()}")

    def fetch_file(self, in_path, out_path):
        with open(out_path, "wb") as f:
            subprocess.run(self._inside("cat", in_path), stdout=f, check=True)

    def close(self):
        self._connected = False
