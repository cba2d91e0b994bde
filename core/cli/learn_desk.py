"""The desk of `core learn`: the course and the student's folder of a command line, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from core.cli.show import F, plugin_option
from core.errors import UsageError
from core.learning.course import Course, load_course
from core.learning.workbook import PROGRESS, Workbook
from core.loader import load_registry
from core.testing.puzzle_types import Puzzle, load_puzzle

FOLDER = Path("course")  # a student's, where she works


class Desk(NamedTuple):
    """The course and the student's folder of a command line. options: those of the line, for the next command."""

    course: Course
    book: Workbook
    options: str = ""

    def next_line(self, *words: str) -> str:
        """A command that a student types next, with the options of this line."""
        return " ".join(["core learn", *words]) + self.options

    def open(self, name: str) -> tuple[str, Puzzle, Path]:
        """(name, puzzle, its file) of a puzzle, by its name or the beginning of it."""
        name = self.course.puzzle(name)
        file = self.course.puzzle_file(name)
        return name, load_puzzle(file), file


def desk_options(function: F) -> F:
    """`--into DIR`, `--course NAME` and `--plugin PATH`."""
    function = click.option("--course", default="", metavar="NAME", help="The course.  [default: of the folder]")(
        plugin_option(function)
    )
    return click.option(
        "--into",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder of your answers.  [default: ./course]",
    )(function)


def desk(into: Path | None, course: str, plugin: Sequence[str]) -> Desk:
    """The desk of a command's options: without --into the working directory, if it has a progress.json.

    Raises UsageError for a folder whose course is not there.
    """
    here = Path() if Path(PROGRESS).is_file() else FOLDER
    book = Workbook.open(into if into is not None else here)
    registry = load_registry(plugin)
    lines = [*(["--into", str(into)] if into else []), *(["--course", course] if course else [])]
    lines += [word for path in plugin for word in ("--plugin", path)]
    if book.course and not course and book.course not in registry.courses:
        raise UsageError(
            f'{book.folder / PROGRESS} is of the course "{book.course}", which no plugin brings here',
            hint="--plugin FOLDER loads the course's plugin; --course NAME takes another course",
        )
    options = "".join(f" {shlex.quote(word)}" for word in lines)
    return Desk(load_course(registry, course or book.course), book, options)


def following(at: Desk, reads: str = "", solved: str = "") -> str:
    """The command that a student types next: for a puzzle under way, a lesson's page, or the next puzzle.

    reads: the lesson whose page she has; solved: the puzzle that she has just solved. Both lead on from there, as far
    as a puzzle of that lesson or of a later one is open.
    """
    left = [p for p in at.course.puzzles if "done" not in at.book.state(p)]
    if not left:
        return at.next_line("report")
    here = at.course.puzzles[solved].name if solved else reads
    names = [one.name for one in at.course.lessons]
    start = names.index(here) if here else 0
    ahead = [p for p in left if names.index(at.course.puzzles[p].name) >= start]
    near = [p for p in ahead if at.course.puzzles[p].name == here] if ahead and here else left
    if begun := [p for p in near if at.book.state(p)]:
        return at.next_line("check", short(at.course, begun[0]))
    puzzle = (ahead or left)[0]
    lesson = at.course.puzzles[puzzle]
    if lesson.name == here or puzzle != lesson.puzzles[0]:
        return at.next_line("start", short(at.course, puzzle))
    return at.next_line("show", lesson.number or lesson.name)


def short(course: Course, puzzle: str) -> str:
    """The beginning of a puzzle's name, if it names no other."""
    start = puzzle.partition("_")[0]
    return start if sum(one.startswith(start) for one in course.puzzles) == 1 else puzzle
