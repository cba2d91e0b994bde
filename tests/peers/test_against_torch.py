"""A small whole GPT-2 against PyTorch: gradients, ten AdamW steps, and every way of planning the same step.

The golden values (golden/make.py) are PyTorch's, in f64. Where PyTorch is installed they are computed afresh too.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from core.engine import Engine, Settings
from core.errors import DataError, UsageError
from core.graph import load_model
from core.loader import load_registry

GOLDEN = Path(__file__).parents[1] / "golden"
spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)

GRADIENT = {"f64": 1e-10, "f32": 1e-5}  # relative 2-norm, per parameter
LOSSES = 1e-5
EXACT = 1e-13  # f64, the same sums in another order


@cache
def registry():
    return load_registry()


def references():
    return {op: "reference" for op, variants in registry().variants.items() if "reference" in variants}


UNFUSED = {"add_layernorm": False, "head_loss": False}
CHOICES = {
    "auto": dict,
    "references": lambda: {"ops": references()},
    "unfused": lambda: {"fusion": UNFUSED},
}


def engine(case="gpt2", precision="f64", dims=None, model=None, weights=True, **settings):
    """The case's model with its weights, and AdamW as the golden values have it."""
    options = {k: v for k, v in make.OPTIMIZER.items() if k != "lr"}
    spec = make.CASES[case]
    name = spec["model"] if "." not in spec["model"] else str(GOLDEN / spec["model"])
    source = load_model(model or name, registry())
    settings = {"optimizer": "adamw", "options": options, "dims": {**spec["dims"], **(dims or {})}, **settings}
    built = Engine(source, registry(), Settings(precision=precision, **settings))
    dtype = {"f64": np.float64, "f32": np.float32}[precision]
    if weights:
        built.load_parameters({n: w.astype(dtype) for n, w in make.weights(spec["dims"]).items()})
    return built


def batches(case="gpt2", count=make.MICRO_STEPS):
    return make.batches(make.CASES[case]["dims"], count)


def losses(built, case="gpt2"):
    return np.array([built.step(batches(case), make.OPTIMIZER["lr"]).loss for _ in range(make.STEPS)])


def distance(got, expected):
    """Relative 2-norm of the difference."""
    expected = np.asarray(expected, np.float64)
    return np.linalg.norm(np.asarray(got, np.float64) - expected) / np.linalg.norm(expected)


def same_gradients(got, expected, bound):
    far = {name: distance(got[name], expected[name]) for name in expected}
    assert not {name: d for name, d in far.items() if not d < bound}


def golden_gradients(case="gpt2"):
    return {name[1:]: value for name, value in golden(case).items() if name.startswith("d")}


@cache
def golden(case):
    return load_file(GOLDEN / f"{case}.safetensors")


# --- the golden values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", make.CASES)
def test_the_committed_values_are_what_torch_computes_here(case):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # for tensors this small, its threads only wait for each other
    fresh = make.compute(case)
    assert set(fresh) == set(golden(case))
    far = {name: distance(fresh[name], value) for name, value in golden(case).items()}
    assert max(far.values()) < 1e-11, far


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("precision", GRADIENT)
@pytest.mark.parametrize("case", make.CASES)
def test_loss_and_every_gradient_agree_with_torch(case, precision, choice):
    loss, gradients = engine(case, precision, **CHOICES[choice]()).gradients(batches(case)[0])
    assert set(gradients) == set(golden_gradients(case))
    assert abs(loss / golden(case)["loss"] - 1) < GRADIENT[precision]
    same_gradients(gradients, golden_gradients(case), GRADIENT[precision])


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("precision", GRADIENT)
@pytest.mark.parametrize("case", make.CASES)
def test_ten_adamw_steps_of_three_unequal_micro_steps_agree_with_torch(case, precision, choice):
    built = engine(case, precision, **CHOICES[choice]())
    records = [built.step(batches(case), make.OPTIMIZER["lr"]) for _ in range(make.STEPS)]
    bound = LOSSES if precision == "f32" else 1e-10
    np.testing.assert_allclose([r.loss for r in records], golden(case)["losses"], rtol=bound)
    np.testing.assert_allclose([r.norm for r in records], golden(case)["norms"], rtol=10 * bound)
    assert [r.step for r in records] == list(range(1, make.STEPS + 1)) and all(r.ok for r in records)


@pytest.mark.parametrize("precision", GRADIENT)
@pytest.mark.parametrize("case", make.CASES)
def test_logits_agree_with_torch_and_have_no_padding(case, precision):
    found = engine(case, precision).logits(batches(case)[0]["tokens"])
    assert found.shape == golden(case)["logits"].shape
    assert distance(found, golden(case)["logits"]) < GRADIENT[precision]


def test_the_padding_of_the_vocabulary_stays_zero_in_training():
    built = engine(precision="f32")
    for _ in range(3):
        built.step(batches(), make.OPTIMIZER["lr"])
    rows = built.store.place(built.store.weights, "wte.weight")
    assert rows.shape[0] == 64 and not rows[50:].any() and rows[:50].all()


# --- every way to plan the same step ------------------------------------------------------------------------------


WAYS = {
    "no alias": {"alias": False},
    "nothing in place": {"in_place": False},
    "neither": {"alias": False, "in_place": False},
    "no fusion": {"fusion": UNFUSED},
    "only add_layernorm": {"fusion": {"head_loss": False}},
    "only head_loss": {"fusion": {"add_layernorm": False}},
    "head_loss in chunks of 5 rows": {"fusion": {"head_loss": {"chunk": 5}}},
    "no fusion, no alias, nothing in place": {"fusion": UNFUSED, "alias": False, "in_place": False},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", make.CASES)
def test_the_gradients_do_not_depend_on_how_the_step_is_planned(case, way):
    loss, gradients = engine(case, **WAYS[way]).gradients(batches(case)[0])
    assert abs(loss / golden(case)["loss"] - 1) < GRADIENT["f64"]
    same_gradients(gradients, golden_gradients(case), GRADIENT["f64"])


SHARED = """
extends = "gpt2_124m"
[block.layer]
down = false
y    = { op = "add", in = ["r", "act"] }
fc   = { op = "matmul", in = "ln_2", features = "C" }
[init]
"h.*.down.weight" = false
"""


def test_a_gradient_that_the_residual_shares_is_not_overwritten_in_place(tmp_path):
    path = tmp_path / "shared.toml"  # gelu's gradient may lie over dy, which here is the residual's gradient too
    path.write_text(SHARED)
    found = []
    for settings in ({}, {"alias": False, "in_place": False, "ops": references(), "fusion": UNFUSED}):
        built = engine(model=str(path), weights=False, **settings)
        built.initialize(1)
        found.append(built.gradients(batches()[0])[1])
    same_gradients(*found, 1e-12)


RECOMPUTED = [["gelu"], ["layernorm"], ["gelu", "layernorm"], ["gelu", "layernorm", "attention", "matmul", "add"]]


@pytest.mark.parametrize("ops", RECOMPUTED, ids="+".join)
@pytest.mark.parametrize("precision", GRADIENT)
def test_recompute_gives_the_same_bits(precision, ops):
    plain, redone = (engine(precision=precision, fusion=UNFUSED, recompute=r) for r in ([], ops))
    assert "recompute" in {step.kind for step in redone.plan("train").steps}
    (loss, expected), (again, got) = (e.gradients(batches()[0]) for e in (plain, redone))
    assert loss == again and {n for n in expected if not np.array_equal(expected[n], got[n])} == set()
    np.testing.assert_array_equal(losses(plain), losses(redone))


FROZEN = [["h.0.*"], ["wte.weight"], ["h.1.qkv.weight", "h.1.qkv.bias", "*.ln_1.*"], ["h.*", "x0.weight", "wte.weight"]]


@pytest.mark.parametrize("frozen", FROZEN, ids="+".join)
@pytest.mark.parametrize("fusion", [{}, UNFUSED], ids=["fused", "unfused"])
def test_frozen_parameters_keep_their_values_and_the_others_their_gradients(frozen, fusion):
    built = engine(freeze=frozen, fusion=fusion)
    before = {n: w.copy() for n, w in built.parameters().items()}
    loss, gradients = built.gradients(batches()[0])
    held = set(before) - set(gradients)
    assert held and loss == pytest.approx(float(golden("gpt2")["loss"]), rel=1e-12)
    same_gradients(gradients, {n: golden_gradients()[n] for n in gradients}, GRADIENT["f64"])
    built.step(batches(), make.OPTIMIZER["lr"])
    changed = {n for n, w in built.parameters().items() if not np.array_equal(w, before[n])}
    assert changed == set(before) - held


# --- batches ------------------------------------------------------------------------------------------------------


def test_two_micro_steps_are_one_batch_of_both():
    halves = batches(count=2)
    whole = {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}
    apart, together = engine(), engine(dims={"B": 4})
    for _ in range(3):
        first, second = apart.step(halves, 1e-2), together.step([whole], 1e-2)
        assert [first.loss, first.norm] == pytest.approx([second.loss, second.norm], rel=1e-12)
    same_gradients(apart.parameters(), together.parameters(), 1e-11)


DROPOUT = """
extends = "gpt2_124m"
[block.layer]
drop = { op = "dropout", in = "proj", p = 0.25 }
r    = { op = "add",     in = ["x", "drop"] }
"""


def test_dropout_drops_the_same_in_two_micro_steps_as_in_one_batch(tmp_path):
    path = tmp_path / "dropping.toml"
    path.write_text(DROPOUT)
    halves = batches(count=2)
    whole = {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}
    apart, together = engine(model=str(path)), engine(model=str(path), dims={"B": 4})
    for _ in range(2):
        first, second = apart.step(halves, 1e-2), together.step([whole], 1e-2)
        assert first.loss == pytest.approx(second.loss, rel=1e-12)
        assert abs(first.loss / engine().gradients(whole)[0] - 1) > 1e-3
    same_gradients(apart.parameters(), together.parameters(), 1e-11)
    once, again = engine(model=str(path), recompute=["dropout"]), engine(model=str(path))
    np.testing.assert_array_equal(losses(once), losses(again))


def test_tracing_a_step_gives_the_gradients_of_that_step():
    for fusion in ({}, UNFUSED):
        built, found = engine(fusion=fusion), {}
        nodes = {node.name: node for node in built.plan("train").nodes}
        for event in built.trace(batches()[0]):
            if event.kind in ("backward", "forward_backward"):
                for role, parameter in nodes[event.node].params.items():
                    if event.tensors.get("d" + role) is not None:
                        found[parameter] = event.tensors["d" + role].copy()
        same_gradients(found, golden_gradients(), GRADIENT["f64"])


def test_a_micro_step_may_have_another_shape_than_the_one_before():
    first, second = batches(count=2)
    part = {name: array[:1, :7] for name, array in second.items()}
    total = make.counted(first) + make.counted(part)
    apart = [engine().gradients(batch) for batch in (first, part)]
    shares = [make.counted(batch) / total for batch in (first, part)]
    record = engine().step([first, part], 0.0)
    assert record.loss == pytest.approx(sum(s * loss for s, (loss, _) in zip(shares, apart, strict=True)), rel=1e-12)


@pytest.mark.parametrize("precision", GRADIENT)
@pytest.mark.parametrize("fusion", [{}, UNFUSED], ids=["fused", "unfused"])
def test_a_run_repeats_bit_for_bit(precision, fusion):
    runs = [engine(precision=precision, fusion=fusion) for _ in range(2)]
    np.testing.assert_array_equal(*(losses(run) for run in runs))
    weights = [run.store.weights for run in runs]
    np.testing.assert_array_equal(*weights)


def test_evaluation_is_the_training_loss_without_training():
    built, batch = engine(), batches()[0]
    before = built.store.weights.copy()
    total, count = built.evaluate(batch)
    assert count == make.counted(batch) and total / count == pytest.approx(float(golden("gpt2")["loss"]), rel=1e-12)
    np.testing.assert_array_equal(built.store.weights, before)


WRONG = {
    "input tokens holds 50, and the largest": lambda tokens: tokens + (50 - tokens.max()),
    "input tokens holds -1; only targets may be negative": lambda tokens: tokens - 1 - tokens.min(),
    "input tokens holds float64, expected integers": lambda tokens: tokens + 0.5,
    r"input tokens has shape \(22,\), expected \(B, T\)": lambda tokens: tokens.reshape(-1),
}


@pytest.mark.parametrize("message", WRONG)
def test_tokens_that_the_model_cannot_take_are_refused(message):
    with pytest.raises(DataError, match=message):
        engine().logits(WRONG[message](batches()[0]["tokens"]))


def test_a_model_that_is_frozen_whole_cannot_be_trained():
    with pytest.raises(UsageError, match="freeze leaves no parameter"):
        engine(freeze=["*"]).step(batches(), 1e-2)


def test_an_optimizer_without_a_clip_does_not_clip():
    plain, wide = (engine(options=options) for options in ({"eps": 1e-3}, {"eps": 1e-3, "clip": 1e9}))
    np.testing.assert_array_equal(losses(plain), losses(wide))


# --- decoding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", make.CASES)
@pytest.mark.parametrize("precision", GRADIENT)
def test_cached_decoding_gives_the_logits_of_the_whole(case, precision):
    built, tokens = engine(case, precision), batches(case)[0]["tokens"]
    rows, length = tokens.shape
    session = built.session(rows, length)
    fed = 0
    for take in (4, 1, 1, length - 6):
        fed += take
        found = session.feed(tokens[:, fed - take : fed])
        assert distance(found, golden(case)["logits"][:, fed - 1]) < GRADIENT[precision]


def test_rows_of_a_session_may_differ_in_length():
    built, tokens = engine(), batches()[0]["tokens"]
    session = built.session(2, 11)
    found = session.feed(tokens[:, :7], counts=np.array([7, 3]))
    whole = golden("gpt2")["logits"]
    assert distance(found[0], whole[0, 6]) < 1e-10 and distance(found[1], whole[1, 2]) < 1e-10
    found = session.feed(np.array([[tokens[0, 7]], [tokens[1, 3]]], np.int32))
    assert distance(found[0], whole[0, 7]) < 1e-10 and distance(found[1], whole[1, 3]) < 1e-10


def test_a_full_session_says_so():
    session = engine().session(1, 4)
    session.feed(np.zeros((1, 4), np.int32))
    with pytest.raises(DataError, match="5 tokens do not fit into a session of 4"):
        session.feed(np.zeros((1, 1), np.int32))


def test_decoding_and_training_take_turns():
    built, tokens = engine(), batches()[0]["tokens"]
    session = built.session(2, 11)
    session.feed(tokens[:, :5])
    _, gradients = built.gradients(batches()[0])
    same_gradients(gradients, golden_gradients(), GRADIENT["f64"])
    assert distance(session.feed(tokens[:, 5:6]), golden("gpt2")["logits"][:, 5]) < 1e-10
