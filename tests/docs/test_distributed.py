"""The tables of docs/distributed.md are those that benchmarks/scale.py computes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_are_those_of_the_formulas() -> None:
    specification = importlib.util.spec_from_file_location("benchmarks_scale", ROOT / "benchmarks/scale.py")
    assert specification is not None and specification.loader is not None
    scale = sys.modules["benchmarks_scale"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(scale)
    page = (ROOT / "docs/distributed.md").read_text("utf-8")
    assert "\n".join(scale.memory_table()) in page
    assert "\n".join(scale.efficiency_table()) in page
