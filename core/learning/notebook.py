"""A lesson as a Jupyter notebook: its page, its code with the output that the page shows, and a cell for each puzzle.

The notebook format 4.5 is JSON, written here. Pictures are inside the cells, so that a notebook is one file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.learning.course import Course, Lesson
from core.learning.lesson_page import PICTURE, parts, read_page, with_pictures_inside
from core.testing.puzzle_types import answer_file, load_puzzle, read_answer

Cell = dict[str, Any]
INSTALLED = """import importlib.util

if importlib.util.find_spec("core") is None:
    raise SystemExit("install corelm first, from its checkout or its wheel: %pip install PATH")
"""
# commands of a page in whose place a puzzle has cells of its own
OF_PUZZLES = tuple(f"core learn {verb}" for verb in ("list", "start", "check", "hint"))


def notebook(course: Course, lesson: Lesson) -> dict[str, Any]:
    """The notebook of a lesson, whose answers are in its own folder.

    Raises UsageError and BuildError for a page or a puzzle that cannot be read.
    """
    page = course.page(lesson)
    cells = [code(INSTALLED), *page_cells(read_page(page), page)]
    for name in lesson.puzzles:
        cells += puzzle_cells(name, course.puzzle_file(name))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    about = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": about, "language_info": {"name": "python"}, "title": lesson.title}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def page_cells(text: str, page: Path) -> Iterator[Cell]:
    """A page's cells: text, code with its output, commands. Lines of the product stay a part of the text."""
    words, last = "", None
    for part in parts(text):
        if part.words == "text" and last is not None:
            last["outputs"] = [{"output_type": "stream", "name": "stdout", "text": lines(part.text)}]
        elif part.words in ("python", "sh"):
            source = part.text if part.words == "python" else commands(part.text)
            if words.strip():
                yield markdown(words, page)
            words = ""
            if source:
                last = code(source)
                yield last
        else:
            words += part.fenced
    if words.strip():
        yield markdown(words, page)


def puzzle_cells(name: str, file: Path) -> Iterator[Cell]:
    """Cells that start a puzzle, hold its answer to be edited, and check it."""
    puzzle = load_puzzle(file)
    hole = puzzle.hole(read_answer(answer_file(file, puzzle.task)))
    text = f"## {name}: {puzzle.title}\n\nRun the first cell once, change the second one, and run it and the third one."
    yield markdown(text, file)
    yield code(f"!core learn start {name} --into .")
    yield code(f"%%writefile {name}{puzzle.task.suffix}\n{hole}")
    yield code(f"!core learn check {name} --into .")
    yield code(f"!core learn hint {name} --into .")


def commands(block: str) -> str:
    """The commands of a page, without those of the puzzles' own cells."""
    return "".join(f"!{line}\n" for line in block.splitlines() if line.strip() and not line.startswith(OF_PUZZLES))


def markdown(text: str, page: Path) -> Cell:
    """A cell of text, with its pictures inside."""
    text = with_pictures_inside(text, page) if PICTURE.search(text) else text
    return {"cell_type": "markdown", "metadata": {}, "source": lines(text.strip())}


def code(text: str) -> Cell:
    """A cell of code that has not run."""
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": lines(text.rstrip())}


def lines(text: str) -> list[str]:
    """A text as the format has it: a list of lines, each with its end."""
    return text.splitlines(keepends=True)
