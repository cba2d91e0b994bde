"""The sub-verdicts on a submission, one function each, in the order of verdict.QUESTIONS.

A function returns on success and raises Wrong for a fault. It raises Waits where it needs a run that failed another
sub-verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from core.errors import BuildError
from core.judge.hard_contents import HARD
from core.judge.hearing import (
    FRESH,
    HARDER,
    REALER,
    Hearing,
    OnProgress,
    Waits,
    check_inputs_unchanged,
    missing_elements,
    no_progress,
    owed,
)
from core.judge.problem import Dims, Problem, described
from core.judge.submission import Submission
from core.judge.verdict import FAILED, LEFT_OUT, PASSED, QUESTIONS, WAITING, Judgement, SubVerdict, Wrong
from core.sim.faults import PtxError
from core.testing.compare import LOOSEST, Array
from core.testing.runner import OTHER, POISON, unwritten

LONGEST_LINE, MOST_LINES = 400, 30  # of a message


def compiles(hearing: Hearing) -> None:
    try:
        hearing.bench(hearing.problem.sizes[0]).check_arguments()
    except (PtxError, BuildError) as error:
        raise Wrong(error.message, hint=error.hint) from None


def alone(hearing: Hearing) -> None:
    compiled(hearing)
    hearing.submission.check_alone()


def precision(hearing: Hearing) -> None:
    compiled(hearing)
    hearing.notes += hearing.submission.check_precision()


def compiled(hearing: Hearing) -> None:
    """Waits where there is no PTX to look at."""
    try:
        _ = hearing.submission.instructions
    except (BuildError, Wrong):
        raise Waits("waits for compiles") from None


def bounds(hearing: Hearing) -> None:
    hearing.faults("bounds")


def races(hearing: Hearing) -> None:
    hearing.faults("races")


def runs(hearing: Hearing) -> None:
    hearing.faults("runs")


def written(hearing: Hearing) -> None:
    for dims, contents, got in hearing.completed():
        holes = {n: unwritten(got.buffers[n]) for n in owed(hearing.problem)}
        if any(hole.any() for hole in holes.values()):
            # a value may be the very bytes of the fill: it is unwritten if another fill stays as well
            again = hearing.run(hearing.bench(dims), contents, described(dims), fill=OTHER)
            holes = {n: hole & unwritten(again.buffers[n], OTHER) for n, hole in holes.items()}
        for name, hole in holes.items():
            if hole.any():
                raise missing_elements(name, hole, described(dims))


def unchanged(hearing: Hearing) -> None:
    for dims, contents, got in hearing.completed():
        check_inputs_unchanged(hearing.problem, contents, got, described(dims))


def awkward(hearing: Hearing) -> None:
    """The finding names the first wrong size that shows something."""
    faults: list[Wrong] = []
    for dims, contents, got in hearing.completed():
        try:
            hearing.compare(dims, contents, got, described(dims))
        except Wrong as wrong:
            faults.append(wrong)
    if faults:
        raise next((wrong for wrong in faults if wrong.seen), faults[0])


def guards(hearing: Hearing) -> None:
    dims, contents, first = hearing.largest
    case = f"{described(dims)}, buffers far apart"
    again = hearing.run(hearing.bench(dims, wide=True), contents, case)
    check_inputs_unchanged(hearing.problem, contents, again, case)
    if other := first.same(again, hearing.problem.outputs):
        raise Wrong(f"other bits where buffers are elsewhere: {other}", case=case,
                    hint="an index that leaves its buffer may fall inside another one")  # fmt: skip


def repeatable(hearing: Hearing) -> None:
    if not hearing.problem.repeatable:
        return
    hearing.faults("repeatable")
    for dims, _, got in hearing.completed():
        if order := next((f for f in got.findings if f.kind == "order"), None):
            raise Wrong(order.message, hint=order.hint, case=described(dims))
    dims, contents, first = hearing.largest
    for label, fill in (("a second run", POISON), ("a run whose outputs held something else", OTHER)):
        again = hearing.run(hearing.bench(dims), contents, f"{described(dims)}, {label}", fill)
        if other := first.same(again, hearing.problem.outputs):
            raise Wrong(f"other bits in {label}: {other}", case=described(dims))


def fresh(hearing: Hearing) -> None:
    """Contents A, then B, then A again, then A with other elements here and there, at the same addresses, in a module
    whose variables stay."""
    dims, contents, _ = hearing.largest
    other = hearing.contents(dims, FRESH)
    bench, before = hearing.bench(dims), None
    nearly = hearing.problem.nearly_as(contents, other, dims, (hearing.seed, FRESH))
    calls = (
        ("the first call", contents),
        ("a second call with new contents", other),
        ("a third call", contents),
        ("a fourth call with one new element of each input", nearly),
    )
    for label, drawn in calls:
        case = f"{described(dims)}, {label}"
        got = hearing.run(bench, drawn, case)
        try:
            hearing.hold(dims, drawn, got, case)
        except Wrong as wrong:
            if before is not None and not before.same(got, hearing.problem.outputs):
                raise Wrong(f"{label} gives the result of the call before it", case=case,
                            hint="compute again: the contents changed, the addresses did not") from None  # fmt: skip
            hint = wrong.hint or ("a __device__ variable keeps its value from launch to launch" if before else "")
            raise Wrong(f"wrong in {label}: {wrong.message}", case=case, seen=wrong.seen, hint=hint) from None
        before = got


def hard(hearing: Hearing) -> None:
    dims = hearing.largest[0]
    for number, kind in enumerate(hearing.problem.hard):
        contents = hardened(hearing, dims, kind, number)
        case = f"{described(dims)}, {kind} contents"
        got = hearing.run(hearing.bench(dims), contents, case)
        hearing.hold(dims, contents, got, case, LOOSEST)  # rounding is larger where numbers cancel


def hardened(hearing: Hearing, dims: Dims, kind: str, number: int) -> dict[str, Array]:
    """Contents whose floats are made hard."""
    contents, rng = hearing.contents(dims, HARDER + number), np.random.default_rng([hearing.seed, HARDER + number])
    for name, stored in contents.items():
        spec = hearing.problem.buffers[name]
        if not spec.integer:
            smallest, most = LIMITS[spec.dtype]
            values = HARD[kind](spec.values(stored), rng, smallest, most)
            contents[name] = spec.stored(values, stored.shape)
    return contents


# the smallest normal and the largest number of each float type
LIMITS = {
    "f64": (2.0**-1022, 1.7e308), "f32": (2.0**-126, 3.4e38), "bf16": (2.0**-126, 3.3e38), "fp16": (2.0**-14, 65504.0)
}  # fmt: skip


def real(hearing: Hearing) -> None:
    for number, dims in enumerate(hearing.problem.real):
        contents, case = hearing.contents(dims, REALER + number), described(dims)
        got = hearing.run(hearing.bench(dims), contents, case, executor=None)
        hearing.hold(dims, contents, got, case)


CHECKS: dict[str, Callable[[Hearing], None]] = {
    "compiles": compiles, "alone": alone, "precision": precision, "bounds": bounds, "races": races, "runs": runs,
    "written": written, "unchanged": unchanged, "awkward": awkward, "guards": guards, "repeatable": repeatable,
    "fresh": fresh, "hard": hard, "real": real,
}  # fmt: skip
assert tuple(CHECKS) == tuple(QUESTIONS)


def left_out(problem: Problem, name: str) -> str:
    """The reason why a problem omits a question, "" where it does not."""
    without = {
        "repeatable": "" if problem.repeatable else "the problem allows results that depend on the order of threads",
        "hard": "" if problem.hard and any(not b.integer for b in problem.buffers.values()) else "no hard contents",
        "real": "" if problem.real else "the problem names no real sizes",
        "precision": "the problem allows narrow arithmetic" if problem.narrow else "",
    }
    return without.get(name, "")


def answer(hearing: Hearing, name: str) -> SubVerdict:
    """One sub-verdict. Raises BuildError for a problem that is at fault itself."""
    if why := left_out(hearing.problem, name):
        return SubVerdict(name, LEFT_OUT, why)
    if name not in FIRST:
        try:
            _ = hearing.submission.instructions
        except (BuildError, Wrong):
            return SubVerdict(name, WAITING, "waits for compiles")
    try:
        CHECKS[name](hearing)
    except Waits as waits:
        return SubVerdict(name, WAITING, str(waits))
    except Wrong as wrong:
        texts = (wrong.message, wrong.hint, wrong.case, wrong.seen, wrong.details)
        return SubVerdict(name, FAILED, *(cut(hearing.submission.plain(text)) for text in texts))
    return SubVerdict(name, PASSED)


def cut(text: str) -> str:
    """A message of a length that people read: a stranger's lines may be long, and many."""
    lines = [f"{line[:LONGEST_LINE]}..." if len(line) > LONGEST_LINE else line for line in text.splitlines()]
    return "\n".join([*lines[:MOST_LINES], *(["..."] if len(lines) > MOST_LINES else [])])


FIRST = ("compiles", "alone", "precision")  # those that need no run


def hear(problem: Problem, submission: Submission, seed: int = 0, on_progress: OnProgress = no_progress) -> Judgement:
    """All sub-verdicts, in this process and without limits; `on_progress` gets each of them at once. Raises BuildError
    for a problem whose own truth or contents are at fault."""
    began, hearing = time.monotonic(), Hearing(problem, submission, seed, on_progress)
    judgement = Judgement("", submission.name, seed, notes=hearing.notes)
    for name in QUESTIONS:
        on_progress("doing", name)
        check = answer(hearing, name)
        judgement.checks.append(check)
        on_progress("check", check)
    judgement.seconds = time.monotonic() - began
    return judgement
