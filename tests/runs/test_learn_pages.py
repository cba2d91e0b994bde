"""`core learn show --open`, `notebook`, `pictures` and `check --all`: pages for readers, teachers and authors."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from core import cli
from core.learning.course import load_course
from core.learning.lesson_page import for_terminal
from core.learning.notebook import notebook
from core.loader import load_registry
from core.testing.puzzle import load_puzzle

PUZZLE = """
from core.testing.puzzle import FunctionTask, Puzzle, WrongAnswer
PUZZLE = Puzzle("Twice", FunctionTask("twice", lambda x: 2 * x, cases=[{"x": 1.0}]), hints=[], wrong={
    str(n): WrongAnswer("wrong", ("2 * x", f"{n} * x")) for n in (3, 4, 5)})
"""
PAGE = """# 1. One

A [link](../mine.toml#top), [a lost one](nowhere.md) and <https://example.org/>.

```python
print(2 * 21)
```

```text
42
```

```python mine.toml
title = "Mine"
```

![Two lines, part[1]
of them thin.](pictures/lines.svg)

```sh
core learn start p01
core learn list
core ops gelu
```
"""
PICTURES = 'PICTURES = {"lines": lambda: "<svg/>\\n", "broken": lambda: 1 / 0}\n'


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin with a course of one lesson and two puzzles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("core.cli.view.has_display", lambda: False)
    files = {
        "__init__.py": 'def core_courses():\n    return ["mine.toml"]\n',
        "mine.toml": 'title = "Mine"\n[[lesson]]\nname = "01_one"\ntitle = "A < B"\npuzzles = ["p01_two", "p02_two"]\n',
        "pages/01_one.md": PAGE,
        "pages/pictures/lines.svg": "<svg/>\n",
        "pictures.py": PICTURES,
    }
    for puzzle in ("p01_two", "p02_two"):
        files[f"puzzles/{puzzle}.py"] = PUZZLE
        files[f"puzzles/{puzzle}_answer.py"] = "def twice(x):\n    #[ twice x\n    return 2 * x\n    #]\n"
    for name, text in files.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(text, "utf-8")
    return tmp_path / "mine"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grades answers in this process: tests/sim/test_puzzle.py has the process with its limits."""
    monkeypatch.setattr("core.cli.learn.warm", lambda imports: None)
    monkeypatch.setattr(
        "core.cli.learn.grade", lambda puzzle, answer, imports: load_puzzle(puzzle).task.verdict(answer)
    )


def learn(*words: str) -> tuple[int, str]:
    """Exit code and output of `core learn`, of the course of `mine`."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        code = cli.run(["learn", *words, "--plugin", "mine", "--course", "mine"])
    return code, out.getvalue()


def test_a_terminal_shows_the_description_of_a_picture() -> None:
    shown = for_terminal(PAGE)
    assert "[picture pictures/lines.svg]\n    Two lines, part[1] of them thin.\n" in shown and "![" not in shown


def test_a_page_opens_as_one_file_with_its_pictures_output_and_links_that_lead_somewhere(mine: Path) -> None:
    code, said = learn("show", "1", "--open")
    assert code == 0 and "no browser was opened" in said
    html = Path("course/pages/01_one.html").read_text("utf-8")
    assert "<title>A &lt; B</title>" in html and 'src="data:image/svg+xml;base64,PHN2Zy8+Cg=="' in html
    assert 'alt="Two lines, part[1] of them thin."' in html and '<pre class="output"><code>42' in html
    assert f'<a href="{(mine / "mine.toml").as_uri()}#top">' in html and "<a>a lost one</a>" in html
    assert re.findall(r'(?:href|src)="(https?:[^"]*)"', html) == ["https://example.org/"]


def test_a_notebook_has_code_with_its_output_commands_and_a_cell_for_each_puzzle(mine: Path) -> None:
    assert learn("notebook", "1")[0] == 0
    book = json.loads(Path("course/01_one.ipynb").read_text("utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    sources = ["".join(cell["source"]) for cell in book["cells"]]
    code = book["cells"][sources.index("print(2 * 21)")]
    assert code["outputs"] == [{"output_type": "stream", "name": "stdout", "text": ["42\n"]}]
    text = next(source for source in sources if "](data:image/svg+xml;base64,PHN2Zy8+Cg==)" in source)
    assert "```python mine.toml\n" in text, "lines of a file are shown, and do not run"
    assert "!core ops gelu" in sources and "!core learn start p01_two --into ." in sources
    assert "%%writefile p02_two.py\ndef twice(x):\n    ...  # YOUR TURN: twice x" in sources
    assert learn("notebook")[0] == 2, "a student's notebook is hers"


COURSE = load_course(load_registry(), "course")


def ran(cell: dict[str, Any], space: dict[str, Any]) -> str:
    """The output of a cell of code, run as Jupyter does: `!` commands, `%%writefile`, Python."""
    source = "".join(cell["source"])
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        if source.startswith("%%writefile "):
            head, _, text = source.partition("\n")
            Path(head.split()[1]).write_text(text + "\n", "utf-8")
        elif source.startswith("!"):
            for line in source.splitlines():
                assert cli.run(shlex.split(line)[1:]) == int(line.startswith("!core learn check")), "a hole is refused"
        else:
            exec(compile(source, "cell", "exec"), space)
    return out.getvalue()


@pytest.mark.parametrize("number", [lesson.number for lesson in COURSE.lessons])
def test_the_code_of_every_notebook_is_python_commands_or_a_file(number: str) -> None:
    cells = [cell for cell in notebook(COURSE, COURSE.lesson(number))["cells"] if cell["cell_type"] == "code"]
    assert any(cell["outputs"] for cell in cells)
    for source in ("".join(cell["source"]) for cell in cells):
        if not source.startswith(("!core ", "%%writefile ")):
            compile(source, "cell", "exec")


def test_the_cells_of_a_notebook_run_and_print_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: None
) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    for cell in notebook(COURSE, COURSE.lesson("1"))["cells"]:
        if cell["cell_type"] == "code":
            printed = ran(cell, space)
            wanted = "".join("".join(output["text"]) for output in cell["outputs"])
            assert printed == wanted or "".join(cell["source"]).startswith(("!", "%%"))
    assert Path("x01_graph.py").is_file() and json.loads(Path("progress.json").read_text("utf-8"))["puzzles"]


def test_all_answers_are_checked_at_once_and_a_wrong_one_counts_as_no_try(mine: Path, here: None) -> None:
    assert learn("check", "--all")[0] == 2, "no answer yet"
    assert learn("start", "p01")[0] == learn("start", "p02")[0] == 0
    Path("course/p01_two.py").write_text("def twice(x):\n    return x + x\n", "utf-8")
    code, said = learn("check", "--all")
    assert code == 1 and "1 of 2 answers are right" in said and "not right yet: p02_two" in said
    assert re.search(r"^p01_two +right .* -$", said, re.M) and re.search(r"^p02_two +written .*is None", said, re.M)
    notes = json.loads(learn("report", "--json")[1])["puzzles"]
    assert "done" in notes["p01_two"] and "tries" not in notes["p02_two"]
    Path("course/p02_two.py").write_text("def twice(x):\n    return 2 * x\n", "utf-8")
    assert learn("check", "--all")[0] == 0
    assert learn("check")[0] == learn("check", "p01", "--all")[0] == 2


def test_pictures_are_drawn_again_compared_and_refused_by_name(mine: Path) -> None:
    assert "unchanged" in learn("pictures", "lines", "--check")[1]
    file = mine / "pages/pictures/lines.svg"
    file.write_text("old", "utf-8")
    code, said = learn("pictures", "lines", "--check")
    assert code == 1 and "differs" in said and file.read_text("utf-8") == "old"
    assert learn("pictures", "lines")[0] == 0 and file.read_text("utf-8") == "<svg/>\n"
    assert 'did you mean "lines"' in learn("pictures", "line")[1]
    code, said = learn("pictures", "broken")
    assert code == 3 and "ZeroDivisionError" in said and "Traceback" not in said
    (mine / "pictures.py").unlink()
    assert "has no pictures.py" in learn("pictures")[1]


def test_the_readmes_first_screen_leads_to_the_course() -> None:
    screen = (Path(cli.__file__).parents[2] / "README.md").read_text("utf-8").splitlines()[:20]
    assert any("Never seen a gradient? `core learn`" in line for line in screen)
