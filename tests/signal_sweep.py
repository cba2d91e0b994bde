"""Send a signal to `core train` at many instants of its start, each in a process of its own, and judge how it ended.

    python tests/signal_sweep.py --every 2        # milliseconds between the instants; 600 processes or so
    python tests/signal_sweep.py --every 2 --signal SIGHUP
    python tests/signal_sweep.py --random 40 --seed 1

Each must end by 128 and the signal's number. The instants are counted from the entry point's first lines.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import small_run

ROOT = Path(__file__).resolve().parent.parent
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CONFIG = small_run.unwatched(data={"val": "text.txt"}, train={"steps": 1_000_000, "checkpoint_every": 1_000_000})


def prepare(folder: Path) -> None:
    (folder / "small.toml").write_text(CONFIG)
    (folder / "text.txt").write_text(small_run.TEXT)


def started(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """A run of a million steps, stdout and stderr in one pipe."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CORELM_CACHE": str(folder / "cache")}
    environment |= {"OPENBLAS_NUM_THREADS": "1"}
    words = ["train", "small.toml", "--device", "cpu", "--out", f"run-{time.monotonic_ns()}", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "core.cli", *words],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGHUP)],
    )  # fmt: skip


def entered(process: subprocess.Popen[bytes]) -> None:
    """Wait for the entry point's first lines, which catch SIGTERM: before them, Python itself may swallow a Ctrl-C."""
    status = Path(f"/proc/{process.pid}/status")
    end = time.monotonic() + (30 if status.exists() else 0.5)
    while time.monotonic() < end and process.poll() is None:
        if status.exists():
            caught = int(status.read_text().partition("SigCgt:")[2].split()[0], 16)
            if caught >> (signal.SIGTERM - 1) & 1:
                return
        time.sleep(0.001)


def time_of_start(folder: Path) -> float:
    """Seconds from the entry point to the first step."""
    process = started(folder)
    entered(process)
    begun = time.monotonic()
    assert process.stdout is not None
    while not process.stdout.readline().startswith(b"step "):
        assert process.poll() is None, "the run ended by itself"
    seconds = time.monotonic() - begun
    process.kill()
    process.communicate()
    return seconds


def ended(folder: Path, number: signal.Signals, seconds: float) -> str:
    """Start a run, send the signal after `seconds`; "" when it ended as it should, else what went wrong."""
    process = started(folder)
    entered(process)
    time.sleep(seconds)
    process.send_signal(number)
    try:
        said = process.communicate(timeout=20)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()[0].decode("utf-8", "replace")
        return f"{number.name} after {seconds:.3f} s: still there after 20 s\n{said[-600:]}"
    code = process.returncode
    by_the_signal = code == -number and "ended by" not in said  # it came after our last line
    if by_the_signal or (code == 128 + number and "Traceback" not in said and "cannot be loaded" not in said):
        return ""
    return f"{number.name} after {seconds:.3f} s: exit code {code}\n{said[-600:]}"


def sweep(
    folder: Path, instants: Sequence[float], seed: int = 0, signals: Sequence[signal.Signals] = SIGNALS
) -> list[str]:
    """What went wrong, an entry a process. Each gets one of the signals; the seed draws them and the order, so that a
    sweep that is cut short has looked at all parts of a start."""
    draw, outcomes = random.Random(seed), []
    for number, seconds in enumerate(draw.sample(list(instants), len(instants)), 1):
        wrong = ended(folder, draw.choice(signals), seconds)
        outcomes += [wrong] if wrong else []
        if wrong or number % 20 == 0:
            print(wrong or f"{number - len(outcomes)} of {number} so far", flush=True)
    return outcomes


def at_random(folder: Path, count: int, seed: int) -> list[float]:
    """Instants of a start, from the entry point to somewhat after the first step, in seconds: one in each of `count`
    equal parts."""
    draw, last = random.Random(seed), 1.1 * time_of_start(folder)
    return [draw.uniform(part, part + 1) * last / count for part in range(count)]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--every", type=float, default=2.0, metavar="MS")
    options.add_argument("--random", type=int, default=0, metavar="N", help="N random instants instead")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--signal", choices=[n.name for n in SIGNALS], help="this one at each instant; else drawn")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        if arguments.random:
            instants = at_random(folder, arguments.random, arguments.seed)
        else:
            last = 1.1 * time_of_start(folder)
            instants = [index * arguments.every / 1e3 for index in range(int(last * 1e3 / arguments.every))]
            print(f"{len(instants)} instants, up to {last:.2f} s behind the entry point", flush=True)
        wrong = sweep(
            folder, instants, arguments.seed, [signal.Signals[arguments.signal]] if arguments.signal else SIGNALS
        )
    count = len(instants)
    print(f"{count - len(wrong)} of {count} signals ended the run with the right code")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
