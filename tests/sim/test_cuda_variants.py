"""The CUDA kernels themselves, run by the simulator: every variant passes the op check, and a small GPT-2 learns.

They are compiled for the simulator alone; test_cuda_compiles.py is about the chips.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.config import load_config
from core.graph import load_model
from core.loader import load_registry
from core.testing import real_sizes
from core.testing.check import check_variant
from core.train.wiring import build_engine, learning_rate

REGISTRY = load_registry(only=())
VARIANTS = [f"{op}.{v.name}" for op, held in REGISTRY.variants.items() for v in held.values() if v.device == "cuda"]

# the shipped configuration at the smallest sizes that still have two heads and rows that end in a tail
CONFIG = "configs/tiny.toml"
SMALL = {"V": 61, "C": 32, "H": 2, "L": 1, "S": 16, "T": 16, "B": 2}
BETWEEN_TYPES = {"bf16": 2**-8, "fp16": 2**-11}  # the bits that they keep

# Which examples are enough here, of the op's and then the variant's own: every head size and every tile is compiled and
# simulated anew. Negative numbers are the variant's own. All of them: `core check --all --device sim`, with whose
# verdicts on the sources as they are the release comes (test_released.py). Of the kernels of matmul.mma, several large
# tiles each way are in the example of head_loss.mma; of attention, documents are in those of the other two.
ENOUGH = {
    "attention.naive": (1, 3, 4, -2, -1),
    "attention.online": (3, -1),
    "attention.flash": (4, -4, -2),
    "attention.split": (-4, -3),
    "matmul.mma": (1,),
    "matmul.register": (-1,),
    "matmul_add.mma": (1, -2),
    "mlp_gelu.mma": (1,),
    "head_loss.mma": (-3,),
    "embedding.sorted": (0, -3, -1),
    "embed.vector": (0, -1),
    "layernorm.onepass": (-4, -3),
}


@pytest.fixture(autouse=True)
def fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the usual work at sizes of practice: still many thread blocks along each axis."""
    monkeypatch.setattr(real_sizes, "WORK", real_sizes.WORK / 4)


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_passes_the_op_check_in_the_simulator(name: str) -> None:
    """Where all examples are run, they reach every line and go round every loop, but for what is declared. In fp16,
    whose source is that of bf16, an example is enough."""
    op, _, variant = name.partition(".")
    held, enough = REGISTRY.variant(op, variant), ENOUGH.get(name)
    dtypes = ("bf16",) if held.tf32 else tuple(d for d in held.dtypes if d != "fp16")  # f32 as TF32: test_tf32.py
    report = check_variant(REGISTRY.op(op), held, REGISTRY, "sim", examples=enough, archs=(), dtypes=dtypes)
    assert report.passed, report.describe_failures()
    checked = next(name for name in ("forward", "update", "decode") if name in report.checks)  # what a variant is for
    assert report.checks[checked][0] >= min(2, len(enough or VARIANTS))
    assert enough or not report.gaps, report.gaps
    how = {"examples": (enough or (0,))[:1], "archs": (), "dtypes": ("fp16",)}
    half = check_variant(REGISTRY.op(op), held, REGISTRY, "sim", **how)
    assert half.passed and half.checks[checked][0] >= 1, half.describe_failures()


def test_there_are_two_variants_of_every_op_of_gpt2() -> None:
    ops = ("embedding", "position", "layernorm", "matmul", "attention", "gelu", "add", "cross_entropy")
    for op in (*ops, "adamw_update", "global_norm"):
        assert sum(name.partition(".")[0] == op for name in VARIANTS) >= 2, op


def test_every_rung_of_a_ladder_says_in_a_line_what_it_is_worth() -> None:
    of_ops = [v for variants in load_registry().variants.values() for v in variants.values() if v.device == "cuda"]
    named = {f"{v.op}.{v.name}": v for v in of_ops if v.origin == "corelm"}
    assert len(named) >= 30
    assert not [name for name, v in named.items() if "__doc__" not in vars(type(v)) or not type(v).__doc__]


def losses(device: str, steps: int, precision: str = "f32", **ops: str) -> list[float]:
    """Of the first steps of a run on the same few sequences again and again, so that there is much to learn."""
    overrides = [f"dims.{name}={size}" for name, size in SMALL.items()]
    overrides += [f"precision={precision}", "train.steps=20", "schedule.warmup=2"]
    overrides += [f'ops.{op}="{variant}"' for op, variant in ops.items()]
    config = load_config(CONFIG, overrides=overrides, device=device)
    engine = build_engine(config, REGISTRY, load_model(config.model, REGISTRY), None)
    engine.initialize(config.seed)
    lr, rng, found = learning_rate(config, REGISTRY), np.random.default_rng(0), []
    rows: list[Any] = [rng.integers(0, SMALL["V"], (2, 17)).astype(np.int32) for _ in range(2)]
    for step in range(steps):
        tokens = rows[step % 2]
        record = engine.step([{"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}], lr(step))
        assert record.ok
        found.append(record.loss)
    return found


@pytest.fixture(scope="module")
def on_cpu() -> list[float]:
    found = losses("cpu", 20)
    assert found[-1] < found[0] - 0.3  # it learns
    return found


def test_twenty_steps_in_the_simulator_have_the_losses_of_the_cpu(on_cpu: list[float]) -> None:
    np.testing.assert_allclose(losses("sim", 20), on_cpu, rtol=1e-4)


def test_steps_of_the_naive_kernels_have_the_losses_of_the_cpu(on_cpu: list[float]) -> None:
    naive = {name.partition(".")[0]: "naive" for name in VARIANTS if name.endswith(".naive")}
    for op in ("adamw_update", "global_norm", "dropout"):
        naive.pop(op)
    np.testing.assert_allclose(losses("sim", 3, **naive), on_cpu[:3], rtol=1e-4)


@pytest.mark.parametrize("precision", BETWEEN_TYPES)
def test_16_bits_in_the_simulator_are_within_their_rounding_of_f32(on_cpu: list[float], precision: str) -> None:
    np.testing.assert_allclose(losses("sim", 4, precision), on_cpu[:4], rtol=BETWEEN_TYPES[precision])
