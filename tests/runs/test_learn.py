"""`core learn`: a student's way through a puzzle, her folder, and courses that extend another one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core import cli
from core.cli.learn_desk import Desk, following
from core.errors import BuildError, UsageError
from core.learning.course import Course, Lesson, load_course
from core.learning.workbook import Workbook
from core.loader import load_registry

PUZZLE = """
from core.testing.puzzle import FunctionTask, Puzzle, WrongAnswer
PUZZLE = Puzzle("{title}", FunctionTask("twice", lambda x: 2 * x, cases=[{{"x": 1.0}}]), why="Since it is.", hints=[
    ("wrong", "Which number is it?"), ("not written", "Does it return one?")], wrong={{
    "three": WrongAnswer("wrong", ("2 * x", "3 * x")), "four": WrongAnswer("{four}", ("2 * x", "4 * x")),
    "none": WrongAnswer("not written", ("return", "_ =")),
}})
"""
ANSWER = "def twice(x):\n    #[ twice x\n    return 2 * x\n    #]\n"
FIRST = """
title = "First"
[[lesson]]
name = "01_one"
title = "One"
minutes = 5
puzzles = ["p01_two", "p02_two"]
[[lesson]]
name = "02_more"
title = "More"
"""
MINE = """
extends = "first"
title = "Mine"
lessons = ["02_more", "01_one"]
[[lesson]]
name = "01_one"
puzzles = ["p02_two"]
"""


def plugin(folder: Path, name: str, toml: str, puzzles: dict[str, str], pages: tuple[str, ...] = ()) -> Path:
    """A plugin with one course."""
    for part in ("pages", "puzzles"):
        (folder / name / part).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f'def core_courses():\n    return ["{name}.toml"]\n', "utf-8")
    (folder / name / f"{name}.toml").write_text(toml, "utf-8")
    for page in pages:
        (folder / name / "pages" / f"{page}.md").write_text(f"# Page {page}\n", "utf-8")
    for puzzle, text in puzzles.items():
        (folder / name / "puzzles" / f"{puzzle}.py").write_text(text, "utf-8")
        (folder / name / "puzzles" / f"{puzzle}_answer.py").write_text(ANSWER, "utf-8")
    return folder / name


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    text = PUZZLE.format(title="Twice", four="wrong")
    return plugin(tmp_path, "first", FIRST, {"p01_two": text, "p02_two": text}, ("01_one", "02_more"))


@pytest.fixture
def course(first: Path, tmp_path: Path) -> Course:
    mine = plugin(tmp_path, "mine", MINE, {"p02_two": PUZZLE.format(title="Other", four="race")})
    return load_course(load_registry([str(first), str(mine)]), "mine")


def test_a_student_starts_checks_reads_a_hint_and_is_right(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def learn(*words: str) -> tuple[int, str]:
        code = cli.run(["learn", *words, "--plugin", str(first), "--course", "first"])
        return code, "".join(capsys.readouterr())

    assert "LESSON" in learn("list")[1] and "next:\n  core learn show 1" in learn("list")[1]
    code, text = learn("start", "p01")
    assert code == 0 and "wrote course/p01_two.py" in text
    file = Path("course/p01_two.py")
    assert "...  # YOUR TURN: twice x" in file.read_text("utf-8")
    assert learn("start", "p01")[0] == 2 and "YOUR TURN" in file.read_text("utf-8")

    code, text = learn("check", "p01")
    assert code == 1 and "written   no   twice(...) is None" in text and "core learn hint p01" in text
    assert learn("hint", "p01") == (0, "Does it return one?\n")
    file.write_text("print('mine')\ndef twice(x):\n    return x + x\n", "utf-8")
    code, text = learn("check", "p01")
    assert code == 0 and "  | mine\n" in text and "right, at try 2" in text and "core learn start p02" in text
    assert "return 2 * x" in learn("solution", "p01")[1]
    assert "# Page 01_one" in learn("show", "1")[1]
    state = json.loads(learn("report", "--json")[1])
    assert state["solved"] == 1 and state["puzzles"]["p02_two"] == {}
    assert {k: state["puzzles"]["p01_two"][k] for k in ("tries", "hints", "solution")} == {
        "tries": 2, "hints": 1, "solution": True
    }  # fmt: skip
    assert sorted(path.name for path in Path("course").iterdir()) == ["p01_two.py", "progress.json"]


def test_a_folder_of_a_course_that_is_not_there_is_refused(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["learn", "start", "p01", "--plugin", str(first), "--course", "first"]) == 0
    assert cli.run(["learn", "list"]) == 2  # and does not show the shipped course as hers
    assert 'is of the course "first"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["check", "p01"], 2, "core learn start p01"),
        (["check", "p0"], 2, "begins several names: p01, p02"),
        (["start", "p2"], 2, 'did you mean "p02"'),
        (["check", "1"], 2, '"1" is a lesson; its puzzles: p01_two, p02_two'),
        (["show", "7"], 2, 'no lesson "7"'),
        (["list", "--course", "frist"], 2, 'did you mean "first"'),
        (["prove", "p01"], 0, "p01_two: 6 of 6"),
    ],
)
def test_a_name_that_does_not_fit_is_refused_with_the_next_step(
    first: Path, words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    course = [] if "--course" in words else ["--course", "first"]
    assert cli.run(["learn", *words, "--plugin", str(first), *course]) == code
    assert text in "".join(capsys.readouterr())


def test_the_next_step_leads_on_from_the_page_and_from_the_puzzle_where_she_is(tmp_path: Path) -> None:
    lessons = tuple(Lesson(f"0{n}_it", puzzles=(f"p{n}a_it", f"p{n}b_it")) for n in (1, 2, 3))
    at = Desk(Course("course", "", lessons, ()), Workbook(tmp_path))
    assert following(at) == "core learn show 1" and following(at, "02_it") == "core learn start p2a"
    at.book.progress = {"p1a_it": {"tries": 1}, "p2a_it": {"done": "today"}}
    assert following(at) == following(at, "01_it") == "core learn check p1a"
    assert following(at, solved="p2a_it") == "core learn start p2b"  # not back to what is under way elsewhere
    at.book.progress["p2b_it"] = {"done": "today"}
    assert following(at, solved="p2b_it") == "core learn show 3"
    at.book.progress |= {"p3a_it": {"done": "today"}, "p3b_it": {"done": "today"}}
    assert following(at, solved="p3b_it") == "core learn check p1a"
    at.book.progress |= {"p1a_it": {"done": "today"}, "p1b_it": {"done": "today"}}
    assert following(at) == following(at, "01_it") == "core learn report"


def test_prove_names_the_promise_that_is_broken(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = first / "puzzles/p01_two.py"
    file.write_text(PUZZLE.format(title="Twice", four="race"), "utf-8")
    assert cli.run(["learn", "prove", str(file)]) == 1
    out, err = capsys.readouterr()
    assert "p01_two  four: the finding is not 'race'" in out and "5 of 6 promises hold" in out
    assert "broken: p01_two four" in err


def test_a_course_extends_another_reorders_it_and_replaces_a_puzzle(course: Course, tmp_path: Path) -> None:
    assert [one.name for one in course.lessons] == ["02_more", "01_one"] and course.title == "Mine"
    assert course.lesson("1").minutes == 5 and list(course.puzzles) == ["p02_two"]  # the rest is the first course's
    assert course.puzzle_file("p02_two") == tmp_path / "mine/puzzles/p02_two.py"
    assert course.page(course.lesson("2")) == tmp_path / "first/pages/02_more.md"


@pytest.mark.parametrize(
    ("toml", "kind", "words"),
    [
        ('extends = "other"\n', UsageError, 'no course "other"'),
        ('extends = "mine"\n', BuildError, "circle: mine -> mine"),
        ('extends = "first"\nlessons = ["01_on"]\n', BuildError, 'did you mean "01_one"'),
        ('extend = "first"\n', BuildError, 'did you mean "extends"'),
        ('extends = "first"\n[[lesson]]\nname = "01_one"\npuzzle = []\n', BuildError, 'did you mean "puzzles"'),
        ('extends = "first"\n[[lesson]]\nname = "03"\n', BuildError, "no pages/03.md"),
        ("lesson = 3 3", BuildError, "mine.toml"),
    ],
)
def test_a_course_at_fault_is_refused(
    first: Path, tmp_path: Path, toml: str, kind: type[Exception], words: str
) -> None:
    mine = plugin(tmp_path, "mine", toml, {})
    with pytest.raises(kind) as raised:
        load_course(load_registry([str(first), str(mine)]), "mine")
    assert words in str(raised.value)
