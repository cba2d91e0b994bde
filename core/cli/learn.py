"""`core learn`: the course, in a student's own folder, and the proof of puzzles for authors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.cli import learn_pages
from core.cli.kernel_runs import status_line
from core.cli.learn_desk import Desk, desk, desk_options, following, short
from core.cli.show import emit_json, emit_table, json_option, json_text
from core.endings import ending
from core.errors import CheckFailed, UsageError
from core.learning.workbook import Workbook
from core.testing.grading import grade, warm
from core.testing.puzzle_types import STAGES, Puzzle, PuzzleVerdict, answer_file, read_answer
from core.threads import cores

if TYPE_CHECKING:
    from core.testing.proving import Proof

IMPORTS = ("core.judge.kernel_task", "core.testing.python_tasks")  # of the processes that grade


@click.group("learn", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Take the course: read a page, start a puzzle, and check your answer. Nothing leaves your folder."""
    if context.invoked_subcommand is None:
        list_all(desk(None, "", ()), "")


for one in (learn_pages.show, learn_pages.notebook, learn_pages.pictures, learn_pages.table):
    command.add_command(one)


@command.command("list")
@click.argument("lesson", default="")
@desk_options
def list_command(lesson: str, into: Path | None, course: str, plugin: tuple[str, ...]) -> None:
    """List the lessons; with LESSON, its puzzles."""
    list_all(desk(into, course, plugin), lesson)


def list_all(at: Desk, name: str) -> None:
    if name:
        lesson = at.course.lesson(name)
        click.echo(f"{lesson.title}, {lesson.minutes} minutes\n")
        rows = []
        for puzzle in lesson.puzzles:
            _, loaded, _ = at.open(puzzle)
            rows.append((puzzle, f"{loaded.minutes} min", mark(at.book, puzzle), loaded.title))
        emit_table(("PUZZLE", "TIME", "STATE", "TITLE"), rows)
        click.echo(f"\nnext:\n  {at.next_line('show', lesson.number or lesson.name)}")
        return
    rows = []
    for lesson in at.course.lessons:
        done = sum("done" in at.book.state(puzzle) for puzzle in lesson.puzzles)
        shown = f"{done} of {len(lesson.puzzles)}" if lesson.puzzles else "-"
        rows.append((lesson.name, f"{lesson.minutes} min", shown, lesson.title))
    click.echo(f"{at.course.title}\n")
    emit_table(("LESSON", "TIME", "SOLVED", "TITLE"), rows)
    click.echo(f"\nnext:\n  {following(at)}")


def mark(book: Workbook, puzzle: str) -> str:
    """The state of a puzzle in a word or two."""
    state = book.state(puzzle)
    if "done" in state:
        return "solved"
    return f"{state.get('tries', 0)} tries" if state else "-"


@command.command("start")
@click.argument("puzzle")
@desk_options
def start(puzzle: str, into: Path | None, course: str, plugin: tuple[str, ...]) -> None:
    """Write the file of PUZZLE into your folder, with a question where your code belongs."""
    at = desk(into, course, plugin)
    name, loaded, source = at.open(puzzle)
    files = at.book.start(name, loaded, source, at.course.name)
    click.echo(f"{loaded.title}\n")
    click.echo("\n".join(f"wrote {path}" for path in files))
    click.echo(f"\nnext:\n  {at.next_line('check', short(at.course, name))}")


@command.command("check")
@click.argument("puzzle", default="")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--all", "every", is_flag=True, help="Grade all answers in your folder; print a table.")
@click.option("-v", "--verbose", is_flag=True, help="Also show addresses and PTX of a fault, and the case.")
@desk_options
def check(
    puzzle: str, file: Path | None, every: bool, verbose: bool, into: Path | None, course: str, plugin: tuple[str, ...]
) -> None:
    """Grade your answer to PUZZLE: one finding, the first that matters. Exit code 1 for a wrong one."""
    if every == bool(puzzle):
        raise UsageError("check grades one PUZZLE, or with --all every answer", hint="core learn check --all")
    warm(IMPORTS)
    at = desk(into, course, plugin)
    if every:
        check_all(at)
        return
    name, loaded, source = at.open(puzzle)
    verdict = graded(source, answer_of(at, name, loaded, file))
    tries = at.book.tried(name, verdict)
    key = short(at.course, name)
    click.echo("\n".join(lines_of(verdict, verbose)))
    if verdict.accepted:
        click.echo(
            f"{name}: right, at try {tries}, in {verdict.seconds:.1f} s\n\nnext:\n  {following(at, solved=name)}"
        )
        return
    click.echo(f"\nnext:\n  {at.next_line('hint', key)}")
    raise CheckFailed(f"{name} is not right yet", hint=f"change {answer_of(at, name, loaded, file)}")


def check_all(at: Desk) -> None:
    """Grade every answer in the folder. A try is noted only of answers that are right for the first time.

    Raises UsageError for a folder without an answer, CheckFailed for answers that are not right.
    """
    opened = [at.open(name) for name in at.course.puzzles]
    begun = [
        (name, source, path) for name, loaded, source in opened if (path := at.book.answer(name, loaded)).is_file()
    ]
    if not begun:
        raise UsageError(f"there is no answer in {at.book.folder}", hint=following(at))
    with status_line(f"checking {len(begun)} answers"), ThreadPoolExecutor(min(cores(), len(begun))) as pool:
        verdicts = list(pool.map(lambda row: grade(row[1], row[2], imports=IMPORTS), begun))
    rows, wrong = [], []
    for (name, *_), verdict in zip(begun, verdicts, strict=True):
        rows.append((name, verdict.stage or "right", f"{verdict.seconds:.1f} s", shortened(verdict.message)))
        if not verdict.accepted:
            wrong.append(name)
        elif "done" not in at.book.state(name):
            at.book.tried(name, verdict)
    emit_table(("PUZZLE", "VERDICT", "TIME", "FINDING"), rows)
    click.echo(f"\n{len(begun) - len(wrong)} of {len(begun)} answers are right")
    if wrong:
        raise CheckFailed(f"not right yet: {', '.join(wrong)}", hint=at.next_line("check", short(at.course, wrong[0])))


def shortened(message: str, most: int = 100) -> str:
    """The first line of a finding, cut after `most` characters; "-" for none."""
    line = message.partition("\n")[0]
    return line or "-" if len(line) <= most else f"{line[: most - 3]}..."


def answer_of(at: Desk, name: str, loaded: Puzzle, file: Path | None) -> Path:
    """The answer's file. UsageError for a puzzle that is not started."""
    answer = file if file is not None else at.book.answer(name, loaded)
    if not answer.is_file():
        raise UsageError(f"there is no {answer}", hint=at.next_line("start", short(at.course, name)))
    return answer


def graded(source: Path, answer: Path) -> PuzzleVerdict:
    """The verdict on an answer, with a status line meanwhile."""
    with status_line(f"checking {answer}"):
        return grade(source, answer, imports=IMPORTS)


def lines_of(verdict: PuzzleVerdict, verbose: bool = False) -> Iterator[str]:
    """A verdict as lines: the answer's own output, the stages that passed, the finding."""
    if verdict.printed:
        yield from (f"  | {line}" for line in verdict.printed.rstrip().splitlines())
    for stage in STAGES:
        if stage == verdict.stage:
            yield f"  {stage:<9} no   {verdict.message}"
            notes = (("in", verdict.case), ("seen", verdict.seen), ("note", verdict.hint))
            more = (("more", verdict.details),) if verbose else ()
            yield from (f"        {label}: {text}" for label, text in (*notes, *more) if text)
            return
        yield f"  {stage:<9} yes"


@command.command("hint")
@click.argument("puzzle")
@desk_options
def hint(puzzle: str, into: Path | None, course: str, plugin: tuple[str, ...]) -> None:
    """Print a question that helps with the current finding of PUZZLE."""
    warm(IMPORTS)
    at = desk(into, course, plugin)
    name, loaded, source = at.open(puzzle)
    verdict = graded(source, answer_of(at, name, loaded, None))
    if verdict.accepted:
        click.echo(f"{name}: right; no hint is needed")
        return
    text = loaded.hint_for(verdict) or f"no hint for this finding: {verdict.message}"
    at.book.note(name, hints=int(at.book.state(name).get("hints", 0)) + 1)
    click.echo(text)


@command.command("solution")
@click.argument("puzzle")
@desk_options
def solution(puzzle: str, into: Path | None, course: str, plugin: tuple[str, ...]) -> None:
    """Print a solution of PUZZLE with its explanation. Your progress records that you have seen it."""
    at = desk(into, course, plugin)
    name, loaded, source = at.open(puzzle)
    click.echo(loaded.solution(read_answer(answer_file(source, loaded.task))))
    click.echo("\n".join(filter(None, (loaded.why, f"kind: {loaded.place}" if loaded.place else ""))))
    if at.book.state(name):
        at.book.note(name, solution=True)


@command.command("report")
@json_option
@desk_options
def report(as_json: bool, into: Path | None, course: str, plugin: tuple[str, ...]) -> None:
    """Show your progress, puzzle by puzzle; for a teacher, as JSON."""
    at = desk(into, course, plugin)
    states = {puzzle: at.book.state(puzzle) for puzzle in at.course.puzzles}
    solved = sum("done" in state for state in states.values())
    if as_json:
        emit_json({"course": at.course.name, "folder": str(at.book.folder.resolve()), "solved": solved,
                   "puzzles": states})  # fmt: skip
        return
    rows = [
        (name, at.course.puzzles[name].name, state.get("done", "-"), state.get("tries", 0), state.get("hints", 0),
         "seen" if state.get("solution") else "-")
        for name, state in states.items()
    ]  # fmt: skip
    emit_table(("PUZZLE", "LESSON", "SOLVED", "TRIES", "HINTS", "SOLUTION"), rows)
    click.echo(f"\n{solved} of {len(states)} puzzles solved")


@command.command("prove")
@click.argument("puzzles", nargs=-1, metavar="[PUZZLE|FILE.py]...")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Puzzles in parallel.  [default: one per core]")
@click.option("-v", "--verbose", is_flag=True, help="Show each finding and its hint.")
@json_option
@desk_options
def prove_command(
    puzzles: tuple[str, ...], jobs: int | None, verbose: bool, as_json: bool, into: Path | None, course: str,
    plugin: tuple[str, ...],
) -> None:  # fmt: skip
    """For authors: run every solution, which must pass, and every wrong answer, which must be refused as declared.

    Without names, all puzzles of the course. Exit code 1 for a promise that is broken.
    """
    files = [Path(name) for name in puzzles if name.endswith(".py")]
    names = [name for name in puzzles if not name.endswith(".py")]
    if names or not files:
        at = desk(into, course, plugin)
        files += [at.course.puzzle_file(at.course.puzzle(name)) for name in names or at.course.puzzles]

    def on_activity(proofs: Sequence[Proof]) -> None:
        if not as_json:
            click.echo("\n".join(proof_lines(proofs, verbose)))

    made: list[list[Proof]] = []
    with ending(lambda cut_off: (proofs_json if as_json else proofs_line)(files, made, cut_off), made):
        for proofs in proved(files, jobs or cores(), on_activity):
            made.append(proofs)
    broken = [proof for proofs in made for proof in proofs if not proof.holds]
    if broken:
        raise CheckFailed("broken: " + ", ".join(f"{proof.puzzle} {proof.answer}" for proof in broken))


def proofs_json(files: Sequence[Path], made: Sequence[Sequence[Proof]], cut_off: str) -> str:
    """The promises of all puzzles as JSON. cut_off: why the command ended early, in a row for each puzzle that it did
    not come to, none of whose promises holds yet."""
    from core.testing.proving import Proof

    rows = [proof_data(proof) | {"cut_off": ""} for proofs in made for proof in proofs]
    waiting = [Proof(file.stem, "", PuzzleVerdict()) for file in files[len(made) :]]
    return json_text([*rows, *(proof_data(proof) | {"holds": False, "cut_off": cut_off} for proof in waiting)])


def proofs_line(files: Sequence[Path], made: Sequence[Sequence[Proof]], cut_off: str) -> str:
    """`40 of 41 promises hold; not proved: softmax, reduce: ended by SIGINT`"""
    proofs = [proof for each in made for proof in each]
    line = f"{sum(proof.holds for proof in proofs)} of {len(proofs)} promises hold"
    waiting = [file.stem for file in files[len(made) :]]
    return f"{line}; not proved: {', '.join(waiting)}: {cut_off}" if waiting else line


def proved(files: Sequence[Path], jobs: int, on_activity: Callable[[Sequence[Proof]], None]) -> Iterator[list[Proof]]:
    """The proofs of each puzzle, in their order; `on_activity` gets them as they come."""
    from core.testing.proving import prove

    with ThreadPoolExecutor(min(jobs, len(files))) as pool:
        for proofs in pool.map(lambda file: list(prove(file, imports=IMPORTS)), files):
            on_activity(proofs)
            yield proofs


def proof_lines(proofs: Sequence[Proof], verbose: bool) -> Iterator[str]:
    """A line for each promise that is broken, and one for the puzzle; all promises with `verbose`."""
    for proof in proofs:
        if verbose or not proof.holds:
            yield f"  {proof.puzzle}  {proof.answer}: {proof.fault or 'ok'}"
            yield from (f"      {line}" for line in proof.verdict.text.splitlines() if line.strip("in se"))
            yield from [f"      -> {proof.hint}"] if proof.hint else []
    held = sum(proof.holds for proof in proofs)
    yield f"{proofs[0].puzzle}: {held} of {len(proofs)}, {sum(p.verdict.seconds for p in proofs):.1f} s"


def proof_data(proof: Proof) -> dict[str, Any]:
    """A promise as `--json` prints it."""
    return {
        "puzzle": proof.puzzle, "answer": proof.answer, "holds": proof.holds, "fault": proof.fault,
        "stage": proof.verdict.stage, "kind": proof.verdict.kind, "message": proof.verdict.message,
        "hint": proof.hint, "seconds": round(proof.verdict.seconds, 3),
    }  # fmt: skip
