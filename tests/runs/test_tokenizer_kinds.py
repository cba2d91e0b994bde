"""Kinds of tokenizers from plugins: a run trains on a stranger's, its checkpoint restores it, text comes out of it; a
broken one is listed and harms no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_run
import trained_run
from trained_run import run

import core
from core.errors import BuildError, DataError
from core.loader import load_registry

WORDS = '''
import hashlib
import json
import re

import numpy as np

from core import DataError, Tokenizer, TokenizerKind


class WordTokenizer(Tokenizer):
    """An id for each word of a list, and one for every other word."""

    kind = name = "words"

    def __init__(self, words):
        self.words = list(words)
        self.tokens = [f"{word} ".encode() for word in self.words] + [b"? ", b""]
        self.vocab_size = len(self.tokens)
        self.eot = self.bos = self.vocab_size - 1
        self.ids = {word: i for i, word in enumerate(self.words)}

    def encode(self, text):
        return np.array([self.ids.get(word, len(self.words)) for word in re.findall(r"[a-z]+", text)], np.int32)

    @property
    def hash(self):
        return hashlib.sha256(" ".join(self.words).encode()).hexdigest()

    def to_json(self):
        return json.dumps({"format": "words 1", **self.record(), "words": self.words})


class Words(TokenizerKind):
    name, forms, format = "words", ("words", "words:PATH"), "words 1"

    def make(self, path, request):
        if path is not None:
            return WordTokenizer(path.read_text().split())
        if request.text is None:
            raise DataError("there is no text to take words from")
        return WordTokenizer(sorted({word for block in request.text() for word in re.findall(r"[a-z]+", block)}))

    def why(self, request):
        return ", the words of the run's own text"

    def reads(self, document):
        return "my words" in document

    def read(self, path):
        return WordTokenizer(json.loads(path.read_text())["my words"])

    def restore(self, value, where):
        return WordTokenizer(value["words"])


def core_tokenizers():
    return [Words]
'''


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the plugin, and runs/small, which was trained on its tokens."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "words.py").write_text(WORDS)
    config = small_run.config(data={"tokenizer": "words"}, train={"steps": 2}, plugins={"load": ["words.py"]})
    return trained_run.train(folder, config)


@pytest.fixture
def here(runs, monkeypatch):
    return trained_run.enter(runs, monkeypatch)


def test_a_run_on_a_plugins_tokens_resumes_samples_and_loads_with_them(here, capsys, tmp_path):
    model = core.load("runs/small", plugins=["words.py"])
    assert model.tokenizer.kind == "words" and model.tokenizer.words[:2] == ["brown", "dog"]
    printed = run(capsys, "sample", "runs/small", "--prompt", "the lazy", "--tokens", 4, "--plugin", "words.py").out
    text = printed.partition("the lazy")[2].replace("?", "")
    assert "the lazy" in printed and set(text.split()) <= set(small_run.TEXT.replace(".", "").split())
    assert model.tokenizer.decode([0, 1, model.tokenizer.vocab_size - 2]) == "brown dog ? "
    said = run(capsys, "train", "small.toml", "--device", "cpu", "--resume", "--set", "train.steps=3")
    assert "step 3/3" in said.out
    with pytest.raises(DataError, match='expected format .*, got "words 1"\n  hint: load the plugin'):
        core.load("runs/small")


def test_a_plugins_kind_is_named_by_every_verb_that_takes_a_tokenizer(here, capsys, tmp_path):
    (tmp_path / "list.txt").write_text("fox dog")
    words = ("--tokenizer", f"words:{tmp_path / 'list.txt'}", "--plugin", "words.py")
    assert run(capsys, "tokenizer", "encode", "a dog", *words).out.split() == ["2", "1"]
    assert run(capsys, "tokenizer", "decode", 1, 0, *words).out == "dog fox \n"
    (tmp_path / "mine.json").write_text('{"my words": ["dog", "cat"]}')
    assert run(capsys, "tokenizer", "encode", "cat", "--tokenizer", tmp_path / "mine.json", *words[2:]).out == "1\n"
    run(capsys, "data", "prepare", "text.txt", "--out", tmp_path / "shards", *words)
    shards = small_run.config(
        data={"train": f"{tmp_path}/shards/*.bin", "val": None, "tokenizer": "words"},
        train={"steps": 1},
        plugins={"load": ["words.py"]},
    )
    Path("shards.toml").write_text(shards)
    said = run(capsys, "train", "shards.toml", "--device", "cpu", "--out", tmp_path / "r").out
    assert "tokenizer: words, by the shards' sidecars" in said
    assert "words, words:PATH" in run(capsys, "tokenizer", "encode", "a", "--tokenizer", "wrds", *words[2:], code=2).err
    assert 'unknown tokenizer "words"' in run(capsys, "tokenizer", "encode", "a", "--tokenizer", "words", code=2).err


BROKEN = {
    "an exception in the hook": ("def core_tokenizers():\n    1 / 0\n", "ZeroDivisionError: division by zero"),
    "no class": ("def core_tokenizers():\n    return ['bpe']\n", "expected a class derived from TokenizerKind"),
    "a kind of two": (
        "from core import TokenizerKind\nclass Mine(TokenizerKind):\n    name = 'gpt2'\n"
        "def core_tokenizers():\n    return [Mine]\n",
        'kind of tokenizers "gpt2" is defined twice',
    ),
    "a format of two": (
        "from core import TokenizerKind\nclass Mine(TokenizerKind):\n    name, format = 'mine', 'corelm tokenizer 1'\n"
        "    def restore(self, value, where): ...\n"
        "def core_tokenizers():\n    return [Mine]\n",
        'format of tokenizers "corelm tokenizer 1" is defined twice',
    ),
}


@pytest.mark.parametrize("text, said", BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_of_tokenizers_is_listed_and_harms_no_other(here, capsys, tmp_path, text, said):
    plugin = tmp_path / f"broken_{list(BROKEN.values()).index((text, said))}.py"
    plugin.write_text(text)
    listed = json.loads(run(capsys, "plugins", "--plugin", plugin, "--json").out)
    broken = next(record for record in listed if record["name"] == plugin.stem)
    assert broken["status"] == "broken" and said in broken["reason"] and broken["traceback"]
    known = load_registry([plugin], strict=False).tokenizers
    assert list(known) == ["gpt2", "bpe", "bytes", "huggingface", "scored"]


def test_a_kind_that_fails_while_it_makes_one_is_a_failure_of_its_plugin(here, tmp_path):
    (tmp_path / "fails.py").write_text(WORDS.replace("        if path is not None:", "        1 / 0\n        if path:"))
    from core.tokenizers.preference import choose_tokenizer

    kinds = load_registry([tmp_path / "fails.py"]).tokenizers
    with pytest.raises(BuildError, match="fails.py: its kind of tokenizers words raised ZeroDivisionError"):
        choose_tokenizer(["words", "bytes"], kinds=kinds)
    assert choose_tokenizer(["bytes"], kinds=kinds).tokenizer.kind == "bytes"
