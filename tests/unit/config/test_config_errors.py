"""What a run config may not say: each error names the file, the key, what was expected and what came."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_files import GOOD, loaded, refused

from core.config import (
    check_options,
    micro_steps,
)
from core.config.out_folder import check_out
from core.errors import UsageError

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
    ("B = 4", "B = true", "[dims] B: expected a number >= 0, arithmetic over the dims, or a list of these, got true"),
    ("B = 4", '"B b" = 4', '[dims] "B b": expected a name'),
    (
        'train = "a.txt"',
        "train = []",
        "[data] train: expected a string, a list of strings that is not empty, or a table of them by input",
    ),
    (
        'train = "a.txt"',
        'train = ["a", 3]',
        "[data] train: expected a string, a list of strings that is not empty, or a table of them by input, got the",
    ),
    ('train = "a.txt"', 'train = "a\\u0000b"', "holds a NUL character"),
    ('model = "gpt2_124m"', "model = 124", "run.toml model: expected a string that is not empty, got 124; write it in"),
    ('model = "gpt2_124m"', "", "run.toml model: missing"),
    ('model = "gpt2_124m"', 'model = "x"\nlr = 1', "run.toml lr: unknown key; it belongs in [optimizer]"),
    (
        'model = "gpt2_124m"',
        'model = "x"\nprecision = "bf61"',
        'one of "auto", "bf16", "f32", "f64", "fp16", got the string "bf61"; did you',
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
    assert "expected one of f32, bf16, fp16 on cuda" in refused("run.toml", "precision=f64", device="cuda")


def test_validation_needs_something_to_validate_on(write):
    assert "expected [data] val" in refused(write(GOOD.replace("val =", "#")), "train.val_every=5")


def test_an_unknown_device_is_refused(write):
    assert 'did you mean "cuda"?' in refused(write(GOOD), device="cuda0")


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
        ("train..steps=3", "is not a dotted key"),
        ("a b=3", "is not a dotted key"),
        ("x]\n[train=3", "is not a dotted key"),
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


def test_a_folder_for_a_config_is_answered_with_the_configs_in_it(tmp_path):
    (tmp_path / "config.resolved.toml").write_text("")
    assert "run/config.resolved.toml" in refused(str(tmp_path)).replace(str(tmp_path), "run")


ADAMW = {
    "betas": (0.9, 0.95),
    "eps": 1e-8,
    "weight_decay": 0.0,
    "nesterov": False,
    "kind": ("a", "b"),
    "rank": int,
    "low": -1.0,
}


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


@pytest.mark.parametrize(
    "path", ["../../x", "a/../b", "a\0b", "a\nb", "x" * 300, "", " ", "file/x", "file", "a/" * 3000]
)
def test_an_output_path_that_cannot_be_is_refused(write, path):
    write("", "file")
    with pytest.raises(UsageError, match="--out"):
        check_out(path)
