"""Every puzzle keeps its promises: the solution passes, each wrong answer is refused as declared, with a hint."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.learning import load_course
from core.testing import load_registry
from core.testing.puzzle import load_puzzle, prove

PUZZLES = sorted((Path(__file__).parents[1] / "puzzles").glob("*.py"))
PUZZLES = [path for path in PUZZLES if not path.stem.endswith("_answer")]
WRONG = 3  # answers of a puzzle that are proved here, its start among them; `core learn prove` proves them all


@pytest.mark.parametrize("path", PUZZLES, ids=lambda path: path.stem)
def test_a_puzzle_keeps_its_promises(path: Path) -> None:
    puzzle = load_puzzle(path)
    some = {"(solution)", "(hole)", puzzle.start, *list(puzzle.wrong)[:WRONG]}
    proofs = list(prove(path, here=True, only=some.__contains__))
    assert len(proofs) >= 2 + WRONG
    assert not [(p.answer, p.fault, p.verdict.text) for p in proofs if not p.holds]


def test_the_places_of_bugs_are_sections_of_the_page_on_races() -> None:
    page = Path(__file__).parents[3] / "docs/races.md"
    if not page.is_file():
        pytest.skip("an installed course has no docs/")
    places = [puzzle.place for puzzle in map(load_puzzle, PUZZLES) if puzzle.place]
    sections = [match[1] for place in places if (match := re.search(r"docs/races\.md, ([^)]+)\)", place))]
    assert len(sections) >= 5 and all(f"## {name}\n" in page.read_text("utf-8") for name in sections)


def test_27_puzzles_are_kernels_and_seven_are_bugs_five_of_them_of_kinds_that_are_published() -> None:
    loaded = {path.stem: load_puzzle(path) for path in PUZZLES}
    assert [name[:3] for name in loaded if name.startswith("p")] == [f"p{number:02}" for number in range(1, 28)]
    bugs = [puzzle for puzzle in loaded.values() if puzzle.bug]
    assert len(bugs) == 7 and sum(bool(puzzle.place) for puzzle in bugs) >= 5


def test_the_index_lists_every_puzzle_with_its_lesson_and_the_places_of_bugs() -> None:
    page = Path(__file__).parents[3] / "docs/course.md"
    if not page.is_file():
        pytest.skip("an installed course has no docs/")
    course, puzzles = load_course(load_registry(), "course"), {path.stem: load_puzzle(path) for path in PUZZLES}
    rows = [
        f"| {lesson.number} | `{name.partition('_')[0]}` | {puzzles[name].title} | {puzzles[name].minutes} min |"
        for name, lesson in course.puzzles.items()
    ]
    places = [
        f"| `{name.partition('_')[0]}` | {puzzles[name].place.partition(' (docs/races.md')[0]} |"
        for name in course.puzzles if puzzles[name].place
    ]  # fmt: skip
    text = page.read_text("utf-8")
    assert "\n".join(rows) in text and "\n".join(places) in text
