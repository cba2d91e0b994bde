"""A run that a signal or a disk's fault meets at a chosen place."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import small_run

from core.train.display import Display
from core.train.loop import Trainer, run_job
from core.train.run import read_lines
from core.train.setup import TrainArguments, prepare

ROOT = Path(__file__).resolve().parents[1]
CONFIG = small_run.config(
    data={"val": "text.txt"},
    train={
        "val_every": 3,
        "keep_best": False,
        "val_tokens": 320,
        "sample_every": 3,
        "sample_tokens": 16,
        "sample_prompt": "naïve ",
        "checkpoint_every": 2,
    },
)
SLOW = """
import time
from pathlib import Path

def core_step_end(run, step):
    Path("at").write_text(str(step))
    if step == 3 and Path("hang").exists():
        Path("hanging").touch()
        time.sleep(60)
    time.sleep(0.02)
"""
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def trainer(stack: ExitStack, out: str = "a", *overrides: str, **options: Any) -> Trainer:
    request = TrainArguments("small.toml", overrides, device="cpu", out=Path(out), **options)
    return prepare(request, Display(quiet=True), stack)


def send(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


def at_step(step: int, action: Callable[[], None]) -> Callable[..., None]:
    """A `core_step_end` that does something once."""

    def hook(run: Any, now: int, metrics: dict[str, Any]) -> None:
        if now == step:
            action()

    return hook


def within_step(made: Trainer, step: int, action: Callable[[], None]) -> None:
    """Do something between the first and the second micro-step of a step."""
    engine = made.job.engine
    run = engine._micro_steps  # type: ignore[attr-defined]

    def each(*arguments: Any) -> Iterator[Any]:
        for index, plan in run(*arguments):
            if index == 1 and made.step == step - 1:
                action()
            yield index, plan

    engine._micro_steps = each  # type: ignore[attr-defined]


def last_line(out: str = "a") -> str:
    return Path(out, "train.log").read_text("utf-8").splitlines()[-1]


def curve(out: str) -> list[tuple[Any, ...]]:
    return [(m["step"], m["loss"], m["norm"]) for m in read_lines(Path(out, "metrics.jsonl"))]


Start = Callable[..., "subprocess.Popen[bytes]"]


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def at(here: Path) -> int:
    return int((here / "at").read_text() or 0) if (here / "at").exists() else 0


def train_whole(stack: ExitStack, out: str) -> None:
    made = trainer(stack, out, "train.checkpoint_every=0")
    made.job.hooks = []
    assert run_job(made) == 0
