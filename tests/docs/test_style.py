"""Style: ruff and mypy --strict find nothing, where they are installed (`pip install -e ".[dev]"`); short
files and functions."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from parsed import nodes_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=lambda words: "-".join(words)
)
def test_style(command: list[str]) -> None:
    if not importlib.util.find_spec(command[0]):
        pytest.skip(f"{command[0]} is not installed: pip install -e '.[dev]'")
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


TEXTS = {".c", ".cu", ".cuh", ".css", ".h", ".in", ".js", ".json", ".md", ".py", ".toml"}


def conflicts(path: Path) -> Iterator[str]:
    """file:line of each mark that an unresolved merge leaves."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if re.match(r"(<{7}|>{7}|\|{7}) ", line):
            yield f"{path}:{number}"


def test_no_file_has_marks_of_a_merge() -> None:
    folders = ("benchmarks", "configs", "core", "docs", "models", "ops", "plugins", "tests")
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in TEXTS]
    assert not [place for path in (*ROOT.glob("*.*"), *inside) if path.suffix in TEXTS for place in conflicts(path)]


def test_marks_of_a_merge_are_found(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    file.write_text("<" * 7 + " HEAD\na\n" + "=" * 7 + "\nb\n" + ">" * 7 + " c0ffee (A change)\n")
    assert [place.rpartition(":")[2] for place in conflicts(file)] == ["1", "5"]


FILE_LINES = 400


def long_files(folder: Path) -> list[str]:
    """name (lines) of each Python file that is longer than FILE_LINES."""
    lengths = {path: path.read_text("utf-8").count("\n") for path in sorted(folder.rglob("*.py"))}
    return [f"{path} ({lines})" for path, lines in lengths.items() if lines > FILE_LINES]


@pytest.mark.parametrize("folder", ["benchmarks", "core", "ops", "plugins", "tests"])
def test_a_file_has_at_most_400_lines(folder: str) -> None:
    assert not long_files(ROOT / folder), "a file has one subject: move one of two to a file of its own"


def test_long_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n" * 400)
    (tmp_path / "b.py").write_text("x = 1\n" * 401)
    assert [name.rpartition("/")[2] for name in long_files(tmp_path)] == ["b.py (401)"]


LINES = 50  # of a function, from `def` to its last line


def long_functions(path: Path) -> Iterator[str]:
    """file:line: name (lines) of each function that is longer than a screen."""
    for node in nodes_of(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LINES:
                yield f"{path}:{node.lineno}: {node.name} ({lines})"


def test_a_function_fits_on_a_screen() -> None:
    paths = [path for folder in ("core", "ops", "plugins") for path in (ROOT / folder).rglob("*.py")]
    assert not [name for path in paths for name in long_functions(path)]


def test_long_functions_are_found(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("def f():\n" + "    x = 1\n" * 49 + "\n\ndef g():\n" + "    x = 1\n" * 50)
    assert [name.rpartition(": ")[2] for name in long_functions(file)] == ["g (51)"]
