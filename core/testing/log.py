"""The log of a check: failures, the number of runs of each sub-check, the worst error; comparison of tensors.

It knows no sub-check; they are in checks.py, cached_decoding.py, numeric.py, random_bits.py and update.py.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import core
from core.errors import BuildError, CoreError, words_of
from core.op import Variant
from core.registry import shorten
from core.testing.compare import EPSILON, UNITS, Array, bounds_for, bounds_of, difference
from core.testing.pattern import Compared, Scene, region, seen
from core.testing.runner import OTHER, Outcome, unwritten
from core.testing.trial import PLAIN, GradientRequest, Training, Trial

LOOKED_AT = 40  # failures of a variant whose values are searched for clues


class StopChecks(Exception):
    """The first failure is enough, or no more can be learned."""


@dataclass(frozen=True)
class Failure:
    """A failure of a sub-check; `error` is relative.

    seen: a clue in the wrong values, hint: the remedy, both "" where there is none. raised: whether the
    launcher itself gave up, or the simulator did; details: the address and the PTX of its finding; in_kernel: whether
    the simulator names the accesses, which `core view --kernel` shows.
    """

    check: str
    message: str
    error: float
    case: str
    dtype: str
    seen: str = ""
    hint: str = ""
    raised: bool = False
    unbuilt: bool = False  # a BuildError: no compilation, or a launch that does not fit the kernel
    details: str = ""
    in_kernel: bool = False


@dataclass
class Log:
    """The findings on one variant: failures, and by sub-check how often it ran and the worst error it saw.

    stop: whether the first failure ends the check. clues: whether wrong values are searched for a pattern."""

    stop: bool = False
    clues: bool = True
    failures: list[Failure] = field(default_factory=list)
    ran: dict[str, int] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)
    by_dtype: dict[str, dict[str, float]] = field(default_factory=dict)  # the same by dtype; "all" and "" for neither
    case: str = ""
    dtype: str = ""
    ranges: dict[str, int] = field(default_factory=dict)  # where rows are shared out -> the most ranges of any example
    parts: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # (tensor, a part of it) -> times that
    # the part was perturbed, and times that a number of the tensor changed

    def passed(self, check: str, error: float = 0.0) -> None:
        self.ran[check] = self.ran.get(check, 0) + 1
        self.worst[check] = max(self.worst.get(check, 0.0), error)
        of_dtype = self.by_dtype.setdefault(self.dtype, {})
        of_dtype[check] = max(of_dtype.get(check, 0.0), error)

    def failed(self, check: str, message: str, error: float = float("nan"), **clues: Any) -> None:
        """clues: `seen`, `hint`, `raised`, `unbuilt`, `details` and `in_kernel` of the Failure."""
        self.passed(check, 0.0 if np.isnan(error) else error)
        self.failures.append(Failure(check, message, error, self.case, self.dtype, **clues))
        if self.stop:
            raise StopChecks

    def verdict(self, check: str, ok: bool, message: str, error: float = 0.0, **clues: Any) -> None:
        if ok:
            self.passed(check, error)
        else:
            self.failed(check, message, error, **clues)

    @contextmanager
    def caught(self, check: str) -> Iterator[None]:
        """A variant's exception becomes a failure; one for reading an undeclared tensor is a failure of `reads`."""
        try:
            yield
        except StopChecks:
            raise
        except AttributeError as error:
            text = str(error)
            check = "reads" if text.startswith("t has no ") else check
            self.failed(check, f"raised AttributeError: {text} ({place_of(error)})", raised=True)
        except CoreError as error:  # it has its own place
            details, kind = getattr(error, "details", ""), getattr(error, "kind", "")
            in_kernel = bool(getattr(error, "accesses", ())) and kind != "endless"
            self.failed(check, error.message, hint=error.hint, raised=True, unbuilt=isinstance(error, BuildError),
                        details=details, in_kernel=in_kernel)  # fmt: skip
            if kind == "endless":
                raise StopChecks from None  # each further run would take as long for the same result
        except Exception as error:
            message = f"raised {words_of(error)} ({place_of(error)})"
            self.failed(check, message, hint=advice_on(error), raised=True)


HERE = str(Path(core.__file__).parent)
NOT_AUTHORS = re.compile(rf"{re.escape(HERE)}[\\/](?!ops|plugins)|[\\/]site-packages[\\/]|^<")


def place_of(error: BaseException) -> str:
    """file:line of the innermost frame that is neither the core's nor a library's: where an author looks first."""
    frames = traceback.extract_tb(error.__traceback__)
    authors = [f for f in frames if not NOT_AUTHORS.search(f.filename)]
    return shorten(f"{(authors or frames)[-1].filename}:{(authors or frames)[-1].lineno}") if frames else "?"


def advice_on(error: Exception) -> str:
    """The remedy for a frequent exception: an assignment into a gradient of `None`."""
    frames = traceback.extract_tb(error.__traceback__)
    into = re.search(r"\bt\.(d\w+)\[", frames[-1].line or "") if frames else None
    if isinstance(error, TypeError) and "NoneType" in str(error) and into:
        return (
            f'{into[1]} is None when no gradient is needed: t.add("{into[1]}", ...) writes it, adds to it, or drops it'
        )
    return ""


def compare(
    log: Log,
    check: str,
    trial: Trial,
    name: str,
    got: Array,
    want: Array,
    note: str = "",
    excuse: Callable[[str], float] | None = None,
    scene: Scene | None = None,
) -> None:
    """Compare one tensor with the truth, by both bounds. `excuse`: see Trial.excuse. scene: the run's other tensors."""
    if not np.any(want):
        compare_to_zero(log, check, trial, name, got, note)
        return
    bounds = bounds_for(bounds_of(trial.variant, trial.dtype), trial.dtype, got.size)
    distance = difference(got, want)
    if not distance.exceeds(bounds) or not distance.exceeds(bounds, (excuse or trial.excuse)(name)):
        log.passed(check, distance.norm)
        return
    scene = scene or Scene({name: Compared(got, want)}, trial.case.dims, {}, trial.dtype)
    log.failed(
        check,
        f"{name}{note}: {distance.described(bounds)}",
        distance.norm,
        seen=seen(scene, name) if log.clues and len(log.failures) < LOOKED_AT else "",
    )


def compare_to_zero(log: Log, check: str, trial: Trial, name: str, got: Array, note: str) -> None:
    """Compare with a truth of zeros, by a bound relative to the largest tensor: a relative error does not exist."""
    if not got.size:
        return
    allowed = UNITS * EPSILON[trial.dtype] * trial.largest
    at = np.unravel_index(int(np.argmax(np.where(np.isnan(got), np.inf, np.abs(got)))), got.shape)
    largest = float(abs(got[at]))
    place = [int(i) for i in at]
    message = f"{name}{note}: got {float(got[at]):.9g} at {place}, expected 0 everywhere (allowed {allowed:.0e})"
    log.verdict(check, largest <= allowed, message, seen="the right values are all 0")


def no_excuse(name: str) -> float:
    return 0.0


def compare_gradients(
    log: Log, check: str, trial: Trial, got: Training, request: GradientRequest, note: str = ""
) -> None:
    """Compare all gradients with the truth; where the variant adds, with the sum."""
    scene = scene_of(trial, got, request)
    for name, gradient in got.gradients.items():
        want = scene.tensors[name].want
        compare(log, check, trial, name, gradient, want, note, lambda n: trial.excuse(n, request.absent), scene)


def compare_outputs(log: Log, check: str, trial: Trial, got: Training, note: str = "") -> None:
    """Compare all outputs with the truth."""
    truth = trial.truth()
    pairs = {name: Compared(value, truth.outputs[name]) for name, value in got.outputs.items()}
    scene = Scene(pairs, trial.case.dims, {}, trial.dtype)
    for name, value in got.outputs.items():
        compare(log, check, trial, name, value, truth.outputs[name], note, scene=scene)


def scene_of(trial: Trial, got: Training, request: GradientRequest = PLAIN) -> Scene:
    """The gradients of a run beside their truth; the values that they were added to count."""
    truth = trial.truth(request.absent)
    pairs = {}
    for name, gradient in got.gradients.items():
        start = got.starts.get(name)
        want = truth.gradients[name] if start is None else truth.gradients[name] + start.astype(np.float64)
        pairs[name] = Compared(gradient, want, start if name in request.add else None)
    return Scene(pairs, trial.case.dims, trial.seeds, trial.dtype)


def trained(log: Log, check: str, trial: Trial, request: GradientRequest = PLAIN) -> Training | None:
    """Train by the request; None if that raised. Guards, inputs and unwritten elements are tested every time."""
    got: Training | None = None
    with log.caught(check):
        got = trial.train(request)
    if got is None:
        return None
    kept_out(log, got)
    log.passed("reads")
    for place, count in got.ranges.items():
        log.ranges[place] = max(count, log.ranges.get(place, 0))
    check_written(log, trial, got, request)
    return got


def check_written(log: Log, trial: Trial, got: Training, request: GradientRequest) -> None:
    """Everything that is owed is written: outputs and gradients whole, each saved tensor at all.

    An integer may hold the very bytes that it started as, as an i32 -1 does: it is unwritten if it is so under another
    fill too.
    """
    saved = got.saved if trial.mode == "backward" else {}  # elsewhere nothing reads them
    owed = {**saved, **{n: v for n, v in got.all.items() if n not in got.starts}}
    holes = {name: unwritten(tensor) for name, tensor in owed.items()}
    doubtful = [name for name, hole in holes.items() if owed[name].dtype.kind in "iu" and hole.any()]
    if doubtful:
        again = trial.train(replace(request, fill=OTHER))
        held = {**again.all, **again.saved}
        holes |= {name: holes[name] & unwritten(held[name], OTHER) for name in doubtful}
    for name, hole in holes.items():
        if not hole.any() or (name in got.saved and not hole.all()):
            log.passed("written")
            continue
        first = [int(i) for i in np.unravel_index(int(np.argmax(hole)), hole.shape)]
        prefix = "the saved tensor " if name in got.saved else ""
        where = f"{prefix}{name}: {int(hole.sum())} of {hole.size} elements not written, the first at {first}"
        log.failed("written", where, seen=region(hole, "not written"), hint=how_to_write(trial, got, name, hole))


def how_to_write(trial: Trial, got: Training, name: str, hole: Array) -> str:
    """The mistake that leaves a tensor unwritten, and its remedy; "" where only part of it is."""
    later = name in got.gradients and trial.mode == "backward"
    method = "backward" if later else "forward" if trial.mode != "forward_backward" else trial.mode
    right = f't.add("{name}", ...)' if name in got.gradients else f"t.{name}[...] = ..."
    if not hole.all():
        return ""
    if name in got.replaced:
        return f"t.{name} = ... gives the name to another array; write into the one that is there: {right}"
    if returns_a_value(trial.variant, method):
        return f"what {method} returns is dropped; write into the tensors that it is given: {right}"
    if trial.runner.kind.compiles:
        return f"no kernel that {method} launches writes {name}"
    if name in got.saved:
        return f"`saved` declares {name}, so that forward has to fill it: {right}"
    return f"{method} has to give {name}: {right}"


def returns_a_value(variant: Variant, method: str) -> bool:
    """Whether a launcher's own code returns a value, by its source; functions inside of it may."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(type(variant), method))))
    except (OSError, TypeError, SyntaxError):
        return False
    waiting: list[ast.AST] = list(tree.body[0].body) if isinstance(tree.body[0], ast.FunctionDef) else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return) and node.value is not None:
            return True
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
    return False


def kept_out(log: Log, got: Training | Outcome, note: str = "") -> None:
    """No byte outside of the tensors, and no read-only tensor, was written."""
    log.verdict("bounds", not got.overrun, f"wrote outside of {', '.join(got.overrun)}{note}")
    log.verdict("unchanged", not got.changed, f"changed a read-only tensor: {', '.join(got.changed)}{note}")
