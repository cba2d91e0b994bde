"""Training steps on ranks that NCCL joins: sums in CUDA graphs, and beside the last backward pass."""

from __future__ import annotations

import numpy as np
import pytest
from stubbed_nccl import stubbed

MODEL = """
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V" }
loss = "loss"
[dims]
B = 2
T = 4
V = 24
C = 16
[graph]
wte    = { op = "embedding", in = "tokens", rows = "V", cols = "C" }
fc     = { op = "matmul", in = "wte", features = "2*C" }
logits = { op = "matmul", in = "fc", features = "V", bias = false }
loss   = { op = "cross_entropy", in = ["logits", "targets"] }
"""
STEPS = """
def steps(ranks, after=None, **settings):
    settings = Settings(optimizer="adamw", options={"clip": 1.0}, fusion={"head_loss": False}, **settings)
    engine = Engine(load_model(os.environ["MODEL"], registry), registry, settings, None, ranks)
    engine.initialize(1)
    if after is not None:
        after(engine)
    rows = np.random.default_rng(0).integers(0, 24, (4, 2, 5)).astype(np.int32)
    own = rows[ranks.rank::ranks.size]
    made = [engine.step([{"tokens": r[:, :-1], "targets": r[:, 1:]} for r in own], 1e-2) for _ in range(2)]
    gradients = {name: array.tolist() for name, array in engine.parameter_gradients()}
    choices = engine.report(engine.plan("train"))
    kept = choices.choices()["all_reduce"].variant.name, choices.tiles()["all_reduce"]
    return [[record.loss, record.norm] for record in made], gradients, kept
"""


@stubbed
@pytest.mark.parametrize("shard", [False, True])
def test_a_training_step_in_graphs_sums_gradients_and_loss_and_records_the_algorithm(on_ranks, tmp_path_factory, shard):
    model = tmp_path_factory.mktemp("model") / "two.toml"
    model.write_text(MODEL)
    code = f"""{STEPS}
import simulated_driver
simulated_driver.simulate(stub)
ranks = joined()
first = nccl.stub_nccl_calls()
ours = steps(ranks, device="cuda", shard={shard}, overlap=False)
simulated_driver.check_pool()
made = calls(first)
from core.ranks.group import ALONE
from types import SimpleNamespace
def one():
    settings = Settings(optimizer="adamw", options={{"clip": 1.0}}, fusion={{"head_loss": False}}, device="cpu")
    engine = Engine(load_model(os.environ["MODEL"], registry), registry, settings)
    engine.initialize(1)
    rows = np.random.default_rng(0).integers(0, 24, (4, 2, 5)).astype(np.int32)
    batches = [{{"tokens": r[:, :-1], "targets": r[:, 1:]}} for r in rows]
    made = [engine.step(batches, 1e-2) for _ in range(2)]
    return [[r.loss, r.norm] for r in made], {{name: array.tolist() for name, array in engine.parameter_gradients()}}
out([ours, one(), made])
"""
    said = on_ranks(code, MODEL=str(model), STUB_MEMORY=str(1 << 26))
    for (numbers, gradients, choice), (expected, theirs), calls in said:
        assert np.allclose(numbers, expected, rtol=1e-5)
        assert choice == ["nccl", {"algorithm": "ring"}]
        for name, gradient in gradients.items() if not shard else ():  # of slices, each rank has its own sums
            assert np.linalg.norm(np.subtract(gradient, theirs[name])) <= 1e-5 * np.linalg.norm(theirs[name]), name
        inside = [call for call in calls if call[5]]
        kinds = [(call[0], call[3]) for call in inside]  # 7 is f32, 8 f64: once for all replays
        whole = [("AllReduce", 7), ("AllReduce", 8)]  # gradients and loss
        slices = [*2 * [("Reduce", 7)], ("AllReduce", 8), ("AllGather", 8), *2 * [("Broadcast", 7)]]  # norm, weights
        assert kinds == (slices if shard else whole)
    assert said[0][0][0] == said[1][0][0] and (shard or said[0][0] == said[1][0]), "the ranks agree in every bit"


OVERLAP = f"""{STEPS}
import simulated_driver
from core.engine import gradient_sums
simulated_driver.simulate(stub)
gradient_sums.LEAST, gradient_sums.MOST, gradient_sums.PIECE = 400, 600, 64
ranks = joined()
made, runs = [], []
for overlap, order in ((True, "early"), (True, "late"), (False, "early")):
    os.environ["STUB_ORDER"] = order
    for shard in (True, False):
        first, held = nccl.stub_nccl_calls(), []
        numbers, _, _ = steps(ranks, held.append, device="cuda", shard=shard, overlap=overlap)
        engine = held[0]
        parts = len(gradient_sums.parts_of(engine.layout))
        weights = {{name: array.tolist() for name, array in engine.parameters().items()}}
        streams = [nccl.stub_nccl_call(i).contents.stream for i in range(first, nccl.stub_nccl_calls())]
        captured = [s for s, call in zip(streams, calls(first), strict=True) if call[5]]
        aside = sum(stream != int(engine.device._stream) for stream in captured)
        runs.append([overlap, shard, parts, len(captured), aside, numbers, weights])
simulated_driver.check_pool()
out(runs)
"""


@stubbed
def test_gradients_are_summed_beside_the_last_backward_with_the_same_bits(on_ranks, tmp_path_factory):
    model = tmp_path_factory.mktemp("model") / "two.toml"
    model.write_text(MODEL)
    for runs in on_ranks(OVERLAP, MODEL=str(model), STUB_MEMORY=str(1 << 26)):
        bits = {shard: [run[5:] for run in runs if run[1] == shard] for shard in (True, False)}
        for shard in (True, False):
            assert bits[shard][0] == bits[shard][1] == bits[shard][2], "overlap changes no bit, early or late"
        for overlap, shard, parts, captured, aside, *_ in runs:
            assert parts == 4
            assert captured > parts and (aside >= parts) == overlap and (aside == 0) == (not overlap)
            if not shard and overlap:
                assert (captured, aside) == (parts + 1, parts), "each part beside the step, the loss in the update"
