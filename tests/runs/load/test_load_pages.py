"""The pages about one step and about other programs: their code runs, and their quotations are the ops' own."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


# --- the pages ---------------------------------------------------------------------------------------------------


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.DOTALL)


def test_the_page_about_one_step_runs_and_says_what_it_prints(capsys):
    text = (ROOT / "docs" / "step.md").read_text("utf-8")
    scope: dict[str, object] = {}
    for block in blocks("step.md"):
        exec(compile(block, "docs/step.md", "exec"), scope)  # noqa: S102
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    shown = [
        line.rstrip() for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    assert len(shown) >= 20
    missing = [line for line in shown if line != "..." and line not in printed]
    assert not missing


def test_the_lines_of_code_that_the_page_quotes_are_the_ops_own():
    quoted = re.findall(
        r"^\| `(ops/\w+\.py)` \| `([^`]+)` \|", (ROOT / "docs" / "step.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(quoted) >= 8
    for file, line in quoted:
        assert line in (ROOT / file).read_text("utf-8"), f"{file} has no line {line}"


def test_the_page_about_other_programs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks("interop.md"):
        exec(compile(block, "docs/interop.md", "exec"), {})  # noqa: S102
