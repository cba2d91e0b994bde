"""The approximate functions: near the truth, and the same bits on every machine and in every NumPy."""

from __future__ import annotations

import math
from hashlib import sha256

import numpy as np
import pytest

from core.sim.instructions.approximate import FUNCTIONS, ex2
from core.sim.instructions.tensor_cores import products

TRUTH = {"ex2": np.exp2, "lg2": np.log2, "sin": np.sin, "cos": np.cos, "tanh": np.tanh}
# Of 4,096 arguments each; changed only when the definition changes, which changes every executor.
BITS = {
    "ex2": "4099c84c7eb87849",
    "lg2": "81199396ebbfbd1a",
    "sin": "38456aeaf1484fa7",
    "cos": "82e51c63edfe904a",
    "tanh": "14ce30c51c80159d",
}
SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 2.0**-149, float(np.finfo(np.float32).max), -150.0, 128.0]
)


def arguments() -> np.ndarray:
    """f32 values of every size in f64: all exponents, and the usual range."""
    every = (np.arange(2048, dtype=np.uint64) * 2097143 + 12345).astype(np.uint32).view(np.float32)
    usual = np.linspace(-12, 12, 2048, dtype=np.float32) * np.float32(1.0009765)
    with np.errstate(invalid="ignore"):  # a signalling NaN among them
        return np.concatenate([every, usual]).astype(np.float64)


@pytest.mark.parametrize("name", TRUTH)
def test_an_approximate_function_is_near_the_truth_at_every_size(name: str) -> None:
    x = np.concatenate([arguments(), SPECIAL])
    with np.errstate(all="ignore"):
        got, expected = (f(x).astype(np.float32).astype(np.float64) for f in (FUNCTIONS[name], TRUTH[name]))
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    assert np.array_equal(
        np.signbit(got[-11:]) & ~np.isnan(got[-11:]), np.signbit(expected[-11:]) & ~np.isnan(got[-11:])
    )
    known = ~np.isnan(got)
    np.testing.assert_allclose(
        got[known], expected[known], rtol=2.0**-23, atol=2.0**-36 if name in ("sin", "cos") else 0
    )


@pytest.mark.parametrize("name", TRUTH)
def test_an_approximate_function_has_these_bits_on_every_machine(name: str) -> None:
    with np.errstate(all="ignore"):
        result = FUNCTIONS[name](arguments())
    result[np.isnan(result)] = 0.0
    assert sha256(result.tobytes()).hexdigest()[:16] == BITS[name]


def test_powers_of_two_are_exact() -> None:
    x = np.arange(-149.0, 129.0)
    assert np.array_equal(ex2(x), np.ldexp(1.0, x.astype(int)))


def test_products_are_summed_from_the_first_to_the_last() -> None:
    """1e16 + 1 - 1e16 is 0 in this order, and 1 in another."""
    left, right = np.array([[1e16, 1.0, -1e16]]), np.ones((3, 1))
    assert products(left, right)[0, 0] == 0.0
    assert math.fsum(left[0]) == 1.0
