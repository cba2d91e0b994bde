"""Problems for `core judge` that are at fault themselves: an error that says why, and no verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from judged import RIGHT, changed, failure, heard

from core import i32
from core.errors import BuildError
from core.judge import KernelLaunch, Problem


@pytest.mark.parametrize(
    "make, words",
    [
        (changed(outputs={}), "no outputs"),
        (changed(sizes=[]), "no sizes"),
        (changed(sizes=[{"n": 0}]), "positive int"),
        (changed(sizes=[{"n": 3}, {"m": 3}]), "each of n"),
        (changed(inputs={"x": "n : f31"}), 'element type "f31"; did you mean "f32"'),
        (changed(inputs={"x": "N"}), '"N" is not known'),
        (changed(inputs={"x": ""}), "no dims"),
        (changed(truth=lambda z: z), 'truth takes "z"'),
        (changed(hard=["nann"]), 'hard contents "nann"; did you mean "nan"'),
        (changed(scalars={"a": 1.5}), "a kernel's scalars are typed"),
        (changed(scalars={"a": i32(2**40)}), "i32 holds"),
        (changed(zeroed=["x"]), 'zeroed "x" is neither an output'),
        (changed(launches=KernelLaunch("scale", "y z n")), 'no buffer, scalar or dim "z"'),
        (changed(launches=KernelLaunch("scale", "y x n:half")), "one of the types"),
        (changed(launches=KernelLaunch("scale", "y x n", grid="n / 128")), "expected a whole number"),
    ],
)
def test_a_problem_that_does_not_fit_together_says_why(make: Callable[[], Problem], words: str) -> None:
    with pytest.raises(BuildError) as error:
        make()
    assert words in str(error.value)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"truth": lambda x: x[1:]}, 'shape (0,) for "y"; "n" is (1,) under n = 1'),
        ({"truth": lambda x: (x, x)}, "truth returns 2 arrays; the outputs are y"),
        ({"truth": lambda x: {"z": x}}, "truth returns z; the outputs are y"),
        ({"truth": lambda x: x[5]}, "truth raised IndexError"),
        ({"truth": lambda x: None}, 'truth returns object of shape () for "y"'),
        ({"contents": lambda rng, dims: {"x": np.zeros(7)}}, 'contents gives "x" of shape (7,)'),
        ({"contents": lambda rng, dims: {"q": np.zeros(7)}}, 'contents gives "q", which is not an input'),
    ],
)
def test_a_truth_that_gives_something_else_is_the_problems_fault(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BuildError) as error:
        heard(changed(**fields)(), RIGHT)
    assert words in str(error.value)


def test_a_launch_that_no_gpu_takes_is_named_with_its_limit() -> None:
    problem = changed(launches=KernelLaunch("scale", "y x n", grid="cdiv(n, 2048)", block=2048))()
    which, lines = failure(heard(problem, RIGHT))
    assert which == "runs" and "a thread block of 2048 threads; at most 1024" in lines
