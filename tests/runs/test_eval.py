"""core eval: the loss that validation has, bits of what bytes, and the evaluations of plugins."""

from __future__ import annotations

import json
import math
import signal

import foreign_files as foreign
import numpy as np
import pytest
import small_run
import trained_run

import core
from core import cli, signals
from core.tokenizers.byte_pairs import bytes_tokenizer
from core.train.run import read_lines

DIMS = foreign.DIMS
RUN = small_run.config(
    train={"steps": 3, "tokens_per_step": 32, "val_every": 3, "val_tokens": 100, "checkpoint_every": 3}
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with runs/small, and its texts."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        trained_run.enter(folder, patch)
        (folder / "small.toml").write_text(RUN)
        (folder / "text.txt").write_text(small_run.TEXT)
        (folder / "val.txt").write_text("a lazy fox is nö quick dog. " * 8, encoding="utf-8")
        assert cli.run(["train", "small.toml", "--device", "cpu"]) == 0
    return folder


@pytest.fixture
def here(runs, monkeypatch):
    return trained_run.enter(runs, monkeypatch)


def evaluate(capsys, *words, code=0):
    return trained_run.run(capsys, "eval", *words, "--device", "cpu", code=code)


def as_json(capsys, *words):
    return json.loads(evaluate(capsys, *words, "--json").out)


# --- loss and bits per byte --------------------------------------------------------------------------------------


def test_a_runs_loss_is_the_one_that_its_validation_had(here, capsys):
    last = read_lines(here / "runs/small/metrics.jsonl")[-1]
    for words in ((), ("small",), ("runs/small/checkpoints/step_00000003",)):
        found = as_json(capsys, *words)
        assert found["tokens"] == last["val_tokens"] == 100
        assert found["loss"] == pytest.approx(last["val_loss"], rel=1e-6)


def test_bits_per_byte_are_the_bits_of_the_text_over_its_bytes(here, capsys):
    """By hand: the log-probability of each token of the text behind end of text, and UTF-8's bytes."""
    found = as_json(capsys, "--tokens", "90", "--data", "val.txt")
    text = bytes_tokenizer().encode((here / "val.txt").read_text("utf-8"))
    stream = np.concatenate([[256], text])[:91]
    model = core.load("runs/small")
    bits = 0.0
    for start in range(0, 90, 16):
        window = stream[start : start + 17]
        logits = model.logits(window[:-1])[0].astype(np.float64)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        bits -= logits[np.arange(window.size - 1), window[1:]].sum() / math.log(2)
    assert found["bytes"] == 90 and found["tokens"] == 90
    assert found["bits_per_byte"] == pytest.approx(bits / 90, rel=1e-5)
    assert found["loss"] == pytest.approx(bits * math.log(2) / 90, rel=1e-5)


def test_a_longer_token_counts_with_all_its_bytes_and_end_of_text_with_none(here, capsys):
    from core.measure.evaluate import Bytes
    from core.tokenizers.byte_pairs import BytePairTokenizer as Tokenizer

    lengths = Bytes(Tokenizer("bpe", [*(bytes([b]) for b in range(256)), b"fox", "ö".encode()])).lengths
    assert [int(lengths[i]) for i in (0, 255, 256, 257, 258)] == [1, 1, 3, 2, 0]


def test_tokens_are_a_number_of_tokens_whatever_the_batch(here, capsys):
    for count in (1, 16, 33, 200):
        assert as_json(capsys, "--data", "val.txt", "--tokens", count)["tokens"] == count
    assert as_json(capsys, "--data", "val.txt", "--tokens", 10**6)["tokens"] == 8 * 29  # all there is


@pytest.mark.parametrize("write", [foreign.hf_folder, foreign.llmc_file], ids=["hf", "llmc"])
def test_other_programs_models_are_measured_on_shards(here, capsys, tmp_path, write):
    path = write(tmp_path / "m.bin")
    tokens = foreign.make.text_tokens(DIMS)
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, tokens.size
    (tmp_path / "t.bin").write_bytes(header.tobytes() + tokens.astype("<u2").tobytes())
    found = as_json(capsys, path, "--data", tmp_path / "t.bin")
    model = core.load(path)
    T = model.graph.dims["T"]
    windows = [tokens[i : i + T + 1] for i in range(0, tokens.size - 1, T)]
    total = sum(model.loss(w[:-1], w[1:]) * (w.size - 1) for w in windows)
    assert found["loss"] == pytest.approx(total / (tokens.size - 1), rel=1e-6)
    assert found["tokens"] == tokens.size - 1 and found["bits_per_byte"] is None
    assert "no tokenizer" in evaluate(capsys, path, "--data", tmp_path / "t.bin").out


WRONG = {
    "no run": (["nothing"], 2, 'no run "nothing"'),
    "no data": (["hf"], 2, "name data: --data GLOB"),
    "text without a tokenizer": (["hf", "--data", "val.txt"], 6, "no tokenizer came with the model"),
    "a model without weights": (["m.toml"], 2, "a model without weights"),
    "a glob that matches nothing": (["--data", "vel*"], 2, "matches no file"),
    "examples of nothing": (["--examples", "3"], 2, "--hellaswag FILE"),
    "a precision that the device has not": (["--precision", "bf16"], 4, "does not compute in bf16"),
}


@pytest.mark.parametrize("words, code, said", WRONG.values(), ids=WRONG)
def test_what_cannot_be_measured_is_said(here, capsys, words, code, said):
    if not (here / "hf").exists():
        foreign.hf_folder(here / "hf")
        (here / "m.toml").write_text('extends = "gpt2_124m"\n')
    assert said in evaluate(capsys, *words, code=code).err


# --- evaluations of plugins ----------------------------------------------------------------------------------------

LENGTH = """
from core import DataError, Evaluation

class Length(Evaluation):
    name, help = "length", "A file whose bytes are counted."

    def score(self, model, file, most, progress):
        progress(1, 1)
        try:
            return {"bytes": len(file.read_bytes()[:most])}
        except OSError as error:
            raise DataError(f"{file}: {error.strerror}") from None

    def line(self, score):
        return f"length         {score['bytes']} bytes"

def core_evaluations():
    return [Length]
"""


def test_a_plugin_brings_an_evaluation_with_its_option(here, capsys):
    (here / "length.py").write_text(LENGTH)
    words = ("--plugin", "length.py", "--length", "val.txt", "--examples", 5)
    assert as_json(capsys, *words)["length"] == {"bytes": 5}
    assert "length         5 bytes" in evaluate(capsys, *words).out
    assert "nothing.txt" in evaluate(capsys, "--plugin=length.py", "--length", "nothing.txt", code=6).err
    assert "--length FILE" in evaluate(capsys, "--plugin", "length.py", "--help").out
    assert "No such option" in evaluate(capsys, "--length", "val.txt", code=2).err


BROKEN = {
    "a name that core eval has": (LENGTH.replace('"length"', '"data"'), 'cannot be called "data"'),
    "an exception": (LENGTH.replace("progress(1, 1)", "1 / 0"), "its evaluation length raised ZeroDivisionError"),
    "an exit": (LENGTH.replace("progress(1, 1)", "raise SystemExit(0)"), "its evaluation length raised SystemExit"),
    "no name": (LENGTH.replace("name, help = ", "help = "), "not a lower-case identifier"),
}


@pytest.mark.parametrize("text, said", BROKEN.values(), ids=BROKEN)
def test_a_broken_evaluation_is_a_failure_of_its_plugin(here, capsys, text, said):
    plugin = f"broken_{list(BROKEN.values()).index((text, said))}.py"  # a file is imported once in a process
    (here / plugin).write_text(text)
    words = ("--length", "val.txt") if "raised" in said else ()
    printed = evaluate(capsys, "--plugin", plugin, *words, code=3)
    assert said in printed.err and plugin in printed.err


def test_losses_are_each_targets_own_cross_entropy(here):
    model = core.load("runs/small")
    tokens, targets = np.arange(12).reshape(2, 6), np.arange(1, 13).reshape(2, 6)
    targets[1, 2:] = -1
    z = model.logits(tokens).astype(np.float64)
    z -= np.log(np.exp(z).sum(-1, keepdims=True))
    wanted = -np.take_along_axis(z, np.maximum(targets, 0)[..., None], -1)[..., 0] * (targets >= 0)
    np.testing.assert_allclose(model.losses(tokens, targets), wanted, rtol=1e-5, atol=1e-6)


# --- a command that is cut off -----------------------------------------------------------------------------------


def test_an_evaluation_that_is_ended_leaves_the_measurements_before_it(here, capsys, monkeypatch):
    def scored(*arguments):
        raise signals.Ended(signal.SIGINT)

    monkeypatch.setattr("core.cli.eval.scored", scored)
    words = ("--data", "val.txt", "--hellaswag", "val.txt")
    found = json.loads(evaluate(capsys, *words, "--json", code=130).out)
    assert found["loss"] > 0 and "hellaswag" not in found and found["cut_off"] == "ended by SIGINT"
    assert as_json(capsys, "--data", "val.txt")["cut_off"] == ""
    lines = evaluate(capsys, *words, code=130).out.splitlines()
    assert lines[1].startswith("loss ") and lines[-1] == "not measured: the rest: ended by SIGINT"
