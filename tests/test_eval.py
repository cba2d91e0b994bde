"""core eval: the loss that validation has, bits of what bytes, and HellaSwag as its authors score it."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

import core
from core import cli
from core.data.hellaswag import HellaSwag
from core.data.tokenizer import bytes_tokenizer
from core.errors import DataError
from core.train.evaluate import rows_of, score_hellaswag
from core.train.run import read_lines

spec = importlib.util.spec_from_file_location("foreign_files", Path(__file__).parent / "foreign_files.py")
foreign = importlib.util.module_from_spec(spec)
spec.loader.exec_module(foreign)
DIMS = foreign.DIMS
RUN = """
model = "gpt2_124m"
[dims]
V = 257
C = 16
H = 2
L = 1
S = 32
B = 2
T = 16
[data]
train = "text.txt"
val = "val.txt"
tokenizer = "bytes"
[train]
steps = 3
tokens_per_step = 32
val_every = 3
val_tokens = 100
checkpoint_every = 3
[optimizer]
name = "adamw"
lr = 1e-2
[schedule]
name = "constant"
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with runs/small, and its texts."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CORELM_CACHE", str(folder / "cache"))
        (folder / "small.toml").write_text(RUN)
        (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
        (folder / "val.txt").write_text("a lazy fox is nö quick dog. " * 8, encoding="utf-8")
        assert cli.run(["train", "small.toml", "--device", "cpu"]) == 0
    return folder


@pytest.fixture
def here(runs, monkeypatch):
    monkeypatch.chdir(runs)
    monkeypatch.setenv("CORELM_CACHE", str(runs / "cache"))
    monkeypatch.setenv("CORELM_OFFLINE", "1")
    return runs


def evaluate(capsys, *words, code=0):
    capsys.readouterr()
    assert cli.run(["eval", *map(str, words), "--device", "cpu"]) == code, capsys.readouterr()
    return capsys.readouterr()


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
    from core.data.tokenizer import Tokenizer
    from core.train.evaluate import Bytes

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
    "no data": (["hf"], 2, "name some: --data GLOB"),
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


# --- HellaSwag -----------------------------------------------------------------------------------------------------


def drawn_examples(count, rng, longest=9):
    """(context, four completions, label) of random tokens."""
    return [
        (
            rng.integers(0, DIMS["V"], rng.integers(1, longest)),
            [rng.integers(0, DIMS["V"], rng.integers(1, 6)) for _ in range(4)],
            int(rng.integers(0, 4)),
        )
        for _ in range(count)
    ]


def hellaswag_file(path, examples, header=None):
    """As llm.c writes it: dev/data/hellaswag.py."""
    stream, longest = [], 0
    for index, (context, completions, label) in enumerate(examples):
        example = [65535, 0, index, label, 4, len(context), *context]
        for completion in completions:
            example += [len(completion), *completion]
        example[1] = 2 * len(example)
        longest = max(longest, example[1])
        stream += example
    numbers = np.zeros(256, "<i4")
    numbers[:4] = 20240522, 1, len(examples), longest
    for place, value in (header or {}).items():
        numbers[place] = value
    path.write_bytes(numbers.tobytes() + np.array(stream, "<u2").tobytes())
    return path


def nll_of(model, context, completion):
    """Cross-entropy of each token of the completion, from the logits of one unpadded row."""
    whole = np.concatenate([context, completion])
    z = model.logits(whole[:-1])[0].astype(np.float64)
    z -= z.max(-1, keepdims=True)
    z -= np.log(np.exp(z).sum(-1, keepdims=True))
    return -z[np.arange(whole.size - 1), whole[1:]][-len(completion) :]


def test_hellaswag_is_scored_as_by_hand(here, capsys, tmp_path):
    """An independent way: one row at a time, without padding, from the logits."""
    examples = drawn_examples(30, np.random.default_rng(4))
    folder = foreign.hf_folder(tmp_path / "hf")
    model = core.load(folder)
    losses = [[nll_of(model, context, c) for c in completions] for context, completions, _ in examples]
    labels = [label for _, _, label in examples]
    norm = [int(np.argmin([loss.mean() for loss in four])) for four in losses]
    total = [int(np.argmin([loss.sum() for loss in four])) for four in losses]
    assert norm != total  # the two measures can tell themselves apart
    file = hellaswag_file(tmp_path / "h.bin", examples)
    found = as_json(capsys, folder, "--hellaswag", file)["hellaswag"]
    assert found == {
        "acc_norm": np.mean(np.equal(norm, labels)),
        "acc": np.mean(np.equal(total, labels)),
        "examples": 30,
        "cut": 0,
    }
    by_norm = [(c, comps, n) for (c, comps, _), n in zip(examples, norm, strict=True)]  # labels that it gets right
    file = hellaswag_file(tmp_path / "right.bin", by_norm)
    assert as_json(capsys, folder, "--hellaswag", file)["hellaswag"]["acc_norm"] == 1
    some = as_json(capsys, folder, "--hellaswag", file, "--examples", 7)["hellaswag"]
    assert some["examples"] == 7 and some["acc_norm"] == 1
    assert "HellaSwag      1.0000 acc_norm" in evaluate(capsys, folder, "--hellaswag", file).out


def test_a_context_that_is_too_long_loses_its_begin(here, tmp_path):
    S = DIMS["S"]
    rng = np.random.default_rng(1)
    context, completions = rng.integers(0, DIMS["V"], 40), [rng.integers(0, DIMS["V"], n) for n in (3, 5, 1, 4)]
    model = core.load(foreign.hf_folder(tmp_path / "hf"))
    best = int(np.argmin([nll_of(model, context[-(S + 1 - c.size) :], c).mean() for c in completions]))
    examples = HellaSwag(hellaswag_file(tmp_path / "h.bin", [(context, completions, best)]))
    found = score_hellaswag(model.engine, examples)
    assert (found.examples, found.right_by_mean, found.cut) == (1, 1, 1)
    tokens, targets = rows_of(list(examples), S)
    assert tokens.shape == (16, S)
    for row, completion in enumerate(completions):
        np.testing.assert_array_equal(targets[row][targets[row] >= 0], completion)


DAMAGED = {
    "another file": ({"header": {0: 20240520}}, None, "expected llm.c's HellaSwag"),
    "another version": ({"header": {1: 2}}, None, "version 1; got 20240522, 2"),
    "more examples than there are": ({"header": {2: 4}}, None, "example 3 of 4"),
    "fewer": ({"header": {2: 2}}, None, "more behind the last one"),
    "no examples": ({"header": {2: 0}}, None, "damaged"),
    "a length that leaves the file": ({}, (1, 60000), "claims 60,000 bytes"),
    "a length that reaches into the next one": ({}, (1, lambda old: old + 2), "its length says"),
    "a label that is none": ({}, (3, 4), "the label 4"),
    "three completions": ({}, (4, 3), "starts with"),
    "an empty context": ({}, (5, 0), "a part of 0 tokens"),
    "a part that is too long": ({}, (5, 9999), "a part of 9999 tokens"),
    "another start": ({}, (0, 7), "starts with"),
    "a token that the model does not know": ({}, (6, 50), "has the token 50; the model knows 50"),
}


@pytest.mark.parametrize("given, change, words", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_of_questions_is_refused(tmp_path, given, change, words):
    path = hellaswag_file(tmp_path / "h.bin", drawn_examples(3, np.random.default_rng(2)), **given)
    if change:
        data = bytearray(path.read_bytes())
        place, value = change
        at = slice(1024 + 2 * place, 1026 + 2 * place)
        value = value(int.from_bytes(data[at], "little")) if callable(value) else value
        data[at] = value.to_bytes(2, "little")
        path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        list(HellaSwag(path, DIMS["V"]))
    assert words in str(caught.value) and str(path) in str(caught.value)
    for size in (0, 100, 1025, len(path.read_bytes()) - 2):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(DataError):
            list(HellaSwag(path))
