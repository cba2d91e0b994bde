"""Tasks of puzzles whose answer is Python: a function with a NumPy truth, and an op that the op check grades."""

from __future__ import annotations

import copy
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BuildError, CoreError, words_of
from core.testing.author_file import foreign
from core.testing.check_report import VariantReport
from core.testing.compare import Array
from core.testing.pattern import Compared, Scene, seen
from core.testing.puzzle_types import OnActivity, PuzzleTask, PuzzleVerdict, no_display, read_answer

LINES = "lines"  # the one budget of a function: lines of the answer's file that a call runs
NEAR = 1e-6  # relative error of a result, to itself and to the largest element
Arguments = Callable[[np.random.Generator], Mapping[str, Any]] | Mapping[str, Any]


@dataclass(frozen=True)
class FunctionCase:
    """A call of the function. arguments: by name, or a function of a random generator. name: for findings
    and hints. budget: {"lines": n}, the most lines of the answer that the call may run, loops counted each time."""

    arguments: Arguments
    name: str = ""
    budget: Mapping[str, int] = field(default_factory=dict)

    def drawn(self, number: int) -> dict[str, Any]:
        """The arguments, random ones of a seed that is the case's number."""
        drawn = self.arguments
        return dict(drawn(np.random.default_rng(number)) if callable(drawn) else drawn)

    def words(self, arguments: Mapping[str, Any]) -> str:
        """The case as findings name it: its name, else its short arguments."""
        shown = (f"{k} = {brief(v)}" for k, v in arguments.items())
        return self.name or ", ".join(shown)


class FunctionTask(PuzzleTask):
    """A Python function called `function`, whose results are those of `truth` with the same arguments.

    cases: FunctionCase, or arguments alone; the simplest first. Results are numbers, arrays (any shape), tuples of them
    or dicts by name; tolerance is the relative error that is accepted. An answer may change no argument.
    """

    suffix = ".py"

    def __init__(
        self,
        function: str,
        truth: Callable[..., Any],
        *,
        cases: Sequence[FunctionCase | Arguments],
        tolerance: float = NEAR,
    ) -> None:
        self.function, self.truth, self.tolerance = function, truth, tolerance
        self.cases = [one if isinstance(one, FunctionCase) else FunctionCase(one) for one in cases]
        if wrong := next((name for one in self.cases for name in one.budget if name != LINES), ""):
            raise BuildError(f'a budget of "{wrong}" for a function', hint=f'{{"{LINES}": n}}')

    def verdict(self, answer: Path, on_activity: OnActivity = no_display) -> PuzzleVerdict:
        """See PuzzleTask; a case that fails ends the verdict."""
        space, verdict = module_of(answer)
        if verdict is not None:
            return verdict
        function = space.get(self.function)
        if not callable(function):
            return PuzzleVerdict("compiles", "missing", f"{answer.name} has no function {self.function}")
        late = []
        for number, case in enumerate(self.cases):
            arguments = case.drawn(number)
            words = case.words(arguments)
            on_activity(words)
            most = case.budget.get(LINES)
            verdict, lines = self._called(answer, function, arguments, words, most is not None)
            if verdict is not None:
                return verdict
            if most is not None and lines > most:
                message = f"right, but a call runs {lines:,} lines; {most:,} are enough"
                late.append(PuzzleVerdict("cheap", LINES, message, words))
        return late[0] if late else PuzzleVerdict()

    def _called(
        self, answer: Path, function: Callable[..., Any], arguments: Mapping[str, Any], words: str, counts: bool
    ) -> tuple[PuzzleVerdict | None, int]:
        """(finding or None, lines that ran) of one case; 0 lines where they do not count: counting is slow."""
        want = foreign("truth", self.truth, **copy.deepcopy(dict(arguments)))
        passed = copy.deepcopy(dict(arguments))
        try:
            inspect.signature(function).bind(**passed)
        except TypeError as error:
            message = f"{self.function} has other parameters than {', '.join(passed)}: {error}"
            return PuzzleVerdict("compiles", "missing", message, words), 0
        counter = LineCounter(str(answer))
        try:
            with np.errstate(all="ignore"), counter if counts else nullcontext():
                got = function(**passed)
        except MemoryError:
            raise
        except Exception as error:
            return raised(answer, error, words), 0
        if changed := next((k for k in arguments if not same(passed[k], arguments[k])), ""):
            message = f"{self.function} changed its argument {changed}"
            return PuzzleVerdict("right", "input changed", message, words), 0
        return compared(self.function, got, want, self.tolerance, words), counter.lines


class LineCounter:
    """A context that counts the lines of a file which run in it."""

    def __init__(self, file: str) -> None:
        self.file, self.lines = file, 0

    def __enter__(self) -> LineCounter:
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: Any, event: str, _: Any) -> Any:
        return self._line if frame.f_code.co_filename == self.file else None

    def _line(self, frame: Any, event: str, _: Any) -> Any:
        self.lines += event == "line"
        return self._line


def module_of(answer: Path) -> tuple[dict[str, Any], PuzzleVerdict | None]:
    """The names of an answer's file, or the finding that keeps it from running."""
    space: dict[str, Any] = {"__name__": answer.stem, "__file__": str(answer)}
    try:
        code = compile(read_answer(answer), str(answer), "exec")
    except SyntaxError as error:
        shown = f" `{error.text.strip()}`" if error.text else ""
        return space, PuzzleVerdict("compiles", "syntax", f"{answer.name}:{error.lineno}{shown}: {error.msg}")
    except ValueError as error:
        return space, PuzzleVerdict("compiles", "syntax", f"{answer.name}: {error}")
    try:
        exec(code, space)
    except MemoryError:
        raise
    except Exception as error:
        return space, raised(answer, error, "")
    return space, None


def raised(answer: Path, error: BaseException, words: str) -> PuzzleVerdict:
    """The finding of an exception: its line of the answer, and its text."""
    places = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(answer)]
    lines = read_answer(answer).splitlines()
    number = places[-1].lineno if places else None
    where = answer.name + (f":{number} `{lines[number - 1].strip()}`" if number else "")
    return PuzzleVerdict("runs", type(error).__name__, f"{where}: {words_of(error)}", words)


def compared(name: str, got: Any, want: Any, tolerance: float, words: str) -> PuzzleVerdict | None:
    """The finding of a result that is not the truth's, or None."""
    pairs = list(parts(name, got, want))
    for label, one, right in pairs:
        if one is None or one is ...:
            return PuzzleVerdict("written", "not written", f"{label} is {one}: nothing is returned", words)
        try:
            a, b = np.asarray(one, np.float64), np.asarray(right, np.float64)
        except (TypeError, ValueError):
            return PuzzleVerdict("right", "type", f"{label} is {brief(one)}; expected {brief(right)}", words)
        if a.shape != b.shape:
            message = f"{label} has the shape {a.shape}, and should have {b.shape}"
            return PuzzleVerdict("right", "shape", message, words)
    arrays = {k: Compared(np.asarray(a, np.float64), np.asarray(b, np.float64)) for k, a, b in pairs}
    for label, pair in arrays.items():
        off = wrong_elements(pair.got, pair.want, tolerance)
        if off.any():
            at = tuple(int(i) for i in np.unravel_index(int(np.argmax(off)), off.shape))
            many = f"; {off.sum():,} of {off.size:,} elements are wrong" if off.size > 1 else ""
            message = f"{label}{list(at) or ''} is {pair.got[at]:.8g}, and should be {pair.want[at]:.8g}{many}"
            return PuzzleVerdict("right", "wrong", message, words, seen(Scene(arrays), label))
    return None


def parts(name: str, got: Any, want: Any) -> Iterator[tuple[str, Any, Any]]:
    """(label, result, truth) of every number or array of a result; None for one that is not there."""
    if isinstance(want, Mapping):
        named = got if isinstance(got, Mapping) else {}
        yield from ((f'{name}["{k}"]', named.get(k), v) for k, v in want.items())
    elif isinstance(want, tuple | list):
        inner = list(got) if isinstance(got, tuple | list) else [got]
        inner += [None] * (len(want) - len(inner))
        yield from ((f"{name}, result {n}", a, b) for n, (a, b) in enumerate(zip(inner, want, strict=False)))
    else:
        yield f"{name}(...)", got, want


def wrong_elements(got: Array, want: Array, tolerance: float) -> Array:
    """The mask of elements that are off by more than a share of themselves and of the largest."""
    with np.errstate(all="ignore"):
        largest = float(np.max(np.abs(want[np.isfinite(want)]), initial=0.0))
        near = np.abs(got - want) <= tolerance * np.maximum(np.abs(want), largest)
    return np.asarray(~(near | (got == want) | (np.isnan(got) & np.isnan(want))))


def same(a: Any, b: Any) -> bool:
    """Whether an argument is unchanged; of other values than arrays and plain data nothing is known."""
    if isinstance(a, np.ndarray):
        return bool(a.shape == b.shape and a.tobytes() == b.tobytes())
    return not isinstance(a, int | float | str | tuple | list | dict) or repr(a) == repr(b)


def brief(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"an array {value.shape}"
    text = getattr(value, "__name__", "") or repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class OpTask(PuzzleTask):
    """An op that the answer defines, a plugin of one file; the op check grades its reference, or `variant`.

    `against`: "op.variant", the truth in place of the answer's own forward: an op with the same schema, shipped or of
    `plugins`, files of the puzzle's author. Without it only the backward is graded, by numeric derivatives.
    """

    suffix = ".py"

    def __init__(
        self, op: str, *, variant: str = "reference", against: str = "", plugins: Sequence[Path | str] = ()
    ) -> None:
        self.op, self.variant, self.against, self.plugins = op, variant, against, tuple(map(str, plugins))

    def verdict(self, answer: Path, on_activity: OnActivity = no_display) -> PuzzleVerdict:
        """See PuzzleTask. `core check --quick` first, one dtype and the smallest examples; then all examples: an op
        that is right at toy sizes may be wrong at others."""
        from core.loader import load_registry
        from core.testing.check import check_variant, find

        _, verdict = module_of(answer)
        if verdict is not None:
            return verdict
        theirs = find(self.against, load_registry(self.plugins))[0] if self.against else None
        try:
            registry = load_registry((*self.plugins, str(answer)))
            ((op, variant),) = find(f"{self.op}.{self.variant}", registry)
        except CoreError as error:
            return PuzzleVerdict("compiles", "missing", error.message, hint=error.hint)
        check = partial(
            check_variant, op, variant, registry, archs=(), whole=False, against=theirs, on_activity=on_activity
        )
        report = check(quick=True)
        if report.passed:
            report = check()
        if report.passed:
            return PuzzleVerdict()
        return finding_of(report)


OP_STAGES = {"schema": "compiles", "bounds": "runs", "written": "written"}  # sub-check -> stage


def finding_of(report: VariantReport) -> PuzzleVerdict:
    """The first finding of an op check that failed."""
    failure = report.first
    stage = "runs" if failure.raised else OP_STAGES.get(failure.check, "right")
    stage = "compiles" if failure.unbuilt else stage
    case = f"{failure.dtype}, example {failure.case}" if failure.case not in ("", "all") else ""
    return PuzzleVerdict(stage, failure.check, failure.message, case, failure.seen, failure.hint, failure.details)
