"""The course of `core learn`: lessons as pages, and puzzles that the simulator and the op check grade.

course.toml has the order; pages/ and puzzles/ have the content, pictures/ draws pages/pictures/. docs/course.md is the
index and the manual for authors; table.md has the lessons of each op and finding: `core learn table`.
"""

from pathlib import Path


def core_courses() -> list[Path]:
    return [Path(__file__).parent / "course.toml"]
