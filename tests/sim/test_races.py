"""docs/races.md: strict mode refuses the faulty form of each kernel, with its kind, and passes the mended one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import core.sim

pytestmark = pytest.mark.usefixtures("screens")

PAGE = (Path(__file__).parents[2] / "docs/races.md").read_text("utf-8")
Array = np.ndarray[Any, Any]


def floats(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@dataclass
class Lesson:
    """kind: of the KernelError; "" for a fault that the truth finds. output: the argument that holds the result. hides:
    whether the faulty form goes unnoticed with `hidden`, the arguments of the authors' own setting."""

    kind: str
    words: str
    grid: Any
    block: Any
    args: Callable[[], list[Any]]
    truth: Callable[..., Array]
    hidden: Callable[[], list[Any]] | None = None
    output: int = 0


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def softmax(y: Array, x: Array, C: Any) -> Array:
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


LESSONS = {
    "softmax": Lesson("race", "both", 2, 64, lambda: [zeros(2, 100), floats(2, 100), np.int32(100)], softmax),
    "row_sum": Lesson(
        "race", "part", 2, 64, lambda: [zeros(2), floats(2, 100), np.int32(100)], lambda y, x, C: x.sum(1)
    ),
    "product": Lesson(
        "race", "tile", 1, 64, lambda: [zeros(64), floats(192), floats(192, 64), np.int32(3)],
        lambda y, x, w, n: x @ w, lambda: [zeros(64), floats(64), floats(64, 64), np.int32(1)],
    ),
    "add_rows": Lesson(
        "out of bounds", "has 120 elements", 1, 64,
        lambda: [zeros(40, 3), floats(40, 3), floats(40, 3), np.int32(40), np.int32(3)], lambda y, a, b, *_: a + b,
        lambda: [zeros(64, 3), floats(64, 3), floats(64, 3), np.int32(64), np.int32(3)],
    ),
    "squares": Lesson(
        "race", "x", 1, 32, lambda: [floats(43), np.int32(43)], lambda x, n: x * x,
        lambda: [floats(41), np.int32(41)],
    ),
    "total": Lesson(
        "race", "part", 3, 32, lambda: [zeros(1), floats(90), zeros(3), np.zeros(1, np.uint32), np.int32(90)],
        lambda y, x, *_: x.sum(keepdims=True),
    ),
    "twice": Lesson(
        "race", "each element needs one owner", (1, 2), 32,
        lambda: [zeros(2, 20), floats(2, 20), np.int32(2), np.int32(20)],
        lambda y, x, *_: 2 * x,
    ),
    "reversed": Lesson(
        "uninitialised", "tile", 1, 64, lambda: [zeros(512), floats(512)], lambda y, x: x[::-1],
    ),
    "tiles_sum": Lesson(
        "in flight", "ring", 1, 32, lambda: [zeros(1), floats(6 * 32), np.int32(6)],
        lambda y, x, n: (x.reshape(-1, 32) @ np.arange(1, 33)).sum(keepdims=True),
        lambda: [zeros(1), floats(4 * 32), np.int32(4)],
    ),
    "matmul": Lesson(
        "", "", 1, (8, 8), lambda: [zeros(8, 8), floats(8, 8), floats(8, 8) + 1, np.int32(8), np.int32(8)],
        lambda c, a, b, *_: a @ b,
        lambda: [zeros(8, 8), floats(8, 8), np.full((8, 8), 0.01, np.float32), np.int32(8), np.int32(8)],
    ),
}  # fmt: skip


def forms() -> dict[str, tuple[str, str]]:
    """kernel -> (its faulty form, its mended form), from the page."""
    found = {}
    for block in re.findall(r"^```diff\n(.*?)^```$", PAGE, re.M | re.S):
        lines = block.splitlines()
        faulty, mended = ("\n".join(line[1:] for line in lines if line[:1] != sign) for sign in "+-")
        found[re.search(r"__global__ void (\w+)", faulty)[1]] = faulty, mended  # type: ignore[index]
    return found


def ran(text: str, name: str, args: list[Any], strict: bool = True) -> tuple[Array, Array]:
    """(the result, the truth)."""
    lesson = LESSONS[name]
    want = lesson.truth(*[a.copy() for a in args])
    core.sim.run(text, name, lesson.grid, lesson.block, args, strict=strict)
    return args[lesson.output], want


def test_every_kernel_of_the_page_has_a_lesson() -> None:
    assert list(forms()) == sorted(LESSONS, key=list(forms()).index) and len(LESSONS) == PAGE.count("**Lesson:**")


@pytest.mark.parametrize("name", LESSONS)
def test_the_faulty_form_is_found_and_the_mended_one_is_right_and_clean(name: str) -> None:
    lesson, (faulty, mended) = LESSONS[name], forms()[name]
    got, want = ran(mended, name, lesson.args())
    assert np.allclose(got, want, rtol=1e-5, atol=1e-5)
    if lesson.kind:
        with pytest.raises(core.sim.KernelError) as error:
            ran(faulty, name, lesson.args())
        assert error.value.kind == lesson.kind and lesson.words in str(error.value), error.value
    else:
        got, want = ran(faulty, name, lesson.args())
        assert not np.allclose(got, want, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", [name for name, lesson in LESSONS.items() if lesson.hidden])
def test_the_fault_is_hidden_where_the_page_says_so(name: str) -> None:
    hidden = LESSONS[name].hidden
    assert hidden is not None
    got, want = ran(forms()[name][0], name, hidden())
    assert np.allclose(got, want, rtol=1e-5, atol=1e-5)


def test_the_python_of_the_page_prints_what_it_says(capfd: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    exec(compile(block, "docs/races.md", "exec"), {})
    out = capfd.readouterr().out
    (said,) = re.findall(r'It prints "(.*?)"', PAGE)
    assert said in out and "kernel.cu:5" in out
