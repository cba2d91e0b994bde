"""A plugin's `core_step_end`, which a run calls after each step."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pluggy


@dataclass(frozen=True)
class StepHook:
    """A plugin's `core_step_end`: pluggy calls it with the arguments that it asks for."""

    plugin: str
    hook: Callable[..., Any]

    def __call__(self, run: Any, step: int, metrics: dict[str, Any]) -> None:
        self.hook(run=run, step=step, metrics=metrics)


def take_by_name(written: pluggy.HookImpl, names: tuple[str, ...]) -> None:
    """Have an implementation take all arguments of its specification, and its function those that it names.

    pluggy before 1.7 fills no parameter that has a default; so it is filled here, by every version.
    """
    function = written.function
    takes = [name for name in inspect.signature(function).parameters if name in names]

    @functools.wraps(function)
    def called(*values: Any) -> Any:
        arguments = dict(zip(names, values, strict=True))
        return function(**{name: arguments[name] for name in takes})

    implementation: Any = written  # its attributes are final to type checkers
    implementation.function, implementation.argnames, implementation.kwargnames = called, names, ()
