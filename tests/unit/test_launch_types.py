"""Launch as a type: what records has its methods, and docs/launch.md names each."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import core
from core.device.cpu import CpuRecorder
from core.device.launch import KernelRecorder, UpdateRecorder

PAGE = Path(__file__).parents[2] / "docs" / "launch.md"
RECORDERS = ((core.CpuLaunch, CpuRecorder), (core.GpuLaunch, KernelRecorder), (core.Launch, UpdateRecorder))


def members(kind: type) -> dict[str, Any]:
    """The public methods and properties that a class or the protocols below it define, `__call__` too."""
    found = {name: thing for cls in reversed(kind.__mro__) for name, thing in vars(cls).items() if cls is not object}
    return {n: t for n, t in found.items() if (not n.startswith("_") or n == "__call__") and _written(t)}


def _written(thing: Any) -> bool:
    return inspect.isfunction(thing) or isinstance(thing, property | staticmethod)


def parameters(thing: Any) -> list[tuple[str, Any]]:
    found = thing.__func__ if isinstance(thing, staticmethod) else thing
    return (
        [] if isinstance(thing, property) else [(p.name, p.kind) for p in inspect.signature(found).parameters.values()]
    )


@pytest.mark.parametrize(("protocol", "recorder"), RECORDERS)
def test_a_recorder_implements_every_method_of_its_launch(protocol: type, recorder: type) -> None:
    for name, specified in members(protocol).items():
        written = inspect.getattr_static(recorder, name)
        assert written is not specified, f"{recorder.__name__} inherits {name} without an implementation"
        assert parameters(written) == parameters(specified), name


def test_the_page_names_every_method_and_field() -> None:
    page = PAGE.read_text("utf-8")
    names = {n for protocol, _ in RECORDERS for n in members(protocol)} - {"__call__"} | {"workspace", "counters"}
    assert not {name for name in names if not re.search(rf"`launch\.{name}\b", page)}
    assert "`launch(kernel, " in page and all(f"`core.{protocol.__name__}`" in page for protocol, _ in RECORDERS)
