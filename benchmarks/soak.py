"""Train for minutes or hours under faults at random instants, and compare every bit with an undisturbed run.

    python benchmarks/soak.py --minutes 20
    python benchmarks/soak.py --minutes 1 --seed 7

A round is one run: first undisturbed, then in a folder of its own with events at random instants, each followed by
`core train --resume`: kills, signals one by one and in storms, stops (SIGSTOP and SIGCONT) before a kill or a signal, a
signal to a stopped process, a full disk, a disk with space again, and a concurrent second start. At the end of a round,
the sha256 of each tensor file, every metric but times, and every sample must be those of the undisturbed run, except
for a validation or a sample that a signal cut short. The seed of a round is printed before it begins. POSIX only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONFIG = """
model = "gpt2_124m"
dims = {{ V = 257, C = 32, H = 2, L = 2, S = 32, B = 2, T = 16 }}
data = {{ train = "text.txt", val = "val.txt", tokenizer = "bytes" }}
[train]
steps = {steps}
tokens_per_step = 64
val_every = 40
val_tokens = 320
sample_every = 50
sample_tokens = 8
checkpoint_every = 25
keep_last = 2
log_every = 10
[optimizer]
name = "adamw"
lr = 1e-2
[schedule]
name = "cosine"
warmup = 10
"""
TIMES = ("ms", "tokens_per_s", "memory", "mfu", "sol")
EXPECTED = {  # event -> exit codes that it may have; 0 where the run was done before the event
    "kill": (-signal.SIGKILL, 0),
    "term": (128 + signal.SIGTERM, -signal.SIGTERM, 0),
    "int": (128 + signal.SIGINT, -signal.SIGINT, 0),
    "hup": (128 + signal.SIGHUP, -signal.SIGHUP, 0),
    "storm": (*(code for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) for code in (128 + n, -n)), 0),
    "stop": (-signal.SIGKILL, 0),
    "pause": (128 + signal.SIGTERM, -signal.SIGTERM, 0),
    "held": (128 + signal.SIGTERM, -signal.SIGTERM, 0),
    "full": (7, 2, 0, -signal.SIGXFSZ),
    "room": (128 + signal.SIGTERM, -signal.SIGTERM, 7, 2, 0, -signal.SIGXFSZ),
    "beside": (-signal.SIGKILL, 2, 0),
    "nothing": (0,),
}


class Different(Exception):
    """The disturbed run is not the undisturbed one, or ended with a code that it must not have."""


@dataclass
class Round:
    """One undisturbed and one disturbed run in `folder`."""

    folder: Path
    seed: int
    steps: int
    events: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "nine", "zebras", "hum"]
        text = " ".join(self.random.choice(words) for _ in range(4000))
        (self.folder / "text.txt").write_text(text)
        (self.folder / "val.txt").write_text(text[::-1][:2000])
        (self.folder / "soak.toml").write_text(CONFIG.format(steps=self.steps))

    def start(self, out: str, *more: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CORELM_CACHE": str(self.folder / "cache")}
        environment |= {"OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "core.cli", "train", "soak.toml", "--device", "cpu", "--out", out, *more]
        with (self.folder / f"{out}.txt").open("ab") as said:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=said, stderr=said)

    def run(self) -> None:
        begun = time.monotonic()
        if self.start("whole").wait() != 0:
            raise Different(f"the undisturbed run failed:\n{self.tail('whole')}")
        self.length = time.monotonic() - begun
        for number in range(1000):
            event = self.random.choice(list(EXPECTED)) if number < 40 else "nothing"
            self.events[event] += 1
            code = self.disturb(self.start("broken", "--resume"), event)
            if code not in EXPECTED[event]:
                raise Different(f"after {event!r} the exit code is {code}:\n{self.tail('broken')}")
            if code == 0:
                break
        self.compare()

    def disturb(self, process: subprocess.Popen[bytes], event: str) -> int:
        """Let the process run for a random while, do the event to it, and wait for its end."""
        if event != "nothing":
            time.sleep(self.random.uniform(0.05, 1.1 * self.length))
        if process.poll() is not None:
            return process.returncode
        single = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT, "hup": signal.SIGHUP}
        if event in single:
            process.send_signal(single[event])
        elif event == "storm":
            for _ in range(self.random.randint(2, 6)):
                if process.poll() is None:
                    process.send_signal(self.random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))
                time.sleep(self.random.uniform(0, 0.02))
        elif event in ("stop", "pause"):
            for _ in range(self.random.randint(1, 4)):
                process.send_signal(signal.SIGSTOP)
                time.sleep(self.random.uniform(0, 0.1))
                process.send_signal(signal.SIGCONT)
                time.sleep(self.random.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL if event == "stop" else signal.SIGTERM)
        elif event == "held":
            process.send_signal(signal.SIGSTOP)
            process.send_signal(signal.SIGTERM)
            time.sleep(self.random.uniform(0, 0.2))
            process.send_signal(signal.SIGCONT)
        elif event in ("full", "room"):
            self.limit(process, self.random.choice([1, 1000, 50_000]))
            if event == "room":
                time.sleep(self.random.uniform(0, 0.3 * self.length))
                self.limit(process, resource.RLIM_INFINITY)
                process.send_signal(signal.SIGTERM)
        elif event == "beside":
            self.beside(process)
        return process.wait(600)

    def limit(self, process: subprocess.Popen[bytes], size: int) -> None:
        """Limit files of the process to `size` bytes: the equivalent of a full disk."""
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def beside(self, process: subprocess.Popen[bytes]) -> None:
        """A second start in the same folder; whichever is left after a while is killed."""
        other = self.start("broken", "--resume")
        time.sleep(self.random.uniform(0.05, 1.1 * self.length))
        process.kill()
        other.kill()
        if other.wait(600) not in EXPECTED["beside"]:
            raise Different(f"the exit code of a start beside another is {other.returncode}:\n{self.tail('broken')}")

    def compare(self) -> None:
        whole, broken = self.tensors("whole"), self.tensors("broken")
        if whole != broken:
            raise Different(f"tensors differ:\n{whole}\n{broken}\n{self.tail('broken')}")
        for name in ("metrics", "samples"):
            ours, theirs = self.lines("whole", name), self.lines("broken", name)
            wrong = [pair for pair in zip(ours, theirs, strict=False) if not agree(*pair)]
            if wrong or (name == "metrics" and len(ours) != len(theirs)):
                raise Different(f"{name} differ:\n{wrong[:2]}\n{self.tail('broken')}")

    def tensors(self, out: str) -> dict[str, str]:
        newest = max((self.folder / out / "checkpoints").glob("step_*"))
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in newest.glob("*.safetensors")} | {
            "step": newest.name
        }

    def lines(self, out: str, name: str) -> list[dict[str, Any]]:
        """By step, without times. A sample that a signal left out is a step without one."""
        lines = [json.loads(line) for line in (self.folder / out / f"{name}.jsonl").read_text().splitlines()]
        by_step = {line["step"]: {k: v for k, v in line.items() if k not in TIMES} for line in lines}
        return [by_step.get(step, {"step": step}) for step in range(1, self.steps + 1)]

    def tail(self, out: str) -> str:
        return (self.folder / f"{out}.txt").read_text("utf-8", "replace")[-1500:]


def agree(whole: dict[str, Any], broken: dict[str, Any]) -> bool:
    """Whether two lines of a step are equal, except for a validation that a signal stopped, which has no loss, and a
    sample that a signal stopped, which has its first tokens."""
    cut = ("val_loss", "val_tokens", "text", "tokens", "prompt")
    same = all(whole.get(key) == broken.get(key) for key in {**whole, **broken} if key not in cut)
    val = all(broken.get(key) in (None, whole.get(key)) for key in ("val_loss", "val_tokens"))
    if not isinstance(whole.get("tokens"), list):  # of metrics, a count
        return same and val and whole.get("tokens") == broken.get("tokens")
    tokens = broken.get("tokens", [])
    return same and whole["tokens"][: len(tokens)] == tokens


def soak(minutes: float, seed: int, steps: int) -> tuple[int, Counter[str]]:
    """Rounds until the time is over: (how many, events by kind). Raises Different."""
    end, events, rounds = time.monotonic() + 60 * minutes, Counter[str](), 0
    while not rounds or time.monotonic() < end:
        number = seed + rounds
        print(f"round {rounds + 1}: --seed {number}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            made = Round(Path(folder), number, steps)
            made.run()
        events += made.events
        rounds += 1
    return rounds, events


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options.add_argument("--steps", type=int, default=300, help="of each run")
    args = options.parse_args()
    try:
        rounds, events = soak(args.minutes, args.seed, args.steps)
    except Different as different:
        print(different)
        return 1
    tally = ", ".join(f"{count} {event}" for event, count in sorted(events.items()))
    print(f"{rounds} rounds of {args.steps} steps: {tally}; all bits as in the undisturbed runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
