"""The run config: what it promises of errors, layers, overrides and its resolved form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.config import (
    check_options,
    check_out,
    check_run_name,
    find_config,
    load_config,
    micro_steps,
    shipped_configs,
)
from core.config.reference import reference
from core.errors import UsageError

ROOT = Path(__file__).parents[2]

GOOD = """
model = "gpt2_124m"
[dims]
B = 4
T = 64
[data]
train = "a.txt"
val = ["b.txt", "c/*.txt"]
[train]
steps = 10
tokens_per_step = 512
[optimizer]
name = "adamw"
lr = 3e-4
betas = [0.9, 0.95]
[schedule]
name = "cosine"
warmup = 2
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes files into an empty current directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "run.toml") -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
        return name

    return write


def refused(path: str | Path, *overrides: str, device: str = "cpu") -> str:
    with pytest.raises(UsageError) as caught:
        load_config(path, overrides=overrides, device=device)
    return str(caught.value)


def loaded(path: str | Path, *overrides: str, device: str = "cpu"):
    return load_config(path, overrides=overrides, device=device)


# --- what a good file gives ------------------------------------------------------------------------------------


def test_values_are_typed_and_the_rest_has_defaults(write):
    config = loaded(write(GOOD))
    assert (config.model, config.precision, config.weights, config.seed) == ("gpt2_124m", "f32", "", 1337)
    assert config.dims == {"B": 4, "T": 64}
    assert config.data.train == ["a.txt"] and config.data.val == ["b.txt", "c/*.txt"]
    assert config.data.tokenizer == ["gpt2", "bpe"]
    assert config.train.steps == 10 and config.train.keep_last == 2 and config.train.freeze == []
    assert config.optimizer.lr == 3e-4 and config.optimizer.options == {"betas": [0.9, 0.95]}
    assert config.schedule.options == {"warmup": 2}
    assert config.source == GOOD and config.path == Path("run.toml") and config.device == "cpu"


def test_whole_numbers_stand_for_numbers(write):
    config = loaded(write(GOOD), "optimizer.lr=1", "optimizer.clip=2")
    assert isinstance(config.optimizer.lr, float) and isinstance(config.optimizer.clip, float)


def test_ops_nodes_fuse_and_plugins_are_read(write):
    config = loaded(
        write(
            GOOD + '[ops]\nmatmul = "tiled"\n[ops.generate]\nmatmul = "row"\n[nodes]\n"h.*.fc" = "naive"\n'
            '[fuse]\nhead_loss = { chunk = 2048 }\nembed = false\n[plugins]\nload = "mine"\ndisable = ["llama"]\n'
        )
    )
    assert config.ops.variants == {"matmul": "tiled"} and config.ops.generate == {"matmul": "row"}
    assert config.nodes == {"h.*.fc": "naive"}
    assert config.fuse == {"head_loss": {"chunk": 2048}, "embed": False}
    assert config.plugins.load == ["mine"] and config.plugins.disable == ["llama"]


def test_the_resolved_form_loads_to_the_same_config(write):
    text = GOOD + (
        '[ops]\nmatmul = "tiled"\n[ops.generate]\nmatmul = "row"\n[nodes]\n"h.*.fc" = "naive"\n[fuse]\n'
        'a = false\nb = { chunk = 1 }\n[on.cpu]\nseed = 7\ntrain = { steps = 3, freeze = ["wte.*"] }\n'
    )
    config = loaded(write(text), "optimizer.eps=1e-08", 'train.sample_prompt=a "quoted" line')
    again = loaded(write(config.to_toml(), "config.resolved.toml"))
    assert again.document == config.document and again.to_toml() == config.to_toml()
    assert again.train.steps == 3 and again.seed == 7 and again.notes == ()
    assert again.optimizer.options["eps"] == 1e-8


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["gpt2_124m", "gpt2_124m_fineweb", "gpt2_rope", "tiny"])
def test_shipped_configs_load_on_every_device(name, device):
    config = loaded(ROOT / "configs" / f"{name}.toml", device=device)
    assert config.optimizer.name and config.document == config.document


def test_the_shipped_demonstration_is_the_one_described():
    gpu, cpu = (loaded(ROOT / "configs/gpt2_124m.toml", device=d) for d in ("cuda", "cpu"))
    assert (gpu.precision, gpu.dims, gpu.train.steps, gpu.train.tokens_per_step) == ("bf16", {"B": 16}, 150, 65_536)
    assert (cpu.precision, cpu.dims, cpu.train.steps, cpu.train.tokens_per_step) == ("f32", {"B": 4, "T": 64}, 40, 256)
    assert gpu.schedule.options["warmup"] == 15 and cpu.schedule.options["warmup"] == 4
    long = loaded(ROOT / "configs/gpt2_124m_fineweb.toml", device="cuda")
    assert (long.train.steps, long.train.tokens_per_step, long.schedule.options["warmup"]) == (18_865, 524_288, 700)
    assert long.optimizer == gpu.optimizer


# --- errors: where, what was expected, what came ----------------------------------------------------------------

BAD = [  # what replaces what in GOOD, and what the message says
    ("steps = 10", "stpes = 10", '[train] stpes: unknown key; did you mean "steps"?'),
    ("steps = 10", "steps = 1e3", "[train] steps: expected a whole number >= 1, got 1000.0; write 1000"),
    ("steps = 10", "steps = true", "[train] steps: expected a whole number >= 1, got true"),
    ("steps = 10", "steps = 0", "[train] steps: expected a whole number >= 1, got 0"),
    ("steps = 10", "steps = -3", "[train] steps: expected a whole number >= 1, got -3"),
    ("steps = 10", "steps = 99999999999999999999", "which does not fit 64 bits"),
    ("steps = 10", "steps = 2020-01-01", "got the date or time 2020-01-01"),
    ("steps = 10\n", "", "[train] steps: missing; expected a whole number >= 1"),
    (
        "lr = 3e-4",
        'lr = "3e-4"',
        '[optimizer] lr: expected a number > 0, got the string "3e-4"; write it without quotes',
    ),
    ("lr = 3e-4", "lr = nan", "[optimizer] lr: expected a number > 0, got nan, which is not finite"),
    ("lr = 3e-4", "lr = inf", "got inf, which is not finite"),
    ("lr = 3e-4", "lr = -1e-4", "[optimizer] lr: expected a number > 0, got -0.0001"),
    ("lr = 3e-4", "lr = 0", "[optimizer] lr: expected a number > 0, got 0"),
    ("lr = 3e-4", "lr = true", "[optimizer] lr: expected a number > 0, got true"),
    ("lr = 3e-4", "lr = [3e-4]", "got the list [0.0003]"),
    ("betas = [0.9, 0.95]", "betas = [0.9, nan]", "[optimizer] betas: expected a number, true or false"),
    ('name = "adamw"', "", "[optimizer] name: missing"),
    ("B = 4", "B = 0", "[dims] B: expected a whole number >= 1, got 0"),
    ("B = 4", "B = true", "[dims] B: expected a number >= 0 or arithmetic over the dims, got true"),
    ("B = 4", '"B b" = 4', '[dims] "B b": expected a name'),
    ('train = "a.txt"', "train = []", "[data] train: expected a string or a list of strings that is not empty"),
    (
        'train = "a.txt"',
        'train = ["a", 3]',
        "[data] train: expected a string or a list of strings that is not empty, got the",
    ),
    ('train = "a.txt"', 'train = "a\\u0000b"', "holds a NUL character"),
    ('model = "gpt2_124m"', "model = 124", "run.toml model: expected a string that is not empty, got 124; write it in"),
    ('model = "gpt2_124m"', "", "run.toml model: missing"),
    ('model = "gpt2_124m"', 'model = "x"\nlr = 1', "run.toml lr: unknown key; it belongs in [optimizer]"),
    (
        'model = "gpt2_124m"',
        'model = "x"\nprecision = "bf61"',
        'one of "bf16", "f32", "f64", got the string "bf61"; did you',
    ),
    ('model = "gpt2_124m"', 'model = "x"\n[trian]\nsteps = 1', 'run.toml trian: unknown key; did you mean "train"?'),
    ('model = "gpt2_124m"', 'model = "x"\ntrain = 3', "Cannot"),  # twice: TOML's own error
    ('name = "cosine"', 'name = "cosine"\n[on.gpu]\nseed = 1', "[on] gpu: unknown key"),
    (
        'name = "cosine"',
        'name = "cosine"\n[on.sim.train]\nstpes = 1',
        "[on.sim.train] stpes: unknown key; did you mean",
    ),
    ('name = "cosine"', 'name = "cosine"\n[on.cpu]\nextends = "x"', "[on.cpu] extends: unknown key"),
    ('name = "cosine"', 'name = "cosine"\nseed = {a = 1}', "[schedule] seed: expected"),
    ('name = "cosine"', 'name = "cosine"\n[ops]\ngenerate = "x"', "[ops] generate: expected a table"),
    (
        'name = "cosine"',
        'name = "cosine"\n[fuse]\nhead_loss = "no"',
        "[fuse] head_loss: expected true, false, or a table",
    ),
    (
        'name = "cosine"',
        'name = "cosine"\n[nodes]\n"h.*.fc" = 3',
        '[nodes] "h.*.fc": expected a string that is not empty',
    ),
]


@pytest.mark.parametrize(("good", "bad", "says"), BAD, ids=[f"{b[1][-24:]!r}" for b in BAD])
def test_a_wrong_value_names_file_table_key_expected_and_got(write, good, bad, says):
    assert good in GOOD
    message = refused(write(GOOD.replace(good, bad, 1)))
    assert says in message
    assert "run.toml" in message


def test_all_errors_of_all_files_and_overrides_come_together(write):
    write(GOOD.replace("steps = 10", "stpes = 10"), "base.toml")
    message = refused(write('extends = "base"\nseed = -1\n[on.cuda]\nprecision = 3\n'), "data.vla=x", "train.steps=no")
    for says in (
        "5 problems",
        'base.toml [train] stpes: unknown key; did you mean "steps"?',
        "run.toml seed: expected a whole number >= 0, got -1",
        "run.toml [on.cuda] precision: expected one of",
        '--set data.vla=x: unknown key; did you mean "val"?',
        '--set train.steps=no: expected a whole number >= 1, got the string "no"',
    ):
        assert says in message


SYNTAX = [
    (b"model = \n", "run.toml:1:9: not TOML"),
    (b"seed = 1\nseed = 2\n", "run.toml:2:"),
    (b"[train]\nsteps = 1\n[train]\n", "run.toml:3:"),
    (b"# fine\nmodel = '\xff'\n", "run.toml:2:10: not UTF-8 (byte 0xff)"),
    (b"a = [", "run.toml:1:"),
    (b"a = " + b"[" * 100_000, "run.toml:1:"),
    (b"a = " + b"1" * 10_000, "run.toml:1:1"),
    (b"\0", "run.toml:1:1"),
    (b"#" * 2_000_000, "larger than"),
    (b"", "missing"),
]


@pytest.mark.parametrize(("data", "says"), SYNTAX, ids=[s[1] + str(i) for i, s in enumerate(SYNTAX)])
def test_what_is_not_toml_is_placed_by_line_and_column(write, data, says):
    Path("run.toml").write_bytes(data)
    assert says in refused("run.toml")


def test_a_byte_order_mark_and_windows_line_ends_are_read(write):
    Path("run.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert loaded("run.toml").train.steps == 10


def test_a_value_from_elsewhere_is_placed_there(write):
    write(GOOD, "base.toml")
    config = loaded(
        write('extends = "base"\n[on.cpu]\ntrain = { steps = 4 }\n[nodes]\n"h.*" = "x"'), "optimizer.lr=1e-3"
    )
    assert config.where("train.steps") == "run.toml [on.cpu.train] steps"
    assert config.where("schedule.name") == "base.toml [schedule] name"
    assert config.where("optimizer.lr") == "--set optimizer.lr=1e-3"
    assert config.where("nodes.h.*") == 'run.toml [nodes] "h.*"'
    assert config.where("train.keep_last") == "run.toml [train] keep_last (default)"
    assert config.where("optimizer") == "run.toml [optimizer]"
    assert config.where("seed") == "run.toml seed (default)"


# --- what cannot be together -----------------------------------------------------------------------------------


def test_micro_steps_follow_or_the_nearest_legal_values_are_named():
    assert micro_steps(65_536, 16, 1024) == 4 and micro_steps(65_536, 16, 1024, ranks=4) == 1
    with pytest.raises(UsageError, match=r"multiple of B \* T = 16 \* 1024 = 16384, got 65537[^!]*65536 and 81920"):
        micro_steps(65_537, 16, 1024)
    with pytest.raises(UsageError, match="got 0"):
        micro_steps(0, 16, 1024)
    with pytest.raises(UsageError, match=r"got 100[^!]*nearest legal: 16384;"):
        micro_steps(100, 16, 1024)
    with pytest.raises(UsageError, match=r"B \* T \* ranks = 16 \* 1024 \* 3"):
        micro_steps(65_536, 16, 1024, ranks=3)


def test_an_impossible_step_is_refused_while_loading(write):
    message = refused(write(GOOD), "train.tokens_per_step=500")
    assert "--set train.tokens_per_step=500: expected a multiple of B * T = 4 * 64 = 256, got 500" in message
    assert "256 and 512" in message


def test_sizes_that_the_model_settles_wait_for_it(write):
    assert loaded(write(GOOD.replace("T = 64", 'T = "S"')), "train.tokens_per_step=500").dims["T"] == "S"


def test_a_precision_that_the_device_lacks_is_refused(write):
    assert "precision (default)" not in refused(write(GOOD), "precision=bf16")
    assert '--set precision=bf16: expected one of f32, f64 on cpu, got "bf16"' in refused("run.toml", "precision=bf16")
    assert "expected one of f32, bf16 on cuda" in refused("run.toml", "precision=f64", device="cuda")


def test_validation_needs_something_to_validate_on(write):
    assert "expected [data] val" in refused(write(GOOD.replace("val =", "#")), "train.val_every=5")


def test_an_unknown_device_is_refused(write):
    assert 'did you mean "cuda"?' in refused(write(GOOD), device="cuda0")


# --- extends and [on] ------------------------------------------------------------------------------------------


def test_a_file_wins_over_what_it_extends_and_its_device_part_over_itself(write):
    write(GOOD + "[on.cpu]\ntrain = { steps = 2, tokens_per_step = 256 }\nseed = 2\n", "base.toml")
    text = 'extends = "base.toml"\n[train]\nsteps = 3\n[on.cpu]\noptimizer = { lr = 0.5 }\n[on.cuda]\nseed = 9\n'
    config = loaded(write(text))
    assert config.train.steps == 3  # over the base's [on.cpu], which is folded in before
    assert config.train.tokens_per_step == 256 and config.seed == 2 and config.optimizer.lr == 0.5
    assert config.files == (Path("base.toml"), Path("run.toml"))
    assert loaded("run.toml", device="cuda").seed == 9


def test_what_was_folded_in_is_announced(write):
    config = loaded(write(GOOD + "[on.cpu]\nseed = 2\ndims = { B = 8 }\n[on.sim]\nseed = 3\n"))
    assert config.notes == ("run.toml [on.cpu] is folded in: seed = 2, dims.B = 8",)


def test_a_base_is_found_relative_to_its_file_or_by_a_shipped_name(write):
    write(GOOD, "deep/base.toml")
    write('extends = "base"\nseed = 5', "deep/mid.toml")
    assert loaded(write('extends = "deep/mid.toml"')).seed == 5
    assert loaded(write('extends = "tiny"')).dims["V"] == 2048


def test_a_base_that_is_missing_or_comes_round_again_shows_the_chain(write):
    write('extends = "c"', "b.toml")
    message = refused(write('extends = "b"', "a.toml"))
    assert "b.toml extends: expected a file" in message and "(chain: a.toml -> b.toml -> c)" in message
    write('extends = "a"', "c.toml")
    assert "c.toml extends: a cycle: a.toml -> b.toml -> c.toml -> a.toml" in refused("a.toml")
    assert "itself.toml extends: a cycle" in refused(write('extends = "itself"', "itself.toml"))


def test_another_optimizer_drops_the_options_of_the_old_one_and_says_so(write):
    write(GOOD, "base.toml")
    config = loaded(write('extends = "base"\n[optimizer]\nname = "sgd"\nmomentum = 0.9\n'))
    assert config.optimizer.options == {"momentum": 0.9} and config.optimizer.lr == 3e-4
    assert config.notes == (
        'run.toml [optimizer] name: "sgd" takes the place of "adamw", whose options are dropped: betas',
    )
    assert loaded("base.toml", "optimizer.name=adamw").optimizer.options == {"betas": [0.9, 0.95]}
    config = loaded("base.toml", "optimizer.momentum=0.5", "optimizer.name=sgd")
    assert config.optimizer.options == {"momentum": 0.5}


def test_a_fusion_can_be_switched_on_and_off_by_later_layers(write):
    write(GOOD + "[fuse]\na = false\nb = { chunk = 1 }\n", "base.toml")
    config = loaded(write('extends = "base"\n[fuse]\na = { chunk = 2 }\nb = false\n'))
    assert config.fuse == {"a": {"chunk": 2}, "b": False}
    assert config.where("fuse.b.chunk").endswith("(default)")  # gone, not the base's
    assert config.where("fuse.a") == "run.toml [fuse] a" and config.where("fuse.a.chunk") == "run.toml [fuse.a] chunk"


# --- --set -----------------------------------------------------------------------------------------------------


def test_overrides_are_toml_and_the_last_one_wins(write):
    path = write(GOOD + "[on.cpu]\nseed = 3\n")
    config = loaded(
        path, "train.steps=5", "train.steps = 6", "seed=4", "precision=f64", "data.val=x=y.txt", 'model="m"',
        "optimizer.betas=[0.8, 0.9]", "train.freeze=['wte.*']", "on.cpu.train.val_every=2", "dims.T=2*32",
        "train.sample_prompt=", "dims={ B = 8 }",
    )  # fmt: skip
    assert config.train.steps == 6 and config.seed == 4 and config.precision == "f64"
    assert config.data.val == ["x=y.txt"] and config.model == "m" and config.train.freeze == ["wte.*"]
    assert config.optimizer.options["betas"] == [0.8, 0.9] and config.train.val_every == 2
    assert config.dims == {"B": 8, "T": "2*32"} and config.train.sample_prompt == ""
    assert 'name = "adamw"' in config.to_toml() and "steps = 6" in config.to_toml()


@pytest.mark.parametrize("text", ['nodes."h.*.fc"=naive', "nodes.h.*.fc=naive", "nodes.'h.*.fc'='naive'"])
def test_a_glob_needs_no_quotes_on_the_command_line(write, text):
    assert loaded(write(GOOD), text).nodes == {"h.*.fc": "naive"}
    assert loaded(write(GOOD), f"on.cpu.{text}").nodes == {"h.*.fc": "naive"}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.stpes=1", '--set train.stpes=1: unknown key; did you mean "steps"?'),
        ("trian.steps=1", 'unknown key; did you mean "train"?'),
        ("steps=1", "--set steps=1: unknown key; it belongs in [train]"),
        ("train.steps.more=1", "expected a whole number >= 1, got a table"),
        ("train=1", "expected a table, got 1"),
        ("train.steps=1.5", "expected a whole number >= 1, got 1.5"),
        ("train.steps=", 'got the string ""'),
        ("optimizer.lr=nan", "not finite"),
        ("optimizer.lr='3e-4'", "write it without quotes"),
        ("model=", "expected a string that is not empty"),
        ("train.freeze=[a", "the value is not TOML"),
        ("train.steps", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("train..steps=3", "is no dotted key"),
        ("a b=3", "is no dotted key"),
        ("x]\n[train=3", "is no dotted key"),
        ("train.steps=3\nlog_every=7", "expected a whole number"),
        ("extends=tiny", "extends is for files"),
        ("train.sample_prompt=\udcff", "is not Unicode text"),
        ('train."\udcff"=1', "unknown key"),
        ("train.seed=1", '"seed" belongs before the first table'),
    ],
)
def test_a_wrong_override_is_reported_like_a_wrong_file(write, override, says):
    message = refused(write(GOOD), override)
    assert says in message and f"--set {override}" in message


# --- finding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "tiny.toml", "configs/tiny.toml", "./configs/tiny.toml"])
def test_a_shipped_config_is_found_by_path_or_stem_and_that_is_said(write, name):
    path, note = find_config(name)
    assert path.samefile(ROOT / "configs/tiny.toml") and name in note
    assert loaded(name).notes[0] == note


def test_a_file_here_wins_over_a_shipped_one(write):
    assert find_config(write(GOOD, "configs/tiny.toml")) == (Path("configs/tiny.toml"), "")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tinny", 'did you mean "tiny"?'),
        (".", "is a folder"),
        ("x" * 300, "does not exist"),
        ("a\0b", "does not exist"),
    ],
)
def test_a_missing_config_names_the_shipped_ones(write, name, says):
    message = refused(name)
    assert says in message and "gpt2_124m_fineweb" in message


def test_every_shipped_config_is_found_in_a_wheel_too(tmp_path):
    """There the configs lie inside the package."""
    package = tmp_path / "core"
    for folder in ("configs", "ops"):
        (package / folder).mkdir(parents=True)
    for file in [*(ROOT / "core").rglob("*.py"), *(ROOT / "configs").glob("*.toml")]:
        target = package / (
            file.relative_to(ROOT) if file.parent.name == "configs" else file.relative_to(ROOT / "core")
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    code = "from core.config import load_config as l; import core; print(core.__path__, l('tiny', device='cpu').path)"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert str(package / "configs" / "tiny.toml") in ran.stdout and str(ROOT) not in ran.stdout


# --- options, output paths -------------------------------------------------------------------------------------

ADAMW = {
    "betas": (0.9, 0.95),
    "eps": 1e-8,
    "weight_decay": 0.0,
    "nesterov": False,
    "kind": ("a", "b"),
    "rank": int,
    "low": -1.0,
}


def test_options_take_their_defaults_and_types():
    got = check_options({"betas": [0, 0.99], "weight_decay": 1, "rank": 3, "low": -2}, ADAMW, "x.toml [optimizer]")
    assert got == {
        "betas": (0.0, 0.99), "eps": 1e-8, "weight_decay": 1.0, "nesterov": False, "kind": "a", "rank": 3, "low": -2.0,
    }  # fmt: skip
    assert isinstance(got["weight_decay"], float) and isinstance(got["betas"][0], float)


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"beta": 1}, 'x.toml [optimizer] beta: unknown key; did you mean "betas"?'),
        ({"betas": [0.9]}, "betas: expected a list of 2 numbers, got the list [0.9]"),
        ({"betas": [0.9, True]}, "betas: expected a number, got the list"),
        ({"eps": "1e-8"}, 'eps: expected a number, got the string "1e-8"'),
        ({"eps": -1e-8}, "eps: expected a number >= 0, got -1e-08"),
        ({"eps": True}, "eps: expected a number, got true"),
        ({"nesterov": 1}, "nesterov: expected true or false, got 1"),
        ({"kind": "c"}, 'kind: expected one of "a", "b", got the string "c"'),
        ({"rank": 1.0}, "rank: expected a whole number, got 1.0"),
        ({}, "rank: missing; expected a whole number"),
    ],
)
def test_wrong_options_are_named_with_what_was_expected(given_, says):
    with pytest.raises(UsageError) as caught:
        check_options(given_, ADAMW, "x.toml [optimizer]")
    assert says in str(caught.value)


def test_wrong_options_come_together_each_at_its_own_place():
    with pytest.raises(UsageError) as caught:
        check_options({"beta": 1, "eps": "x", "rank": 1}, ADAMW, lambda name: f"line of {name}")
    assert "line of beta: unknown" in str(caught.value) and "line of eps: expected" in str(caught.value)


def test_keys_beside_the_options_are_known_too():
    for key, near in {"lrr": "lr", "nam": "name"}.items():
        with pytest.raises(UsageError, match=f'{key}: unknown key; did you mean "{near}"'):
            check_options({"rank": 1, key: 1}, ADAMW, "x.toml [optimizer]", ["name", "lr"])


@pytest.mark.parametrize(
    "path", ["../../x", "a/../b", "a\0b", "a\nb", "x" * 300, "", " ", "file/x", "file", "a/" * 3000]
)
def test_an_output_path_that_cannot_be_is_refused(write, path):
    write("", "file")
    with pytest.raises(UsageError, match="--out"):
        check_out(path)


def test_any_other_output_path_is_fine(write, tmp_path):
    for path in ("runs/a", "x" * 255, str(tmp_path / "new" / "deep"), ".", "ü/日本"):
        assert check_out(path) == Path(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "..", ".", "/x", "a/b", "a\\b", "C:x", "~x", "a\0b", "x" * 300, ""])
def test_a_run_name_is_one_component(name):
    with pytest.raises(UsageError, match="run name"):
        check_run_name(name)
    assert check_run_name("tiny-2") == "tiny-2"


# --- documentation --------- ------------------------------------------------------------------------------------


def test_the_page_of_all_keys_is_up_to_date():
    written = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    assert written == reference(), "run: python -m core.config.reference > docs/config.md"


def test_the_shipped_configs_are_toml_1_0():
    tomllib = pytest.importorskip("tomllib")
    for path in shipped_configs().values():
        tomllib.loads(path.read_text(encoding="utf-8"))
