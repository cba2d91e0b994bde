"""Pictures of memory: the arena of a training step."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from typing import Any

from core.cli import run

from .drawing import EDGE, WIDTH, Canvas

ROLES = {  # role of a buffer -> its colour, and its name in the legend
    "saved": ("blue", "saved for backward"), "activation": ("green", "read in forward only"),
    "gradient": ("red", "gradients"), "workspace": ("violet", "workspaces"),
}  # fmt: skip
LEFT, TOP, BOTTOM = 88, 104, 386  # of the arena


def arena() -> str:
    """Lesson 8's arena: the buffers of `core plan tiny --device cpu --json`, for two threads."""
    plan = plan_of("tiny")
    buffers, steps = plan["buffers"], plan["steps"]
    size, total = plan["bytes"]["activations"], sum(b["bytes"] for b in buffers)
    turn = next(b["first"] for b in buffers if b["role"] == "gradient")
    c = Canvas(
        "The arena of a training step",
        f"Boxes over time and address, one for each of {len(buffers)} tensors, from its first to its last step. "
        f"Tensors that forward saves for backward stay longest: the boxes are nested, since the last result of forward "
        f"is the first that backward reads. The arena has {human(size)}; all tensors together would "
        f"take {human(total)}.",
        452,
    )  # fmt: skip
    c.headline(
        "A place is free again after its last reader",
        f"{human(size)} hold the {human(total)} of a step's tensors. Backward reads the last result first.",
    )
    wide, high = (WIDTH - EDGE - LEFT) / steps, (BOTTOM - TOP) / size
    middle, right = LEFT + wide * turn, WIDTH - EDGE
    for x, text in (((LEFT + middle) / 2, "forward →"), ((middle + right) / 2, "backward →")):
        c.text(x, TOP - 16, text, size=12.5, fill="dim", anchor="middle", bold=True)
    c.box(LEFT, TOP, right - LEFT, BOTTOM - TOP, "plain", r=0)
    for buffer in sorted(buffers, key=lambda b: -b["bytes"]):
        lifetime(c, buffer, steps, wide, high)
    for buffer in buffers:
        name_of(c, buffer, wide, high)
    c.line([(middle, TOP - 26), (middle, BOTTOM)], "dim", width=1, dash=True)
    for mib in range(0, size // 2**20 + 1, 10):
        y = BOTTOM - high * mib * 2**20
        c.line([(LEFT - 5, y), (LEFT, y)], "dim", width=1)
        c.text(LEFT - 9, y + 4, f"{mib}", size=11, fill="dim", anchor="end")
    c.text(EDGE + 12, (TOP + BOTTOM) / 2, "address, MiB", size=11.5, fill="dim", anchor="middle", turned=True)
    text = f"steps of one micro-step, 0 to {steps - 1}"
    c.text((LEFT + right) / 2, BOTTOM + 18, text, size=11.5, fill="dim", anchor="middle")
    c.legend(LEFT, BOTTOM + 46, ROLES.values(), size=11.5)
    return c.svg()


def lifetime(c: Canvas, buffer: Any, steps: int, wide: float, high: float) -> None:
    """A buffer's box. wide: of a step; high: of a byte. A box that is lower than half a pixel is left out."""
    h = high * buffer["bytes"]
    if h >= 0.6:
        x, y = LEFT + wide * buffer["first"], BOTTOM - high * (buffer["offset"] + buffer["bytes"])
        w, colour = wide * (min(buffer["last"], steps - 1) - buffer["first"] + 1), ROLES[buffer["role"]][0]
        c.box(x, y, w, max(h - 0.4, 0.6), f"{colour}-soft", colour, r=0, width=0.6)


def name_of(c: Canvas, buffer: Any, wide: float, high: float) -> None:
    """The name of a buffer whose box is high enough for it."""
    x, y = LEFT + wide * buffer["first"], BOTTOM - high * (buffer["offset"] + buffer["bytes"] / 2)
    if buffer["role"] == "saved" and buffer["bytes"] * high >= 12:
        c.text(x + 4, y + 3.5, buffer["name"].replace("h.", "layer ").replace(".", " "), size=10)
    elif buffer["role"] == "workspace" and buffer["bytes"] * high > 20:
        c.text(x + 12, y + 4, "scores of the loss, a chunk at a time", size=10, fill="violet")


def human(count: int) -> str:
    """Bytes in MiB."""
    return f"{count / 2**20:.1f} MiB"


def plan_of(config: str) -> Any:
    """`core plan CONFIG --device cpu --json`, for two threads, whatever this machine has."""
    with threads("2"), contextlib.redirect_stdout(io.StringIO()) as printed:
        run(["plan", config, "--device", "cpu", "--json"])
    return json.loads(printed.getvalue())


@contextlib.contextmanager
def threads(count: str) -> Iterator[None]:
    """CORELM_THREADS for a while."""
    before = os.environ.get("CORELM_THREADS")
    os.environ["CORELM_THREADS"] = count
    try:
        yield
    finally:
        del os.environ["CORELM_THREADS"]
        os.environ.update({} if before is None else {"CORELM_THREADS": before})
