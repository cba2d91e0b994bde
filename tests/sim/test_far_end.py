"""Kernels at the far end of tensors that no machine here could hold: the last thread blocks of a grid over more than
2^31, or 2^32, elements, in the simulator, on memory of which only touched pages exist.

Each variant computes the last few rows of its tensors; all others are zero. What it must give there is what the
reference gives for these rows alone.
"""

from __future__ import annotations

import fnmatch
import mmap
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.device.launch import LaunchRecord
from core.device.simulated import SimDevice
from core.dtypes import NUMPY
from core.kernels.arguments import bytes_of
from core.kernels.nvrtc import Kernel, compile_ptx
from core.kernels.tensors import decode, encode
from core.loader import load_registry
from core.op import TensorSpec, Variant, make_tensors
from core.plan import first_config
from core.sim.launching.scheduler import Order, Scheduler
from core.sim.launching.simulator import Simulator
from core.sim.launching.thread_order import facts_of
from core.sim.machine.address_space import ALIGNMENT, Memory, Region
from core.sim.machine.geometry import Shape
from core.sim.machine.wording import Wording
from core.sim.resident import Batch
from core.step_record import CHUNK
from core.testing.case import make_case
from core.testing.devices import SimRunner
from core.testing.runner import POISON, Call, CpuRunner, Outcome
from core.testing.trial import GradientRequest, Trial
from core.testing.trials import modes_of, reference_of

SPACE = 1 << 39  # bytes of address space, of which only touched pages take memory
REGISTRY = load_registry([])


class Sparse(Memory):
    """Simulated memory of `SPACE` zero bytes: a sparse file, of which a page exists from its first access on."""

    def __init__(self) -> None:
        super().__init__()
        with tempfile.TemporaryFile() as file:
            file.truncate(SPACE)
            self.bytes = np.frombuffer(mmap.mmap(file.fileno(), SPACE), np.uint8)

    def allocate(self, nbytes: int, name: str = "", align: int = ALIGNMENT, itemsize: int = 1) -> int:
        start = -(-self.top // align) * align
        self.top = start + nbytes + ALIGNMENT
        assert self.top <= SPACE, f"{name}: {self.top:,} bytes"
        self.regions.append(Region(name or f"memory of {nbytes} bytes", start, nbytes, itemsize))
        self.starts.append(start)
        return start


class FarDevice(SimDevice):
    """Runs the thread blocks at the end of a grid's longest axis: those of the last `share` of it, and one more."""

    def __init__(self, share: float, more: int) -> None:
        super().__init__()
        self.space = Sparse()
        self.share, self.more = share, more

    def _run(self, asked: LaunchRecord) -> None:
        packed = [bytes_of(argument) for argument in asked.args]
        numbers, shape = self.numbers(asked.grid), Shape(asked.grid, asked.block)
        self.run_blocks(self._simulators[asked.kernel], asked.kernel.name, packed, shape, numbers, asked.smem)

    def run_blocks(
        self,
        simulator: Simulator,
        kernel: str,
        args: Sequence[bytes],
        shape: Shape,
        numbers: np.ndarray[Any, Any],
        smem: int = 0,
    ) -> None:
        """Run the thread blocks of these numbers."""
        program = simulator.program(kernel)
        simulator._pass_arguments(facts_of(program), args)
        words = Wording(program, self.space, shape, simulator.sources, smem)
        batch = Batch(program, words, shape, numbers, smem)
        with np.errstate(all="ignore"):
            Scheduler(batch).run(Order())

    def numbers(self, grid: Sequence[int]) -> np.ndarray[Any, Any]:
        """The numbers of the thread blocks that run."""
        axis = int(np.argmax(grid))
        last = min(int(np.ceil(self.share * grid[axis])) + 1 + self.more, grid[axis])
        ranges = [np.arange(n - last if i == axis else 0, n) for i, n in enumerate(grid)]
        x, y, z = np.meshgrid(*ranges, indexing="ij")
        return np.sort((x + grid[0] * (y + grid[1] * z)).reshape(-1))


class FarRunner(SimRunner):
    """Runs a call of few rows as the last rows of tensors with `far` dims."""

    trial: Trial

    def __init__(self, far: Mapping[str, Any], rows: int, near: int, more: int) -> None:
        super().__init__(REGISTRY)
        self.far, self.before = far, rows - near
        self.device_ = FarDevice(near / rows, more)

    @cached_property
    def target(self) -> Any:
        return self.device_

    def run(self, call: Call) -> Outcome:
        variant, device = call.variant, self.target
        specs, tensors = self._far(call), {}
        for name, spec in specs.items():
            if spec is not None and name not in call.shares:
                tensors[name] = device.tensor(device.allocate(spec.nbytes), 0, spec.shape, spec.dtype)
                device.space.regions[-1] = replace(device.space.regions[-1], name=f"tensor {name} {spec.shape}")
                contents = call.given.get(name)
                if contents is None:
                    tail = np.full(call.writes[name].nbytes, POISON, np.uint8)
                else:
                    tail = encode(self._shifted(name, contents), spec.dtype, contents.shape)
                device.space.write(tensors[name].pointer + spec.nbytes - tail.nbytes, tail)
        tensors |= {target: tensors[source] for target, source in call.shares.items()}
        given = {n: tensors.get(n) for n in specs}
        settled = make_tensors(self.far, specs, config={}, node="", **call.flags)
        config = first_config(variant, settled)
        settled.config = config
        t = make_tensors(self.far, given, config=config, node="", **call.flags)
        scratch = device.tensor(device.allocate(variant.workspace(settled)), 0, (variant.workspace(settled),), "u8")
        counters = device.tensor(device.allocate(4 * variant.counters(settled)), 0, (variant.counters(settled),), "u32")
        device.run(device.record(variant, call.method, t, self.pick, scratch, counters))
        return Outcome({name: self._tail(tensors[name], call, name) for name in tensors})

    def _far(self, call: Call) -> dict[str, TensorSpec | None]:
        """The specs of all tensors of a call, under the far dims."""
        dtype, case, found = self.trial.dtype, self.trial.case, {}
        saved = {**self.trial.saved_at(self.far)}
        for name in (*call.given, *call.writes):
            near = call.writes[name] if name in call.writes else call.given[name]
            if near is None:
                found[name] = None
            elif name in saved:
                found[name] = saved[name]
            elif name in case.extras:
                found[name] = TensorSpec(near.shape, call.dtypes[name])
            else:
                found[name] = case.spec(name, dtype, self.far)
        return found

    def _shifted(self, name: str, contents: Any) -> Any:
        """A key counts rows from the first, which is far before these."""
        if name != "key":
            return contents
        return contents - np.array([0, 0, 0, self.before % 2**32], np.uint32)

    def _tail(self, tensor: Any, call: Call, name: str) -> Any:
        shape = (call.writes[name] if name in call.writes else call.given[name]).shape
        kind = NUMPY[tensor.dtype]
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        stored = self.target.space.read(tensor.pointer + tensor.nbytes - size, size)
        return decode(stored.view(kind).reshape(shape), tensor.dtype)


@dataclass(frozen=True)
class Far:
    """Variants (globs), an example by its number of rows, how many rows there are and how many of them are computed.

    without: gradients that sum over all rows, or that need all thread blocks. more: thread blocks that run besides the
    last rows' own.
    """

    variants: str
    example: Any
    rows: int
    near: int = 3
    dtype: str = "f32"
    without: tuple[str, ...] = ()
    more: int = 0


C = 40  # columns of a row
ROWS = 2**32 // C + 9  # of rows of C elements: past 2^32 of them
BELOW = 2**31 - 8  # elements: none passes 2^31, but the last thread block's other threads would
WEIGHTS = ("dweight", "dbias", "dweight1", "dweight2", "dbias1", "dbias2")


def flat(n: int) -> dict[str, Any]:
    arena = dict.fromkeys(("param", "grad", "m", "v"), (n,))
    return {**arena, "group": (n // 64,)}


CASES = [
    Far("gelu.*", lambda n: {"x": (n, C)}, ROWS),
    Far("gelu.vector", lambda n: {"x": (n, C)}, ROWS, dtype="bf16"),
    Far("gelu.vector", lambda n: {"x": (n,)}, BELOW, near=40),
    Far("add.*", lambda n: {"a": (n, C), "b": (n, C)}, ROWS),
    Far("add.vector", lambda n: {"a": (n,), "b": (n,)}, BELOW, near=40),
    Far("scale.*", lambda n: {"x": (n, C), "by": -0.3}, ROWS),
    Far("dropout.*", lambda n: {"x": (n, C), "p": 0.5}, 4 * ROWS),  # past 2^32 groups of four
    Far("swiglu.*", lambda n: {"x": (n, 2 * C)}, ROWS),
    Far("mlp_swiglu.composed", lambda n: {"x": (n, 8), "r": (n, 8), "weight1": (2 * C, 8)}, ROWS, without=WEIGHTS),
    Far("geglu.*", lambda n: {"x": (n, 2 * C)}, ROWS),
    Far("combine.*", lambda n: {"x": (n, 2, C), "share": (n, 2)}, ROWS),
    Far("position.*", lambda n: {"x": (n, 3, C), "length": 5}, ROWS // 3, without=WEIGHTS),
    Far("embed.vector", lambda n: {"ids": (n, 3), "rows": 29, "cols": C, "length": 5}, ROWS // 3,
        without=("dweight", "dpositions")),
    Far("embedding.*", lambda n: {"ids": (n,), "rows": 29, "cols": C}, ROWS, without=WEIGHTS),
    Far("layernorm.naive", lambda n: {"x": (n, C)}, ROWS, without=WEIGHTS),
    Far("layernorm.warp", lambda n: {"x": (n, C)}, ROWS, without=WEIGHTS),
    Far("rmsnorm.*", lambda n: {"x": (n, C)}, ROWS, without=WEIGHTS),
    Far("qk_norm.*", lambda n: {"qkv": (n, 48), "heads": 2}, ROWS, without=("dq_weight", "dk_weight")),
    Far("cross_entropy.*", lambda n: {"logits": (n, C), "targets": (n,), "classes": 37}, ROWS),
    Far("matmul.naive", lambda n: {"x": (n, 8), "features": C}, ROWS, without=WEIGHTS),
    Far("matmul.tiled", lambda n: {"x": (n, 8), "features": C}, ROWS, without=WEIGHTS),
    Far("matmul.register", lambda n: {"x": (n, 8), "features": C}, ROWS, without=WEIGHTS),
    Far("matmul*.mma", lambda n: {"x": (n, 8), "features": C}, ROWS, dtype="bf16", without=WEIGHTS, more=8),
    Far("mlp_gelu.mma", lambda n: {"x": (n, 8), "r": (n, C), "weight1": (16, 8)}, ROWS, dtype="bf16", without=WEIGHTS,
        more=8),
    Far("attention.naive", lambda n: {"qkv": (n, 3, 48), "heads": 2}, ROWS // 3),
    Far("attention.online", lambda n: {"qkv": (n, 3, 48), "heads": 2}, ROWS // 3),
    Far("attention.flash", lambda n: {"qkv": (n, 3, 48), "heads": 2}, ROWS // 3, dtype="bf16"),
    Far("rope.*", lambda n: {"qkv": (n, 3, 48), "heads": 2}, ROWS // 3),
    Far("route.naive", lambda n: {"logits": (n, 16), "k": 2}, 2**32 // 16 + 9),
    Far("expert_matmul.naive", lambda n: {"x": (n, 1, 8), "expert": (n, 1, 2), "experts": 3, "features": C}, ROWS // 2,
        without=WEIGHTS),
    Far("adamw_update.*", flat, 2**32 + 64 * 3, near=128),
]  # fmt: skip


# Variants whose loops over all rows, or over a whole matrix, are too long for the simulator
LEFT_OUT = {
    "layernorm.shared": "a thread block walks a 512th of the rows",
    "head_loss.mma": "matmul.mma and cross_entropy.fused, on a slice of the rows at a time",
    "global_norm.naive": "one thread block walks all elements",
    "global_norm.blocks": "its verdict adds up a sum for each chunk; blocks_sums is below",
    "muon_update.naive": "products of whole matrices; its kernels are below",
    "muon_update.tiled": "products of whole matrices; its kernels are below",
    "balance.naive": "a thread block walks all rows",
    "expert_matmul.grouped": "a thread block walks all rows; grouped_fold is below",
    "rope_attention.decode": "at most 65,535 rows of 40 tokens: a larger grid is refused in words",
}


def variants(glob: str) -> list[Variant]:
    held = [
        v
        for of in REGISTRY.variants.values()
        for v in of.values()
        if v.device == "cuda" and v.sources and not v.library
    ]
    return [v for v in held if fnmatch.fnmatchcase(f"{v.op}.{v.name}", glob)]


NAMED = {f"{v.op}.{v.name} {case.dtype} {case.rows:,}": (case, v) for case in CASES for v in variants(case.variants)}


def test_every_variant_is_tried_at_the_far_end_or_says_why_not() -> None:
    tried = {f"{v.op}.{v.name}" for _, v in NAMED.values()}
    assert tried.isdisjoint(LEFT_OUT)
    assert tried | set(LEFT_OUT) == {f"{v.op}.{v.name}" for v in variants("*")}


def far_trial(case: Far, variant: Variant, mode: str) -> Trial:
    op = REGISTRY.op(variant.op)
    example, more = case.example(case.near), case.example(case.rows)
    if op.name == "matmul_add":
        example, more = ({"x": e["x"], "r": (e["x"][0], C)} for e in (example, more))
    near = make_case(op, example)
    if "key" in near.extras:
        near.extras["key"][3] = (case.rows - case.near) % 2**32
    shapes = {n: TensorSpec(tuple(more[n]), "") for n in op.inputs if n in more}
    runner = FarRunner(near.solve(shapes), case.rows, case.near, case.more)
    runner.trial = Trial(near, variant, reference_of(op, REGISTRY), case.dtype, mode, runner, CpuRunner(REGISTRY))
    return runner.trial


@pytest.mark.parametrize("name", NAMED)
def test_the_last_rows_of_a_tensor_that_passes_two_to_the_31_are_right(name: str) -> None:
    case, variant = NAMED[name]
    trial = far_trial(case, variant, modes_of(REGISTRY.op(variant.op), variant)[0])
    got = trial.train(GradientRequest(unwanted=frozenset(case.without)))
    want = trial.truth()
    for tensor, values in got.all.items():
        close = 2e-2 if case.dtype == "bf16" else 2e-5
        assert np.isfinite(values).all(), f"{tensor}: not all written"
        error = np.linalg.norm(values - want.all[tensor]) / max(np.linalg.norm(want.all[tensor]), 1e-30)
        assert error < close, f"{tensor}: {error}"


# --- kernels by themselves -----------------------------------------------------------------------------------------


class Tail:
    """A tensor of `size` elements, of which the last are `values`; NaN where they are to be written."""

    def __init__(self, size: int, values: Any) -> None:
        self.size, self.values = size, np.asarray(values)

    @property
    def nbytes(self) -> int:
        return self.size * self.values.itemsize


def launch_far(
    source: str, kernel: str, args: Sequence[Any], grid: Sequence[int], block: Sequence[int], last: int = 2,
    **defines: int,
):  # fmt: skip
    """The last elements of each Tail among `args` after the `last` thread blocks of a launch have run."""
    device, shape = FarDevice(0, 0), Shape((*grid, 1, 1)[:3], (*block, 1, 1)[:3])
    ptx = compile_ptx(Kernel(Path(source).resolve(), kernel, tuple(sorted({"ELEM_BF16": 0, **defines}.items())))).ptx
    simulator = Simulator(ptx, device.space)
    places = [device.space.allocate(a.nbytes) if isinstance(a, Tail) else 0 for a in args]
    for place, tail in zip(places, args, strict=True):
        if isinstance(tail, Tail):
            device.space.write(place + tail.nbytes - tail.values.nbytes, tail.values)
    packed = [
        p.to_bytes(8, "little") if isinstance(a, Tail) else a.tobytes() for a, p in zip(args, places, strict=True)
    ]
    device.run_blocks(simulator, kernel, packed, shape, np.arange(shape.blocks - last, shape.blocks))
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
    arguments = [Tail(FAR_N, m), np.uint64(0), Tail(FAR_N, grad), Tail(10, control), n, np.float32(0.25), np.float32(0)]
    w, *_ = launch_far(MUON, "step", arguments, grid, (256,))
    np.testing.assert_allclose(w, m - 0.5 * 0.25 * grad, rtol=1e-6, atol=1e-7)


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


# --- sources ---------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
SOURCES = [p for name in ("ops", "plugins", "core") for p in sorted((ROOT / name).rglob("*.cu*")) if p.is_file()]
FOREIGN = ("races.md", "simulator.md", "judge.md", "native.md")  # their kernels are anybody's, without the prelude
PAGES = [p for p in sorted((ROOT / "docs").glob("*.md")) if p.name not in FOREIGN]
TEXTS = {str(p.relative_to(ROOT)): p.read_text("utf-8") for p in [*SOURCES, *PAGES]}


@pytest.mark.parametrize("name", TEXTS)
def test_no_thread_number_and_no_loop_over_elements_is_of_32_bits(name: str) -> None:
    """The two ways to wrap that come back with every new kernel; a loop over all elements is too long to be run."""
    wraps = re.findall(r"(?<!\(u64\))blockIdx\.x \* (?:blockDim|gridDim).*", TEXTS[name])
    for kernel in re.split(r'(?=extern "C")', TEXTS[name]):
        for count in re.findall(r"\bu64 (\w+)[,)]", kernel.partition("{")[0]):
            wraps += re.findall(rf"\((?!u64 )\w+ (?:\w+) = [^;]*; \w+ < {count}\b.*", kernel)
    assert not wraps, "global_thread() and global_row() of the prelude, and u64 in loops over a u64, do not wrap"
