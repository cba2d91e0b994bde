"""A plugin's hooks of a run: `core_train_start`, `core_step_end` after each step, `core_train_end`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy


@dataclass(frozen=True)
class StepHook:
    """A plugin's hook of a run: pluggy calls it with the arguments that it names."""

    plugin: str
    hook: Callable[..., Any]
    name: str = "core_step_end"

    def __call__(self, run: Any, step: int = 0, metrics: Mapping[str, Any] | None = None, training: Any = None) -> None:
        arguments: dict[str, Any] = {"run": run, "training": training}
        if self.name == "core_step_end":
            arguments |= {"step": step, "metrics": metrics}
        self.hook(**arguments)


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
