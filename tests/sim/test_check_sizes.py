"""The op check at the sizes of a model: how it climbs, and what a run does before its first step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run
from short_plugin import CONFIG, MODEL, WRONG, plugin, train

from core.cli import run as core_command
from core.expr import pad
from core.loader import load_registry
from core.sim.native.toolchain import compiler
from core.testing import model_sizes
from core.testing.case import make_case
from core.testing.devices import SimRunner
from core.testing.growing_sizes import estimate, grown, steps_of, work_of
from core.testing.log import Log
from core.testing.model_sizes import SizesOutcome, Task, check_sizes
from core.testing.real_sizes import check_real_sizes
from core.testing.runner import Call, CpuRunner, Outcome
from core.testing.shapes import as_shape, example_of
from core.testing.trials import reference_of

REAL = load_registry()


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
    assert estimate(REAL.op("matmul"), {"x": (64, 768), "features": 50304}, simulated=False) > 10


def test_what_was_not_finished_is_continued_where_it_stopped() -> None:
    task = Task("layernorm", "reference", "f32", {"x": (4096, 16)}, seconds=0.0)
    doing: list[str] = []
    first = check_sizes(task, REAL, CpuRunner(REAL), on_activity=doing.append)
    assert (first.done, first.left, doing) == (1, model_sizes.OVER, ["at x=2,16"])
    rest = check_sizes(replace(task, seconds=60.0, done=first.done), REAL, CpuRunner(REAL), on_activity=doing.append)
    assert doing[1:] == ["at x=16,16", "at x=128,16", "at x=1024,16", "at x=4096,16"] and rest.done == 5
    both = first.with_more(rest)
    assert both.passed and not both.left and both.sizes == {"rows": 4096, "C": 16}
    assert both.verdict("cpu", "", "f32").smallest == {"rows": 2, "C": 16}


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
    pace = model_sizes.StepTimes(True)
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


@pytest.fixture
def here(workdir: Path) -> Path:
    (workdir / "model.toml").write_text(MODEL)
    small_run.write(workdir, CONFIG, "run.toml")
    return workdir


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


def test_an_example_grows_in_rows_as_far_as_its_work_allows() -> None:
    larger = grown(REAL.op("layernorm"), {"x": (3, 5, 64)}, 1e8)
    assert larger is not None and larger["x"][0] > 100 and larger["x"][1:] == (5, 64)
    assert work_of(REAL.op("layernorm"), larger) <= 1e8 < 2 * work_of(REAL.op("layernorm"), larger)
    assert grown(REAL.op("layernorm"), {"x": (3, 5, 64)}, 1e3) is None


@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_kernels_are_held_to_the_reference_at_sizes_of_practice_in_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    op, naive = REAL.op("gelu"), REAL.variant("gelu", "naive")
    log, runner, launches = Log(), SimRunner(REAL), []
    run = runner.target.run
    monkeypatch.setattr(runner.target, "run", lambda commands: launches.append(runner.target.strict) or run(commands))
    sizes = check_real_sizes(log, op, naive, REAL, runner, reference_of(op, REAL), ("f32",))
    assert not log.failures and sizes["f32"][0]["rows"] > 200_000 and launches and not any(launches)
