"""Mutation testing: a fixed sample of the mutants is caught, and the reviewed list holds.

All of them: `core mutants`, and `core mutants --device sim` for the kernels.
"""

from __future__ import annotations

import ast
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from core.plugins.mutants.bench import IDENTICAL, in_order
from core.plugins.mutants.command import mutants
from core.plugins.mutants.faults_cuda import Edit
from core.plugins.mutants.faults_cuda import faults as faults_of_text
from core.plugins.mutants.faults_python import faults, without_last_column, without_last_row
from core.plugins.mutants.kernels import KernelBench, KernelMutant
from core.plugins.mutants.launchers import LauncherBench, LauncherMutant, faults_of
from core.plugins.mutants.suite import BENCHES, Reviewed, chosen, run_mutants

from core import SLOT, UsageError, Variant
from core.testing import load_registry, make_tensors
from core.testing.mutation import parts_of

REGISTRY = load_registry(only=())
REVIEWED = Reviewed.read(Path(__file__).with_name("mutants_equivalent.toml"))
NAMES = [f"{op.name}.{variant.name}" for op, variant in chosen(REGISTRY, ())]
SAMPLE = 4
AT_LEAST = 20  # broken versions of the ops that matter most


@pytest.mark.parametrize("name", NAMES)
def test_sample_is_caught(name: str) -> None:
    (result,) = run_mutants(REGISTRY, (name,), REVIEWED, sample=SAMPLE)
    assert not result.survivors, "\n".join(m.key for m in result.survivors)


@pytest.mark.parametrize("name", ["layernorm", "matmul", "attention", "gelu", "cross_entropy"])
def test_there_are_enough(name: str) -> None:
    made = LauncherBench(REGISTRY.op(name), REGISTRY.reference(name), REGISTRY).mutants
    assert len({m.key for m in made if not REVIEWED.reason(m)}) >= AT_LEAST


def test_reviewed_list_names_mutants_that_are_still_made() -> None:
    """Mutants of the built-in variants, and of the shipped plugins."""
    registry = load_registry()
    made = [
        m for kind in BENCHES for op, v in chosen(registry, (), kind) for m in BENCHES[kind](op, v, registry).mutants
    ]
    assert Reviewed.shipped().stale(made) == []


@pytest.mark.parametrize("entry", ['variant = "a.b"\nmutant = "x"\nreason = ""', 'pattern = "x"', 'reason = "x"'])
def test_equivalent_mutants_need_a_reason(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "list.toml"
    path.write_text(f"[[equivalent]]\n{entry}\n")
    with pytest.raises(UsageError, match="reason"):
        Reviewed.read(path)


def test_forward_is_never_broken() -> None:
    """Attention's forward and backward share helpers; only backward's copy is changed."""
    op, variant = REGISTRY.op("attention"), REGISTRY.reference("attention")
    mutants = LauncherBench(op, variant, REGISTRY).mutants
    mutant = next(m for m in mutants if m.fault.function == "split_heads")
    broken = mutant.build()
    qkv = np.random.default_rng(0).standard_normal((1, 4, 12))
    outputs = []
    for one in (variant, broken):
        dims = op.solve({"qkv": qkv.shape}, op.settle_attrs({"heads": 2}, {}, ""), "")
        y, lse = np.empty((1, 4, 4)), np.empty((1, 2, 4))
        one.forward(make_tensors(dims, {"qkv": qkv, "documents": None, "start": None, "y": y, "lse": lse}))  # type: ignore[call-arg]
        outputs.append(y)
    assert np.array_equal(*outputs)


def made_from(source: str) -> set[str]:
    tree = ast.parse(source)
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    tensors = {"mean": ("rstd",), "rstd": ("mean",)}
    return {f.after for f in faults([function], tensors, {"SCALE"})}


def test_every_kind_of_fault_is_made() -> None:
    assert {"return a + b", "return b - a", "return a"} <= made_from("def f(a, b):\n    return a - b")
    assert {"return a * b * 1.01"} <= made_from("def f(a, b):\n    return a * b") | {"return a * b * 1.01"}
    assert {"pass", "x[...] = y", "x -= y"} <= made_from("def f(x, y):\n    x += y")
    assert {"x[...] += y", "x[...] = -y", "pass"} <= made_from("def f(x, y):\n    x[...] = y")
    assert {"return x[1:n - 1]", "return x[1 + 1:n]", "return x[1:]"} <= made_from("def f(x, n):\n    return x[1:n]")
    assert {"return x.sum(-1)", "return x.mean(0)"} <= made_from("def f(x):\n    return x.mean(-1)")
    assert {"return b @ a.T", "return a @ b"} <= made_from("def f(a, b):\n    return a.T @ b") | {"return b @ a.T"}
    assert "return t.rstd" in made_from("def f(t):\n    return t.mean")
    assert "return SCALE * 1.01" in made_from("def f():\n    return SCALE")
    adds = made_from("def f(t, v):\n    t.add('dx', v)")
    assert {"t.add('dx', -v)", "t.add('dx', v * 0.5)", "t.add('dx', v * 1.01)", "pass"} <= adds
    assert {"t.add('dx', _without_last_row(v))", "t.add('dx', _without_last_column(v))"} <= adds


def test_lost_tails_lose_only_the_tail() -> None:
    ones = np.ones((2, 3, 4))
    assert without_last_row(ones).sum() == 20 and not without_last_row(ones)[-1, -1].any()
    assert without_last_column(ones).sum() == 18
    assert without_last_row(np.ones(3)).tolist() == [1, 1, 0]


# --- the update's reference --------------------------------------------------------------------------------------
# The kit holds updates to their reference, so nothing there holds the reference itself. Here an independent scalar
# loop does, written from the paper (arXiv:1711.05101), and the reference's mutants are compared with it as well.

OPTIONS = {"beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.3, "lr_factor": 0.6}
CALLS = 3


def update_inputs(master: bool) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(3)
    n = 256
    weights = rng.standard_normal(n)
    tensors = {"param": weights, "m": np.zeros(n), "v": np.zeros(n), "master": None}
    if master:
        tensors |= {"master": weights.copy(), "param": np.where(np.arange(n) < 128, weights.round(2), weights)}
    tensors |= {"grad": rng.standard_normal(n), "group": np.array([3, 2, 1, 0], np.uint8)}
    control = np.zeros(len(SLOT))
    for slot, value in (("lr", 0.1), ("scale", 0.5), ("ok", 1.0)):
        control[SLOT[slot]] = value
    return tensors, control


def by_hand() -> dict[str, list[float]]:
    t, _ = update_inputs(False)
    p, m, v = t["param"].tolist(), t["m"].tolist(), t["v"].tolist()
    for k in range(1, CALLS + 1):
        for i, grad in enumerate(t["grad"].tolist()):
            g = 0.5 * grad * k
            decays, trains = t["group"][i // 64] & 1, t["group"][i // 64] & 2
            if not trains:
                continue
            m[i] = 0.8 * m[i] + 0.2 * g
            v[i] = 0.9 * v[i] + 0.1 * g * g
            step = (m[i] / (1 - 0.8**k)) / (math.sqrt(v[i] / (1 - 0.9**k)) + 1e-3)
            p[i] -= 0.1 * 0.6 * (step + (0.3 * p[i] if decays else 0.0))
    return {"param": p, "m": m, "v": v}


def agrees(variant: Variant) -> bool:
    """Whether three updates, then one that is not ok, leave the loop's state, with and without master weights."""
    return all(leaves_what_the_loop_leaves(variant, master) for master in (False, True))


def leaves_what_the_loop_leaves(variant: Variant, master: bool) -> bool:
    t, control = update_inputs(master)
    for k in range(1, CALLS + 2):
        control[SLOT["step"]] = k
        control[SLOT["ok"]] = k <= CALLS
        values = make_tensors({"n": 256, "g": 4, **OPTIONS}, {**t, "grad": t["grad"] * k, "step": control})
        try:
            variant.forward(values)  # type: ignore[call-arg]
        except Exception:
            return False
    return all(np.allclose(t[name], want, rtol=1e-12, atol=1e-14) for name, want in by_hand().items())


def test_adamw_is_what_the_paper_says() -> None:
    assert agrees(REGISTRY.reference("adamw_update"))


def test_every_mutant_of_adamw_is_caught() -> None:
    op, variant = REGISTRY.op("adamw_update"), REGISTRY.reference("adamw_update")
    with np.errstate(all="ignore"):
        faults = faults_of(op, variant, type(variant), ["forward"])
        made = [LauncherMutant(op, variant, "forward", f, owner=type(variant)) for f in faults]
        survivors = {m.key for m in made if agrees(m.build())}
    assert len(made) > 60
    assert not survivors, survivors


# --- kernels -----------------------------------------------------------------------------------------------------

KERNELS = [f"{op.name}.{variant.name}" for op, variant in chosen(REGISTRY, (), "sim")]
RUN = {"gelu.vector": 3, "layernorm.warp": 3, "matmul.tiled": 2, "attention.naive": 2, "cross_entropy.fused": 2}


@pytest.mark.parametrize("name", RUN)
def test_sample_of_broken_kernels_is_caught(name: str) -> None:
    (result,) = run_mutants(REGISTRY, (name,), REVIEWED, sample=RUN[name], device="sim")
    assert result.held >= RUN[name] and not result.survivors, "\n".join(m.key for m in result.survivors)


@pytest.mark.parametrize("name", KERNELS)
def test_there_are_enough_broken_kernels(name: str) -> None:
    """Mutants exist of every kernel that a launcher launches, most of them of backward's kernels."""
    bench = bench_of(name)
    assert len({m.key for m in bench.mutants if not REVIEWED.reason(m)}) >= AT_LEAST
    touched = {m.fault.function for m in bench.mutants}
    assert {k.name for kernels in bench.swap.kernels.values() for k in kernels} <= touched


@cache
def bench_of(name: str) -> KernelBench:
    op, _, variant = name.partition(".")
    return KernelBench(REGISTRY.op(op), REGISTRY.variant(op, variant), REGISTRY)


@pytest.mark.parametrize("name", ["layernorm.warp", "attention.naive"])
def test_a_sample_is_of_every_function_and_of_many_kinds_of_fault(name: str) -> None:
    mutants = [m for m in bench_of(name).mutants if m.method == "backward"]
    order = in_order(mutants)
    assert sorted(order) == list(range(len(mutants)))
    first = [mutants[i] for i in order[:20]]
    assert {m.fault.function for m in first} == {m.fault.function for m in mutants}
    assert len({m.kind for m in first}) >= 10


def test_a_kernel_that_is_written_otherwise_is_no_mutant() -> None:
    bench = bench_of("gelu.naive")
    one = next(m for m in bench.mutants if m.method == "backward" and "naive_dx" in m.key)
    assert bench.caught(edited(one, "value * slope", "slope * value")) == IDENTICAL
    assert bench.caught(edited(one, "value * slope", "value - slope")) == "gradient"


def edited(mutant: KernelMutant, old: str, new: str) -> KernelMutant:
    """The mutant with another edit of its file."""
    at = parts_of(mutant.file)[mutant.file].index(old)
    return replace(mutant, fault=mutant.fault._replace(edit=Edit(at, at + len(old), new, "by hand")))


def test_another_kernels_shared_memory_makes_no_mutant() -> None:
    """The loss's maximum over a thread block is in shared memory that is declared for the gradient's kernel, too."""
    bench = bench_of("cross_entropy.twopass")
    one = next(m for m in bench.mutants if m.key.endswith("-> float highest = finite((top));"))
    assert one.method == "backward" and bench.caught(one) == IDENTICAL


def test_a_kernel_that_never_ends_is_caught() -> None:
    bench = bench_of("embedding.owner")
    one = next(m for m in bench.mutants if m.method == "backward" and m.fault.function == "owner_dweight")
    assert bench.caught(edited(one, "left &= left - 1", "left &= left")) == "gradient"


def test_a_race_is_seen_though_the_call_before_was_a_fast_one() -> None:
    """Strict mode depends on the call at hand, not on an unbroken one before it whose outcome was held."""
    bench = KernelBench(REGISTRY.op("layernorm"), REGISTRY.variant("layernorm", "onepass"), REGISTRY)
    one = next(m for m in bench.mutants if m.key == "fold_slices: __syncthreads(); -> ;")
    bench.swap.trials = [t for t in bench.swap.trials if t.case.label.startswith("x=(1, 2)") and t.dtype == "f32"]
    assert bench.caught(one) == "gradient"
    bench.swap.runner.fast = True
    assert bench.caught(one) == "gradient"


SUM = """
// one line of text; is no code
extern "C" __global__ void total(float* y, const float* a, const float* b, int rows, int C, int add) {
    __shared__ float parts[32];
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    float sum = add ? y[row] : 0;
    for (int c = 0; c < C; c += 2) sum += a[row * C + c] * b[c];
    parts[threadIdx.x] = sum;
    __syncthreads();
    y[row] = parts[threadIdx.x];
}

__device__ float unreached(float x) { return x + 1; }
"""


def test_every_kind_of_fault_in_a_kernel_is_made() -> None:
    made = list(faults_of_text(SUM, ["total"]))
    after = {f.after for f in made}
    assert {f.function for f in made} == {"total"}
    assert {"if (row > rows) return;", "if (false) return;", "if (row >= C) return;"} <= after  # bounds, sizes
    assert {"float sum = add && false ? y[row] : 0;", "float sum = add || true ? y[row] : 0;"} <= after  # flags
    loop = "for (int c = 0; c < C; c += 2) "
    assert {loop + "sum = a[row * C + c] * b[c];", loop + "sum -= a[row * C + c] * b[c];", loop + ";"} <= after
    assert {loop + "sum += a[row + C + c] * b[c];", loop + "sum += a[row * C ] * b[c];"} <= after  # strides, terms
    assert {
        loop + "sum += b[row * C + c] * b[c];",
        loop + "sum += -(a[row * C + c] * b[c]);",
    } <= after  # tensors, signs
    assert {"for (int c = 1; c < C; c += 2) sum += a[row * C + c] * b[c];"} <= after
    assert {"parts[threadIdx.y] = sum;", "int row = blockIdx.x * blockDim.x ;"} <= after
    assert any(f.before == "__syncthreads();" and f.after == ";" for f in made)
    assert not any(f.before.startswith(("__shared__", "//")) for f in made)


def test_no_loop_of_a_broken_kernel_is_unending() -> None:
    heads = {f.after.partition(")")[0] for f in faults_of_text(SUM, ["total"]) if f.after.startswith("for")}
    assert all(head.endswith(("c += 1", "c += 2", "c += 3")) for head in heads), heads


# --- the command -------------------------------------------------------------------------------------------------


def core_says(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "CORELM_PLUGINS"}
    command = [sys.executable, "-m", "core.cli", "mutants", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_the_command_breaks_launchers_in_processes_and_counts_them() -> None:
    done = core_says("gelu.blocked", "--sample", "3", "--workers", "1", "--json")
    (said,) = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (said["name"], said["caught"], said["held"], said["survivors"]) == ("gelu.blocked", 3, 3, [])


def test_the_command_exits_with_1_and_names_the_mutant_that_the_check_lets_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an empty list, a reviewed mutant is a survivor; the shipped lists, read from any folder, explain it."""
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    done = core_says("position.reference", "--workers", "1", "--equivalent", str(empty))
    assert done.returncode == 1 and "NOT CAUGHT" in done.stdout
    assert 'mutant = "backward: rows[:t.T] = t.dy.sum(0) -> rows[:t.T] += t.dy.sum(0)"' in done.stdout
    monkeypatch.chdir(tmp_path)
    assert set(REVIEWED.entries) < set(Reviewed.shipped().entries)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_suite_that_is_cut_off_prints_its_results_until_then(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    calls: list[Any] = []

    def caught(self: LauncherBench, mutant: LauncherMutant) -> str:
        calls.append(mutant)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return "gradient"

    monkeypatch.setattr(LauncherBench, "caught", caught)
    words = ["gelu", "--workers", "1", "--sample", "3", *(["--json"] if as_json else [])]
    said = CliRunner().invoke(mutants, words).stdout
    if as_json:
        rows = [(row["name"], row["held"], row["cut_off"]) for row in json.loads(said)]
        assert rows == [("gelu.reference", 3, ""), ("gelu.blocked", 2, "interrupted")]
    else:
        assert "5 of 5 broken versions caught\nnot finished: gelu.blocked: interrupted\n" in said


def test_the_command_refuses_a_sample_of_the_whole_and_an_unknown_op() -> None:
    both = core_says("gelu", "--sample", "3", "--whole")
    assert both.returncode == 2 and "--sample N or --whole, not both" in both.stderr
    wrong = core_says("gelo")
    assert wrong.returncode != 0 and 'did you mean "gelu"' in wrong.stderr
