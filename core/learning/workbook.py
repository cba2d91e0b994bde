"""A student's folder: her answers, and progress.json beside them. Nothing leaves it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import atomic_files
from core.errors import UsageError
from core.files import to_json
from core.outside import read_whole, reads
from core.testing.puzzle_types import Puzzle, PuzzleVerdict, answer_file, read_answer

PROGRESS = "progress.json"
LONGEST = 1 << 22  # bytes of it
SHORT = 200  # characters of the last finding that progress keeps


@dataclass
class Workbook:
    """A student's folder. progress: puzzle -> tries, dates, hints, the last finding."""

    folder: Path
    course: str = ""
    progress: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> Workbook:
        """The folder, which need not exist. Raises UsageError for a progress.json that cannot be read."""
        path = folder / PROGRESS
        if not path.exists():
            return cls(folder)
        with reads(UsageError, path):
            raw = read_whole(path, LONGEST)
        try:
            data = json.loads(raw)
            progress = {str(name): dict(state) for name, state in data["puzzles"].items()}
            return cls(folder, str(data["course"]), progress)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"{path}: no progress of a course", hint="move it away; the answers stay") from None

    def state(self, puzzle: str) -> dict[str, Any]:
        """The notes on a puzzle; empty for one that is not begun."""
        return self.progress.get(puzzle, {})

    def answer(self, puzzle: str, loaded: Puzzle) -> Path:
        """The file of her answer."""
        return self.folder / f"{puzzle}{loaded.task.suffix}"

    def start(self, puzzle: str, loaded: Puzzle, source: Path, course: str) -> list[Path]:
        """Write the files of a puzzle, and note it. Raises UsageError for one that is there, or cannot be written."""
        hole = loaded.hole(read_answer(answer_file(source, loaded.task)))
        files = {self.answer(puzzle, loaded): hole, **{self.folder / n: text for n, text in loaded.files.items()}}
        if there := next((path for path in files if path.exists()), None):
            raise UsageError(f"{there} is there already, and was not changed",
                             hint=f"core learn check {puzzle}, or move it away")  # fmt: skip
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path, text in files.items():
                path.write_text(text, "utf-8", newline="\n")
        except OSError as error:
            raise UsageError(f"cannot write {error.filename or self.folder}: {error.strerror}") from None
        self.course = course
        self.note(puzzle, started=today())
        return list(files)

    def tried(self, puzzle: str, verdict: PuzzleVerdict) -> int:
        """Note a verdict; the number of tries so far."""
        tries = int(self.state(puzzle).get("tries", 0)) + 1
        done = {"done": self.state(puzzle).get("done", today())} if verdict.accepted else {}
        self.note(puzzle, tries=tries, last=verdict.text[:SHORT], **done)
        return tries

    def note(self, puzzle: str, **values: Any) -> None:
        """Change the notes on a puzzle, on the disk too. Raises UsageError where the disk refuses."""
        self.progress.setdefault(puzzle, {}).update(values)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            data = to_json({"course": self.course, "puzzles": self.progress})
            atomic_files.replace(self.folder / PROGRESS, data)
        except OSError as error:
            raise UsageError(f"{self.folder / PROGRESS}: cannot be written: {error.strerror}") from None


def today() -> str:
    """The date of progress notes: 2026-11-29."""
    return time.strftime("%Y-%m-%d")
