"""Kernels at the far end of tensors that no machine here could hold: the last thread blocks of a grid over more than
2^31, or 2^32, elements, in the simulator, on memory of which only touched pages exist.

Each variant computes the last few rows of its tensors; all others are zero. What it must give there is what the
reference gives for these rows alone.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from far_device import ROWS, C, FarDevice

from core.dtypes import NUMPY
from core.kernels.tensors import decode, encode
from core.loader import load_registry
from core.op import TensorSpec, Variant, make_tensors
from core.plan import first_config
from core.testing.case import make_case
from core.testing.devices import SimRunner
from core.testing.runner import POISON, Call, CpuRunner, Outcome
from core.testing.trial import GradientRequest, Trial
from core.testing.trials import modes_of, reference_of

REGISTRY = load_registry([])


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
    Far("lora_add.*", lambda n: {"a": (n, C), "b": (n, C), "scale": 0.25}, ROWS),
    Far("concat.*", lambda n: {"a": (n, C - 7), "b": (n, 7)}, ROWS),
    Far("relu*.generated", lambda n: {"x": (n, C)}, ROWS),
    Far("silu.generated", lambda n: {"x": (n, C)}, ROWS),
    Far("silu_gate.generated", lambda n: {"x": (n, C), "gate": (n, C)}, ROWS),
    Far("softcap.generated", lambda n: {"x": (n, C)}, ROWS),
    Far("unit_*.generated", lambda n: {"x": (n, C)}, ROWS),
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
    Far("rmsnorm.[nw]*", lambda n: {"x": (n, C)}, ROWS, without=WEIGHTS),
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
    Far("split.naive", lambda n: {"x": (n, C), "first": 5}, ROWS),
    Far("causal_conv.naive", lambda n: {"x": (n, 3, C)}, ROWS // 3, without=WEIGHTS),
    Far("adamw_update.*", flat, 2**32 + 64 * 3, near=128),
]  # fmt: skip


# Variants whose loops over all rows, or over a whole matrix, are too long for the simulator
LEFT_OUT = {
    "layernorm.onepass": "thread blocks, as many as run at once, walk all rows",
    "rmsnorm.onepass": "thread blocks, as many as run at once, walk all rows",
    "matmul.rows": "at most 16 rows",
    "matmul_add.rows": "at most 16 rows",
    "mlp_gelu.rows": "at most 16 rows",
    "attention.split": "at most 16 queries that share keys, and 2^31 thread blocks",
    "head_loss.mma": "matmul.mma and cross_entropy.fused, on a slice of the rows at a time",
    "global_norm.naive": "one thread block walks all elements",
    "global_norm.blocks": "its verdict adds up a sum for each chunk; blocks_sums is below",
    "muon_update.naive": "products of whole matrices; its kernels are below",
    "muon_update.tiled": "products of whole matrices; its kernels are below",
    "muon_update.mma": "products of whole matrices",
    "balance.naive": "a thread block walks all rows",
    "expert_matmul.grouped": "a thread block walks all rows; grouped_fold is below",
    "expert_matmul.mma": "a thread block walks all rows",
    "dpo_loss.warp": "one warp adds up all rows; margins and slope are below",
    "sink_attention.warp": "dsink walks all rows; forward, on 65,535 rows, which is the most, is below",
    "selective_scan.chunked": "at most 65,535 sequences, and more are refused; a thread walks 32 tokens, or all chunks",
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
