"""A GPU that is not there: a training step is recorded for its architecture on any machine."""

from __future__ import annotations

import pytest
from gpt2_plans import registry as shipped

from core.device.planned import PlannedDevice
from core.engine import Engine, Settings
from core.errors import BuildError
from core.graph import load_model
from core.op import Variant
from core.plan import figures
from core.plan.fit import needed

DIMS = {"B": 2, "T": 5, "S": 8, "V": 21, "P": 64, "C": 24, "H": 2, "L": 1}


def test_a_step_is_recorded_without_a_gpu_with_every_launch_by_its_node():
    device = PlannedDevice("sm_90a")
    settings = Settings(dims=DIMS, optimizer="adamw", device="cuda", precision="bf16")
    engine = Engine(load_model("gpt2_124m", shipped()), shipped(), settings, device)
    engine.bound("train", (), {"B": 2, "T": 5}).run()
    nodes = {r.node for r in device.records}
    assert {"h.0.attn", "h.0.r", "h.0.y", "ln_f"} <= nodes
    assert all(dict(r.kernel.defines).get("ELEM") == "bf16" for r in device.records if r.node == "h.0.attn")
    assert len({id(r) for r in device.records}) == len(device.records) > 20
    assert "planned for sm_90a" in device.describe()


def test_what_an_architecture_cannot_run_is_said():
    class Hopper(Variant):
        arch = "sm_90a"

    assert PlannedDevice("sm_90a").can_run(Hopper()) is None
    assert "sm_90a" in str(PlannedDevice("sm_80").can_run(Hopper()))
    assert PlannedDevice("sm_75").precisions == ("f32", "fp16")
    assert PlannedDevice("sm_80").precisions == ("f32", "bf16", "fp16")


def test_tensors_have_addresses_and_no_contents():
    device = PlannedDevice()
    a, b = device.tensor(device.allocate(1000), 0, (250,), "f32"), device.tensor(device.allocate(8), 0, (1,), "f64")
    assert a.pointer % 256 == b.pointer % 256 == 0 and b.pointer >= a.pointer + 1000
    device.upload(a, 1.0)
    assert not device.download(a).any()


def gpt2(batch, fusion):
    """GPT-2 124M in bf16 at T = 1024, planned for a GPU with AdamW."""
    registry = shipped()
    settings = Settings(dims={"B": batch}, optimizer="adamw", device="cuda", precision="bf16", fusion=fusion)
    return Engine(load_model("gpt2_124m", registry), registry, settings, PlannedDevice("sm_90a"))


def test_gpt2_keeps_to_its_memory_without_recompute():
    engine = gpt2(16, {})
    plan = engine.plan("train")
    assert needed(engine.report(plan).memory()) <= 9.5e9
    options = {row["op"]: row for row in figures.recompute_options(engine.report(plan))}
    assert options["gelu"]["saves"] > 1e9 and options["gelu"]["launches"] > 0
    assert options["gelu"]["unfused"] == ["mlp_gelu"]


def test_what_nested_launches_take_besides_the_arena_is_told_before_anything_is_allocated():
    registry = shipped()
    settings = Settings(dims={"B": 2, "T": 64, "L": 2}, optimizer="muon", device="cuda", precision="bf16")
    engine = Engine(load_model("llama_125m", registry), registry, settings, PlannedDevice("sm_90a"))
    plan = engine.plan("train")
    told = figures.scratch(engine.report(plan))
    assert engine.device.scratch_bytes == 0
    engine.bound("train", (), {}).launches()
    engine._recorded_update()
    assert told == {"scratch": engine.device.scratch_bytes} and needed(told) == told["scratch"] > 0
    other = gpt2(1, {})
    assert figures.scratch(other.report(other.plan("train")))["scratch"] < 2**20, "the update's norm alone"
    assert figures.scratch(other.report(other.plan("evaluate", ["loss"]))) == {}


def test_a_micro_step_of_gpt2_keeps_to_its_launches_and_traffic():
    """B = 64: the fused ops are in, and switched off by name."""

    def work(**fusion):
        engine = gpt2(64, fusion)
        plan = engine.plan("train")
        return {n.op.name for n in plan.nodes}, *figures.work(engine.report(plan))

    ops, launches, traffic = work()
    assert {"embed", "matmul_add", "mlp_gelu", "head_loss"} <= ops
    assert launches <= 280 and traffic <= 150e9
    none, more, worse = work(embed=False, matmul_add=False, mlp_gelu=False, head_loss=False)
    assert not none & {"embed", "matmul_add", "mlp_gelu", "head_loss"}
    assert more > launches + 36 and worse > traffic + 15e9


def recorded(model, registry, batch, fusion=None, configs=None, **dims):
    """A training step of a shipped model in bf16, of `batch` rows of 1,024 tokens, planned for a GPU with AdamW."""
    settings = Settings(
        dims={"B": batch, "T": 1024, **dims},
        optimizer="adamw",
        device="cuda",
        precision="bf16",
        fusion=fusion or {},
        recorded=dict.fromkeys(configs or (), "mma"),
        configs=configs or {},
    )
    engine = Engine(load_model(model, registry), registry, settings, PlannedDevice("sm_90a"))
    engine.bound("train", (), {"B": batch, "T": 1024}).run()
    engine.device.run(engine._recorded_update())
    return engine


@pytest.mark.parametrize("model", sorted(shipped().models))
def test_every_shipped_model_trains_with_counts_that_fit_at_two_to_the_18_tokens(model):
    """Above 2^31 parameters, and 2^31 elements of an activation, too; a scalar that does not fit would be an error."""
    large = model in ("gemma_2b", "mistral_7b", "llama3_8b")
    engine = recorded(model, shipped(), 256, **{} if large else {"L": 1})
    (update,) = (r for r in engine.device.records if r.kernel.name == "vector_update")
    assert int(update.args[7]) >= engine.graph.parameter_count
    assert int(update.args[7]) > 2**31 or not large


def test_more_rows_than_an_int_counts_are_refused_in_words():
    with pytest.raises(
        BuildError, match=r"and i32 holds whole numbers from -2,147,483,648 to 2,147,483,647|largest grid"
    ):
        recorded("llama3_8b", shipped(), 2**21, L=1)


def chunk_of(engine):
    """(rows of logits at a time as the config has it, as they are launched, bytes of the first)"""
    plan = engine.plan("train")
    (node,) = (n for n in plan.nodes if n.op.name == "head_loss")
    losses = [r for r in engine.device.records if r.kernel.name == "block_both"]
    return engine.report(plan).tiles()[node.name]["chunk"], losses[0].grid[0], losses[0].args[2].nbytes


@pytest.mark.parametrize(
    ("model", "rows"), [("gpt2_124m", 16384), ("gemma_2b", 3200), ("llama3_8b", 6400), ("mistral_7b", 25088)]
)
def test_head_loss_cuts_its_chunks_by_bytes(model, rows):
    recorded_rows, launched, nbytes = chunk_of(recorded(model, shipped(), 64, L=1))
    assert recorded_rows == launched == rows and 1.5e9 < nbytes < 1.65e9


def test_a_chunk_that_a_run_recorded_is_kept_and_one_that_the_config_names_comes_first(monkeypatch):
    registry = shipped()
    found = recorded("gemma_2b", registry, 64, L=1)
    tiles = found.report(found.plan("train")).tiles()
    monkeypatch.setattr("core.ops.cuda.head_loss.CHUNK_BYTES", 2**28)
    assert chunk_of(recorded("gemma_2b", registry, 64, L=1))[1] < 3200
    assert chunk_of(recorded("gemma_2b", registry, 64, L=1, configs={"loss": tiles["loss"]}))[1] == 3200
    before = {name: size for name, size in tiles["loss"].items() if name != "chunk"}
    assert losses(recorded("gemma_2b", registry, 64, L=1, configs={"loss": before})) == 16384, "as runs did then"
    named = {"head_loss": {"chunk": 999}}
    assert chunk_of(recorded("gemma_2b", registry, 64, named, {"loss": tiles["loss"]}, L=1))[1] == 999


def losses(engine):
    """Rows of logits that are launched at a time."""
    return next(r.grid[0] for r in engine.device.records if r.kernel.name == "block_both")
