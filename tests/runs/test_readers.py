"""Readers of data from plugins: a run trains on what a stranger's reader gives and resumes exactly; a broken one is
listed and harms no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_run
import trained_run
from trained_run import run

from core.loader import load_registry
from core.train.run import read_lines

READERS = '''
import hashlib

import numpy as np

from core import DataError, DataReader
from core.data import Document, InMemory, Inputs


class Squares(DataReader):
    """The squares of 0, 1, ..., N - 1 modulo 251, as ids: tokens that no file holds."""

    name, files = "squares", False

    def read(self, source, part, reading, notes):
        if not source.isdecimal():
            raise DataError(f"squares:{source}: expected a number", hint="squares:4000")
        numbers = np.arange(int(source), dtype=np.uint64) + 7 * (part == "val")
        notes.append(f"{source} squares for {part}")
        return Inputs(pieces=[InMemory(f"squares {part}", (numbers * numbers % 251).astype(np.uint16))])


class Cards(DataReader):
    """Documents in a file of cards, a line with %% between two."""

    name, kind = "cards", "cards"

    def recognise(self, path, head):
        return path.suffix == ".cards"

    def read(self, source, part, reading, notes):
        raw = open(source, "rb").read()
        cards = [card.strip() for card in raw.decode().split("%%")]
        digest = hashlib.sha256(raw).hexdigest()
        return Inputs(documents=[Document(source, len(raw), digest, lambda: iter(cards), each=True)])


def core_data():
    return [Squares, Cards]
'''
CARDS = "%%\n".join(f"the quick brown fox jumps {n} times over the lazy dog\n" for n in range(30))


@pytest.fixture
def here(tmp_path, monkeypatch):
    trained_run.enter(tmp_path, monkeypatch)
    Path("readers.py").write_text(READERS)
    Path("deck.cards").write_text(CARDS)
    Path("text.txt").write_text("plain text beside it. " * 30)
    return tmp_path


def config(train, val):
    data = {"train": train, "val": val}
    steps = {"steps": 6, "tokens_per_step": 32, "val_every": 3, "val_tokens": 64, "checkpoint_every": 3}
    Path("run.toml").write_text(small_run.config(data=data, train=steps, plugins={"load": ["readers.py"]}))


def losses(folder):
    """(step, loss, val_loss) of every line, to the last bit."""
    return [(m["step"], m.get("loss"), m.get("val_loss")) for m in read_lines(Path(folder) / "metrics.jsonl")]


SOURCES = {
    "tokens without a file": ("squares:4000", "squares:500"),
    "documents of a file": ("deck.cards", "deck.cards"),
    "a reader by its name, beside text": (["cards:deck.cards", "text.txt"], "squares:300"),
}


@pytest.mark.parametrize("train, val", SOURCES.values(), ids=SOURCES)
def test_a_run_on_a_plugins_reader_resumes_bit_for_bit(here, capsys, train, val):
    config(train, val)
    said = run(capsys, "train", "run.toml", "--device", "cpu", "--out", "whole").out
    assert "step 6/6" in said and ("squares for" in said) == ("squares" in f"{train}{val}")
    run(capsys, "train", "run.toml", "--device", "cpu", "--out", "halves", "--set", "train.steps=3")
    run(capsys, "train", "run.toml", "--device", "cpu", "--out", "halves", "--resume")
    assert losses("halves") == losses("whole") and len(losses("whole")) >= 6


def test_other_tokens_of_a_plugins_reader_are_refused_at_a_resume(here, capsys):
    config("squares:4000", "squares:500")
    run(capsys, "train", "run.toml", "--device", "cpu", "--out", "r", "--set", "train.steps=3")
    config("squares:4001", "squares:500")
    said = run(capsys, "train", "run.toml", "--device", "cpu", "--out", "r", "--resume", code=6).err
    assert "squares train" in said and "4,000" in said and "4,001" in said


def test_every_verb_of_data_takes_a_plugins_reader(here, capsys):
    words = ("--plugin", "readers.py")
    listed = json.loads(run(capsys, "data", "inspect", "squares:50", "deck.cards", *words, "--json").out)
    assert [entry["kind"] for entry in listed] == ["tokens", "text"] and listed[0]["tokens"] == 50
    made = run(capsys, "data", "prepare", "deck.cards", "--tokenizer", "bytes", "--out", "shards", *words, "--json").out
    assert json.loads(made)["tokens"] == sum(1 + len(card.strip()) for card in CARDS.split("%%"))
    assert "expected a number" in run(capsys, "data", "inspect", "squares:x", *words, code=6).err
    assert "does not exist" in run(capsys, "data", "inspect", "squares:50", code=2).err


def test_a_file_that_has_a_readers_name_before_a_colon_is_that_file(here, capsys):
    Path("cards:deck.txt").write_text("a file of this very name " * 20)
    listed = json.loads(run(capsys, "data", "inspect", "cards:deck.txt", "--plugin", "readers.py", "--json").out)
    assert [entry["file"] for entry in listed] == ["cards:deck.txt"]


OWN = ["text", "jsonl", "parquet", "arrays", "shards", "builtin"]
BROKEN = {
    "an exception in the hook": ("def core_data():\n    1 / 0\n", "ZeroDivisionError: division by zero"),
    "no class": ("def core_data():\n    return ['text']\n", "expected a class derived from DataReader"),
    "a reader of two": (
        "from core import DataReader\nclass Mine(DataReader):\n    name = 'text'\n"
        "    def read(self, *given): ...\n"
        "def core_data():\n    return [Mine]\n",
        'reader of data "text" is defined twice',
    ),
}


@pytest.mark.parametrize("text, said", BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_of_readers_is_listed_and_harms_no_other(here, capsys, text, said):
    plugin = here / f"broken_{list(BROKEN.values()).index((text, said))}.py"
    plugin.write_text(text)
    listed = json.loads(run(capsys, "plugins", "--plugin", plugin, "--json").out)
    broken = next(record for record in listed if record["name"] == plugin.stem)
    assert broken["status"] == "broken" and said in broken["reason"] and broken["traceback"]
    assert list(load_registry([plugin], strict=False).readers) == OWN


def test_a_reader_that_fails_while_it_reads_is_a_failure_of_its_plugin(here, capsys):
    Path("fails.py").write_text(READERS.replace("if not source.isdecimal():", "if 1 / 0:"))
    said = run(capsys, "data", "inspect", "squares:5", "--plugin", "fails.py", code=3).err
    assert "fails.py: its reader squares raised ZeroDivisionError" in said
