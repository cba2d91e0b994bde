"""Runs the lenses of a subject: one dictionary per lens, from which the page, `--json` and terminal lines are made.

A lens that fails leaves the others whole: its view has the error. A run's files are only read.
"""

from __future__ import annotations

from pathlib import Path

from core.containment import PASSES, contained
from core.errors import CoreError, UsageError, did_you_mean, words_of
from core.lens import Lens
from core.outputs import write_target
from core.view.lenses import core_lenses
from core.view.lenses.step import front_of
from core.view.page import View, page_of, page_place
from core.view.private import short_text
from core.view.replay import check_step
from core.view.subject import Subject


def lenses_of(subject: Subject, name: str = "") -> list[Lens]:
    """The lenses of a subject, the core's own first; with `name` that one alone. UsageError for an unknown one."""
    lenses: dict[str, Lens] = {cls.name: cls() for cls in core_lenses()}
    for brought in subject.registry.lenses.values():
        if brought.name in lenses:
            raise UsageError(
                f'the lens "{brought.name}" of {brought.origin} has the name of one of the core\'s',
                hint=f'rename it, or switch the plugin off: [plugins] disable = ["{brought.origin}"]',
            )
        lenses[brought.name] = brought
    if name and name not in lenses:
        raise UsageError(
            f'there is no lens "{name}"{did_you_mean(name, lenses)}', hint=f"there are: {', '.join(lenses)}"
        )
    return [lenses[name]] if name else list(lenses.values())


def look(subject: Subject, name: str = "") -> list[View]:
    """The results of all lenses on a subject; with `name`, that one alone, whose CoreErrors are then raised.

    Raises UsageError for an unknown lens, and for a step or node that the run does not have.
    """
    lenses = lenses_of(subject, name)
    check_options(subject)
    own = {cls.name for cls in core_lenses()}
    return [_through(lens, subject, lens.name in own, strict=bool(name)) for lens in lenses]


def check_options(subject: Subject) -> None:
    """UsageError for a step or node that the options name and the run does not have."""
    if subject.runs and subject.options.step is not None:
        check_step(subject.run, subject.step)
    if subject.runs and subject.options.node:
        front_of(subject)


def _through(lens: Lens, subject: Subject, own: bool, strict: bool) -> View:
    command = ""
    try:
        with contained():
            command = lens.command(subject)
            data = lens.collect(subject)
            marks = [] if data is None or (own and lens.scripts) else [mark.as_json() for mark in lens.marks(data)]
            return View(lens, command, data, marks=marks, own=own)
    except PASSES:
        raise
    except CoreError as error:
        if strict:
            raise
        return View(lens, command, problem=short_text(str(error), subject.folders), own=own)
    except BaseException as error:  # of a plugin, SystemExit too
        if own:
            raise
        words = f"{lens.origin or lens.name} raised {words_of(error)}"
        return View(lens, command, problem=short_text(words, subject.folders))


def view(subject: Subject, out: Path, *, lens: str = "", plain: bool = False) -> Path:
    """Write the page of a subject to `out`, whole or not at all; the path.

    lens: one lens alone. plain: data uncompressed, for a browser that cannot decompress. Raises UsageError for an
    unknown lens, step or node, a file that cannot be written, and one in its place that is no page.
    """
    page_place(out, "--out")  # before slow work
    write_target(out, page_of(look(subject, lens), title_of(subject), plain=plain).encode(), "--out")
    return out


def title_of(subject: Subject) -> str:
    """The page's title: the runs or kernels, and the step."""
    return " ".join(subject.words)
