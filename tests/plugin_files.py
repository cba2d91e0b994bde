"""Plugins as files: an op, a variant, an installed distribution; and their refusal by its words."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import BuildError
from core.loader import load_registry

OP = """
from core import Op, Optimizer, Param, Reference, Schedule, Variant

{name} = Op("{name}", inputs={{"x": "... C"}}, outputs={{"y": "... C"}}, params={{"weight": Param("C")}},
            examples=[{{"x": (2, 3)}}])

class {name}_reference(Reference):
    op = "{name}"
    reads = ("x", "weight")

    def forward(self, t):
        t.y[...] = t.x * t.weight

    def backward(self, t):
        t.add("dx", t.dy * t.weight)

def core_ops():
    return [{name}]

OTHERS = []

def core_variants():
    return [{name}_reference, *OTHERS]
"""
VARIANT = """
class Other(Variant):
    op, name, device = "{op}", "other", "cuda"
    {fields}

    def forward(self, t, launch): ...
    def backward(self, t, launch): ...

OTHERS.append(Other)
"""
LONE_VARIANT = (  # for an op of another plugin
    "from core import Variant\nOTHERS = []\n"
    + VARIANT.format(op="alpha", fields="")
    + "def core_variants():\n    return OTHERS\n"
)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def op_plugin(path: Path, name: str = "alpha", more: str = "") -> Path:
    return write(path, OP.format(name=name) + more)


def variant_plugin(path: Path, fields: str = "", op: str = "alpha") -> Path:
    return op_plugin(path, more=VARIANT.format(op=op, fields=fields))


def install(site: Path, entry: str, module: str, text: str, distribution: str = "", version: str = "1.2") -> None:
    """A distribution with one entry point, as an installer would leave it."""
    distribution = distribution or f"corelm-{entry}"
    write(site / f"{module}.py", text)
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    write(info / "entry_points.txt", f"[corelm]\n{entry} = {module}\n")


def refused(path: Path, *words: str) -> BuildError:
    """Loading `path` is fatal, in one line that has all of `words` and the author's own file."""
    with pytest.raises(BuildError) as caught:
        load_registry([str(path)])
    text = str(caught.value)
    for word in words:
        assert word in text, text
    assert caught.value.exit_code == 3
    return caught.value
