"""`core view`: a run as one page, or the same as terminal lines and JSON."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.cli.show import emit_json, json_option, plugin_option
from core.dtypes import NARROW
from core.errors import UsageError
from core.words import human

if TYPE_CHECKING:
    from core.view.subject import Subject, ViewOptions

PAGE = "view.html"
DTYPES, DIRECTIONS = ("f32", *NARROW), ("forward", "backward", "both")


@click.command("view")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--step", type=click.IntRange(1), help="The step to show.  [default: the last]")
@click.option("--out", type=click.Path(path_type=Path), help=f"The page.  [default: RUN's name and -{PAGE}]")
@click.option("--no-open", is_flag=True, help="Do not open the page in a browser.")
@click.option("--lens", default="", metavar="NAME", help="Show one view; without --out, as text in the terminal.")
@click.option("--node", default="", metavar="NAME", help="The node shown first.")
@click.option("--text", type=click.Path(path_type=Path), metavar="FILE", help="Text to show in addition to the batch.")
@click.option(
    "--kernel", "kernels", multiple=True, metavar="OP.VARIANT", help="Show a launch of a kernel; no run is needed."
)
@click.option("--shape", multiple=True, metavar="NAME=SIZES", help="With --kernel: an input's shape or an attr.")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    help="With --kernel: element type.  [default: the variant's first]",
)
@click.option("--direction", type=click.Choice(DIRECTIONS), default="both", help="With --kernel: launchers to run.")
@click.option(
    "--block", "blocks", type=click.IntRange(0), multiple=True, metavar="N",
    help="With --kernel: a thread block to record.  [default: the first and the last]",
)  # fmt: skip
@click.option("--warp", type=click.IntRange(0), default=0, metavar="N", help="With --kernel: the warp in the terminal.")
@click.option("--no-text", is_flag=True, help="Omit batches, samples and tokens.")
@click.option("--device", default="", metavar="NAME", help="Device of the step's replay.  [default: the run's]")
@click.option(
    "--unfused", is_flag=True, help="Replay without fusion: tensors of every node, with numbers close to the run's."
)
@click.option("--yes", is_flag=True, help="Allow a replay that takes over a minute.")
@click.option("--measure", is_flag=True, help="Time each node, even if that is slow.")
@click.option("--more", is_flag=True, help="Include everything, whatever the page's size.")
@click.option("--plain", is_flag=True, help="Do not compress the page's data.")
@plugin_option
@json_option
def command(
    runs: tuple[str, ...],
    step: int | None,
    out: Path | None,
    no_open: bool,
    lens: str,
    node: str,
    text: Path | None,
    kernels: tuple[str, ...],
    shape: tuple[str, ...],
    dtype: str | None,
    direction: str,
    blocks: tuple[int, ...],
    warp: int,
    no_text: bool,
    device: str,
    unfused: bool,
    yes: bool,
    measure: bool,
    more: bool,
    plain: bool,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show a run as one HTML page: a step with its tensors, texts, curves, memory, kernels. It needs no network.

    RUN is a path, a name under runs/, or nothing for the newest; further ones are compared with the first. The replay
    of the step starts from the nearest earlier checkpoint and does not change the run's folder.
    """
    from core.view.looking import look, view
    from core.view.subject import LaunchOptions, ViewOptions

    check_out(out, as_json)
    launch = LaunchOptions(shape, dtype or "", direction, blocks, warp)
    options = ViewOptions(step, text, node, kernels, no_text, yes, measure, more, launch)
    in_terminal = bool(lens) and out is None
    lens = lens or ("kernel" if kernels and not runs else "")
    subject = subject_of(runs, options, device, plugin, unfused)
    if as_json:
        shown = look(subject, lens)
        emit_json({one.lens.name: one.as_json() for one in shown})
        return
    if in_terminal:
        for one in look(subject, lens):
            click.echo("\n".join(one.lines()))
        return
    path = view(subject, out or default_page(subject), lens=lens, plain=plain)
    click.echo(f"{path}: {human(path.stat().st_size)}")
    if not no_open:
        open_page(path)


def check_out(out: Path | None, as_json: bool) -> None:
    """UsageError for a file that no page can be written to, and for one beside --json, which prints."""
    from core.view.page import page_place

    if out is not None and as_json:
        raise UsageError(f"--json prints the data, and --out {out} is for the page", hint="core view --json > FILE")
    if out is not None:
        page_place(out, "--out")


def open_page(path: Path) -> None:
    """Open a page in a browser; a line where there is none."""
    if not (has_display() and webbrowser.open(path.resolve().as_uri())):
        click.echo("no browser was opened: open the file in one", err=True)


def has_display() -> bool:
    """Whether a browser has a screen to open on: elsewhere it would take over the terminal."""
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in screens)


def subject_of(
    names: tuple[str, ...], options: ViewOptions, device: str, plugins: tuple[str, ...], unfused: bool = False
) -> Subject:
    """The runs, or none for a page of a kernel alone. Raises UsageError."""
    from core.train.run_names import find_run
    from core.view.run_record import RunRecord
    from core.view.subject import Subject

    if options.text is not None and not options.text.is_file():
        raise UsageError(f"--text {options.text}: no such file", hint="name a file of UTF-8 text")
    if options.kernels and not names:
        from core.loader import load_registry

        return Subject((), load_registry(plugins), options)
    runs = [RunRecord(find_run(name), plugins, device, unfused) for name in names or ("",)]
    return Subject(runs, None, options, lambda text: click.echo(text, err=True))


def default_page(subject: Subject) -> Path:
    """A file in the current folder: a run's own folder is not changed."""
    name = subject.run.name if subject.runs else subject.options.kernels[0]
    return Path(f"{name}-{PAGE}")
