"""Two hosts on one machine: network namespaces with a cable between them, and a stand-in for ssh."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SSH = """#!/bin/bash
# mpiexec's way to start a daemon on a host: options, the host, a command
while [[ "$1" == -* ]]; do shift; done
space={name}$1; shift
space=${{space/10.77.0.1/0}}; space=${{space/10.77.0.2/1}}
exec ip netns exec "$space" unshare -u bash -c "hostname $space; $*"
"""


@dataclass(frozen=True)
class Hosts:
    """Two namespaces. names: theirs and their host names. ssh: the stand-in."""

    names: tuple[str, str]
    ssh: Path

    def mpiexec(self) -> list[str]:
        """The launcher's part of a command: a rank on each host."""
        inside = [
            "ip",
            "netns",
            "exec",
            self.names[0],
            "unshare",
            "-u",
            "bash",
            "-c",
            f'hostname {self.names[0]}; "$@"',
            "_",
        ]
        network = ["--prtemca", "plm_ssh_agent", str(self.ssh), "--mca", "btl", "tcp,self",
                   "--mca", "btl_tcp_if_include", "10.77.0.0/24", "--mca", "pml", "ob1",
                   "--prtemca", "prte_if_include", "10.77.0.0/24"]  # fmt: skip
        forward = [part for name in ("PYTHONPATH", "PATH", "HOME", "CORELM_THREADS") for part in ("-x", name)]
        return [*inside, "mpiexec", *network, *forward, "--host", "10.77.0.1,10.77.0.2", "-n", "2", "--bind-to", "none"]

    def cut(self) -> None:
        """Pull the cable."""
        ip("-n", self.names[0], "link", "set", "cable", "down")


def why_not() -> str:
    """The reason why this machine makes no hosts; "" where it does."""
    if shutil.which("ip") is None or shutil.which("unshare") is None or os.geteuid():
        return "network namespaces need root, iproute2 and unshare"
    name = f"corelm{os.getpid()}t"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return "" if made else "this machine allows no network namespaces"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[Hosts]:
    """Two hosts, 10.77.0.1 and 10.77.0.2, until the block is left."""
    name = f"corelm{os.getpid()}h"
    names = (f"{name}0", f"{name}1")
    try:
        for one in names:
            ip("netns", "add", one)
        ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, one in enumerate(names):
            ip("-n", one, "addr", "add", f"10.77.0.{number + 1}/24", "dev", "cable")
            ip("-n", one, "link", "set", "cable", "up")
            ip("-n", one, "link", "set", "lo", "up")
        ssh = folder / "ssh"
        ssh.write_text(SSH.format(name=name))
        ssh.chmod(0o755)
        yield Hosts(names, ssh)
    finally:
        for one in names:
            subprocess.run(["ip", "netns", "del", one], capture_output=True, check=False)
