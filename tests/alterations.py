"""Alterations of files from outside, and the bounds of their reading: 2 GiB more, 10 seconds of CPU, a CoreError."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from core.errors import CoreError

MORE_MEMORY = 2 << 30  # bytes
CPU_SECONDS = 10.0

fuzz = settings(
    max_examples=1000, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def only_expected(read: Callable[[], Any]) -> Any:
    """What `read` returns, or the CoreError that it raises. Anything else comes through; a hang becomes one."""

    def hangs(*_: Any) -> None:
        raise AssertionError(f"more than {CPU_SECONDS} seconds of CPU")

    before = signal.signal(signal.SIGPROF, hangs)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        return read()
    except CoreError as error:
        assert str(error)
        return error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# --- alterations -------------------------------------------------------------------------------------------------

ODD: list[Any] = [
    *(0, -1, 1, 2, 3, 2**31, 2**32, 2**62, 2**63, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e308, 1e-320, True, False),
    *(
        float("inf"),
        float("nan"),
        "",
        " ",
        "x",
        "\0",
        "\ud800",
        "é",
        "a" * 300,
        "../../x",
        "/etc/passwd",
        "~",
        "*",
        "[",
    ),
    *("9**9**9", "1/0", "C", "B", "T", "L", "3*C", "pad(V, 0)", "pad(V, 10**9)", "normal(C)", "normal(1/0)", "zeros"),
    *("B T : i32 < V", "B T : i32 < -1", ": acc", "... C", "... ...", "i32", "F32", "BF16", "wte.weight", "logits"),
    *("h", "h.0.x", "tokens", "layer", "add", "matmul", "attention", "embedding", "gelu", "in", "out", "h.*", "none"),
    *([], {}, [[]], [1], ["x"], [0, 2**61], {"x": 1}, {"": {}}, [{"x": []}], {"op": "gelu", "in": "x"}, [None], None),
    *({"block": "layer", "in": "h", "repeat": 3}, {"loss": 1e300}, {"weight": "wte.weight"}, "cpu", "adamw", "cosine"),
]
KINDS = ("replace", "remove", "rename", "swap", "double", "insert", "wrap")
EDITS = st.lists(st.integers(0, 2**40), min_size=1, max_size=3)  # one number an edit: drawing several takes longer
CUT = st.tuples(st.integers(0, 9999), st.integers(0, 40), st.binary(max_size=6))  # where, how much, what instead


def slots(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a document: (table or list, key or index)."""
    places: list[tuple[Any, Any]] = []
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, inner in items:
        places.append((value, key))
        if isinstance(inner, dict | list):
            places += slots(inner)
    return places


def altered(document: Any, edits: list[int]) -> Any:
    """A copy of a document after some edits, each at a place and with an odd value or another place."""
    document = copy.deepcopy(document)
    for number in edits:
        places = slots(document)
        if not places:
            break
        number, kind = number // len(KINDS), KINDS[number % len(KINDS)]
        number, odd = number // len(ODD), ODD[number % len(ODD)]
        table, key = places[number % len(places)]
        there, its = places[number // len(places) % len(places)]
        value = copy.deepcopy(odd)
        if kind == "replace":
            table[key] = value
        elif kind == "remove":
            del table[key]
        elif kind == "swap":
            table[key], there[its] = copy.deepcopy(there[its]), copy.deepcopy(table[key])
        elif kind == "double":
            table[key] = copy.deepcopy(there[its])
        elif kind == "wrap":
            table[key] = [table[key]]
        elif isinstance(table, list):
            table.append(value)
        elif kind == "rename":
            table[odd if isinstance(odd, str) else str(its)] = table.pop(key)
        else:
            table[str(its)] = value
    return document


def cut(data: bytes, where: tuple[int, int, bytes]) -> bytes:
    at, length, put = where
    at %= len(data) + 1
    return data[:at] + put + data[at + length :]
