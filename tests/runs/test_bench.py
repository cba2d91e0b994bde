"""What core bench says: FLOPs as published, floors as the chip's peaks have them, and every launch once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.cli import run as main
from core.engine import Engine, Settings
from core.graph import load_model
from core.kernels.chips import GPUS, gpu
from core.loader import load_registry
from core.measure.bench import Bench, Launched, bench, chrome_trace
from core.plan import TRAIN
from core.plan.cost import Flops, node_flops, per_token

SMALL = {"V": 61, "C": 32, "H": 2, "L": 2, "S": 16, "B": 2, "T": 8}


@pytest.fixture(scope="module")
def registry():
    return load_registry()


def test_flops_of_gpt2_are_the_published_ones(registry):
    graph = load_model("gpt2_124m", registry).build(registry, {"B": 1, "T": 1024})
    found = per_token(graph, 1024)
    assert round(found.full / 1e6, 1) == 854.7 and round(found.needed / 1e6, 1) == 798.0


def test_a_fused_node_counts_what_it_stands_for(registry):
    engine = Engine(load_model("gpt2_124m", registry), registry, Settings(dims=SMALL, optimizer="adamw"))
    plan = engine.plan(TRAIN)
    assert any(node.parts for node in plan.nodes)
    fused = sum(node_flops(node).full for node in plan.nodes)
    assert fused == sum(node_flops(node).full for node in engine.graph.nodes) == 16 * per_token(engine.graph, 16).full


def test_every_step_of_the_plan_is_timed_once(registry):
    engine = Engine(load_model("gpt2_124m", registry), registry, Settings(dims=SMALL, optimizer="adamw"))
    engine.initialize(0)
    found = bench(engine, 2, 2)
    assert len(found.steps) == 2 and found.tokens == 32 and found.peak is None
    timed = [(x.kind or x.op, x.node) for x in found.launched]
    planned = [(s.kind, s.node.name if s.node else "") for s in engine.plan(TRAIN).steps]
    assert timed == [*planned, ("objective", "")]
    assert sum(row.launches for row in found.rows()) == len(timed)
    assert all(x.seconds > 0 for x in found.launched) and found.update > 0
    assert found.utilisation(1e9) is None and all(row.floor is None for row in found.rows())


def test_floors_and_utilisation_follow_from_the_chips_peaks():
    launched = [
        Launched("a", "matmul", "v", "forward", 4e-3, 10**6, 2e9),  # bound by arithmetic: 2 ms
        Launched("b", "matmul", "v", "forward", 4e-3, 3 * 10**6, 1e8),  # by memory: 3 ms
    ]
    found = Bench([0.1, 0.2, 0.4], launched, 0.01, 1000, 3, Flops(5e8, 4e8), 1e12, 1e9)
    (row,) = found.rows()
    assert row.floor == pytest.approx(5e-3) and row.launches == 2 and row.seconds == pytest.approx(8e-3)
    assert found.tokens_per_s == 5000 and found.utilisation(5e8) == pytest.approx(2.5)
    assert found.gaps == pytest.approx(0.2 - 3 * 8e-3 - 0.01)
    events = [e for e in chrome_trace(found, "m")["traceEvents"] if e["ph"] == "X"]
    assert [(e["name"], e["ts"], e["dur"]) for e in events[:2]] == [
        ("a forward", 0, pytest.approx(4e3)),
        ("b forward", pytest.approx(4e3), pytest.approx(4e3)),
    ]


def test_a_chip_that_is_not_listed_has_no_peaks_rather_than_anothers():
    assert gpu("NVIDIA H200") is GPUS["H200"] and gpu("NVIDIA GeForce RTX 4090") is GPUS["RTX 4090"]
    assert gpu("NVIDIA GeForce RTX 4070 Ti SUPER") is None and gpu("") is None


def test_f32_as_tf32_has_the_peak_of_tensor_cores_where_there_are_any():
    ampere, turing = GPUS["A100-SXM4-80GB"], GPUS["RTX 2080"]
    assert (ampere.peak("f32"), ampere.peak("f32", tf32=True)) == (19.5e12, 156e12)
    assert ampere.peak("bf16", tf32=True) == ampere.peak("bf16") == 312e12
    assert turing.peak("f32", tf32=True) == turing.peak("f32") and turing.peak("bf16") is None


def test_bench_of_a_config_prints_and_its_json_holds_the_same(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = [part for k, v in SMALL.items() for part in ("--set", f"dims.{k}={v}")]
    tiny = ["bench", "configs/gpt2_124m.toml", "--device", "cpu", "--steps", "2", *sizes]
    tiny += ["--set", "train.tokens_per_step=32"]
    assert main([*tiny, "--profile", "trace.json", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["micro_steps"] == 2 and len(found["ms"]) == 2 and found["mfu"] == {"full": None, "needed": None}
    assert {"matmul", "attention"} <= {row["op"] for row in found["ops"]}
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert len(trace["traceEvents"]) == 2 + sum(row["launches"] for row in found["ops"])
    assert main(tiny) == 0
    out = capsys.readouterr().out
    assert "tokens/s: " in out and "MFU: n/a" in out and "between launches" in out


def test_bench_of_an_op_times_each_variant_at_the_shape_that_was_asked(capsys):
    assert main(["bench", "gelu", "--device", "cpu", "--shape", "x=5,33", "--steps", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["variant"] for row in rows} == {"gelu.reference", "gelu.blocked"}
    assert all(row["shape"] == {"x": [5, 33]} and {"forward", "backward"} <= set(row["ms"]) for row in rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gleu"], 'no config and no op is called "gleu"; did you mean the op "gelu"?'),
        (["tiny", "--device", "sim"], "does not predict a GPU's"),
        (["gelu", "--device", "cpu", "--profile", "x"], "are for a config"),
        (["gelo", "--device", "cpu", "--shape", "x=2,2"], 'did you mean "gelu"'),
    ],
)
def test_what_cannot_be_timed_is_refused_with_what_to_do(arguments, words, capsys):
    assert main(["bench", *arguments]) == 2
    assert words in capsys.readouterr().err
