"""`core learn show`, `notebook` and `pictures`: the pages of a course, for readers, for teachers and for authors."""

from __future__ import annotations

from pathlib import Path

import click

from core import atomic_files
from core.cli.learn_desk import Desk, desk, desk_options, following
from core.cli.show import emit_table
from core.errors import CheckFailed, UsageError
from core.files import to_json
from core.learning.lesson_page import for_terminal, read_page


@click.command("show")
@click.argument("lesson")
@click.option("--open", "in_browser", is_flag=True, help="Open the page with its pictures in the browser.")
@desk_options
def show(lesson: str, in_browser: bool, into: Path | None, course: str, plugin: tuple[str, ...]) -> None:
    """Print the page of LESSON: a name, the beginning of one, or a number. --open shows it with its pictures."""
    at = desk(into, course, plugin)
    one = at.course.lesson(lesson)
    page = at.course.page(one)
    text = read_page(page)
    if in_browser:
        from core.cli.view import open_page
        from core.learning.html_page import as_html

        file = at.book.folder / PAGES / f"{one.name}.html"
        write(file, as_html(text, page, one.title).encode("utf-8"))
        click.echo(f"wrote {file}")
        open_page(file)
    else:
        number = one.number or one.name
        ways = f"with pictures: {at.next_line('show', number, '--open')}\n"
        ways += f"its code in cells: {at.next_line('notebook', number)}\n"
        click.echo_via_pager(f"{for_terminal(text).rstrip()}\n\nthis page: {page}\n{ways}")
    if one.puzzles:
        click.echo(f"next:\n  {following(at, one.name)}")


PAGES = "pages"  # folder of HTML files in a student's folder


def write(file: Path, data: bytes) -> None:
    """A file, with its folder. Raises UsageError where the disk refuses."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.replace(file, data)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from None


@click.command("notebook")
@click.argument("lessons", nargs=-1, metavar="[LESSON]...")
@desk_options
def notebook(lessons: tuple[str, ...], into: Path | None, course: str, plugin: tuple[str, ...]) -> None:
    """Write lessons as Jupyter notebooks, by default all: the page, its code, and cells for the puzzles.

    A notebook is one file with its pictures; it needs corelm where it runs. An existing file is not changed.
    """
    at = desk(into, course, plugin)
    chosen = [at.course.lesson(lesson) for lesson in lessons] or list(at.course.lessons)
    files = {at.book.folder / f"{one.name}.ipynb": one for one in chosen}
    if there := next((file for file in files if file.exists()), None):
        raise UsageError(f"{there} is there already, and was not changed", hint="move it away, or --into DIR")
    from core.learning.notebook import notebook as notebook_of

    for file, one in files.items():
        write(file, to_json(notebook_of(at.course, one)))
        click.echo(f"wrote {file}")


@click.command("pictures")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit code 1 for a file that differs.")
@desk_options
def pictures(
    names: tuple[str, ...], only_check: bool, into: Path | None, course: str, plugin: tuple[str, ...]
) -> None:  # fmt: skip
    """For authors: draw the pictures of the course's pages again, by default all."""
    from core.learning.page_pictures import drawn

    at: Desk = desk(into, course, plugin)
    rows, late = [], []
    for file, text, is_same in drawn(at.course, names):
        if not is_same:
            late.append(file.stem)
            if not only_check:
                write(file, text.encode("utf-8"))
        state = "unchanged" if is_same else "differs" if only_check else "written"
        rows.append((file.stem, f"{len(text.encode('utf-8')):,}", state))
    emit_table(("PICTURE", "BYTES", "STATE"), rows)
    if only_check and late:
        raise CheckFailed(f"drawn differently today: {', '.join(late)}", hint=at.next_line("pictures", *late))


@click.command("table")
@desk_options
def table(into: Path | None, course: str, plugin: tuple[str, ...]) -> None:
    """For authors: print the lessons that teach each op, sub-check and kind of KernelError."""
    from core.learning.met import MetTable
    from core.loader import load_registry

    click.echo(MetTable(desk(into, course, plugin).course, load_registry(plugin)).text(), nl=False)
