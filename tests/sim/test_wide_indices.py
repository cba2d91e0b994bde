"""No thread number and no loop over elements has 32 bits, in the texts of all shipped and foreign kernels."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

# --- sources ---------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
SOURCES = [p for name in ("ops", "plugins", "core") for p in sorted((ROOT / name).rglob("*.cu*")) if p.is_file()]
FOREIGN = ("races.md", "simulator.md", "judge.md", "native.md")  # their kernels are anybody's, without the prelude
# Puzzles teach the formula of a thread's number itself, on an int n that is small
TEACHING = ("plugins/course/puzzles/*", "core/cli/templates/course/puzzle.cu.in", "docs/course.md")
PAGES = [p for p in sorted((ROOT / "docs").glob("*.md")) if p.name not in FOREIGN]
NAMES = [str(p.relative_to(ROOT)) for p in [*SOURCES, *PAGES]]
TEXTS = {n: (ROOT / n).read_text("utf-8") for n in NAMES if not any(fnmatch.fnmatchcase(n, t) for t in TEACHING)}


@pytest.mark.parametrize("name", TEXTS)
def test_no_thread_number_and_no_loop_over_elements_is_of_32_bits(name: str) -> None:
    """The two ways to wrap that come back with every new kernel; a loop over all elements is too long to be run."""
    wraps = re.findall(r"(?<!\(u64\))blockIdx\.x \* (?:blockDim|gridDim).*", TEXTS[name])
    for kernel in re.split(r'(?=extern "C")', TEXTS[name]):
        for count in re.findall(r"\bu64 (\w+)[,)]", kernel.partition("{")[0]):
            wraps += re.findall(rf"\((?!u64 )\w+ (?:\w+) = [^;]*; \w+ < {count}\b.*", kernel)
    assert not wraps, "global_thread() and global_row() of the prelude, and u64 in loops over a u64, do not wrap"
