"""[train] health_every: the statistics are those of the step's tensors, and the training is the same without them."""

from __future__ import annotations

import dataclasses
import json
import math
from contextlib import ExitStack

import numpy as np
import pytest
import small_run
from checkpoint_runs import curve, started_quickly, tensors_of, train, trainer

from core import checkpoint
from core.config import resolve_config
from core.device.cpu import CpuDevice
from core.engine import Engine
from core.engine.health_ring import HealthColumn
from core.errors import NumericsError
from core.graph import load_model
from core.plan.health_rows import HealthRow, written
from core.signals import Stop
from core.train.health_file import line_of, read_health
from core.train.job import ring_columns
from core.train.wiring import build_engine

DEVICES = [("cpu", "f32"), ("cpu", "f64"), ("sim", "f32"), ("sim", "bf16")]
MICRO = 2


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with the small config; nothing slow at a start."""
    small_run.write(tmp_path, small_run.unwatched(train={"health_every": 2, "checkpoint_every": 3}))
    monkeypatch.chdir(tmp_path)
    with started_quickly():
        yield tmp_path


def engine_on(device, precision, columns=4, opened=None):
    """A small GPT-2 with fused nodes, its parameters drawn."""
    config, registry = resolve_config("small.toml", overrides=[f"precision={precision}"], device=device)
    made = build_engine(config, registry, load_model(config.model, registry), None)
    settings = dataclasses.replace(made.settings, health=columns)
    engine = Engine(made.model, registry, settings, opened or made.device)
    engine.initialize(1)
    return engine


def batches(step):
    tokens = np.random.default_rng(step).integers(0, 257, (MICRO, 2, 17))
    return [{"tokens": t[:, :-1], "targets": t[:, 1:]} for t in tokens]


def results(engine, steps, watched):
    """The losses and norms of steps, and the parameters' bytes."""
    numbers = [engine.step(batches(s), 1e-2, health=s in watched) for s in range(steps)]
    return [(r.loss, r.norm) for r in numbers], {name: a.tobytes() for name, a in engine.parameters().items()}


@pytest.mark.parametrize("device, precision", DEVICES)
def test_losses_and_weights_are_the_same_bits_with_and_without(device, precision):
    plain = results(engine_on(device, precision, 0), 3, ())
    assert results(engine_on(device, precision), 3, (0, 2)) == plain


@pytest.mark.parametrize("device, precision", DEVICES)
def test_the_statistics_are_those_of_the_steps_tensors(device, precision):
    engine = engine_on(device, precision)
    before = {name: a.copy() for name, a in engine.parameters().items()}
    engine.step(batches(0), 1e-2, health=True)
    after, gradients = (
        {n: a.copy() for n, a in both} for both in (engine.parameters().items(), engine.parameter_gradients())
    )
    (column,) = engine.take_health()
    assert column.step == 1 and engine.take_health() == []
    engine.load_parameters(before)
    engine.set_step(0)
    expected = {
        ("backward" if name.startswith("d") else "forward", e.node, name): e.tensors[name].copy()
        for micro, e in engine.replay(batches(0))
        for name in e.written
        if micro == MICRO - 1 and e.node and e.tensors[name] is not None and e.tensors[name].dtype.kind == "f"
    }
    for name, array in after.items():
        expected["parameter", "", name], expected["gradient", "", name] = array, gradients[name]
        expected["update", "", name] = array - before[name]
    kinds = set()
    for row, values in zip(column.rows, column.values, strict=True):
        x = expected[row.kind, row.node, row.tensor].astype(np.float64).reshape(-1)
        assert row.size == x.size and list(values[2:5]) == [x.min(), x.max(), np.count_nonzero(x == 0)], row
        assert values[1] == pytest.approx(x @ x, rel=1e-5), row
        assert values[0] == pytest.approx(x.sum(), rel=1e-5, abs=1e-5 * np.abs(x).sum()), row
        kinds.add(row.kind)
    assert kinds == {"forward", "backward", "gradient", "parameter", "update"}
    traced = {k for k in expected if k[0] not in ("gradient", "parameter", "update")}
    parameters = {
        k for k in traced if k[2][1:] in ("weight", "bias", "weight1", "weight2", "bias1", "bias2", "positions")
    }
    assert {(r.kind, r.node, r.tensor) for r in column.rows if r.node} == traced - parameters


def test_off_launches_nothing_and_on_a_launch_for_each_step_that_writes():
    engine, launches, counts = engine_on("sim", "f32"), [], []
    run = engine.device.run
    engine.device.run = lambda commands: launches.extend(c.kernel.name for c in commands) or run(commands)
    for watched in (False, True, False):
        launches.clear()
        engine.step(batches(0), 1e-2, health=watched)
        counts.append((launches.count("statistics"), len(launches)))
    plan = next(iter(engine._bound.values())).plan
    of_steps = len(list(written(plan)))
    assert counts[0] == counts[2] == (0, counts[0][1])
    assert counts[1] == (of_steps + 3, counts[0][1] + of_steps + 3 + 2), "and two copies: parameters and the column"


def test_the_recorded_steps_that_train_are_the_same_ones_with_and_without():
    """On a GPU these lists are CUDA graphs."""

    class Device(CpuDevice):
        def run(self, commands):
            ran.append(commands)
            super().run(commands)

    ran = []
    engine = engine_on("cpu", "f32", opened=Device())
    engine.step(batches(0), 1e-2)
    plain = list(ran)
    ran.clear()
    engine.step(batches(1), 1e-2, health=True)
    watched = list(ran)
    ran.clear()
    engine.step(batches(2), 1e-2)
    assert [id(c) for c in ran] == [id(c) for c in plain]
    assert watched[0] is plain[0], "the first micro-step"
    assert plain[-1] in watched, "the update"
    assert [id(c) for c in plain[1]] == [id(c) for c in watched[1] if c in plain[1]], "its own list, the same commands"


@pytest.mark.parametrize("device, precision", [("cpu", "f32"), ("sim", "bf16")])
def test_the_plan_knows_the_memory_before_it_is_taken(device, precision):
    engine = engine_on(device, precision)
    engine.step(batches(0), 1e-2)
    taken, allocate = [], engine.device.allocate
    engine.device.allocate = lambda nbytes: taken.append(nbytes) or allocate(nbytes)
    memory = engine.report(engine.plan("train")).memory()
    arena = engine.arena.memory.nbytes
    engine.step(batches(1), 1e-2, health=True)
    assert sum(taken[:3]) + max(0, engine.arena.memory.nbytes - arena) == memory["health"] > 0
    off = dataclasses.replace(engine.report(engine.plan("train")), health=0).memory()
    assert off == memory | {"health": 0}


def test_the_ring_keeps_the_newest_and_is_empty_when_taken():
    engine = engine_on("cpu", "f32", columns=2)
    results(engine, 5, (0, 1, 3))
    columns = engine.take_health()
    assert [c.step for c in columns] == [2, 4] and engine.take_health() == []
    assert not np.array_equal(columns[0].values, columns[1].values)
    assert [ring_columns(*pair) for pair in ((0, 1), (1, 10), (10, 1), (1, 100), (5, 0))] == [0, 10, 1, 16, 16]


def lines(run):
    return [json.loads(line) for line in (run / "health.jsonl").read_text().splitlines()]


def test_a_run_writes_a_line_for_each_step_that_is_due_and_a_resume_goes_on(here):
    train(out=here / "whole")
    train("train.health_every=0", out=here / "off")
    train(out=here / "cut", stop_after=3)
    train(out=here / "cut", resume=True)
    assert [line["step"] for line in lines(here / "whole")] == [2, 4, 6] and not (here / "off/health.jsonl").exists()
    assert ["rows" in line for line in lines(here / "cut")] == [True, True, False], "once for each start"
    whole, cut = read_health(here / "whole"), read_health(here / "cut")
    assert [r.step for r in whole] == [r.step for r in cut]
    for ours, theirs in zip(whole, cut, strict=True):
        assert ours.rows == theirs.rows
        assert all(np.array_equal(ours.values[name], theirs.values[name], equal_nan=True) for name in ours.values)
    assert curve(here / "whole") == curve(here / "cut") == curve(here / "off")
    newest = [tensors_of(checkpoint.find(here / name).path) for name in ("whole", "cut", "off")]
    assert newest[0] == newest[1] == newest[2]
    assert "health " in (here / "whole/train.log").read_text(), "its memory is announced"


def test_without_printed_lines_the_statistics_come_with_a_checkpoint_and_at_the_end(here):
    seen = {}
    with ExitStack() as stack:
        made = trainer(stack, "train.log_every=0", out=here / "a")
        made.job.hooks = [lambda run, step, metrics: seen.update({step: [line["step"] for line in lines(run.path)]})]
        made.train(Stop())
    assert seen[3] == [] and seen[5] == [2], "the checkpoint of step 3"
    assert [line["step"] for line in lines(here / "a")] == [2, 4, 6]
    train("train.log_every=0", "train.checkpoint_every=0", out=here / "b")
    assert [line["step"] for line in lines(here / "b")] == [2, 4, 6]


def test_a_line_has_rms_mean_and_ratio_and_says_what_does_not_exist():
    rows = [
        HealthRow("forward", "a", "gelu", "y", 4),
        HealthRow("parameter", "", "", "w", 2),
        HealthRow("parameter", "", "", "zero", 1),
        HealthRow("update", "", "", "w", 2),
        HealthRow("update", "", "", "zero", 1),
    ]
    values = np.array(
        [
            [0, 0, math.inf, -math.inf, 0, 4, 0, 0],  # not one is finite
            [6, 50, -1, 7, 0, 0, 0, 0],
            [0, 0, 0, 0, 1, 0, 0, 0],
            [0, 0.005, -0.05, 0.05, 0, 0, 0, 0],
            [1, 1, 1, 1, 0, 0, 0, 0],
        ]
    )
    line = line_of(HealthColumn(7, rows, values), True)
    assert line["rms"] == [None, 5.0, 0.0, 0.05, 1.0] and line["mean"][:2] == [None, 3.0]
    assert line["least"][:2] == [None, -1.0] and line["largest"][1] == 7.0
    assert line["ratio"] == [None, None, None, 0.01, None]
    assert line["nonfinite"] == [4, 0, 0, 0, 0] and line["zeros"] == [0, 0, 1, 0, 0]
    assert "underflows" not in line and line["rows"][1] == dataclasses.asdict(rows[1])
    json.dumps(line, allow_nan=False)


def test_numbers_that_are_not_finite_are_recorded_and_stop_nothing(here):
    engine = engine_on("cpu", "f32")
    weights = dict(engine.parameters())
    weights["ln_f.bias"][3] = math.nan
    engine.load_parameters(weights)
    assert engine.step(batches(0), 1e-2, health=True).halted
    (column,) = engine.take_health()
    counts = {
        (r.kind, r.tensor): v[5] for r, v in zip(column.rows, column.values, strict=True) if r.tensor == "ln_f.bias"
    }
    assert counts == {("gradient", "ln_f.bias"): 16, ("parameter", "ln_f.bias"): 1, ("update", "ln_f.bias"): 1}


def test_a_crash_comes_with_the_statistics_of_its_step(here):
    with pytest.raises(NumericsError):
        train("train.health_every=1", "train.log_every=100", "optimizer.lr=1e30", out=here / "bad")
    steps = [line["step"] for line in lines(here / "bad")]
    assert steps == list(range(1, steps[-1] + 1)) and (here / f"bad/crash-step_{steps[-1]:08d}").is_dir()
    assert any(lines(here / "bad")[-1].get("nonfinite", []))


@pytest.mark.parametrize(
    "damage", ['{"step": 8, "rows": 3}', '{"step": 8, "rms": ["x"]}', '{"step": 9}', "[", '{"step":']
)
def test_damaged_lines_are_left_out(here, damage):
    line = line_of(HealthColumn(1, [HealthRow("parameter", "", "", "w", 2)], np.ones((1, 8))), True)
    (here / "health.jsonl").write_text(json.dumps(line) + "\n" + damage)
    (record,) = read_health(here)
    assert record.step == 1 and record.values["rms"][0] == 1.0
