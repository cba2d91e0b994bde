"""A plugin with an op, its reference and a variant that is wrong from column 40 on; a model and a config of its."""

from __future__ import annotations

from pathlib import Path

import small_graph
import small_run

from core.cli import run as core_command

SHORT = """
from core import Reference, Variant
from core import Op
import numpy as np

total = Op("total", inputs={"x": "... C"}, outputs={"y": "... C"}, examples=[{"x": (3, 7)}, {"x": (2, 5, 33)}])

class TotalReference(Reference):
    op = "total"
    def forward(self, t):
        t.y[...] = t.x * 2
    def backward(self, t):
        t.add("dx", t.dy * 2)

class Short(Variant):
    op, name, device, dtypes, can_add, priority = "total", "short", "cpu", ("f32",), ("x",), PRIORITY
    def forward(self, t, launch):
        launch.call(lambda: np.multiply(t.x, 2, out=t.y))
        FORWARD
    def backward(self, t, launch):
        launch.call(lambda: t.add("dx", t.dy * 2))
        BACKWARD

def core_ops():
    return [total]

def core_variants():
    return [TotalReference, Short]
"""
WRONG = {
    "FORWARD": "launch.call(lambda: t.y[..., 40:].fill(7))",
    "BACKWARD": "launch.call(lambda: t.dx[..., 40:].fill(7))",
}
MODEL = small_graph.toml(
    'twice = { op = "total", in = "wte" }\ny = { op = "matmul", in = "twice", features = "V" }',
    sizes={"B": 2, "T": 4, "V": 257},
    dims="C = 16",
)
CONFIG = small_run.unwatched(model="model.toml", dims=None, train={"steps": 1, "tokens_per_step": 8})


def plugin(name: str, priority: int, *wrong: str) -> str:
    """A plugin whose variant is wrong from column 40 on, beyond the op's examples, in the named directions."""
    text = SHORT.replace("PRIORITY", str(priority))
    for direction, fault in WRONG.items():
        text = text.replace(direction, fault if direction in wrong else "pass")
    Path(name).write_text(text)
    return name


def train(name: str, *words: str) -> int:
    return core_command(["train", "run.toml", "--device", "cpu", "--plugin", name, *words])
