"""Configs and model files at fault: the exit code, the words, and nothing is made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from outside_files import CONFIG, MODEL, PLUGIN, TRAIN, Core, use_model, write

from core.cli import run as core_command


def test_a_misspelt_key_and_all_other_mistakes_at_once(core: Core) -> None:
    write("run.toml", CONFIG, ("steps = 1", "stpes = 1"), ("B = 2", "B = true"))
    core(*TRAIN, "--set", "optimizer.lr=fast", code=2, says=[
        "3 problems", 'run.toml [train] stpes: unknown key; did you mean "steps"?', "run.toml [dims] B",
        "--set optimizer.lr=fast",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("lr = 0.01", 'lr = "3e-4"', "[optimizer] lr: expected a number > 0, got the string"),
        ("steps = 1", "steps = 1e3", "[train] steps: expected a whole number >= 1, got 1000.0; write 1000"),
        ("lr = 0.01", "lr = nan", "lr: expected a number > 0, got nan, which is not finite"),
        ("lr = 0.01", "lr = -inf", "lr: expected a number > 0, got -inf"),
        ("lr = 0.01", "lr = -1.0", "lr: expected a number > 0, got -1.0"),
        ("warmup = 2", "warmup = -2", "[schedule] warmup: expected a whole number >= 0, got -2"),
    ],
)
def test_a_value_of_a_wrong_type_or_range(core: Core, good: str, bad: str, says: str) -> None:
    write("run.toml", CONFIG, (good, bad))
    core(*TRAIN, code=2, says=[says])


@pytest.mark.parametrize("name", ["run.toml", "m.toml"])
def test_a_file_that_is_not_toml(core: Core, name: str) -> None:
    use_model()
    good = Path(name).read_bytes()
    for damage, says in (
        (b"\nx = = 1\n", ":5: not TOML"),
        (b"\nx = 1\nx = 2\n", "not TOML"),
        (b"\n# \xff\n", ":3: not UTF-8"),
    ):
        Path(name).write_bytes(damage + good)
        core(*TRAIN, code=2, says=[f"{name}:", says])


@pytest.mark.parametrize(
    ("good", "bad", "code", "says"),
    [
        ("H = 2", "H = 3", 3, ["h.0.attn", "48 features", "heads + 2*kv_heads = 9", "45 and 54"]),
        ("S = 32", "S = 8", 3, ["x0", "T = 16", "only 8 positions"]),
        ("_step = 64", "_step = 65", 2, ["B * T = 2 * 16 = 32, got 65", "64 and 96"]),
    ],
)
def test_sizes_that_cannot_be_together(core: Core, good: str, bad: str, code: int, says: list[str]) -> None:
    write("run.toml", CONFIG, (good, bad))
    core(*TRAIN, code=code, says=says)


def test_an_override_of_nothing_and_one_that_is_overridden(core: Core) -> None:
    core(
        *TRAIN,
        "--set",
        "train.stepz=3",
        "--set",
        "train.steps=x",
        code=2,
        says=['did you mean "steps"', "--set train.steps=x"],
    )
    core(*TRAIN, "--set", "train.steps=3", "--set", "train.steps=1", code=0, makes=True)
    assert "steps = 1\n" in Path("runs/run/config.resolved.toml").read_text()


def test_a_base_that_is_missing_comes_round_again_or_lies_elsewhere(core: Core, tmp_path: Path) -> None:
    write("b.toml", 'extends = "run.toml"\n')
    for base, says in (
        ("b.toml", "a cycle: run.toml -> b.toml -> run.toml"),
        ("gone.toml", "(chain: run.toml -> gone.toml)"),
        ("../secret.toml", "is outside the folders"),
    ):
        write("../secret.toml", "password = 1\n")
        write("run.toml", f'extends = "{base}"\n' + CONFIG)
        assert "password" not in core(*TRAIN, code=2, says=["extends", says])
        write("run.toml", CONFIG, ('"gpt2_124m"', '"m.toml"'))
        write("m.toml", f'extends = "{base.replace("run", "m")}"\n' + MODEL)
        write("b.toml", 'extends = "./m.toml"\n')
        assert "password" not in core(*TRAIN, code=2, says=["extends"])
        write("b.toml", 'extends = "run.toml"\n')


def test_a_run_that_is_there_already(core: Core) -> None:
    core(*TRAIN, code=0, makes=True)
    core(*TRAIN, "--out", "runs/run", code=2, says=["runs/run exists already", "--resume"])


@pytest.mark.parametrize("name", ["../../x", "x" * 300, "a/" + "y" * 300, "~/x", "run.toml/x", "a\tb", "loop"])
def test_a_path_that_cannot_be_a_runs(core: Core, name: str) -> None:
    os.symlink("loop", "loop")
    core(*TRAIN, "--out", name, code=2, says=["loop exists already" if name == "loop" else "--out "])
    core("sample", name, code=2, says=["no run"])
    core(*TRAIN, "--from", name, code=7)
    core(*TRAIN, "--plugin", name, code=3, says=["--plugin"])


@pytest.mark.parametrize("name", ["/dev/zero", "pipe.bin", "pipe.toml", "x" * 300, "~nobody-here/x"])
def test_a_path_that_is_no_file(core: Core, name: str) -> None:
    """A pipe would hang, a device never ends: each key that takes a path says what is there instead."""
    os.symlink("loop", "loop")
    for pipe in ("pipe.bin", "pipe.toml"):
        os.mkfifo(pipe)
    for key, value, codes in (
        ("model", name, (2, 3)),
        ("data.train", name, (2, 6)),
        ("data.tokenizer", f"bpe:{name}", (6,)),
        ("weights", name, (7,)),
    ):
        write("run.toml", CONFIG)
        got = core_command([*TRAIN, "--set", f"{key}={json.dumps(value)}"])
        assert got in codes, (key, got)
    assert not Path("runs").exists()
    core("data", "verify", name, code=1 if name.startswith(("pipe", "/dev")) else 2)


def test_an_op_that_nobody_brings(core: Core) -> None:
    use_model(('"layernorm"', '"layernrom"'))
    core(*TRAIN, code=3, says=["m.toml:16 [graph] ln_f", 'did you mean "layernorm"'])
    use_model(('"layernorm"', '"rmsnorm"'))
    core(*TRAIN, "--set", 'plugins.disable=["llama"]', code=3, says=[
        "m.toml:16", 'plugin "llama"', "is disabled, and it mentions rmsnorm", "take llama out of [plugins] disable",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ('["x", "attn"]', '["x", "qkv"]', ["h.0.y", "a (...) <- wte (2, 16, 16)", "b (...) <- h.0.qkv (2, 16, 48)"]),
        ('in = "ln_f", f', 'in = "tokens", f', ["node logits", "takes activations", "tokens (2, 16) i32"]),
    ],
)
def test_an_edge_that_does_not_fit(
    core: Core, monkeypatch: pytest.MonkeyPatch, good: str, bad: str, says: list[str]
) -> None:
    """Both ends with their shapes, for a GPU too, before anything is compiled."""
    from core.kernels import nvrtc

    monkeypatch.setattr(nvrtc, "_run_nvrtc", lambda *_: pytest.fail("compiled"))
    use_model((good, bad))
    core(*TRAIN, code=3, says=says)
    core("plan", "run.toml", "--device", "cuda", code=3, says=says)


@pytest.mark.parametrize(
    ("good", "bad", "code", "says"),
    [
        ('in = "x", features = "3*C"', 'in = "attn", features = "3*C"', 3, "circle: h.0.attn -> h.0.qkv -> h.0.attn"),
        ('in = "x", features = "3*C"', 'in = "nope", features = "3*C"', 3, '"in" names "nope"'),
        ("qkv  = {", 'spare = { op = "gelu", in = "x" }\nqkv  = {', 3, "node h.0.spare: nothing uses it"),
        ("qkv  = {", 'qkv = { op = "gelu", in = "x" }\nqkv  = {', 2, "m.toml:23:"),
    ],
)
def test_a_graph_that_is_none(core: Core, good: str, bad: str, code: int, says: str) -> None:
    use_model((good, bad))
    core(*TRAIN, code=code, says=[says])


def test_an_op_without_a_backward_on_the_way_to_a_parameter(core: Core) -> None:
    write("forward_only.py", PLUGIN, ('\n    def backward(self, t):\n        t.add("dx", t.dy / 2)\n', ""))
    use_model(('in = "h" }', 'in = "hh" }'), ("[graph]", '[graph]\nhh = { op = "half", in = "h" }'))
    core(*TRAIN, "--plugin", "forward_only.py", code=3, says=["hh", "it has no backward, and this plan trains"])


def test_a_model_that_looks_ahead_is_asked_to_generate(core: Core) -> None:
    """Its tokens depend on later ones, so no key-value cache can give the values of a full pass."""
    use_model(('heads = "H"', 'heads = "H", causal = false'))
    core(*TRAIN, "--set", "train.sample_every=1", code=3, says=["node h.0.attn", "causal = false", "sample_every = 0"])
    core(*TRAIN, "--set", "train.checkpoint_every=1", code=0, makes=True)
    core("sample", "runs/run", "--device", "cpu", code=3, says=["cannot generate", "node h.0.attn"])
