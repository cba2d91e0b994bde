"""PTX of Triton and Numba runs as they gave it. tests/ptx/README.md says how the files were made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import core.sim

PTX = Path(__file__).parents[1] / "ptx"
RNG = np.random.default_rng(0)
SCRATCH = [None, None]  # Triton's two last parameters, which these kernels do not use


def randn(*sizes: int) -> np.ndarray:
    return RNG.standard_normal(sizes, np.float32)


def array(a: np.ndarray) -> list[object]:
    """The parameters of an array in Numba: meminfo, parent, elements, bytes of one, address, sizes, strides."""
    return [None, None, a.size, a.itemsize, a, *a.shape, *a.strides]


@pytest.mark.parametrize("strict", [True, False])
def test_a_triton_kernel_adds_under_a_mask(strict: bool) -> None:
    x, y, z = randn(1000), randn(1000), np.full(1000, 9, np.float32)
    core.sim.run(PTX / "triton_add.ptx", "add", 4, 128, [x, y, z, 990, *SCRATCH], strict=strict)
    assert (z[:990] == (x + y)[:990]).all() and (z[990:] == 9).all()


@pytest.mark.parametrize("strict", [True, False])
def test_a_triton_kernel_takes_the_softmax_of_rows(strict: bool) -> None:
    x, y = randn(5, 200), np.zeros((5, 200), np.float32)
    core.sim.run(PTX / "triton_softmax.ptx", "softmax", 5, 128, [x, y, 200, *SCRATCH], smem=16, strict=strict)
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("strict", [True, False])
def test_a_triton_kernel_multiplies_matrices_on_tensor_cores(strict: bool) -> None:
    a, b, c = randn(80, 96).astype(np.float16), randn(96, 72).astype(np.float16), np.zeros((80, 72), np.float32)
    sizes = [80, 72, 96]
    core.sim.run(PTX / "triton_matmul.ptx", "matmul", (2, 2), 128, [a, b, c, *sizes, *SCRATCH], 16384, strict=strict)
    np.testing.assert_allclose(c, a.astype(np.float32) @ b.astype(np.float32), atol=1e-4)


def test_a_triton_kernel_counts_by_atomics() -> None:
    x, y = RNG.integers(0, 10, 700).astype(np.int32), np.zeros(10, np.int32)
    core.sim.run(PTX / "triton_histogram.ptx", "histogram", 3, 128, [x, y, 700, *SCRATCH], strict=False)
    assert (y == np.bincount(x, minlength=10)).all()


@pytest.mark.parametrize("strict", [True, False])
def test_a_numba_kernel_scales_an_array(strict: bool) -> None:
    x, y = randn(100), np.zeros(100, np.float32)
    core.sim.run(PTX / "numba_scale.ptx", "scale", 2, 64, [*array(y), *array(x), 3.0], strict=strict)
    assert (y == np.float32(3) * x).all()


@pytest.mark.parametrize("strict", [True, False])
def test_a_numba_kernel_transposes_through_shared_memory(strict: bool) -> None:
    x, y = randn(40, 50), np.zeros((50, 40), np.float32)
    core.sim.run(PTX / "numba_transpose.ptx", "transpose", (4, 3), (16, 16), [*array(y), *array(x)], strict=strict)
    assert (y == x.T).all()


def test_a_numba_kernel_sums_by_shuffles_and_an_atomic() -> None:
    x, y = np.abs(randn(1000)), np.zeros(1, np.float32)
    core.sim.run(PTX / "numba_total.ptx", "total", 2, 64, [*array(y), *array(x)], order="warn")
    np.testing.assert_allclose(y[0], np.sqrt(x).sum(), rtol=1e-5)


def test_a_kernel_of_numba_is_called_by_its_pythons_name_in_the_list() -> None:
    (name,) = core.sim.load(PTX / "numba_scale.ptx").kernels
    assert name.startswith("__main__::scale(Array<float, 1, C, mutable, aligned>, ")
