"""core.load: what a model gives in Python, from every kind of place, and a traced step that is the real one."""

from __future__ import annotations

import re

import numpy as np
import pytest
from loaded_model import DIMS, TARGETS, TOKENS, softmax, tiny

import core
from core import checkpoint
from core.checkpoint import Contents
from core.engine import Engine, Settings
from core.errors import BuildError, CheckpointError, CoreError, DataError, DeviceError, UsageError
from core.graph import load_model
from core.loader import load_registry
from core.tokenizers.byte_pairs import bytes_tokenizer

# --- logits, loss, gradients -------------------------------------------------------------------------------------


def test_logits_come_without_padding_for_lists_arrays_and_one_row(model):
    logits = model.logits(TOKENS)
    assert logits.shape == (2, 9, 50) and model.graph.dims["P"] == 64
    np.testing.assert_array_equal(model.logits(TOKENS.tolist()), logits)
    np.testing.assert_array_equal(model.logits(TOKENS.astype(np.uint16)), logits)
    np.testing.assert_allclose(model.logits(TOKENS[1]), logits[1:], rtol=1e-10)
    np.testing.assert_allclose(model.logits(TOKENS[:, :4]), logits[:, :4], rtol=1e-10)


def test_loss_is_the_mean_over_the_targets_that_count(model):
    p = softmax(model.logits(TOKENS))
    counts = TARGETS >= 0
    expected = -np.log(np.take_along_axis(p, np.maximum(TARGETS, 0)[..., None], -1)[..., 0])[counts].mean()
    assert 0 < counts.sum() < TARGETS.size
    assert model.loss(TOKENS, TARGETS) == pytest.approx(expected, rel=1e-12)


def test_gradients_are_the_slopes_of_the_loss(model):
    gradients = model.gradients(TOKENS, TARGETS)
    assert {n: g.shape for n, g in gradients.items()} == {n: p.shape for n, p in model.params.items()}
    for name in ("wte.weight", "h.1.ln_1.bias", "h.0.qkv.weight"):
        direction = np.random.default_rng(2).standard_normal(gradients[name].shape)
        before = model.params[name].copy()
        losses = []
        for step in (1e-5, -1e-5):
            model.params[name][...] = before + step * direction
            losses.append(model.loss(TOKENS, TARGETS))
        model.params[name][...] = before
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx((gradients[name] * direction).sum(), rel=1e-6), name


def test_params_are_views_that_change_the_model():
    made = tiny()
    before = made.logits(TOKENS)
    made.params["wte.weight"][:] *= 2
    assert not np.array_equal(made.logits(TOKENS), before)
    with pytest.raises(TypeError):
        made.params["wte.weight"] = before  # a new array would change nothing


def test_gradients_are_copies(model):
    first = model.gradients(TOKENS, TARGETS)
    kept = {name: g.copy() for name, g in first.items()}
    model.gradients(TOKENS[:1, :3], TARGETS[:1, :3])
    for name, gradient in first.items():
        np.testing.assert_array_equal(gradient, kept[name])


def test_fusing_changes_no_more_than_the_rounding(model):
    fused = tiny(fuse=True)
    for name, value in model.params.items():
        fused.params[name][...] = value
    assert fused.loss(TOKENS, TARGETS) == pytest.approx(model.loss(TOKENS, TARGETS), rel=1e-12)
    expected = model.gradients(TOKENS, TARGETS)
    for name, gradient in fused.gradients(TOKENS, TARGETS).items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-9, atol=1e-14)
    nodes = {e.node for e in fused.trace(TOKENS, TARGETS)}
    assert "loss" in nodes and "logits" not in nodes  # one node with its loss


# --- generate ----------------------------------------------------------------------------------------------------


def test_generating_greedily_takes_the_likeliest_token_each_time(model):
    prompt = TOKENS[:, :5]
    made = model.generate(prompt, max_new_tokens=8, temperature=0)
    assert made.shape == (2, 13) and made.dtype == np.int32
    np.testing.assert_array_equal(made[:, :5], prompt)
    logits = model.logits(made[:, :-1])
    np.testing.assert_array_equal(made[:, 5:], logits[:, 4:].argmax(-1))


def test_a_seed_draws_one_text_and_another_seed_another(model):
    texts = [model.generate(TOKENS[0, :3], max_new_tokens=12, temperature=1.0, top_k=20, seed=s) for s in (1, 1, 2)]
    assert texts[0].shape == (15,)
    np.testing.assert_array_equal(texts[0], texts[1])
    assert not np.array_equal(texts[0], texts[2])


def test_a_text_may_fill_the_positions_and_no_more(model):
    assert model.generate([1, 2], max_new_tokens=15, temperature=0).shape == (17,)  # the last one is never fed
    with pytest.raises(UsageError, match="do not fit"):
        model.generate([1, 2], max_new_tokens=16)
    assert model.generate([1, 2], max_new_tokens=0).tolist() == [1, 2]
    with pytest.raises(UsageError, match="max_new_tokens is -1"):
        model.generate([1, 2], max_new_tokens=-1)
    with pytest.raises(UsageError, match="temperature"):
        model.generate([1, 2], temperature=-1.0)


# --- what comes in -----------------------------------------------------------------------------------------------

BAD = {
    "too large": ([[1, 50]], r"tokens\[0, 1\] is 50; the model knows 0 to 49"),
    "negative": ([[3, 1], [0, -2]], r"tokens\[1, 1\] is -2"),
    "beyond 32 bits": ([[2**40]], "is 1099511627776"),
    "beyond 64 bits": ([[2**70]], "not an array of integers"),
    "ragged": ([[1, 2], [3]], "rows differ in length"),
    "text": ("abc", "expected"),
    "texts": (["a", "b"], "expected integers"),
    "floats": ([[1.0, 2.0]], "float64; expected integers"),
    "truths": ([[True, False]], "bool; expected integers"),
    "nothing": ([], "shape"),
    "empty rows": ([[], []], "shape"),
    "three dims": ([[[1]]], r"shape \(1, 1, 1\)"),
    "one number": (3, r"shape \(\)"),
    "None": (None, "not an array of integers"),
}


@pytest.mark.parametrize("tokens, words", BAD.values(), ids=BAD)
def test_tokens_that_are_none_are_refused(model, tokens, words):
    for call in (model.logits, model.generate, lambda t: model.loss(t, TARGETS), lambda t: model.trace(t, TARGETS)):
        with pytest.raises(DataError, match=words):
            call(tokens)


def test_targets_are_refused_by_shape_by_bound_and_when_none_counts(model):
    for call in (model.loss, model.gradients, model.trace):
        with pytest.raises(DataError, match=r"\(2, 9\) and targets \(2, 8\)"):
            call(TOKENS, TARGETS[:, :8])
        with pytest.raises(DataError, match=r"targets\[0, 0\] is 50.*negative numbers for ignored targets"):
            call(TOKENS, np.full_like(TOKENS, 50))
        with pytest.raises(DataError, match="every target is negative"):
            call(TOKENS, np.full_like(TOKENS, -100))
    assert model.loss([1, 2], [-(2**40), 3]) == model.loss([[1, 2]], [[-1, 3]])


def test_more_tokens_than_positions_are_refused(model):
    with pytest.raises(BuildError, match="17"):
        model.logits(np.zeros((1, 17), int))


@pytest.mark.parametrize(
    "options, kind, words",
    [
        ({"device": "gpu"}, UsageError, "gpu"),
        ({"precision": "f16"}, UsageError, "f16"),
        ({"precision": "bf16"}, DeviceError, "bf16"),
        ({"ops": {"layernrom": "reference"}}, UsageError, 'did you mean "layernorm"'),
        ({"ops": {"layernorm": "fastest"}}, UsageError, "no variant"),
        ({"dims": {"CC": 1}}, UsageError, 'no dim "CC"'),
        ({"dims": {"H": 5, "C": 24}}, BuildError, "heads"),
        ({"plugins": ["nowhere"]}, CoreError, "nowhere"),
        ({"plugins": "nowhere"}, CoreError, "nowhere"),
    ],
)
def test_wrong_arguments_are_refused(options, kind, words):
    with pytest.raises(kind, match=words):
        core.load("gpt2_124m", **{"dims": DIMS, **options})


def test_a_model_without_targets_or_loss_says_so(tmp_path):
    (tmp_path / "m.toml").write_text(
        'extends = "gpt2_124m"\ninputs = { targets = false }\nloss = false\n[graph]\nloss = false\n'
    )
    made = core.load(tmp_path / "m.toml", dims=DIMS)
    assert made.logits(TOKENS).shape == (2, 9, 50)
    with pytest.raises(UsageError, match="names no loss"):
        made.loss(TOKENS, TARGETS)
    with pytest.raises(UsageError, match='names."llmc".'):
        made.names("llmc")


# --- where it comes from -----------------------------------------------------------------------------------------


def test_a_model_whose_attributes_depend_on_T_does_not_generate(tmp_path):
    path = tmp_path / "short.toml"
    path.write_text(
        'extends = "gpt2_124m"\n[dims]\nV = 64\nC = 16\nH = 2\nL = 1\nS = 32\nT = 16\n[block.layer]\n'
        'attn = { op = "attention", in = "qkv", heads = "H", window = "T // 2" }\n'
    )
    with pytest.raises(core.BuildError, match="window is 8 in training and 3 here, since B and T are the rows"):
        core.load(path).generate([1, 2, 3], max_new_tokens=3)


def test_fresh_weights_are_the_seeds(tmp_path):
    one, again, other = (tiny(seed=s).params for s in (1, 1, 2))
    assert all(np.array_equal(one[n], again[n]) for n in one)
    assert not np.array_equal(one["wte.weight"], other["wte.weight"])
    (tmp_path / "mine.toml").write_text('extends = "gpt2_124m"\n')
    assert core.load(tmp_path / "mine.toml", dims=DIMS).graph.name == "mine"
    assert re.fullmatch(r"<gpt2_124m, [\d,]+ parameters, f64 on cpu>", repr(tiny()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps, the last checkpoint after the second: (folder, parameters after step 1, after step 2)."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    registry = load_registry()
    dims = {**DIMS, "V": 257}
    source = load_model("gpt2_124m", registry)
    engine = Engine(source, registry, Settings(dims=dims, optimizer="adamw"))
    engine.initialize(3)
    after = []
    for step in (1, 2):
        batch = {"tokens": TOKENS.astype(np.int32), "targets": TARGETS.astype(np.int32)}
        engine.step([batch], 1e-2)
        after.append({n: p.copy() for n, p in engine.parameters().items()})
        chosen = {name: choice.variant.name for name, choice in engine.plan("train").choices.items()}
        contents = Contents(
            engine.parameters(), engine.optimizer_state(), source.to_toml(dims), bytes_tokenizer().to_json(),
            {"step": step, "variants": chosen},
        )  # fmt: skip
        checkpoint.save(folder / "checkpoints", step, contents)
    return folder, *after


def test_a_run_gives_its_newest_checkpoint_and_a_checkpoint_itself(run):
    folder, first, second = run
    for path, expected in (
        (folder, second), (str(folder), second), (folder / "checkpoints", second),
        (folder / "checkpoints" / "step_00000001", first),
    ):  # fmt: skip
        made = core.load(path)
        assert made.graph.name == "gpt2_124m" and made.graph.dims["B"] == 2
        for name, value in expected.items():
            np.testing.assert_array_equal(made.params[name], value)


def test_a_checkpoint_brings_its_tokenizer_and_a_model_file_none(run):
    made = core.load(run[0])
    ids = made.tokenizer.encode("a dog")
    text = made.tokenizer.decode(made.generate(ids, max_new_tokens=4))
    assert text.startswith("a dog")
    assert tiny().tokenizer is None


def test_a_damaged_checkpoint_is_refused_and_a_run_falls_back(run, tmp_path):
    import shutil

    folder = shutil.copytree(run[0], tmp_path / "run")
    newest = folder / "checkpoints" / "step_00000002"
    data = bytearray((newest / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="sha256"):
        core.load(newest)
    np.testing.assert_array_equal(core.load(folder).params["wte.weight"], run[1]["wte.weight"])


def test_dims_that_are_not_the_checkpoints_are_refused(run):
    with pytest.raises(CheckpointError, match="does not fit the model"):
        core.load(run[0], dims={"L": 3})
    assert core.load(run[0], dims={"T": 4}).graph.dims["T"] == 4
