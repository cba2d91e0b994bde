"""HellaSwag as its authors score it, and every kind of damaged file."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

import core
from core import DataError, cli
from core.testing import load_registry

load_registry()  # which imports the shipped plugins under their own names
questions = importlib.import_module("core.plugins.hellaswag.questions")
hellaswag = importlib.import_module("core.plugins.hellaswag.hellaswag")

DIMS = {"V": 50, "C": 16, "H": 2, "L": 2, "S": 24, "B": 2, "T": 8}


@pytest.fixture(scope="module")
def model():
    return core.load("gpt2_124m", dims=DIMS, seed=3)


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
    """Write the file as llm.c's dev/data/hellaswag.py does."""
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


def score(model, file, most=None, progress=lambda done, total: None):
    return hellaswag.HellaSwag().score(model, file, most, progress)


def nll_of(model, context, completion):
    """Cross-entropy of each token of the completion, from the logits of one unpadded row."""
    whole = np.concatenate([context, completion])
    z = model.logits(whole[:-1])[0].astype(np.float64)
    z -= z.max(-1, keepdims=True)
    z -= np.log(np.exp(z).sum(-1, keepdims=True))
    return -z[np.arange(whole.size - 1), whole[1:]][-len(completion) :]


def test_it_is_scored_as_by_hand(model, tmp_path):
    """An independent way: one row at a time, without padding, from the logits."""
    examples = drawn_examples(30, np.random.default_rng(4))
    losses = [[nll_of(model, context, c) for c in completions] for context, completions, _ in examples]
    labels = [label for _, _, label in examples]
    norm = [int(np.argmin([loss.mean() for loss in four])) for four in losses]
    total = [int(np.argmin([loss.sum() for loss in four])) for four in losses]
    assert norm != total  # the two measures differ on these examples
    file = hellaswag_file(tmp_path / "h.bin", examples)
    done = []
    result = score(model, file, progress=lambda *at: done.append(at))
    assert done[0] == (4, 30) and done[-1] == (30, 30)
    assert result == {
        "acc_norm": np.mean(np.equal(norm, labels)),
        "acc": np.mean(np.equal(total, labels)),
        "examples": 30,
        "cut": 0,
    }
    by_norm = [(c, comps, n) for (c, comps, _), n in zip(examples, norm, strict=True)]  # labels that it gets right
    file = hellaswag_file(tmp_path / "right.bin", by_norm)
    assert score(model, file)["acc_norm"] == 1
    some = score(model, file, 7)
    assert some["examples"] == 7 and some["acc_norm"] == 1
    assert hellaswag.HellaSwag().line(some) == "HellaSwag      1.0000 acc_norm, 1.0000 acc, 7 examples".replace(
        "1.0000 acc,", f"{some['acc']:.4f} acc,"
    )


def test_a_context_that_is_too_long_loses_its_begin(model, tmp_path):
    S = DIMS["S"]
    rng = np.random.default_rng(1)
    context, completions = rng.integers(0, DIMS["V"], 40), [rng.integers(0, DIMS["V"], n) for n in (3, 5, 1, 4)]
    best = int(np.argmin([nll_of(model, context[-(S + 1 - c.size) :], c).mean() for c in completions]))
    file = hellaswag_file(tmp_path / "h.bin", [(context, completions, best)])
    result = score(model, file)
    assert (result["examples"], result["acc_norm"], result["cut"]) == (1, 1, 1)
    tokens, targets = hellaswag.rows_of(list(questions.Questions(file)), S)
    assert tokens.shape == (16, S)
    for row, completion in enumerate(completions):
        np.testing.assert_array_equal(targets[row][targets[row] >= 0], completion)


DAMAGED = {
    "another file": ({"header": {0: 20240520}}, None, "expected llm.c's HellaSwag"),
    "another version": ({"header": {1: 2}}, None, "version 1; got 20240522, 2"),
    "more examples than there are": ({"header": {2: 4}}, None, "example 3 of 4"),
    "fewer": ({"header": {2: 2}}, None, "data after the last one"),
    "no examples": ({"header": {2: 0}}, None, "damaged"),
    "a length that leaves the file": ({}, (1, 60000), "claims 60,000 bytes"),
    "a length that reaches into the next one": ({}, (1, lambda old: old + 2), "its length is"),
    "a label that is none": ({}, (3, 4), "the label 4"),
    "three completions": ({}, (4, 3), "starts with"),
    "an empty context": ({}, (5, 0), "a part of 0 tokens"),
    "a part that is too long": ({}, (5, 9999), "a part of 9999 tokens"),
    "another start": ({}, (0, 7), "starts with"),
    "a token that the model does not know": ({}, (6, 50), "has the token 50; the model knows 50"),
}


@pytest.mark.parametrize("written, change, words", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_of_questions_is_refused(tmp_path, written, change, words):
    path = hellaswag_file(tmp_path / "h.bin", drawn_examples(3, np.random.default_rng(2)), **written)
    if change:
        data = bytearray(path.read_bytes())
        place, value = change
        at = slice(1024 + 2 * place, 1026 + 2 * place)
        value = value(int.from_bytes(data[at], "little")) if callable(value) else value
        data[at] = value.to_bytes(2, "little")
        path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        list(questions.Questions(path, DIMS["V"]))
    assert words in str(caught.value) and str(path) in str(caught.value)
    for size in (0, 100, 1025, len(path.read_bytes()) - 2):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(DataError):
            list(questions.Questions(path))


def test_the_command_has_the_option_and_the_score(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("to be or not to be " * 40)
    (tmp_path / "small.toml").write_text(
        'model = "gpt2_124m"\n[dims]\n' + "".join(f"{k} = {v}\n" for k, v in {**DIMS, "V": 257}.items())
        + '[data]\ntrain = "text.txt"\nval = "text.txt"\ntokenizer = "bytes"\n'
        "[train]\nsteps = 1\ntokens_per_step = 16\nsample_every = 0\n"
        '[optimizer]\nname = "adamw"\nlr = 1e-3\n[schedule]\nname = "constant"\n'
    )  # fmt: skip
    assert cli.run(["train", "small.toml", "--device", "cpu"]) == 0
    file = hellaswag_file(tmp_path / "h.bin", drawn_examples(3, np.random.default_rng(2)))
    capsys.readouterr()
    words = ["eval", "--device", "cpu", "--hellaswag", str(file)]
    assert cli.run(words) == 6 and "it holds the ids of gpt2's tokenizer" in capsys.readouterr().err
    assert cli.run(["eval", "--device", "cpu", "--examples", "3"]) == 2
    assert "--hellaswag FILE" in capsys.readouterr().err
    monkeypatch.setattr(hellaswag.HellaSwag, "tokenizer", "")
    assert cli.run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hellaswag"]["examples"] == 3
