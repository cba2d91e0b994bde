"""The CUDA kernels as text: what a reader is promised of each .cu file. The op check says that they are right."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from core.ops.global_norm import settle_step

from core.kernels.sources import include_folder
from core.loader import load_registry
from core.sim import run
from core.step_record import CHUNK, CONTROL, SLOT, StepRecord

FOLDER = Path(__file__).parents[2] / "ops" / "cuda"
FILES = sorted(FOLDER.glob("*.cu"))
HEADERS = sorted(FOLDER.glob("*.cuh"))
PUBLIC = sorted((include_folder() / "core").glob("*.cuh"))
REGISTRY = load_registry()
OPS = sorted({v.op for held in REGISTRY.variants.values() for v in held.values() if v.device == "cuda" and v.sources})
KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+(?://[^\n]*\s+)?)?(\w+)\(')
LINES = 25  # of a naive kernel, its signature included
ONE_IS_ENOUGH = ("route", "balance")  # a few numbers a token: nothing to gain
ONE_ALONE = {
    "dpo_loss": "warp",
    "sink_attention": "warp",
    "concat": "naive",
    "lora_add": "naive",
    "split": "naive",
    "causal_conv": "naive",
    "selective_scan": "chunked",
}  # of any priority


def kernels(text: str) -> dict[str, str]:
    """Name -> text of each kernel, signature to closing brace."""
    return {m[1]: text[m.start() : text.index("\n}", m.start()) + 2] for m in KERNEL.finditer(text)}


def code(text: str) -> str:
    return re.sub(r"//[^\n]*", "", text)


def ladder(text: str) -> str:
    """The comment that a file opens with."""
    lines = text.splitlines()
    return "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("//"))])


@pytest.mark.parametrize("op", OPS)
def test_an_op_has_a_naive_variant_that_runs_everywhere_and_a_better_one_that_is_taken_first(op: str) -> None:
    """A fused op needs neither: where it cannot run, a plan takes the ops that it replaces. An op of formulas has
    generated kernels."""
    held = [v for v in REGISTRY.variants[op].values() if v.device == "cuda"]
    assert all(variant.repeatable for variant in held)
    if REGISTRY.op(op).replaces or REGISTRY.op(op).formulas:
        return
    if op in ONE_ALONE:
        assert [v.name for v in held] == [ONE_ALONE[op]]
        return
    naive, *others = sorted((v for v in held if v.priority >= 0), key=lambda v: v.priority)  # less is never automatic
    assert naive.name == "naive" and naive.priority == 0
    assert naive.dtypes == ("f32", "bf16", "fp16") and naive.arch == "sm_75+"
    assert all(v.priority > 0 for v in others) and (others or op in ONE_IS_ENOUGH)


def test_every_op_of_gpt2_and_of_its_update_has_cuda_variants() -> None:
    graph_ops = ["embedding", "position", "layernorm", "matmul", "attention", "gelu", "add", "cross_entropy", "dropout"]
    assert {*graph_ops, "global_norm", "adamw_update"} <= set(OPS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_file_opens_with_a_ladder_of_its_kernels(path: Path) -> None:
    text = path.read_text("utf-8")
    assert kernels(text)
    for name in kernels(text):
        assert re.search(rf"\b{name}\b", ladder(text)), f"{name} is not in the ladder of {path.name}"
    assert "limited by" in " ".join(ladder(text).replace("//", " ").lower().split())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_naive_kernel_has_at_most_25_lines(path: Path) -> None:
    found = {name: body for name, body in kernels(path.read_text("utf-8")).items() if name.startswith("naive_")}
    assert found or path.stem not in OPS or REGISTRY.op(path.stem).replaces
    for name, body in found.items():
        assert len(body.splitlines()) <= LINES, f"{name} has {len(body.splitlines())} lines"


@pytest.mark.parametrize("path", [*FILES, *HEADERS, *PUBLIC], ids=lambda p: p.name)
def test_kernels_need_no_headers_but_those_beside_them_and_the_cores_and_add_only_counts_atomically(path: Path) -> None:
    text = path.read_text("utf-8")
    included = re.findall(r"^\s*#\s*include\s*(.*)", text, re.M)
    able = {header.name for header in HEADERS} | {f"core/{header.name}" for header in PUBLIC}
    assert {name.strip('"') for name in included} <= able
    others = re.findall(r"\batomic(?!Add\([^;,]*, 1\)).*|\bred\..*", code(text))
    assert not others, "bits would depend on the order of the thread blocks"
    assert not [line for line in text.splitlines() if len(line) > 120]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_launcher_launches_every_kernel_of_its_file(path: Path) -> None:
    launchers = [text for text in (p.read_text("utf-8") for p in FOLDER.glob("*.py")) if path.name in text]
    beside = path.with_suffix(".py")
    launched = "\n".join(launchers + ([beside.read_text("utf-8")] if beside.is_file() else []))
    for name in kernels(path.read_text("utf-8")):
        stem, _, rest = name.partition("_")
        assert f'"{name}"' in launched or f"_{rest}" in launched or f'"{rest}"' in launched, f"{name}: dead code"


ROUND = """
extern "C" __global__ void narrow(bf16* y, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i];
}
extern "C" __global__ void by_hand(bf16* y, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i].bits = rounded_bits(x[i]);
}
"""


@pytest.mark.parametrize("kernel", ["narrow", "by_hand"])
def test_bf16_rounds_to_nearest_even_by_instruction_and_by_hand(kernel: str) -> None:
    rng = np.random.default_rng(1)
    ties = np.array([0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0xBF808000, 0x7F7FFFFF, 0x00008000, 0x80000000])
    special = np.array([0x7F800000, 0xFF800000, 0x00000001, 0x007FFFFF])
    bits = np.concatenate([ties, special, rng.integers(0, 2**32, 500)]).astype(np.uint32)
    x = bits.view(np.float32)[~np.isnan(bits.view(np.float32))]
    y = np.zeros(x.size, np.uint16)
    run(ROUND, kernel, -(-x.size // 64), 64, [y, np.ascontiguousarray(x), np.int32(x.size)], prelude=True)
    wide = x.view(np.uint32).astype(np.uint64)
    want = ((wide + 0x7FFF + (wide >> 16 & 1)) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("kernel", ["narrow", "by_hand"])
def test_bf16_keeps_not_a_number(kernel: str) -> None:
    x = np.array([0x7FC00000, 0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    y = np.zeros(3, np.uint16)
    run(ROUND, kernel, 1, 32, [y, x, np.int32(3)], prelude=True)
    assert np.isnan((y.astype(np.uint32) << 16).view(np.float32)).all()


def test_fp16_rounds_to_nearest_and_overflows_to_infinity() -> None:
    source = """extern "C" __global__ void kernel(fp16* y, float* back, const float* x, int n) {
    int i = threadIdx.x;
    if (i < n) y[i] = x[i], back[i] = y[i];
}"""
    x = np.float32([1, -2.5, 1 + 2**-11, 1 + 3 * 2**-11, 65504, 65519, 65520, 2**-24, 2**-25, 3e-8, -0.0, np.nan])
    y, back = np.zeros(x.size, np.float16), np.zeros(x.size, np.float32)
    run(source, "kernel", 1, 32, [y, back, x, np.int32(x.size)], prelude=True)
    with np.errstate(over="ignore"):
        want = x.astype(np.float16)
    assert np.isinf(want[6]) and want[8] == 0
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(back, want.astype(np.float32))


@pytest.mark.parametrize("sums", [[9.0, 16.0], [1.0, math.inf], [math.nan, 1.0]], ids=str)
def test_the_verdict_rules_the_loss_scale_as_the_reference_does(sums: list[float]) -> None:
    for scale, growth, loss in (
        (32.0, 3.0, 1.0),
        (8.0, 3.0, 1.0),
        (12.0, 3.0, 1.0),
        (32.0, 0.0, 1.0),
        (32.0, 3.0, math.inf),
    ):
        slots = {
            "lr": 0.1,
            "loss": loss,
            "loss_scale": scale,
            "growth_steps": growth,
            "good_steps": 2,
            "least_scale": 8,
        }
        want = np.zeros(len(CONTROL)).view(StepRecord)
        for name, value in {**slots, "loss_limit": math.inf, "norm_limit": math.inf, "step": 4}.items():
            want[SLOT[name]] = value
        got = want.copy().view(np.ndarray)
        args = [got, np.array(sums), np.int32(2), np.float32(1)]
        run(FOLDER / "global_norm.cu", "verdict", 1, 256, args, defines={"CHUNK": CHUNK, "ELEM": "float"}, prelude=True)
        settle_step(want, float(np.add.reduce(sums)), 1.0)
        np.testing.assert_array_equal(got, want)


def test_the_verdict_on_a_step_adds_up_more_chunks_than_it_has_threads() -> None:
    control, sums = np.zeros(len(CONTROL)), np.arange(1.0, 701.0)
    control[[SLOT["loss_limit"], SLOT["norm_limit"]]] = np.inf
    control[SLOT["loss_scale"]] = 1
    args = [control, sums, np.int32(sums.size), np.float32(100)]
    run(FOLDER / "global_norm.cu", "verdict", 1, 256, args, defines={"CHUNK": CHUNK, "ELEM": "float"}, prelude=True)
    norm = np.sqrt(sums.sum())
    assert control[SLOT["norm"]] == norm and control[SLOT["scale"]] == 100 / (norm + 1e-6) and control[SLOT["ok"]] == 1


@pytest.mark.parametrize("place", [0, 130], ids=["first", "last"])
@pytest.mark.parametrize("kernel", ["naive_forward", "twopass_forward", "block_forward", "block_both"])
def test_the_loss_of_a_row_with_a_logit_that_is_not_a_number_is_none(kernel: str, place: int) -> None:
    logits = np.zeros((2, 136), np.float32)
    logits[0, place] = math.nan
    loss, lse, dlogits, targets, dloss = np.ones(2, "f"), np.ones(2, "f"), logits * 0, np.int32([5, 5]), np.ones(2, "f")
    outputs = [loss, lse, *([dlogits] if kernel == "block_both" else [])]
    inputs = [logits, targets, *([dloss] if kernel == "block_both" else [])]
    rows = [np.int32(2)] if kernel == "naive_forward" else []
    defines = {"WIDTH": 4, "THREADS": 64, "KEPT": 1, "ELEM": "float"}
    sizes = (1, 32) if rows else (2, 64)
    arguments = [*outputs, *inputs, *rows, np.int32(136), np.int32(131)]
    run(FOLDER / "cross_entropy.cu", kernel, *sizes, arguments, defines=defines, prelude=True)
    assert np.isnan(loss[0]) and loss[1] == pytest.approx(math.log(131))
