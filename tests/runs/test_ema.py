"""The average of the weights: its formula, a resume bit for bit, validation and export with it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import small_run

import core
from core import TrainingRun, UsageError, cli
from core.train.run import read_lines

CONFIG = small_run.config(
    train={
        "steps": 6,
        "tokens_per_step": 32,
        "val_every": 3,
        "checkpoint_every": 2,
        "keep_last": 9,
        "keep_best": False,
    },
    plugins={"ema": {"decay": 0.75, "every": 2, "validate": True}},
)


def run(capsys, *words):
    assert cli.run(["train", "small.toml", "--device", "cpu", "--long", *words]) == 0, capsys.readouterr()
    return capsys.readouterr().out


def test_an_average_of_the_weights_is_kept_resumed_validated_and_exported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small_run.write(tmp_path, CONFIG)
    assert "ema: 3 updates with decay 0.75; a/ema has the average" in run(capsys, "--out", "a")
    weights = [core.load(f"a/checkpoints/step_{step:08d}").params["wte.weight"].copy() for step in (2, 4, 6)]
    expected = weights[0]
    for new in weights[1:]:
        expected = expected + np.float32(0.25) * (new - expected)
    assert (core.load("a/ema").params["wte.weight"] == expected).all() and not (expected == weights[2]).all()
    assert cli.run(["export", "a/ema", "--to", "hf", "--out", "h"]) == 0
    assert (core.load("h").params["wte.weight"] == expected).all()
    run(capsys, "--out", "b", "--from", "a/checkpoints/step_00000002", "--set", "plugins.ema.validate=false")
    assert (core.load("b/ema").params["wte.weight"] == expected).all()
    a, b = ([r for r in read_lines(tmp_path / name / "metrics.jsonl") if r["step"] > 2] for name in "ab")
    assert [line["loss"] for line in a] == [line["loss"] for line in b], "training takes no notice"
    assert a[0]["val_loss"] != b[0]["val_loss"] and a[3]["val_loss"] != b[3]["val_loss"]
    with pytest.raises(UsageError, match="a/emo: no such file, folder or model"):
        core.load("a/emo")


WRONG = [
    ({"ema": {"decai": 1.0}}, '[plugins.ema] decai: unknown key; did you mean "decay"'),
    ({"emma": {"decay": 0.5}}, '[plugins.emma]: no plugin of this run has such options; did you mean "ema"'),
]


@pytest.mark.parametrize(("tables", "words"), WRONG)
def test_options_that_no_plugin_has_are_refused(tables, words):
    table = SimpleNamespace(steps=1, best="", early_stop=0)
    job = SimpleNamespace(run=None, table=table, ranks=SimpleNamespace(size=1), plugin_options=tables)
    training = TrainingRun(job, 0, {}, {})
    with pytest.raises(UsageError) as refused:
        training.options("ema", {"decay": 0.0})
        training.check_options()
    assert words in str(refused.value)
