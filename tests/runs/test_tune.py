"""core tune finds the fastest candidate, keeps it by chip and size; runs take it, unless something else is named."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from core.cli import run as core_command
from core.config import load_config
from core.device.planned import PlannedDevice
from core.engine import Engine, Settings
from core.errors import BuildError
from core.graph import load_model
from core.kernels.chips import CHIPS, GPUS
from core.kernels.sass import has_nvdisasm
from core.loader import load_registry
from core.measure import tune as tuning
from core.measure.bench import random_batch
from core.measure.choices_file import read_choices
from core.measure.tune import Timed, candidates, save_tuned, tune
from core.measure.tuned import load_shipped, load_tuned
from core.plan import TRAIN, TunedChoice, tuning_key
from core.train.wiring import build_engine

SMALL = {"V": 61, "C": 32, "H": 2, "L": 2, "S": 16, "B": 2, "T": 8}

# variants whose tiles say how long they take, by the clock of these tests, and what they compute
PLUGIN = """
from core import Variant, hookimpl

class Slow(Variant):
    op, name, device, base, priority = "gelu", "slow", "cpu", "reference", 90
    def configs(self, t):
        return [{"wait": 0.02}, {"wait": 0.0005}]
    def forward(self, t, launch):
        launch.call(lambda: t.y.fill(t.config["wait"]))

class Never(Slow):
    name, priority = "never", -1

class Cannot(Slow):
    name, priority = "cannot", 95
    def why_not(self, t):
        return "it has no luck"

@hookimpl
def core_variants():
    return [Slow, Never, Cannot]
"""


def by_tiles(self: Engine, batch):
    """In place of a clock: what a step's tiles say, else a millisecond."""
    plan = self.plan(TRAIN)
    chosen = {step.node.name: plan.choices[step.node.name] for step in plan.steps if step.node}
    waits = {name: (choice.config or {}).get("wait", 0.001) for name, choice in chosen.items()}
    return [(step, waits[step.node.name] if step.node else 0.0) for step in plan.steps], 0.0


@pytest.fixture
def registry(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Engine, "timed", by_tiles)
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "waits.py").write_text(PLUGIN)
    return load_registry([str(tmp_path / "waits.py")])


def engine_of(registry, **settings) -> Engine:
    return Engine(load_model("gpt2_124m", registry), registry, Settings(dims=SMALL, optimizer="adamw", **settings))


def gelu(engine: Engine):
    return engine.plan(TRAIN).choices["h.0.act"]


def test_candidates_are_what_may_be_taken_by_itself_each_with_its_tiles(registry):
    found = {key.split()[0]: kept for key, kept in candidates(engine_of(registry)).items()}
    assert [(k.variant, k.config) for k in found["gelu"]][:2] == [("slow", {"wait": 0.02}), ("slow", {"wait": 0.0005})]
    assert not {"never", "cannot"} & {k.variant for k in found["gelu"]}
    assert "gelu" not in {k.split()[0] for k in candidates(engine_of(registry, ops={"gelu": "slow"}))}


def test_the_fastest_is_found_and_runs_take_it_unless_something_else_was_named(registry):
    timed = [t for t in tune(lambda tuned: engine_of(registry, tuned=tuned), print) if t.key.startswith("gelu")]
    slow = {t.choice.config["wait"]: t for t in timed if t.choice.variant == "slow"}
    assert [(wait, t.seconds, t.nodes) for wait, t in slow.items()] == [(0.02, 4 * 0.02, 2), (0.0005, 4 * 0.0005, 2)]
    engine = engine_of(registry)
    save_tuned(engine.device, {timed[0].key: slow[0.0005].choice})
    tuned = load_tuned(engine.device)
    taken = gelu(engine_of(registry, tuned=tuned))
    assert (taken.why, taken.variant.name, taken.config) == ("tuned", "slow", {"wait": 0.0005})
    taught = engine_of(registry, tuned=tuned)
    assert taught.report(taught.plan(TRAIN)).tiles()["h.1.act"] == {"wait": 0.0005}
    assert gelu(engine_of(registry, tuned=tuned, ops={"gelu": "blocked"})).why == "[ops] gelu"
    recorded = {"recorded": {"h.0.act": "slow"}, "configs": {"h.0.act": {"wait": 0.02}}}
    taken = gelu(engine_of(registry, tuned=tuned, **recorded))
    assert (taken.why, taken.config) == ("recorded", {"wait": 0.02})


def test_tiles_reach_the_launcher(registry):
    engine = engine_of(registry, recorded={"h.0.act": "slow"}, configs={"h.0.act": {"wait": 0.25}})
    engine.initialize(0)
    first, second = engine.values(random_batch(engine, 0), ["h.0.act", "h.1.act"])
    assert (first == np.float32(0.25)).all() and (second == np.float32(0.02)).all()


def test_what_cannot_run_any_more_is_not_taken(registry):
    plain = engine_of(registry)
    key = tuning_key(plain.graph.node("h.0.act"), "f32")
    for gone in ("vanished", "cannot"):
        assert gelu(engine_of(registry, tuned={key: TunedChoice(gone, {})})).why == "auto"
    assert gelu(engine_of(registry, tuned={key.replace("f32", "bf16"): TunedChoice("reference")})).why == "auto"


def test_a_damaged_file_is_as_none(registry, tmp_path):
    engine = engine_of(registry)
    for text in ("", "[1]", '{"format": 99}', "{"):
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache" / "tuned.json").write_text(text)
        assert load_tuned(engine.device) == {}


def interrupted(*told):
    """`tune`, with Ctrl-C at the first candidate of the first round."""
    timings = tune(*told)
    yield next(timings)
    signal.raise_signal(signal.SIGINT)
    yield from timings


def test_tune_then_train_says_tuned_and_a_resumed_run_keeps_its_tiles(registry, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sizes = [part for k, v in SMALL.items() for part in ("--set", f"dims.{k}={v}")]
    common = ["configs/gpt2_124m.toml", "--device", "cpu", "--plugin", str(tmp_path / "waits.py"), *sizes]
    common += ["--set", "train.tokens_per_step=16"]
    assert core_command(["tune", *common, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["candidates"]
    best = [r for r in rows if r["what"].startswith("gelu") and r["fastest"]]
    assert len(best) == 1 and best[0]["config"] == {"wait": 0.0005} and best[0]["nodes"] == 2
    with monkeypatch.context() as patch:  # the first round's candidates are the result
        patch.setattr(tuning, "tune", interrupted)
        assert core_command(["tune", *common, "--json", "--dry-run"]) == 130
    captured = capsys.readouterr()
    first = json.loads(captured.out)["candidates"]
    assert 0 < len(first) < len(rows) and all(r["first"] and r["fastest"] for r in first)
    train = ["train", *common, "--out", "a", "--set", "train.sample_every=0", "--set", "train.checkpoint_every=1"]
    train += ["--set", "data.tokenizer=['bytes']", "--set", "dims.V=257", "--set", "train.steps=1"]
    assert core_command(train) == 0
    assert " tuned " in capsys.readouterr().out
    state = json.loads((tmp_path / "a/checkpoints/step_00000001/state.json").read_text())
    record = json.loads((tmp_path / "a/variants.json").read_text())
    assert state["tiles"] == record["tiles"]


# --- shipped choices ----------------------------------------------------------------------------------------------


def test_what_is_shipped_is_taken_where_nothing_else_is_known(registry):
    key = tuning_key(engine_of(registry).graph.node("h.0.act"), "f32")
    shipped, tuned = {key: TunedChoice("slow", {"wait": 0.3})}, {key: TunedChoice("slow", {"wait": 0.2})}
    recorded = {"recorded": {"h.0.act": "slow"}, "configs": {"h.0.act": {"wait": 0.1}}}
    for settings, why, wait in (
        ({}, "shipped", 0.3),
        ({"tuned": tuned}, "tuned", 0.2),
        ({"tuned": tuned, **recorded}, "recorded", 0.1),
    ):
        taken = gelu(engine_of(registry, shipped=shipped, **settings))
        assert (taken.why, taken.config) == (why, {"wait": wait})
    assert gelu(engine_of(registry, shipped=shipped, ops={"gelu": "reference"})).why == "[ops] gelu"
    assert gelu(engine_of(registry, shipped={key: TunedChoice("vanished", {})})).why == "auto"


def test_what_a_gpu_says_becomes_what_is_shipped_for_its_architecture(registry, tmp_path):
    path = tmp_path / "tuned.toml"
    device = PlannedDevice("sm_80")
    device.model = "A GPU"
    slow, quick = TunedChoice("mma", {"TILE": 1}), TunedChoice("mma", {"TILE": 2})
    found = {
        "won": [Timed("won", 2, slow, 0.004, True), Timed("won", 2, quick, 0.003, False)],
        "stayed": [Timed("stayed", 2, slow, 0.003, True), Timed("stayed", 2, quick, 0.004, False)],
    }
    tuning.write_choices(
        path, {("sm_80", device.sms, "won"): (slow, "not measured: a model's")}
    )  # measured ones replace it
    for chosen in (tuning.measured(device, found), {("sm_90a", 132, "won"): (slow, "an assumption")}):
        tuning.write_choices(path, chosen)
    assert load_shipped(device, [path]) == {"won": quick} and load_shipped(PlannedDevice("sm_90a"), [path]) == {
        "won": slow
    }
    assert load_shipped(engine_of(registry).device, [path]) == {}
    assert "measured on A GPU" in path.read_text() and "3.000 ms, the best guess 4.000" in path.read_text()
    whole = '[[choice]]\narch = "sm_80"\nwhat = "w"\nvariant = "v"\nsource = "s"\nconfig = {}\nsms = "82"'
    for text, words in (
        ("[[choice", "tuned.toml"), ('[[choice]]\narch = "sm_80"', "has no what and no variant"), (whole, "sms = '82'")
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(BuildError, match=words):
            load_shipped(device, [path])


def test_of_a_file_s_choices_that_for_the_nearest_number_of_multiprocessors_is_taken(tmp_path):
    few, many, any_ = (TunedChoice("mma", {"TILE": n}) for n in (82, 142, 0))
    first, later = tmp_path / "first.toml", tmp_path / "later.toml"
    tuning.write_choices(first, {("sm_89", n, "won"): (c, "measured on it") for n, c in ((142, many), (82, few))})
    taken = {sms: load_shipped(PlannedDevice("sm_89", sms), [first])["won"] for sms in (46, 82, 128, 142)}
    assert taken == {46: few, 82: few, 128: many, 142: many}
    later.write_text('[[choice]]\narch = "sm_89"\nwhat = "won"\nvariant = "mma"\nsource = "s"\nconfig = { TILE = 0 }\n')
    assert load_shipped(PlannedDevice("sm_89", 142), [first, later]) == {"won": any_}, "a later file precedes"


def test_a_plugin_brings_tuned_choices_and_they_come_before_the_built_in_ones(tmp_path, monkeypatch):
    plugin = tmp_path / "mine"
    plugin.mkdir()
    (plugin / "__init__.py").write_text('def core_tuned():\n    return ["chip.toml"]\n')
    with pytest.raises(BuildError, match="chip.toml"):
        load_registry([plugin], only=())
    built_in = load_registry(only=())
    key = next(c["what"] for c in read_choices(*built_in.tuned) if c["arch"] == "sm_80")
    tuning.write_choices(
        plugin / "chip.toml", {("sm_80", 108, key): (TunedChoice("mine", {"TILE": 1}), "measured on A GPU")}
    )
    registry, device = load_registry([plugin], only=()), PlannedDevice("sm_80")
    assert registry.plugin("mine").brings["tuned"] == ["chip.toml"]
    before, after = load_shipped(device, built_in.tuned), load_shipped(device, registry.tuned)
    assert after == before | {key: TunedChoice("mine", {"TILE": 1})}


def planned(arch: str, sms: int, batch: int) -> Engine:
    sizes = [f"dims.B={batch}", "dims.L=1", f"train.tokens_per_step={1024 * batch}"]
    config, shipped = load_config("configs/gpt2_124m.toml", overrides=sizes, device="cuda"), load_registry(only=())
    return build_engine(config, shipped, load_model(config.model, shipped), None, PlannedDevice(arch, sms))


def test_every_shipped_choice_is_taken_by_a_shipped_config_and_says_where_it_is_from(tmp_path, monkeypatch):
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path))
    choices = read_choices(*load_registry(only=()).tuned)
    assert choices
    engines: dict[tuple[str, int, int], Engine] = {}
    for choice in choices:
        (batch,) = re.findall(r"(?:\.\.\.=\[|B=)(\d+)", choice["what"])
        place = choice["arch"], choice["sms"], int(batch)
        engine = engines.setdefault(place, planned(*place) if place not in engines else engines[place])
        nodes = [n for n in engine.plan(TRAIN).nodes if tuning_key(n, engine.precision) == choice["what"]]
        assert nodes, choice["what"]
        taken = engine.plan(TRAIN).choices[nodes[0].name]
        assert (taken.why, taken.variant.name, taken.config) == ("shipped", choice["variant"], choice["config"])
        assert TunedChoice(choice["variant"], choice["config"]) in candidates(engine)[choice["what"]]
        assert choice["source"].startswith(("measured on ", "not measured: "))


@pytest.fixture
def tiles(monkeypatch):
    """benchmarks/tiles.py as a module."""
    spec = importlib.util.spec_from_file_location("benchmark_tiles", "benchmarks/tiles.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_a_choice_that_nobody_measured_names_the_gpu_of_the_model(tiles):
    by_chip = {(CHIPS[GPUS[name].number].arch, GPUS[name].sms): name for name in tiles.MODELLED}
    for choice in read_choices(*load_registry(only=()).tuned):
        if choice["source"].startswith("not "):
            assert choice["source"] == tiles.SOURCE.format(gpu=by_chip[choice["arch"], choice["sms"]])


def test_the_candidate_with_the_least_modelled_time_is_written_and_what_was_measured_stays(
    tiles, tmp_path, monkeypatch
):
    """A model in which tiles of 96 rows win."""
    ms = {96: 0.5, 128: 1.0}
    monkeypatch.setattr(
        tiles.Modelled, "elapsed",
        lambda self, groups: [sum(ms.get(dict(x.kernel.defines).get("TILE_I"), 2) for x in g) for g in groups],
    )  # fmt: skip
    found = {key: (best, gain) for key, _, best, gain in tiles.gains("RTX 3090", 16, load_registry(only=()))}
    key = next(key for key in found if key.startswith("matmul_add"))
    best, gain = found[key]
    assert best.config["TILE_I"] == 96 and gain > tiles.GAIN
    path, old = tmp_path / "tuned.toml", TunedChoice("mma", {"TILE_I": 128})
    tuning.write_choices(
        path, {("sm_86", 82, key): (old, "measured on it"), ("sm_86", 82, "gone"): (old, "not measured: x")}
    )
    tiles.written(path, {("sm_86", 82, key): (best, "not measured: y"), ("sm_89", 128, key): (best, "not measured: y")})
    held = {(c["arch"], c["what"]): c["config"]["TILE_I"] for c in read_choices(path)}
    assert held == {("sm_86", key): 128, ("sm_89", key): 96}


@pytest.mark.skipif(not has_nvdisasm(), reason='nvdisasm is missing: pip install "corelm[sass]"')
def test_what_is_not_measured_is_better_than_the_best_guess_by_the_model(tiles, monkeypatch):
    """The residual's product of GPT-2 on an A100; other kernels take no time here."""
    (choice,) = [
        c
        for c in read_choices(*load_registry(only=()).tuned)
        if c["sms"] == 108 and c["what"].startswith("matmul_add bf16 ...=[16,")
    ]
    key, shipped = choice["what"], TunedChoice(choice["variant"], choice["config"])
    monkeypatch.setattr(tiles, "candidates", lambda engine: {key: [candidates(engine)[key][0], shipped]})
    products, bound = ("mma_forward", "mma_dx", "mma_dweight"), tiles.Modelled.seconds
    monkeypatch.setattr(
        tiles.Modelled, "elapsed",
        lambda self, groups: [sum(bound(self, x) for x in g if x.kernel.name in products) for g in groups],
    )  # fmt: skip
    ((_, first, best, gain),) = tiles.gains("A100-SXM4-80GB", 16, load_registry(only=()))
    assert best == shipped != first and gain >= tiles.GAIN


def test_defaults_are_of_a_gpu(capsys):
    assert core_command(["tune", "configs/tiny.toml", "--device", "cpu", "--write-defaults", "x.toml"]) == 2
    assert "--device cuda" in capsys.readouterr().err
