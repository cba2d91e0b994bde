"""A training run on the cpu imports what it runs, without the simulator, the op check and launchers of kernels.

The run is a GPT-2 that validates, samples and saves, once its text is prepared; README has its counts of lines.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import small_run

import core
from core.cli import run

ROOT = Path(core.__file__).parents[1]
CODE = """
import json, sys, threading
codes = set()
def note(frame, event, _):
    if event == "call":
        codes.add(frame.f_code)
threading.setprofile(note)
sys.setprofile(note)
from core.cli import run
run(sys.argv[1:])
sys.setprofile(None)
files = {n: m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "core" and m.__file__}
print(json.dumps([files, [(code.co_filename, code.co_firstlineno) for code in codes]]))
"""
WITHOUT = ("core.sim", "core.testing", "core.kernels.nvrtc", "core.scalars", "core.ops.cuda", "core.plugins.nccl.")
CONTENT = ("core.ops", "core.plugins")
Calls = Collection[tuple[str, int]]  # file, first line of a function that was called


class PlainRun(NamedTuple):
    """files: module -> its file. calls: the functions that were called."""

    files: Mapping[str, str]
    calls: Calls


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> PlainRun:
    folder = tmp_path_factory.mktemp("run")
    small_run.write(folder, small_run.config(train={"steps": 2, "val_every": 2, "sample_every": 2}))
    words = ["train", "small.toml", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(words) == 0, "which prepares the text"
        done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=True)
    assert "done: 2 steps" in done.stdout and "sample at step 2" in done.stdout
    files, calls = json.loads(done.stdout.splitlines()[-1])
    return PlainRun(files, {(file, line) for file, line in calls})


def uncalled(tree: ast.AST, file: str, calls: Calls) -> Iterator[int]:
    """Lines of each function of a file that was never called; of nested ones the outermost counts."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(line.lineno for line in node.decorator_list)])
            if (file, first) not in calls:
                yield (node.end_lineno or first) - first + 1
                continue
        yield from uncalled(node, file, calls)


def stated(pattern: str) -> list[int]:
    """The numbers of a sentence of README."""
    match = re.search(pattern, (ROOT / "README.md").read_text("utf-8"))
    assert match is not None, pattern
    return [int(text.replace(",", "")) for text in match.groups()]


def test_a_run_on_the_cpu_imports_what_it_runs(plain_run: PlainRun) -> None:
    files = plain_run.files
    assert "core.train.loop" in files and not [name for name in files if name.startswith(WITHOUT)]
    lines = {name: len(Path(file).read_text("utf-8").splitlines()) for name, file in files.items()}
    own = {name: count for name, count in lines.items() if not name.startswith(CONTENT)}
    heaviest = ", ".join(f"{name} {count}" for name, count in sorted(own.items(), key=lambda row: -row[1])[:40])
    bounds = stated(r"at most ([\d,]+) lines of core/,\s+([\d,]+) with ops and plugins")
    for most, counts in zip(bounds, (own, lines), strict=True):
        total = sum(counts.values())
        assert total <= most, f"{total:,} lines are imported, README states at most {most:,}: {heaviest}"
        assert total > most - 1500, f"only {total:,} lines are imported: lower README's {most:,}"


def test_a_run_on_the_cpu_calls_what_it_imports(plain_run: PlainRun) -> None:
    """README's shares of the imported lines that are in functions without a call."""
    rows = {}
    for name, file in plain_run.files.items():
        text = Path(file).read_text("utf-8")
        rows[name] = (sum(uncalled(ast.parse(text), file, plain_run.calls)), len(text.splitlines()))
    own = {name: row for name, row in rows.items() if not name.startswith(CONTENT)}
    most_unused = ", ".join(f"{name} {idle}" for name, (idle, _) in sorted(own.items(), key=lambda r: -r[1][0])[:25])
    bounds = stated(r"At most (\d+)%\s+of\s+these\s+lines,\s+(\d+)%\s+with\s+ops\s+and\s+plugins")
    for most, counts in zip(bounds, (own, rows), strict=True):
        idle, lines = (sum(column) for column in zip(*counts.values(), strict=True))
        share = 100 * idle / lines
        assert share <= most, f"{idle:,} of {lines:,} lines, {share:.1f}%; README states at most {most}%: {most_unused}"
        assert share > most - 2, f"only {share:.1f}%: lower README's {most}%"


def test_functions_without_a_call_are_counted_once_with_their_decorators() -> None:
    text = "@cache\ndef a():\n    def b():\n        pass\n\n"
    text += "class C:\n    def d(self):\n        def e():\n            pass\n"
    assert list(uncalled(ast.parse(text), "f.py", ())) == [4, 3]
    assert list(uncalled(ast.parse(text), "f.py", {("f.py", 1)})) == [2, 3]
    assert list(uncalled(ast.parse(text), "f.py", {("f.py", 1), ("f.py", 7)})) == [2, 2]
