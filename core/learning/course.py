"""Courses: a TOML file of lessons, with the pages and puzzles beside it. A course may extend another one: reorder its
lessons, leave some out, change them, add to them, and replace a page or a puzzle by a file of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import tomli

from core.errors import BuildError, UsageError, did_you_mean
from core.outside import read_whole, reads
from core.registry import CourseFile, Registry

LONGEST = 1 << 20  # bytes of a course's file
KEYS = ("title", "extends", "lessons", "lesson")
PAGES, PUZZLES = "pages", "puzzles"


@dataclass(frozen=True)
class Lesson:
    """A lesson. name: the stem of its page. needs: names of lessons before it. puzzles: names, in their order."""

    name: str
    title: str = ""
    minutes: int = 0
    needs: tuple[str, ...] = ()
    puzzles: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        """The digits that its name begins with: "9" of "09_first_kernels"; "" without."""
        digits = self.name.partition("_")[0]
        return str(int(digits)) if digits.isdigit() else ""


@dataclass(frozen=True)
class Course:
    """A course, whole. folders: the places of its pages and puzzles, its own first. Look-ups accept the
    beginning of a name: "p07", a lesson's number; they raise UsageError with the nearest name."""

    name: str
    title: str
    lessons: tuple[Lesson, ...]
    folders: tuple[Path, ...]
    origins: tuple[str, ...] = field(default=())

    @property
    def puzzles(self) -> dict[str, Lesson]:
        """Puzzle -> its lesson, in the order of the course."""
        return {name: lesson for lesson in self.lessons for name in lesson.puzzles}

    def lesson(self, name: str) -> Lesson:
        """A lesson by its name, the beginning of it, or its number."""
        wanted = name.lstrip("0") or name
        by_number = [one for one in self.lessons if one.number == wanted]
        matching = by_number or [one for one in self.lessons if one.name == name] or [
            one for one in self.lessons if one.name.startswith(name)
        ]  # fmt: skip
        if len(matching) == 1:
            return matching[0]
        raise unknown("lesson", name, [one.name for one in self.lessons])

    def puzzle(self, name: str) -> str:
        """A puzzle's whole name."""
        matching = [one for one in self.puzzles if one == name] or [one for one in self.puzzles if one.startswith(name)]
        if len(matching) == 1:
            return matching[0]
        if lesson := next((one for one in self.lessons if name in (one.name, one.number) and one.puzzles), None):
            raise UsageError(f'"{name}" is a lesson; its puzzles: {", ".join(lesson.puzzles)}')
        starts = [one.partition("_")[0] for one in self.puzzles]
        raise unknown("puzzle", name, starts if len(set(starts)) == len(starts) else list(self.puzzles))

    def page(self, lesson: Lesson) -> Path:
        """The file of a lesson's page. BuildError without one."""
        return self._file(f"{PAGES}/{lesson.name}.md")

    def puzzle_file(self, puzzle: str) -> Path:
        """The Python file of a puzzle. BuildError without one."""
        return self._file(f"{PUZZLES}/{puzzle}.py")

    def _file(self, name: str) -> Path:
        for folder in self.folders:
            if (folder / name).is_file():
                return folder / name
        raise BuildError(f'course "{self.name}" has no {name}', hint=f"looked in {', '.join(map(str, self.folders))}")


def unknown(kind: str, name: str, names: list[str]) -> UsageError:
    several = [one for one in names if one.startswith(name)] if name else []
    if len(several) > 1:
        return UsageError(f'"{name}" begins several names: {", ".join(several)}')
    return UsageError(f'there is no {kind} "{name}"{did_you_mean(name, names)}', hint=f"there are: {', '.join(names)}")


def load_course(registry: Registry, name: str = "") -> Course:
    """A course by its name, by default the one that no other extends.

    Raises UsageError for an unknown name, and where the default is not one course; BuildError for a file at fault.
    """
    if not registry.courses:
        raise UsageError("there is no course: no plugin brings one", hint="core new course mine")
    if not name:
        extended = {extends_of(read_course(file)) for file in registry.courses.values()}
        names = [one for one in registry.courses if one not in extended]
        if len(names) != 1:
            raise UsageError(
                f"there are several courses: {', '.join(names)}", hint=" or ".join(f"--course {one}" for one in names)
            )
        name = names[0]
    return build(registry, name, ())


def build(registry: Registry, name: str, above: tuple[str, ...]) -> Course:
    """A course on top of the one that it extends. above: the courses that extend it, to refuse a circle."""
    if name not in registry.courses:
        raise unknown("course", name, list(registry.courses))
    if name in above:
        raise BuildError(f"courses extend each other in a circle: {' -> '.join((*above, name))}")
    file = registry.courses[name]
    data = read_course(file)
    parent = build(registry, extends_of(data), (*above, name)) if extends_of(data) else None
    lessons = {one.name: one for one in parent.lessons} if parent else {}
    for table in data.get("lesson", ()):
        lesson = lesson_of(file, table, lessons)
        lessons[lesson.name] = lesson
    order = data.get("lessons", list(lessons))
    if missing := next((one for one in order if one not in lessons), ""):
        raise BuildError(f'{file.path}: lessons names "{missing}"{did_you_mean(missing, lessons)}',
                         hint=f"there are: {', '.join(lessons)}")  # fmt: skip
    course = Course(
        name,
        data.get("title", parent.title if parent else name),
        tuple(lessons[one] for one in order),
        (file.path.parent, *(parent.folders if parent else ())),
        (file.origin, *(parent.origins if parent else ())),
    )
    for lesson in course.lessons:
        course.page(lesson)
        for puzzle in lesson.puzzles:
            course.puzzle_file(puzzle)
    return course


def read_course(file: CourseFile) -> dict[str, Any]:
    """The contents of a course's file. BuildError for one that cannot be read, and for unknown keys."""
    with reads(BuildError, file.path):
        raw = read_whole(file.path, LONGEST)
    try:
        data = tomli.loads(raw.decode("utf-8"))
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BuildError(f"{file.path}: {error}") from None
    if wrong := next((key for key in data if key not in KEYS), ""):
        raise BuildError(f'{file.path}: unknown key "{wrong}"{did_you_mean(wrong, KEYS)}', hint=", ".join(KEYS))
    return data


def extends_of(data: Mapping[str, Any]) -> str:
    """The course that a file extends; "" for none."""
    return str(data.get("extends", ""))


def lesson_of(file: CourseFile, table: Mapping[str, Any], lessons: Mapping[str, Lesson]) -> Lesson:
    """A [[lesson]]; keys that it lacks are those of the lesson that it changes."""
    names = [f.name for f in fields(Lesson)]
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise BuildError(f"{file.path}: a [[lesson]] has no name", hint='name = "01_slopes": the stem of its page')
    if wrong := next((key for key in table if key not in names), ""):
        raise BuildError(f'{file.path}: lesson "{name}": unknown key "{wrong}"{did_you_mean(wrong, names)}',
                         hint=", ".join(names))  # fmt: skip
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    base = lessons.get(name, Lesson(name))
    return Lesson(**{**{key: getattr(base, key) for key in names}, **values})
