"""The reason why a plugin is broken: an unknown hook, one of another form, or the line where its code failed."""

from __future__ import annotations

import inspect
import traceback
from types import ModuleType
from typing import Any

from core.discovery import Candidate
from core.errors import BuildError, CoreError, did_you_mean, words_of
from core.hooks import SPECS
from core.registry.places import shorten


def wrong_hook(name: str, function: Any) -> BuildError:
    """The error for a function that is called like a hook and is none: by its name, or by its arguments."""
    place = place_of(function)
    if name not in SPECS:
        return BuildError(
            f"{place}: there is no hook {name}{did_you_mean(name, SPECS)}",
            hint=f"the hooks are: {', '.join(SPECS)}; names core_* are kept for them",
        )
    written, arguments = inspect.signature(function), inspect.signature(SPECS[name]).parameters
    keyword = "async def" if inspect.iscoroutinefunction(function) else "def"
    return BuildError(
        f"{place}: written: {keyword} {name}{written.replace(return_annotation=written.empty)}; "
        f"specified: def {name}({', '.join(arguments)})",
        hint="a plain function, neither generator nor async, with these arguments or fewer",
    )


def no_hook(module: ModuleType) -> BuildError:
    """The error for a module that is no plugin."""
    return BuildError(
        f"{shorten(str(getattr(module, '__file__', None) or module.__name__))} defines no hook",
        hint=f"a plugin defines at least one of: {', '.join(SPECS)}",
    )


def wrong_list(name: str, function: Any, returned: Any, wrong: list[Any], words: str, place: str) -> BuildError:
    """The error for a hook's result. wrong: items of a list that are not of the kind in `words` and `place`."""
    if not isinstance(returned, list | tuple):
        return BuildError(f"{place_of(function)}: {name} returned {_kind(returned)}; expected a list")
    expected = words + place.partition(":")[2] if words.endswith(" ") else words
    return BuildError(f"{place_of(function)}: {name} returned a list with {_kind(wrong[0])}; expected {expected}")


def reason_of(error: BaseException, candidate: Candidate) -> str:
    """One line: the error, and the author's own file and line where it happened."""
    if isinstance(error, CoreError):
        return error.message
    text = words_of(error).splitlines()[0]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({shorten(error.filename)}:{error.lineno})"
    root = str(candidate.root or candidate.home or "")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if root and frame.filename.startswith(root):
            return f"{text} ({shorten(frame.filename)}:{frame.lineno})"
    return text


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"{type(value).__name__} {str(value)[:60]!r}"


def place_of(function: Any) -> str:
    """file:line of a function, as far as it is known."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return shorten(f"{code.co_filename}:{code.co_firstlineno}") if code else getattr(function, "__module__", "?")
