"""core.load: what a model gives in Python, from every kind of place, and a traced step that is the real one."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

import core
from core import checkpoint
from core.checkpoint import Contents
from core.engine import Engine, Settings
from core.errors import BuildError, CheckpointError, CoreError, DataError, DeviceError, UsageError
from core.graph import load_model
from core.loader import load_registry
from core.tokenizers.byte_pairs import bytes_tokenizer

ROOT = Path(__file__).parents[2]
DIMS = {"B": 2, "T": 9, "S": 16, "V": 50, "P": "pad(V, 64)", "C": 24, "H": 4, "L": 2}
RNG = np.random.default_rng(1)
TOKENS = RNG.integers(0, 50, (2, 9))
TARGETS = np.where(RNG.random((2, 9)) < 0.2, -1, RNG.integers(0, 50, (2, 9)))


def tiny(**options):
    return core.load("gpt2_124m", **{"dims": DIMS, "precision": "f64", **options})


@pytest.fixture(scope="module")
def model():
    """A model whose parameters are no round numbers: nothing is 0 or 1."""
    made = tiny()
    for name, value in made.params.items():
        value += 0.1 * np.random.default_rng(len(name)).standard_normal(value.shape)
    return made


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


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
    "beyond 64 bits": ([[2**70]], "no array of integers"),
    "ragged": ([[1, 2], [3]], "rows differ in length"),
    "text": ("abc", "expected"),
    "texts": (["a", "b"], "expected integers"),
    "floats": ([[1.0, 2.0]], "float64; expected integers"),
    "truths": ([[True, False]], "bool; expected integers"),
    "nothing": ([], "shape"),
    "empty rows": ([[], []], "shape"),
    "three dims": ([[[1]]], r"shape \(1, 1, 1\)"),
    "one number": (3, r"shape \(\)"),
    "None": (None, "no array of integers"),
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


# --- trace -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def events(model):
    """(kind, node, variant, copies of its tensors) of a traced step."""
    return [
        (e.kind, e.node, e.variant, {k: None if v is None else v.copy() for k, v in e.tensors.items()})
        for e in model.trace(TOKENS, TARGETS)
    ]


def at(events, kind, node):
    (found,) = [tensors for k, n, _, tensors in events if (k, n) == (kind, node)]
    return found


def test_every_node_comes_forward_and_then_backward_in_reverse(model, events):
    nodes = [n.name for n in model.graph.nodes]
    walked = [(kind, node) for kind, node, _, _ in events if node]
    assert walked == [("forward", n) for n in nodes] + [("backward", n) for n in reversed(nodes)]


def test_every_tensor_of_a_node_is_there_by_its_schemas_name(model, events):
    for node in model.graph.nodes:
        forward, backward = at(events, "forward", node.name), at(events, "backward", node.name)
        assert {*node.inputs, *node.outputs, *node.params} <= set(forward)
        for role, name in node.params.items():
            np.testing.assert_array_equal(forward[role], model.params[name])
            assert backward["d" + role].shape == forward[role].shape
        for role in (*node.inputs, *node.outputs):
            value = model.graph.values[{**node.inputs, **node.outputs}[role]]
            assert forward[role].shape == core.expr.trim(value.shape)
            if value.dtype != "i32" and role in node.inputs:
                assert backward["d" + role].shape == forward[role].shape


def test_the_gradients_that_a_trace_shows_are_those_of_gradients(model, events):
    last = {}
    for kind, node, _, tensors in events:
        if kind == "backward":
            for role, name in model.graph.node(node).params.items():
                last[name] = tensors["d" + role]
    expected = model.gradients(TOKENS, TARGETS)
    assert set(last) == set(expected)
    for name, gradient in expected.items():
        np.testing.assert_array_equal(last[name], gradient)


def test_tracing_changes_no_bit(model):
    params = {n: p.copy() for n, p in model.params.items()}
    before = model.gradients(TOKENS, TARGETS)
    for _ in model.trace(TOKENS, TARGETS):
        pass
    half = model.trace(TOKENS, TARGETS)  # one that is given up half way
    for _ in range(20):
        next(half)
    after = model.gradients(TOKENS, TARGETS)
    for name, gradient in before.items():
        np.testing.assert_array_equal(after[name], gradient)
        np.testing.assert_array_equal(model.params[name], params[name])


def test_a_trace_ends_when_the_model_computes_something_else(model):
    events = model.trace(TOKENS, TARGETS)
    next(events)
    model.loss(TOKENS, TARGETS)
    with pytest.raises(UsageError, match="used during its trace"):
        next(events)


def test_the_chain_rule_at_a_layernorm_holds_by_hand(events):
    forward, t = at(events, "forward", "ln_f"), at(events, "backward", "ln_f")
    n = (forward["x"] - forward["x"].mean(-1, keepdims=True)) / np.sqrt(forward["x"].var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(forward["y"], n * forward["weight"] + forward["bias"], rtol=1e-9)
    C = n.shape[-1]
    jacobian = np.eye(C) - 1 / C - n[..., :, None] * n[..., None, :] / C  # of n by x, times rstd
    dx = forward["rstd"][..., None] * np.einsum("btji,btj->bti", jacobian, t["dy"] * forward["weight"])
    np.testing.assert_allclose(t["dx"], dx, rtol=1e-7, atol=1e-14)
    np.testing.assert_allclose(t["dweight"], (t["dy"] * n).sum((0, 1)), rtol=1e-8, atol=1e-14)
    np.testing.assert_allclose(t["dbias"], t["dy"].sum((0, 1)), rtol=1e-10, atol=1e-14)


def test_the_chain_rule_at_the_loss_and_the_head_holds_by_hand(model, events):
    t, count = at(events, "backward", "loss"), (TARGETS >= 0).sum()
    one_hot = np.eye(50)[np.maximum(TARGETS, 0)]
    expected = np.where(TARGETS[..., None] >= 0, softmax(t["logits"]) - one_hot, 0) / count
    np.testing.assert_allclose(t["dlogits"], expected, rtol=1e-9, atol=1e-16)
    head = at(events, "backward", "logits")
    np.testing.assert_array_equal(head["dy"], t["dlogits"])
    np.testing.assert_allclose(head["dx"], head["dy"] @ model.params["wte.weight"], rtol=1e-9, atol=1e-16)
    of_head = np.einsum("btv,btc->vc", head["dy"], head["x"])
    np.testing.assert_allclose(head["dweight"], of_head, rtol=1e-9, atol=1e-16)
    wte = at(events, "backward", "wte")  # the embedding adds to what the head wrote
    added = of_head.copy()
    np.add.at(added, wte["ids"].ravel(), wte["dy"].reshape(-1, 24))
    np.testing.assert_allclose(wte["dweight"], added, rtol=1e-9, atol=1e-16)


def test_the_chain_rule_at_attention_holds_by_hand(events):
    t = at(events, "backward", "h.0.attn")
    H, D = 4, 6
    q, k, v = (np.moveaxis(part.reshape(2, 9, H, D), 2, 1) for part in np.split(t["qkv"], 3, axis=-1))
    dy = np.moveaxis(t["dy"].reshape(2, 9, H, D), 2, 1)
    s = np.where(np.tri(9, dtype=bool), q @ np.swapaxes(k, -1, -2) / math.sqrt(D), -np.inf)
    p = softmax(s)
    np.testing.assert_allclose(t["lse"], np.log(np.exp(s).sum(-1)), rtol=1e-9)
    dp = dy @ np.swapaxes(v, -1, -2)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / math.sqrt(D)
    parts = (ds @ k, np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ dy)
    expected = np.concatenate([np.moveaxis(part, 1, 2).reshape(2, 9, H * D) for part in parts], -1)
    np.testing.assert_allclose(t["dqkv"], expected, rtol=1e-7, atol=1e-14)


# --- the pages ---------------------------------------------------------------------------------------------------


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.DOTALL)


def test_the_page_about_one_step_runs_and_says_what_it_prints(capsys):
    text = (ROOT / "docs" / "step.md").read_text("utf-8")
    scope: dict[str, object] = {}
    for block in blocks("step.md"):
        exec(compile(block, "docs/step.md", "exec"), scope)  # noqa: S102
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    shown = [
        line.rstrip() for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    assert len(shown) >= 20
    missing = [line for line in shown if line != "..." and line not in printed]
    assert not missing


def test_the_lines_of_code_that_the_page_quotes_are_the_ops_own():
    quoted = re.findall(
        r"^\| `(ops/\w+\.py)` \| `([^`]+)` \|", (ROOT / "docs" / "step.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(quoted) >= 8
    for file, line in quoted:
        assert line in (ROOT / file).read_text("utf-8"), f"{file} has no line {line}"


def test_the_page_about_other_programs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks("interop.md"):
        exec(compile(block, "docs/interop.md", "exec"), {})  # noqa: S102
