"""Public names explain themselves: a docstring each, the errors that they raise, their arrays' shapes and dtypes."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import core
import core.hooks
import core.interop
import core.judge
import core.sim
import core.testing
import core.testing.puzzle
from core.hooks import SPECS

MODULES = (core, core.sim, core.testing, core.interop, core.judge, core.testing.puzzle)
SHAPE = re.compile(r"\([^()]*,\)|\([^()]+, [^()]+\)|\.\.\.|any shape|same shape|leading dims|flat|bytes")
DTYPE = re.compile(r"\b(f32|f64|bf16|u8|i32|i64|bool|dtype|float|integers?|bytes)\b")
ARRAY = re.compile(r"\b(Array|ndarray|ArrayLike|NDArray)\b")


def public() -> Iterator[tuple[str, Any, str]]:
    """(name, function or class, docstring of its class) of every public name, methods and properties included."""
    for module in MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                yield f"{module.__name__}.{name}", value, ""
            if inspect.isclass(value):
                for own, member in vars(value).items():
                    inner = getattr(member, "__func__", getattr(member, "fget", getattr(member, "func", member)))
                    if not own.startswith("_") and inspect.isfunction(inner) and inner.__name__ != "<lambda>":
                        yield f"{module.__name__}.{name}.{own}", inner, value.__doc__ or ""
    for hook in SPECS:
        yield f"core.hooks.{hook}", getattr(core.hooks, hook), ""


def raised(function: Any) -> set[str]:
    """The classes of errors that a function's own lines raise and do not catch; abstract methods raise none."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    inside = {id(n) for t in ast.walk(tree) if isinstance(t, ast.Try) for part in t.body for n in ast.walk(part)}
    calls = [n.exc for n in ast.walk(tree) if isinstance(n, ast.Raise) and n.exc and id(n) not in inside]
    names = [c.func if isinstance(c, ast.Call) else c for c in calls]
    return {n.id for n in names if isinstance(n, ast.Name) and n.id[0].isupper()} - {
        "NotImplementedError",
        "AssertionError",
    }


def arrays(function: Any) -> list[str]:
    """The names of a function's array parameters, and `return`."""
    notes = inspect.signature(function).parameters.items()
    named = [name for name, p in notes if ARRAY.search(str(p.annotation))]
    return [*named, *(["return"] if ARRAY.search(str(inspect.signature(function).return_annotation)) else [])]


NAMES = {name: (value, owner) for name, value, owner in public()}
FUNCTIONS = [name for name, (value, _) in NAMES.items() if inspect.isfunction(value)]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_docstring(name: str) -> None:
    assert (NAMES[name][0].__doc__ or "").strip()


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if raised(NAMES[n][0])])
def test_a_public_function_names_the_errors_that_it_raises(name: str) -> None:
    function, owner = NAMES[name]
    missing = [error for error in raised(function) if error not in f"{function.__doc__} {owner}"]
    assert not missing


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if arrays(NAMES[n][0])])
def test_a_public_function_gives_shape_and_dtype_of_its_arrays(name: str) -> None:
    function, owner = NAMES[name]
    text = f"{function.__doc__} {owner}"
    assert SHAPE.search(text), "no shape"
    assert DTYPE.search(text), "no dtype"


def test_the_rules_have_teeth() -> None:
    def silent(x: "np.ndarray") -> None:  # noqa: F821, UP037
        """Doubles x."""
        raise ValueError

    assert raised(silent) == {"ValueError"} and arrays(silent) == ["x"]
    assert not SHAPE.search(silent.__doc__ or "") and not DTYPE.search(silent.__doc__ or "")
    assert SHAPE.search("x: (B, T) f32") and DTYPE.search("x: (B, T) f32")
