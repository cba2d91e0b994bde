"""Verdicts: records of the op check with the sizes that they cover, and checks before a run's first step."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_graph
import small_run

import core
from core.cli import run as core_command
from core.discovery import GIVEN
from core.expr import pad
from core.loader import load_registry
from core.testing import model_sizes, release
from core.testing.case import make_case
from core.testing.check import check_variant
from core.testing.devices import SimRunner
from core.testing.model_sizes import SizesOutcome, Task, check_sizes, estimate, steps_of
from core.testing.records import verdicts_of
from core.testing.runner import Call, CpuRunner, Outcome
from core.testing.shapes import as_shape, example_of
from core.verdicts import Verdict, Verdicts, c_code, key_of, python_code, sizes_of, sources_of

CORE = Path(core.__file__).parent
REAL = load_registry()
PASSED = Verdict("sim", "", "f32", True, {"forward": 1e-7}, {"C": 70, "rows": 300})


# --- the record ------------------------------------------------------------------------------------------------------


def test_a_record_names_the_sizes_that_it_covers_and_those_that_it_does_not() -> None:
    assert PASSED.at({"C": 64, "rows": 128}) == "checked to C=70 in the simulator"
    assert PASSED.at({"C": 4096, "rows": 128}) == "not checked at C=4,096"
    assert PASSED.at({"C": 4096, "rows": 600, "K": 7}) == "not checked at C=4,096 K=7"
    assert PASSED.at({}) == "checked in the simulator"
    assert Verdict("cuda", "NVIDIA T4, sm_75", "f32", False).at({}) == "failed on NVIDIA T4, sm_75"


def test_records_of_one_variant_add_up_and_a_failure_stays() -> None:
    more = PASSED.with_more(Verdict("sim", "", "f32", True, {"forward": 1e-6}, {"C": 4096, "rows": 2}))
    assert dict(more.sizes) == {"C": 4096, "rows": 300} and more.worst == 1e-6
    failed = Verdict("sim", "", "f32", False, finding="y is wrong")
    assert PASSED.with_more(failed) == failed == failed.with_more(PASSED)


def test_the_store_keeps_records_by_place_dtype_and_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, store = REAL.variant("gelu", "vector"), tmp_path / "cache" / "checks.json"
    verdicts = Verdicts(REAL, store)
    monkeypatch.setattr("core.verdicts.release_file", lambda record: None)
    assert verdicts.lookup(kernel, "sim", "f32") is None
    verdicts.keep(kernel, PASSED)
    assert Verdicts(REAL, store).lookup(kernel, "NVIDIA H200, sm_90a", "f32") == PASSED, "the simulator's, for a GPU"
    assert verdicts.lookup(kernel, "sim", "bf16") is None and verdicts.at(kernel, "NVIDIA H200, sm_90a", "f32") is None
    failed = Verdict("cuda", "NVIDIA H200, sm_90a", "f32", False, finding="forward: y is wrong")
    verdicts.keep(kernel, failed)
    assert verdicts.failure(kernel, "NVIDIA H200, sm_90a", "f32") == (
        "its check failed on NVIDIA H200, sm_90a: forward: y is wrong"
    )
    assert verdicts.failure(kernel, "NVIDIA A100, sm_80", "f32") is None
    passed = Verdict("cuda", "NVIDIA H200, sm_90a", "f32", True, {"forward": 0.0}, {"rows": 1})
    verdicts.keep(kernel, passed)
    assert not Verdicts(REAL, store).at(kernel, failed.chip, "f32").passed, "part of a check clears no failure"
    verdicts.keep(kernel, passed, whole=True)
    assert Verdicts(REAL, store).at(kernel, failed.chip, "f32") == passed
    with monkeypatch.context() as patched:
        patched.setattr("core.verdicts._part", lambda path: b"changed")
        assert Verdicts(REAL, store).lookup(kernel, "sim", "f32") is None
    refused = Verdicts(REAL, store / "a file is no folder")
    refused.keep(kernel, failed)
    refused.keep(kernel, PASSED)
    assert refused.at(kernel, "sim", "f32") == PASSED and refused.failure(kernel, failed.chip, "f32"), (
        "what cannot be written counts in this process"
    )
    store.write_text("{damaged")
    assert Verdicts(REAL, store).lookup(kernel, "sim", "f32") is None


def test_a_key_is_of_the_code_alone() -> None:
    python = (
        '"""A page."""\nimport a  # why\n\n\ndef f():\n    """What."""\n    return "# no comment", \'\'\'"""\'\'\'\n'
    )
    assert python_code(python) == "import a\ndef f():\n    return \"# no comment\", '''\"\"\"'''"
    assert python_code('x = 1\n"""no docstring: an expression\n"""\n') != python_code("x = 1\n")
    assert c_code('// one\nint a; /* two\nlines */ char b[] = "// three";\n\n') == 'int a;   char b[] = "// three";'
    assert python_code("def f(:") == "def f(:"


def test_a_key_depends_on_kernels_headers_and_references() -> None:
    names = {p.name for p in sources_of(REAL.variant("head_loss", "chunked"), REAL)}
    assert {"head_loss.py", "matmul.py", "cross_entropy.py"} <= names
    names = {p.name for p in sources_of(REAL.variant("gelu", "vector"), REAL)}
    assert {"gelu.cu", "gelu.cuh", "prelude.cuh"} <= names
    keys = {key_of(v, REAL) for variants in REAL.variants.values() for v in variants.values()}
    assert len(keys) == sum(map(len, REAL.variants.values()))


def test_a_report_becomes_a_record_for_each_dtype() -> None:
    op, variant = REAL.op("add"), REAL.variant("add", "reference")
    report = check_variant(op, variant, REAL, examples=[0, 1])
    by_dtype = {v.dtype: v for v in verdicts_of(report, "")}
    assert set(by_dtype) == {"f32", "f64"} and all(v.passed for v in by_dtype.values())
    assert by_dtype["f32"].sizes == {"rows": 4 * 7 * 64} and "accumulate" in by_dtype["f32"].checks
    assert by_dtype["f64"].worst < by_dtype["f32"].worst < 1e-5


def test_sizes_are_those_that_the_schema_names() -> None:
    op = REAL.op("embedding")
    assert sizes_of(op, {"...": (4, 7), "rows": 50, "cols": 9}) == {"...": 28, "rows": 50, "cols": 9}
    case = make_case(REAL.op("attention"), {"qkv": (2, 5, 24), "heads": 2, "window": 3})
    assert sizes_of(case.op, case.dims) == {"B": 2, "T": 5, "E": 24, "heads": 2, "D": 4, "S": 8, "kv_heads": 2}


# --- sizes of a model ------------------------------------------------------------------------------------------------


def test_steps_grow_in_rows_or_sequences_and_keep_the_other_sizes() -> None:
    steps = list(steps_of(REAL.op("layernorm"), {"x": (4, 64, 768), "bias": False}))
    assert [e["x"] for e in steps] == [(2, 768), (16, 768), (128, 768), (4, 64, 768)]
    assert all(e["bias"] is False for e in steps)
    steps = list(steps_of(REAL.op("attention"), {"qkv": (4, 1024, 96), "documents": (4, 1024), "heads": 2}))
    assert [e["qkv"][:2] for e in steps] == [(1, 16), (1, 128), (1, 1024), (2, 1024), (4, 1024)]
    assert all(e["documents"] == e["qkv"][:2] for e in steps)
    shapes = {"param": (12800,), "grad": (12800,), "m": (12800,), "v": (12800,), "group": (200,)}
    assert [e["param"] for e in steps_of(REAL.op("adamw_update"), shapes)] == [
        (64,),
        (128,),
        (1024,),
        (8192,),
        (12800,),
    ]


def test_shapes_read_back_as_they_are_written() -> None:
    op = REAL.op("mlp_gelu")
    example = {"x": (2, 16), "r": (2, 24), "weight1": (32, 16), "bias2": False, "approx": "erf"}
    assert as_shape(op, example) == "x=2,16 r=2,24 weight1=32,16 bias2=false approx=erf"
    assert example_of(op, [as_shape(op, example)]) == example


def test_a_check_stops_climbing_when_its_time_is_over_and_keeps_what_it_reached() -> None:
    reached = []
    task = Task("layernorm", "reference", "f32", {"x": (4096, 256)}, seconds=0.0)
    found = check_sizes(task, REAL, CpuRunner(REAL), reached.append)
    assert found.passed and found.left == "the time was over" and found.sizes == {"rows": 2, "C": 256}
    assert len(reached) == 1 and reached[0].sizes == found.sizes
    assert estimate(REAL.op("matmul"), {"x": (64, 768), "features": 50304}, "cpu") > 10


def test_what_was_not_finished_is_continued_where_it_stopped() -> None:
    task = Task("layernorm", "reference", "f32", {"x": (4096, 16)}, seconds=0.0)
    doing: list[str] = []
    first = check_sizes(task, REAL, CpuRunner(REAL), tell=doing.append)
    assert (first.done, first.left, doing) == (1, model_sizes.OVER, ["at x=2,16"])
    rest = check_sizes(replace(task, seconds=60.0, done=first.done), REAL, CpuRunner(REAL), tell=doing.append)
    assert doing[1:] == ["at x=16,16", "at x=128,16", "at x=1024,16", "at x=4096,16"] and rest.done == 5
    both = first.with_more(rest)
    assert both.passed and not both.left and both.sizes == {"rows": 4096, "C": 16}


def test_all_come_once_and_those_without_enough_time_as_long_as_they_get_anywhere() -> None:
    found: dict[int, SizesOutcome] = {}
    turns = []
    for numbers in model_sizes.rounds(3, found):
        turns.append(numbers)
        for n in numbers:
            done = len(turns) if n < 2 else 0
            found[n] = SizesOutcome(left=model_sizes.OVER if n == 2 or len(turns) < 2 + n else "", done=done)
    assert turns == [[0, 1, 2], [0, 1, 2], [1]]


def test_the_time_of_a_first_step_says_little_of_the_next() -> None:
    """Kernels are compiled in it: a step of a million times the work is not a million times as long."""
    pace = model_sizes.Pace("sim")
    pace.saw(1e3, 5.0)
    assert pace.seconds(1e6) < 5
    pace.saw(1e6, 4.0)
    assert 15 < pace.seconds(1e7) < 40


@pytest.mark.parametrize("attrs", [{}, {"kv_heads": 0, "causal": True, "window": 0, "softcap": 0.0, "scale": 0.0}])
def test_the_label_of_an_example_names_attributes_that_differ_from_the_ops_defaults(attrs: dict[str, Any]) -> None:
    case = make_case(REAL.op("attention"), {"qkv": (1, 2, 24), "heads": 1, **attrs})
    assert case.label == "qkv=(1, 2, 24), heads=1"
    case = make_case(REAL.op("attention"), {"qkv": (1, 2, 24), "heads": 1, **attrs, "window": 3})
    assert case.label == "qkv=(1, 2, 24), heads=1, window=3"


def test_padding_and_tiles_of_the_model_are_those_of_the_check() -> None:
    task = Task("head_loss", "chunked", "f32", {"x": (5, 8), "targets": (5,), "features": pad(7, 16), "classes": 7})
    found = check_sizes(task, REAL, CpuRunner(REAL))
    assert found.passed and found.sizes["features"] == 16 and {"forward", "gradient", "accumulate"} <= set(found.checks)


class Chip(SimRunner):
    """The simulator as if it were a GPU, wrong at `wrong` elements."""

    timed = True
    wrong = 0

    def run(self, call: Call) -> Outcome:
        outcome = super().run(call)
        if call.method == "forward" and call.variant.name == "vector" and outcome.tensors["y"].size == self.wrong:
            outcome.tensors["y"] = outcome.tensors["y"] * np.float32(1.01)
        return outcome


@pytest.mark.parametrize("wrong", [0, 560])
def test_sizes_beyond_the_reference_are_held_to_another_variant_on_the_chip(
    monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    monkeypatch.setattr(model_sizes, "REFERENCE_BYTES", 8 * 2 * 16)
    chip = Chip(REAL)
    chip.wrong = wrong
    found = check_sizes(Task("gelu", "vector", "f32", {"x": (70, 8)}), REAL, chip)
    if wrong:
        assert found.finding.startswith("forward: y: relative error 1.00e-02") and found.sizes == {"rows": 16}
    else:
        assert found.passed and not found.left and found.sizes == {"rows": 560}


def test_a_reference_is_held_to_its_derivative_at_the_sizes_of_the_model(here: Path) -> None:
    name = plugin("sum.py", -1)
    wrong = "t.add('dx', t.dy * (2 if t.C < 40 else 1))"
    Path(name).write_text(Path(name).read_text().replace('t.add("dx", t.dy * 2)', wrong, 1))
    registry = load_registry([name])
    found = [
        check_sizes(Task("total", "reference", "f32", {"x": (9, C)}), registry, CpuRunner(registry)) for C in (39, 40)
    ]
    assert (
        found[0].passed
        and found[1].finding.startswith("gradient: dx is not the derivative")
        and "in f64" in found[1].finding
    )


# --- the command -----------------------------------------------------------------------------------------------------

SHORT = """
from core import Reference, Variant
from core import Op
import numpy as np

total = Op("total", inputs={"x": "... C"}, outputs={"y": "... C"}, examples=[{"x": (3, 7)}, {"x": (2, 5, 33)}])

class TotalReference(Reference):
    op = "total"
    def forward(self, t):
        t.y[...] = t.x * 2
    def backward(self, t):
        t.add("dx", t.dy * 2)

class Short(Variant):
    op, name, device, dtypes, can_add, priority = "total", "short", "cpu", ("f32",), ("x",), PRIORITY
    def forward(self, t, launch):
        launch.call(lambda: np.multiply(t.x, 2, out=t.y))
        FORWARD
    def backward(self, t, launch):
        launch.call(lambda: t.add("dx", t.dy * 2))
        BACKWARD

def core_ops():
    return [total]

def core_variants():
    return [TotalReference, Short]
"""
WRONG = {
    "FORWARD": "launch.call(lambda: t.y[..., 40:].fill(7))",
    "BACKWARD": "launch.call(lambda: t.dx[..., 40:].fill(7))",
}
MODEL = small_graph.toml(
    'twice = { op = "total", in = "wte" }\ny = { op = "matmul", in = "twice", features = "V" }',
    sizes={"B": 2, "T": 4, "V": 257},
    dims="C = 16",
)
CONFIG = small_run.unwatched(model="model.toml", dims=None, train={"steps": 1, "tokens_per_step": 8})


@pytest.fixture
def here(workdir: Path) -> Path:
    (workdir / "model.toml").write_text(MODEL)
    small_run.write(workdir, CONFIG, "run.toml")
    return workdir


def plugin(name: str, priority: int, *wrong: str) -> str:
    """A plugin whose variant is wrong from column 40 on, beyond the op's examples, in the named directions."""
    text = SHORT.replace("PRIORITY", str(priority))
    for direction, fault in WRONG.items():
        text = text.replace(direction, fault if direction in wrong else "pass")
    Path(name).write_text(text)
    return name


def train(name: str, *words: str) -> int:
    return core_command(["train", "run.toml", "--device", "cpu", "--plugin", name, *words])


@pytest.mark.parametrize("direction", WRONG)
def test_a_variant_that_is_wrong_beyond_its_examples_stops_the_run(
    here: Path, capsys: pytest.CaptureFixture[str], direction: str
) -> None:
    """`core check` passes it, a run at sizes that its examples cover trains with it, and a larger run refuses it."""
    name = plugin("short.py", -1, direction)
    if direction == "FORWARD":
        assert core_command(["check", "total.short", "--no-time", "--plugin", name]) == 0
        assert train(name, "--set", "ops.total=short", "--out", "small") == 0
    wide = ["--set", "ops.total=short", "--set", "dims.C=64", "--out", "wide"]
    capsys.readouterr()
    assert train(name, *wide) == 3
    said = capsys.readouterr()
    tensor = "y" if direction == "FORWARD" else "dx"
    assert f"total.short: FAILED: {'forward' if tensor == 'y' else 'gradient'}: {tensor}: relative error" in said.out
    assert '[ops] total = "short" cannot run node twice' in said.err
    assert "--set ops.total=reference takes one that can run" in said.err and "--shape x=2,64" in said.err
    assert not (here / "wide").exists()
    assert train(name, "--set", "dims.C=64", "--set", "ops.total=reference", "--out", "wide") == 0


def test_auto_passes_over_a_variant_that_fails_at_the_sizes_of_the_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = plugin("short.py", 10, "BACKWARD")
    assert train(name, "--set", "dims.C=64", "--out", "a") == 0
    said = capsys.readouterr().out
    assert "no check of 1 variant at this run's sizes; checked before step 1, about" in said
    assert "passed over: total.short: its check failed on the cpu: gradient: dx: relative error" in said
    table = {row["op"]: row for row in json.loads(Path("a/variants.json").read_text())["table"]}
    assert table["total"]["variant"] == "reference" and table["total"]["check"] == "checked to C=64"
    assert train(name, "--set", "dims.C=64", "--out", "b") == 0
    again = capsys.readouterr().out
    assert "before step 1" not in again and "passed over: total.short" in again


def test_the_check_before_step_1_is_bounded_and_can_be_switched_off(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = plugin("short.py", 10, "FORWARD")
    assert train(name, "--set", "dims.C=64", "--set", "train.check=false", "--out", "a") == 0
    said = capsys.readouterr().out
    assert "before step 1" not in said and "not checked at this run's sizes: total.short at rows=8 C=64" in said
    assert train(name, "--set", "dims.C=64", "--set", "train.check=0.5", "--out", "b") == 0
    said = capsys.readouterr().out
    assert "at most 0.5 s; [train] check = false leaves it out" in said
    assert "not checked at this run's sizes: total.short at rows=8 C=64 (the time was over)" in said


def test_check_takes_shapes_and_a_config(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = plugin("short.py", -1, "FORWARD")
    assert core_command(["check", "total.short", "--plugin", name, "--shape", "x=2,40"]) == 0
    assert "total.short f32 on cpu, rows=2 C=40: passed" in capsys.readouterr().out
    assert core_command(["check", "total.short", "--plugin", name, "--shape", "x=2,41"]) == 1
    said = capsys.readouterr()
    assert "total.short f32 on cpu, rows=2 C=41: FAILED" in said.out and "failed: total.short" in said.err
    words = ["check", "--config", "run.toml", "--device", "cpu", "--plugin", name, "--set", "dims.C=8"]
    assert core_command([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["op"] for row in found] == [
        "embedding",
        "total",
        "matmul",
        "cross_entropy",
        "global_norm",
        "adamw_update",
    ]
    assert all(row["passed"] and not row["left"] for row in found)
    assert core_command([*words, "--limit", "0.001"]) == 3
    said = capsys.readouterr()
    assert (
        "6 to check: about" in said.out
        and "left: matmul.blas f32 at rows=8 K=8 features=257: the time was over" in said.out
    )
    assert core_command(["check", "--all", "--shape", "x=1"]) == 2 and core_command(["check", "--shape", "x=1"]) == 2


# --- the verdicts of a release ---------------------------------------------------------------------------------------


def test_a_release_checks_what_is_stale_and_nothing_else(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plugin ships its verdicts: a run on a machine that never checked it looks them up."""
    Path("mine").mkdir()
    source = plugin("mine/__init__.py", -1)
    assert release.main(["--plugin", "mine", "--list"]) == 0
    assert capsys.readouterr().out.split() == ["total.reference", "total.short"]
    assert release.main(["--plugin", "mine", "--jobs", "1"]) == 0
    assert "total.short: passed (2 of 2)" in capsys.readouterr().out
    rows = json.loads(Path("mine/verdicts.json").read_text())
    assert {(r["variant"], r["dtype"], r["device"]) for r in rows} == {
        ("reference", "f32", "cpu"), ("reference", "f64", "cpu"), ("short", "f32", "cpu"),
    }  # fmt: skip
    assert all(r["passed"] and r["sizes"] == {"rows": 10, "C": 33} and r["checks"]["gradient"] < 1e-6 for r in rows)
    assert release.main(["--plugin", "mine", "--jobs", "1"]) == 0 and not capsys.readouterr().out
    assert train("mine", "--set", "ops.total=short", "--out", "a") == 0
    said = capsys.readouterr().out
    assert "before step 1" not in said and "checked to rows=10" in said
    registry = load_registry(["mine"])
    registry.variants["total"].pop("short")
    assert release.stale(registry, (GIVEN,)) == ["total.short"], "an entry without a variant"
    Path(source).write_text(Path(source).read_text().replace("t.dy * 2", "t.dy * 3"))
    monkey = load_registry(["mine"])
    assert release.stale(monkey, (GIVEN,)) == ["total.reference", "total.short"]


DOUBLE = """
from core import Op, Reference, Variant, cdiv, u64
double = Op("double", inputs={"x": "... C"}, outputs={"y": "... C"}, examples=[{"x": (3, 7)}, {"x": (2, 5, 33)}])
class DoubleReference(Reference):
    op = "double"
    def forward(self, t):
        t.y[...] = t.x * 2
    def backward(self, t):
        t.add("dx", t.dy * 2)
class DoubleKernel(Variant):
    op, name, source, arch, dtypes = "double", "kernel", "double.cu", "sm_90a", ("f32",)
    uncovered = UNCOVERED
    def forward(self, t, launch):
        launch("twice", t.y, t.x, u64(t.rows * t.C), grid=cdiv(t.rows * t.C, 64), block=64)
    def backward(self, t, launch):
        launch("twice", t.dx, t.dy, u64(t.rows * t.C), grid=cdiv(t.rows * t.C, 64), block=64)
def core_ops():
    return [double]
def core_variants():
    return [DoubleReference, DoubleKernel]
"""
TWICE = """extern "C" __global__ void twice(float* y, const float* x, u64 n) {
    u64 i = global_thread();
    if (n > 5000)
        y[n] = 0;
    if (i < n) y[i] = x[i] * 2;
}
"""


@pytest.mark.parametrize(
    "ours, declared, says",
    [
        (False, {}, ""),
        (True, {}, "double.kernel: refused"),
        (True, {"y[n] = 0;": "tensors are shorter"}, ""),
        (True, {"y[n] = 0;": "tensors are shorter", "y[n] = 1;": "gone"}, "line that is no gap: y[n] = 1;"),
    ],
)
def test_a_release_refuses_a_kernel_of_ours_with_a_line_that_no_example_runs_and_nothing_declares(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ours: bool,
    declared: dict[str, str],
    says: str,
) -> None:
    Path("doubles").mkdir()
    Path("doubles/__init__.py").write_text(DOUBLE.replace("UNCOVERED", repr(declared)))
    Path("doubles/double.cu").write_text(TWICE)
    monkeypatch.setattr(release, "ships", lambda variant, registry: ours)
    code, said = release.main(["--plugin", "doubles", "--jobs", "1"]), capsys.readouterr().out
    rows = [row for row in json.loads(Path("doubles/verdicts.json").read_text()) if row["variant"] == "kernel"]
    assert (code, len(rows)) == ((1, 0) if says else (0, 1)) and says in said, said
    assert ("double.cu:4: no example runs this line: y[n] = 0;" in said) is not declared
    assert ("declare it: uncovered" in said) is bool(says)


def test_a_run_on_the_cpu_loads_neither_the_simulator_nor_the_op_check(here: Path) -> None:
    Path("model.toml").write_text(MODEL.replace('op = "total"', 'op = "gelu"'))
    code = "import sys; from core.cli import run; run(sys.argv[1:]); print(*sys.modules)"
    words = [sys.executable, "-c", code, "train", "run.toml", "--device", "cpu", "--out", "plain"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "done: 1 steps" in done.stdout
    loaded = done.stdout.splitlines()[-1].split()
    assert "core.train.loop" in loaded
    assert not [name for name in loaded if name.startswith(("core.sim", "core.testing", "core.kernels.nvrtc"))]
    paths = [CORE.joinpath(*name.split(".")[1:]) for name in loaded if name.split(".")[0] == "core"]
    files = [f for path in paths for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()]
    lines = sum(len(file.read_text("utf-8").splitlines()) for file in files)
    said = re.search(r"at most ([\d,]+) lines of core/", (CORE.parent / "README.md").read_text("utf-8"))
    assert said is not None
    most = int(said[1].replace(",", ""))
    assert most - 1500 < lines <= most, f"{lines:,} lines of core/ are imported; README says at most {most:,}"
