"""Shared by the verbs that run kernels: options, words for devices, and a status line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from core.cli.show import F
from core.devices import DeviceKind
from core.errors import UsageError
from core.registry import Registry
from core.train.display import Display


def branches_option(function: F) -> F:
    """`--branches N` of verbs that simulate kernels: the environment variable, for this command's processes."""
    from core.sim.machine.budget import LIMIT, VARIABLE  # other verbs need nothing of the simulator

    def put(context: click.Context, parameter: click.Parameter, value: int | None) -> None:
        if value is not None:
            before = os.environ.get(VARIABLE)
            os.environ[VARIABLE] = str(value)
            context.call_on_close(lambda: restore(before))

    def restore(before: str | None) -> None:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before

    return click.option(
        "--branches",
        type=click.IntRange(min=1),
        metavar="N",
        callback=put,
        expose_value=False,
        help=f"Branches of a thread block before the simulator reports an endless loop.  [default: {LIMIT}]",
    )(function)


def with_architectures(registry: Registry) -> str:
    """`--device` with the devices whose kernels are compiled for an architecture that can be named."""
    return f"--device {' or '.join(kind.name for kind in registry.devices.values() if kind.planner is not None)}"


def refuse_untimed(kind: DeviceKind) -> None:
    """UsageError for a device whose seconds are not those of real hardware."""
    if not kind.real_time:
        raise UsageError(
            "the simulator's time does not predict a GPU's" if kind.simulated else f"{kind.name} cannot be timed",
            hint="core trace counts a kernel's instructions and memory traffic",
        )


@contextmanager
def status_line(text: str) -> Iterator[None]:
    """Show a status line on the terminal while a slow operation runs."""
    display = Display(sys.stderr)
    display.status(text)
    try:
        yield
    finally:
        display.close()
