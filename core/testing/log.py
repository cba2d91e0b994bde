"""What a check finds: failures in words, how often each sub-check ran, the worst error; and how tensors are compared.

It knows no sub-check; those are in checks.py, decode.py, numeric.py, random_bits.py and update.py.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import core
from core.errors import CoreError, words_of
from core.registry import shorten
from core.testing.compare import Array, bounds_of, difference
from core.testing.runner import Outcome, unwritten
from core.testing.trial import PLAIN, Asked, Training, Trial


class Stop(Exception):
    """The first failure was all that was asked for."""


@dataclass(frozen=True)
class Failure:
    """What a sub-check found, in words; `error` is relative."""

    check: str
    message: str
    error: float
    case: str
    dtype: str


@dataclass
class Log:
    """The findings on one variant: failures, and by sub-check how often it ran and the worst error it saw."""

    stop: bool = False
    failures: list[Failure] = field(default_factory=list)
    ran: dict[str, int] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)
    by_dtype: dict[str, dict[str, float]] = field(default_factory=dict)  # the same by dtype; "all" and "" for neither
    case: str = ""
    dtype: str = ""
    ranges: dict[str, int] = field(default_factory=dict)  # where rows are shared out -> the most ranges of any example

    def passed(self, check: str, error: float = 0.0) -> None:
        self.ran[check] = self.ran.get(check, 0) + 1
        self.worst[check] = max(self.worst.get(check, 0.0), error)
        of_dtype = self.by_dtype.setdefault(self.dtype, {})
        of_dtype[check] = max(of_dtype.get(check, 0.0), error)

    def failed(self, check: str, message: str, error: float = float("nan")) -> None:
        self.passed(check, 0.0 if np.isnan(error) else error)
        self.failures.append(Failure(check, message, error, self.case, self.dtype))
        if self.stop:
            raise Stop

    def verdict(self, check: str, ok: bool, message: str, error: float = 0.0) -> None:
        if ok:
            self.passed(check, error)
        else:
            self.failed(check, message, error)

    @contextmanager
    def caught(self, check: str) -> Iterator[None]:
        """What a variant raises is a finding; reading what it did not declare is one of `reads`."""
        try:
            yield
        except Stop:
            raise
        except AttributeError as error:
            text = str(error)
            undeclared = text.startswith("t has no ")
            self.failed("reads" if undeclared else check, f"raised AttributeError: {text} ({place_of(error)})")
        except CoreError as error:  # it says itself where
            self.failed(check, str(error))
        except Exception as error:
            self.failed(check, f"raised {words_of(error)} ({place_of(error)})")


HERE = str(Path(core.__file__).parent)
NOT_AUTHORS = re.compile(rf"{re.escape(HERE)}[\\/](?!ops|plugins)|[\\/]site-packages[\\/]|^<")


def place_of(error: BaseException) -> str:
    """file:line of the innermost frame that is neither the core's nor a library's: where an author looks first."""
    frames = traceback.extract_tb(error.__traceback__)
    authors = [f for f in frames if not NOT_AUTHORS.search(f.filename)]
    return shorten(f"{(authors or frames)[-1].filename}:{(authors or frames)[-1].lineno}") if frames else "?"


def compare(
    log: Log,
    check: str,
    trial: Trial,
    name: str,
    got: Array,
    want: Array,
    note: str = "",
    excuse: Callable[[str], float] | None = None,
) -> None:
    """Hold one tensor against the truth, by both bounds. `excuse`: see Trial.excuse."""
    bounds = bounds_of(trial.variant, trial.dtype)
    found = difference(got, want)
    ok = not found.exceeds(bounds) or not found.exceeds(bounds, (excuse or trial.excuse)(name))
    log.verdict(
        check,
        ok,
        f"{name}{note}: relative error {found.norm:.2e} (allowed {bounds.norm:.0e}), projection {found.projection:.1e} "
        f"(allowed {bounds.projection:.0e}); worst at {list(found.index)}: got {found.got:.9g}, "
        f"expected {found.want:.9g}, relative {found.relative:.2e}",
        found.norm,
    )


def no_excuse(name: str) -> float:
    return 0.0


def compare_gradients(log: Log, check: str, trial: Trial, got: Training, asked: Asked, note: str = "") -> None:
    """Hold all gradients against the truth; where the variant was to add, against the sum."""
    truth = trial.truth(asked.absent)
    for name, gradient in got.gradients.items():
        want = truth.gradients[name]
        if name in got.starts:
            want = want + got.starts[name].astype(np.float64)
        compare(log, check, trial, name, gradient, want, note, lambda n: trial.excuse(n, asked.absent))


def trained(log: Log, check: str, trial: Trial, asked: Asked = PLAIN) -> Training | None:
    """Train as asked; None if that raised. Guards, inputs and unwritten elements are looked at every time."""
    got: Training | None = None
    with log.caught(check):
        got = trial.train(asked)
    if got is None:
        return None
    kept_out(log, got)
    log.passed("reads")
    for place, count in got.ranges.items():
        log.ranges[place] = max(count, log.ranges.get(place, 0))
    for name, tensor in got.all.items():
        holes = unwritten(tensor)
        if name in got.starts or not holes.any():
            log.passed("written")
            continue
        first = [int(i) for i in np.unravel_index(int(np.argmax(holes)), holes.shape)]
        log.failed("written", f"{name}: {int(holes.sum())} of {holes.size} elements not written, the first at {first}")
    return got


def kept_out(log: Log, got: Training | Outcome, note: str = "") -> None:
    """Nothing outside of the tensors, and nothing that may only be read, was written to."""
    log.verdict("bounds", not got.overrun, f"wrote outside of {', '.join(got.overrun)}{note}")
    log.verdict("unchanged", not got.changed, f"changed what it may only read: {', '.join(got.changed)}{note}")
