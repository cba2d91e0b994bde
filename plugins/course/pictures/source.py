"""Data of pictures: the variables of a page's own code, a kernel's accesses, the answer of a puzzle."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import core.sim
from core.testing.puzzle import Puzzle, load_puzzle

COURSE = Path(__file__).parents[1]


@cache
def page(name: str, stop: str) -> dict[str, Any]:
    """The variables of a page after its `python` blocks, up to the first that contains `stop`, have run."""
    text = (COURSE / "pages" / f"{name}.md").read_text("utf-8")
    space: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
            exec(compile(block, name, "exec"), space)
            if stop in block:
                return space
    raise ValueError(f"no block of {name} has {stop!r}")


def puzzle(name: str) -> tuple[Puzzle, str]:
    """A puzzle, and its solution."""
    loaded = load_puzzle(COURSE / "puzzles" / f"{name}.py")
    ending = "_answer.py" if loaded.task.suffix == ".py" else loaded.task.suffix
    return loaded, loaded.solution((COURSE / f"puzzles/{name}{ending}").read_text("utf-8"))


def accesses(
    source: str, kernel: str, grid: Any, block: Any, args: Sequence[Any], *, buffer: str, how: str, warp: int = 0
) -> list[Any]:
    """The accesses (core.sim.tape.WarpAccess) of a warp of thread block 0 to a buffer, in order."""
    tape = core.sim.run(source, kernel, grid, block, args, strict=False, tape=True).tape
    assert tape is not None
    steps = tape.steps(0, warp)
    return [a for step in steps for a in step.accesses if a.buffer == buffer and a.how == how]


def measured(name: str) -> Any:
    """A measurement of measured.json: see measured.py."""
    return json.loads((COURSE / "pictures/measured.json").read_text("utf-8"))[name]
