"""A cable that is cut between two hosts ends the ranks and the daemons of both."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faulty_runs import PLUGIN, config_in
from mpi_runs import NEEDS_MPI, ROOT, environment
from two_hosts import two_hosts, why_not

from core.train.run import read_lines

pytestmark = [NEEDS_MPI, pytest.mark.skipif(bool(why_not()), reason=why_not() or "two hosts")]


def test_a_cut_cable_ends_both_hosts_and_is_named(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "core", "train", str(config_in(tmp_path)), "--device", "cpu", "--out", str(out),
               "--plugin", str(PLUGIN), "--set", "train.steps=100000", "--set", "train.checkpoint_every=0"]  # fmt: skip
    with two_hosts(tmp_path) as hosts:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        run = subprocess.Popen([*hosts.mpiexec(), *command], cwd=ROOT, env=environment(tmp_path), **streams)
        while run.poll() is None and len(read_lines(out / "metrics.jsonl")) < 3:
            time.sleep(0.2)
        hosts.cut()
        text = run.communicate(timeout=60)[0].decode(errors="replace")
        left = running_with(str(tmp_path))
    assert not left
    assert run.returncode
    assert "silent for" in text


def running_with(word: str) -> list[str]:
    """Command lines of processes that still run and hold a word."""
    lines = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if word in line:
                lines.append(line)
    return lines
