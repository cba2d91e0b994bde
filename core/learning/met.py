"""The table of a course: the lessons that meet each op, sub-check and kind of KernelError.

- An op is met where a page or a puzzle names it (`op = "NAME"`, `core check NAME`, `ops/cuda/NAME.cu`), shows lines of
  its file, or runs a model that has it.
- A sub-check or a kind is met where a page prints it, or where a wrong answer of a puzzle is refused with it: the
  declared finding names it, and `core learn prove` holds it to that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import core
from core.config.shipped import shipped
from core.learning.course import Course, Lesson
from core.learning.lesson_page import read_page
from core.registry import Registry
from core.sim.faults import KINDS
from core.testing.checks import MEANING
from core.testing.puzzle_types import answer_file, load_puzzle, read_answer
from core.testing.python_tasks import OpTask

NAMED = (  # with the op's name
    r'op="{0}"|op = "{0}"|core (?:check|trace|ops|bench|new variant) {0}\b|'
    r"ops(?:/\w+)?/{0}\.(?:py|cu)|`{0}(?:\.\w+)?`"
)
LOADED = r'core\.load\("([\w./]+)"|core (?:train|plan|bench|view) ([\w./]+)'
SHOWN = r"^```python (\S+\.py)$"
MADE = r'(?:op = |Op\(\s*)"(\w+)"'
MODEL = r'^(?:model|extends) *= *"(\w+)"'


class LessonContents:
    """A lesson's page and puzzles, as text, and the findings of its wrong answers: of ops, and of kernels."""

    def __init__(self, course: Course, lesson: Lesson) -> None:
        self.label = lesson.number or lesson.name
        self.page = read_page(course.page(lesson))
        self.op_findings: list[str] = []
        self.kernel_findings: list[str] = []
        texts = [self.page]
        for name in lesson.puzzles:
            file = course.puzzle_file(name)
            puzzle = load_puzzle(file)
            texts += [read_answer(file), read_answer(answer_file(file, puzzle.task))]
            findings = [wrong.finding for wrong in puzzle.wrong.values() if "|" not in wrong.finding]  # one of several
            (self.op_findings if isinstance(puzzle.task, OpTask) else self.kernel_findings).extend(findings)
        self.text = "\n".join(texts)

    def names(self, op: str) -> bool:
        """Whether a page or a puzzle names an op."""
        return re.search(NAMED.format(re.escape(op)), self.text) is not None

    def prints(self, kind: str) -> bool:
        """Whether the page has a kind of fault as output, or as a word of code."""
        return re.search(rf"^{kind}$|`{kind}`|: {kind}: ", self.page, re.MULTILINE) is not None

    def ops_of_files(self, registry: Registry) -> set[str]:
        """The ops of the models that the lesson loads, plans or trains, and of the files whose lines its page has."""
        loaded = [a or b for a, b in re.findall(LOADED, self.text)]
        files = [file for name in loaded for file in model_files(name, registry)]
        roots = [root for path in core.__path__ for root in (Path(path), Path(path).parent)]
        shown = re.findall(SHOWN, self.page, re.MULTILINE)
        files += [root / name for name in shown for root in roots if (root / name).is_file()]
        return {op for file in files for op in re.findall(MADE, file.read_text("utf-8"))}


def model_files(name: str, registry: Registry) -> Iterator[Path]:
    """The TOML file of a model, or of a shipped config's model, and those of the models that it extends."""
    if name in registry.models:
        path: Path | None = registry.models[name].path
        yield registry.models[name].path
    else:
        path = shipped(name)
    for other in re.findall(MODEL, path.read_text("utf-8"), re.MULTILINE) if path is not None else ():
        yield from model_files(other, registry)


class MetTable:
    """The table of one course."""

    def __init__(self, course: Course, registry: Registry) -> None:
        self.course, self.registry = course, registry

    @cached_property
    def lessons(self) -> list[LessonContents]:
        """The lessons, in their order."""
        return [LessonContents(self.course, lesson) for lesson in self.course.lessons]

    def labels(self, meets: Iterable[bool]) -> str:
        """The numbers of the lessons that meet something: "2, 4"; "" for none."""
        return ", ".join(lesson.label for lesson, met in zip(self.lessons, meets, strict=True) if met)

    def ops(self) -> Iterator[tuple[str, str, str]]:
        """(op, its line, lessons) of every registered op."""
        of_files = [lesson.ops_of_files(self.registry) for lesson in self.lessons]
        for name, op in sorted(self.registry.ops.items()):
            meets = (one.names(name) or name in ops for one, ops in zip(self.lessons, of_files, strict=True))
            yield name, op.doc.partition("\n")[0], self.labels(meets)

    def checks(self) -> Iterator[tuple[str, str, str]]:
        """(sub-check, meaning, lessons)."""
        for name, meaning in MEANING.items():
            yield name, meaning, self.labels(declared(one.op_findings, name) for one in self.lessons)

    def kinds(self) -> Iterator[tuple[str, str, str]]:
        """(kind of fault, meaning, lessons)."""
        for name, meaning in KINDS.items():
            meets = (one.prints(name) or declared(one.kernel_findings, name) for one in self.lessons)
            yield name, meaning, self.labels(meets)

    def text(self) -> str:
        """The table as Markdown."""
        lines = [
            "# The course by op and by finding",
            "",
            "`core learn table` prints this page. A lesson meets an op that it names, shows or runs, and a finding",
            "that it prints or that refuses one of its wrong answers.",
            *section("Ops", "op", list(self.ops())),
            *section("Sub-checks of `core check`", "sub-check", list(self.checks())),
            *section("Kinds of `KernelError`", "kind", list(self.kinds())),
        ]
        return "\n".join(lines) + "\n"


def declared(findings: Sequence[str], kind: str) -> bool:
    """Whether a declared finding of wrong answers names a sub-check or a kind of fault."""
    return any(re.search(rf"(?:^|: |\^){kind}\b", finding) for finding in findings)


def section(title: str, head: str, rows: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """The rows that are met as a table, then a sentence with the names of the others."""
    yield from ("", f"## {title}", "", f"| {head} | meaning | lessons |", "|---|---|---|")
    yield from (f"| `{name}` | {meaning} | {lessons} |" for name, meaning, lessons in rows if lessons)
    missing = [f"`{name}`" for name, _, lessons in rows if not lessons]
    if missing:
        yield from ("", f"In no lesson: {', '.join(missing)}.")
