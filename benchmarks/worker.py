"""A peer of a comparison in a process of its own, with its own memory and threads.

The worker prints a line when it is ready, then one line of JSON on stdout for each on stdin; between rounds it sleeps.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CORELM_THREADS")


class Worker:
    """`script --worker name words...`, its libraries limited to `threads` threads; ready when constructed."""

    def __init__(self, script, name, *words, threads=None):
        command = [str(part) for part in (sys.executable, script, "--worker", name, *words)]
        environment = dict.fromkeys(THREADS, str(threads)) if threads else {}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | environment)
        self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of a peer ended with code {self.process.wait()}; its message is above")
        return json.loads(line)

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def orders():
    """The worker: report readiness, then yield each order; `answer` replies to it."""
    answer(ready=True)
    for line in sys.stdin:
        yield json.loads(line)


def answer(**values):
    print(json.dumps(values), flush=True)


def machine(threads, *packages):
    """The machine and the versions of a measurement."""
    model = None
    with suppress(OSError):
        model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(), "threads": threads,
        "system": platform.system(), "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }  # fmt: skip


def version(name):
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory(pid="self"):
    """Peak resident bytes of a process so far; of this one where there is no /proc."""
    with suppress(OSError):
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(peak[1]) * 1024
    if pid == "self":
        with suppress(ImportError):
            import resource

            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 0
