"""Pictures of a course: `PICTURES` of its pictures.py, or of the package of that name, maps a name to a function that
returns the text of an SVG. They are files beside the pages, so that every reader of Markdown shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from core.discovery import GIVEN, Candidate
from core.errors import BuildError, UsageError
from core.learning.course import PAGES, Course
from core.path_import import import_path
from core.testing.author_file import foreign

PICTURES = "pictures"
Draw = Callable[[], str]


def pictures_of(course: Course) -> Mapping[str, tuple[Path, Draw]]:
    """Name -> (file, function) of the pictures of the course's own folder. UsageError for a course without."""
    folder = course.folders[0]
    homes = [path for path in (folder / PICTURES, folder / f"{PICTURES}.py") if path.exists()]
    if not homes:
        raise UsageError(f'course "{course.name}" has no {PICTURES}.py', hint=f"looked in {folder}")
    origin = f"the pictures of {course.name}"
    module = foreign(origin, import_path, Candidate(f"{course.name}_{PICTURES}", GIVEN, origin, homes[0], folder))
    drawn = getattr(module, "PICTURES", None)
    if not isinstance(drawn, Mapping):
        raise BuildError(f"{homes[0]} has no PICTURES", hint="PICTURES = {name: function that returns an SVG's text}")
    return {name: (folder / PAGES / PICTURES / f"{name}.svg", draw) for name, draw in drawn.items()}


def drawn(course: Course, names: tuple[str, ...]) -> Iterator[tuple[Path, str, bool]]:
    """(file, text, whether the file has this text) of the pictures of these names, by default of all.

    Raises UsageError for an unknown name, BuildError for a function that raises.
    """
    from core.learning.course import unknown

    pictures = pictures_of(course)
    for name in names or pictures:
        if name not in pictures:
            raise unknown("picture", name, list(pictures))
        file, draw = pictures[name]
        text = foreign(f"picture {name}", draw)
        yield file, text, file.is_file() and file.read_text("utf-8") == text
