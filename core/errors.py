"""Errors that a user can cause, and their exit codes.

Each is a `CoreError`: the command line prints it without a traceback and exits with its code. Its message gives the
expected value, the actual one and the place; its hint gives the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CoreError(Exception):
    """Base of all expected failures. `hint` is one sentence with the remedy."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class CheckFailed(CoreError):
    """A check ran and failed."""

    exit_code = 1


class UsageError(CoreError):
    """A wrong command line or run config; a glob that matches nothing included."""

    exit_code = 2


class BuildError(CoreError):
    """A model graph, plugin or kernel that cannot be built."""

    exit_code = 3


class DeviceError(CoreError):
    """A device that is absent, unusable or out of memory."""

    exit_code = 4


class OutOfMemory(DeviceError):
    """A device's memory that is too small for the request."""


class NumericsError(CoreError):
    """A loss or gradient that is not finite."""

    exit_code = 5


class DataError(CoreError):
    """Training data or a tokenizer that cannot be read or does not fit."""

    exit_code = 6


class CheckpointError(CoreError):
    """A checkpoint that is missing, damaged or does not fit."""

    exit_code = 7


LONGEST_WORDS = 2000  # characters of a foreign exception's text that a message takes


def words_of(error: BaseException) -> str:
    """An exception of foreign code as text: "ValueError: too small". Its own __str__ may raise, or be endless."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception as inner:
        return f"{name}, whose text cannot be had ({type(inner).__name__})"
    cut = f"{text[:LONGEST_WORDS]}..." if len(text) > LONGEST_WORDS else text
    return f"{name}: {cut}" if cut else name


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The candidate closest to `name`, or "" when none is close."""
    close = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return close[0] if close else ""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """'; did you mean "steps"?', or '' when nothing is close: the end of an error's message."""
    close = nearest(name, candidates)
    return f'; did you mean "{close}"?' if close else ""


def raise_all(problems: list[str], kind: type[CoreError], *, hint: str = "") -> None:
    """Raise one error that lists every problem; do nothing when there is none."""
    if not problems:
        return
    if len(problems) == 1:
        raise kind(problems[0], hint=hint)
    raise kind(f"{len(problems)} problems:\n" + "\n".join(f"  {p}" for p in problems), hint=hint)
