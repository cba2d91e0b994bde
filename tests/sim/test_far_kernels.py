"""Kernels of updates, folds and products at the last element of tensors with more than 2^31 of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from far_device import ROWS, C, FarDevice

from core.kernels.nvrtc import Kernel, compile_ptx
from core.sim.launching.simulator import Simulator
from core.sim.machine.geometry import Shape
from core.step_record import CHUNK


class Tail:
    """A tensor of `size` elements, of which the last are `values`; NaN where they are to be written."""

    def __init__(self, size: int, values: Any) -> None:
        self.size, self.values = size, np.asarray(values)

    @property
    def nbytes(self) -> int:
        return self.size * self.values.itemsize


def launch_far(
    source: str, kernel: str, args: Sequence[Any], grid: Sequence[int], block: Sequence[int], last: int = 2,
    smem: int = 0, **defines: int,
):  # fmt: skip
    """The last elements of each Tail among `args` after the `last` thread blocks of a launch have run."""
    device, shape = FarDevice(0, 0), Shape((*grid, 1, 1)[:3], (*block, 1, 1)[:3])
    ptx = compile_ptx(Kernel(Path(source).resolve(), kernel, tuple(sorted({"ELEM": "float", **defines}.items())))).ptx
    simulator = Simulator(ptx, device.space)
    places = [device.space.allocate(a.nbytes) if isinstance(a, Tail) else 0 for a in args]
    for place, tail in zip(places, args, strict=True):
        if isinstance(tail, Tail):
            device.space.write(place + tail.nbytes - tail.values.nbytes, tail.values)
    packed = [
        p.to_bytes(8, "little") if isinstance(a, Tail) else a.tobytes() for a, p in zip(args, places, strict=True)
    ]
    device.run_blocks(simulator, kernel, packed, shape, np.arange(shape.blocks - last, shape.blocks), smem)
    return [
        device.space.read(p + a.nbytes - a.values.nbytes, a.values.nbytes).view(a.values.dtype).reshape(a.values.shape)
        for a, p in zip(args, places, strict=True)
        if isinstance(a, Tail)
    ]


RNG = np.random.default_rng(0)
MUON = "plugins/muon/cuda/muon_update.cu"
FAR_N = 2**32 + 77  # elements


def draw(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def unwritten(*shape: int) -> Any:
    return np.full(shape, np.nan, np.float32)


def test_the_norms_last_thread_block_sums_the_last_elements() -> None:
    x, blocks = draw(CHUNK + 77), -(-FAR_N // CHUNK)
    args = [Tail(blocks, np.full(2, np.nan)), Tail(FAR_N, x), np.uint64(FAR_N)]
    found, _ = launch_far("ops/cuda/global_norm.cu", "blocks_sums", args, (blocks,), (256,), CHUNK=CHUNK)
    np.testing.assert_allclose(found.sum(), np.square(x, dtype=np.float64).sum())


def test_the_last_gradients_of_rows_with_several_takers_are_folded() -> None:
    rows, K, takers = 2**32 // C + 9, np.int32(C), np.int32(2)
    parts = draw(3, 2, C)
    args = [Tail(rows * C, unwritten(3, C)), Tail(rows * 2 * C, parts), np.int32(rows), K, takers, np.int32(0)]
    found, _ = launch_far("plugins/moe/cuda/expert_matmul.cu", "grouped_fold", args, (-(-rows * C // 128),), (128,))
    np.testing.assert_allclose(found, parts.sum(1), rtol=1e-6)


def test_dpos_kernels_take_the_last_rows() -> None:
    source, rows, losses = "plugins/dpo/cuda/dpo_loss.cu", ROWS, draw(4, 3, C)
    args = [Tail(rows, unwritten(3)), *(Tail(rows * C, x) for x in losses), np.int32(rows), np.int32(C)]
    margin, *_ = launch_far(source, "margins", [*args, np.float32(0.1)], (-(-rows // 4),), (32, 4))
    c, r, c0, r0 = losses.sum(2)
    np.testing.assert_allclose(margin, 0.1 * ((r - r0) - (c - c0)), rtol=1e-4, atol=1e-5)
    args = [Tail(rows * C, unwritten(3, C)), Tail(1, np.float32([2])), Tail(rows, margin), np.int32(C), np.float32(0.3)]
    gradient, *_ = launch_far(source, "slope", args, (rows,), (32,), last=3)
    np.testing.assert_allclose(gradient, np.repeat(0.6 / (1 + np.exp(margin)), C).reshape(3, C), rtol=1e-5)


def test_attention_with_sinks_reaches_the_last_token_of_the_last_row() -> None:
    B, T, heads, D = 65535, 3, 64, 128  # 4.8e9 elements of qkv
    qkv, sink, null = draw(T, 3, heads, D), draw(heads), np.uint64(0)
    y, lse = Tail(B * T * heads * D, unwritten(D)), Tail(B * heads * T, unwritten(1))
    sizes = map(np.int32, (T, 0, heads, heads, D, 0))
    args = [y, lse, Tail(B * qkv.size, qkv), Tail(heads, sink), null, null, null, *sizes, np.float32(0.1)]
    source = "plugins/gptoss/cuda/sink_attention.cu"
    found, total, *_ = launch_far(source, "forward", args, (T, heads, B), (32,), last=1, smem=4 * D)
    q, k, v = qkv[-1, 0, -1], qkv[:, 1, -1], qkv[:, 2, -1]
    weights = np.exp(0.1 * k @ q)
    want = weights.sum() + np.exp(sink[-1])
    np.testing.assert_allclose(found, weights @ v / want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(total, np.log(want), rtol=1e-5)


def test_muons_kernels_take_the_last_elements_of_a_matrix() -> None:
    grid, n = (-(-FAR_N // 256),), np.uint64(FAR_N)
    m, grad, control = draw(200), draw(200), np.array([0.5, 0, 0, 0, 0, 1, 1, 0, 0, 0])  # lr; scale; ok
    blend = (np.float32(0.9), np.int32(0))
    args = [
        Tail(FAR_N, unwritten(200)),
        Tail(FAR_N, m),
        Tail(grid[0], unwritten(2)),
        Tail(FAR_N, grad),
        Tail(10, control),
    ]
    x, kept, *_ = launch_far(MUON, "direction", [*args, n, *blend], grid, (256,))
    np.testing.assert_allclose(kept, np.float32(0.9) * m + np.float32(0.1) * grad, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(x, kept)
    (halved, _) = launch_far(MUON, "unit", [Tail(FAR_N, m), Tail(1, np.float32([0.5])), n], grid, (256,))
    np.testing.assert_array_equal(halved, m / 2)
    arguments = [Tail(FAR_N, m), np.uint64(0), Tail(FAR_N, grad), Tail(10, control), n]
    arguments += [np.float32(0.25), np.float32(0), np.float32(0.5)]  # size; weight decay; the lr factor of a group
    w, *_ = launch_far(MUON, "step", arguments, grid, (256,))
    np.testing.assert_allclose(w, m - 0.5 * 0.5 * 0.25 * grad, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kernel", ["naive_product", "tiled_product"])
def test_muons_products_reach_the_last_element_of_a_matrix(kernel: str) -> None:
    rows, columns, inner = 2**16 + 3, 2**16 + 32, 5
    p, q = draw(3, inner), draw(inner, columns)
    strides = (columns, 1, inner, 1, columns, 1, rows, columns, inner)
    out = Tail(rows * columns, unwritten(2, columns))
    args = [out, np.uint64(0), Tail(rows * inner, p), Tail(inner * columns, q), np.float32(0), np.float32(1)]
    grid = (-(-columns // 32), -(-rows // 32))
    found, *_ = launch_far(MUON, kernel, [*args, *map(np.int32, strides)], grid, (32, 32), last=1)
    np.testing.assert_allclose(found[-1, -32:], (p[-1] @ q)[-32:], rtol=1e-4, atol=1e-5)
