"""`core judge`: a CUDA kernel compared with a problem, in the simulator."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from core.cli.kernel_runs import branches_option
from core.cli.show import json_option, json_text
from core.endings import ending
from core.errors import CheckFailed
from core.judge.confined import MEMORY, SECONDS, judge
from core.judge.verdict import QUESTIONS, WAITING, Judgement, SubVerdict
from core.train.display import Display


@click.command("judge")
@click.argument("problem", type=click.Path(path_type=Path), metavar="PROBLEM.py")
@click.argument("submission", type=click.Path(path_type=Path), metavar="[KERNEL.cu]", required=False)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of random contents; a host keeps it secret.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=SECONDS, show_default=True,
    help="Time limit of the whole judgement, in seconds.",
)  # fmt: skip
@click.option(
    "--memory", type=click.IntRange(min=1), default=MEMORY >> 20, show_default=True, metavar="MIB",
    help="Memory limit in MiB, including the problem's buffers.",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Also show the PTX of a fault.")
@branches_option
@json_option
def command(
    problem: Path, submission: Path | None, seed: int, seconds: float, memory: int, verbose: bool, as_json: bool
) -> None:
    """Judge a CUDA kernel by a problem: a Python file with shapes, launches and a NumPy reference.

    Without KERNEL.cu the submission is the problem's own `kernel_file`. The exit code is 1 for a kernel that fails, and
    3 for an invalid problem. Only the simulator runs the kernel; the problem's file runs as Python.
    docs/judge.md is the manual.
    """
    display = Display(sys.stderr)
    judgement = Judgement(str(problem), str(submission or ""), seed)

    def on_progress(kind: str, value: Any) -> None:
        display.close()
        if kind == "check":
            judgement.checks.append(value)
            if not as_json:
                click.echo("\n".join(value.lines(verbose)))
        elif kind == "doing":
            display.status(f"judging: {value}: {QUESTIONS[value]}")

    display.status("starting")
    with ending(lambda cut_off: as_text(judgement, cut_off), judgement.checks) if as_json else nullcontext():
        try:
            judgement = judge(
                problem, submission, seed=seed, seconds=seconds, memory=memory << 20, on_progress=on_progress
            )
        finally:
            display.close()
    name = Path(judgement.submission).name
    if not as_json:
        for note in judgement.notes:
            click.echo(f"  note: {note}")
        if judgement.passed:
            click.echo(f"{name} passes {problem.name}")
    if not judgement.passed:
        failed = ", ".join(judgement.failed)
        raise CheckFailed(f"{name} fails {problem.name}: {failed}", hint="docs/judge.md describes each verdict")


def as_text(judgement: Judgement, cut_off: str) -> str:
    """The verdict as JSON. cut_off: why the judgement ended early; the questions that it did not answer wait."""
    answered = {check.name for check in judgement.checks}
    waiting = [SubVerdict(name, WAITING, cut_off) for name in QUESTIONS if cut_off and name not in answered]
    whole = replace(judgement, checks=[*judgement.checks, *waiting])
    return json_text(whole.as_json() | {"cut_off": cut_off})
