"""A tokenizer goes out as tokenizer.json and comes back with its ids; another kind is left to its library."""

from __future__ import annotations

import json

import foreign_files as foreign
import numpy as np
import pytest
from foreign_exports import refused, small_bpe
from trained_run import run as core_command

import core
from core.errors import DataError, UsageError
from core.interop.opened import open_path
from core.loader import load_registry
from core.tokenizers.byte_pairs import BytePairTokenizer as Tokenizer
from core.tokenizers.byte_pairs import bytes_tokenizer
from core.tokenizers.folder import read_folder, to_tokenizers
from core.tokenizers.library import LibraryTokenizer
from core.tokenizers.tokenizer import END_OF_TEXT

DIMS = foreign.DIMS
TEXTS = ("the quick brown fox", " don't\n\n  stop 12345", "naïve 東京 🙂", "<|endoftext|> is text", "", "a\x00b\r\n")


@pytest.mark.parametrize("made", [small_bpe, bytes_tokenizer], ids=["bpe", "bytes"])
def test_a_tokenizer_goes_out_and_comes_back_and_gives_its_ids_in_the_library(made, tmp_path):
    ours = made()
    (tmp_path / "tokenizer.json").write_text(json.dumps(to_tokenizers(ours)), encoding="utf-8")
    back = read_folder(tmp_path)
    assert back.tokens == ours.tokens and back.eot == ours.eot
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        plain = text.replace(END_OF_TEXT, "end")  # there, the special token is read from text
        assert theirs.encode(plain).ids == ours.encode(plain).tolist(), text
        assert theirs.decode(ours.encode(plain).tolist()) == plain
    assert theirs.token_to_id(END_OF_TEXT) == ours.eot


def test_a_tokenizer_that_the_library_trained_and_saved_gives_its_ids_here(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.ByteLevelBPETokenizer()
    theirs.train_from_iterator(["the quick brown fox don't jump over 12345 naïve dogs"] * 9, 300, show_progress=False)
    theirs.add_special_tokens([END_OF_TEXT])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = read_folder(tmp_path)
    assert ours.vocab_size == theirs.get_vocab_size() and ours.eot == theirs.token_to_id(END_OF_TEXT)
    for text in TEXTS:
        plain = text.replace(END_OF_TEXT, "end")
        assert ours.encode(plain).tolist() == theirs.encode(plain).ids, text


def test_a_model_takes_its_tokenizer_along_both_ways(here, capsys, registry):
    tensors = foreign.hf_tensors()
    wte = np.random.default_rng(0).standard_normal((330, DIMS["C"])).astype(np.float32)
    folder = foreign.hf_folder(
        here / "hf",
        {**tensors, "transformer.wte.weight": wte},
        {**foreign.CONFIG, "vocab_size": 330, "bos_token_id": 329},
    )
    (folder / "tokenizer.json").write_text(json.dumps(to_tokenizers(small_bpe())), encoding="utf-8")
    assert core.load(folder).tokenizer.tokens == small_bpe().tokens
    assert "330 ids, from the source folder" in core_command(capsys, "import", folder, "imported").out
    assert "the" in core_command(capsys, "sample", "imported", "--prompt", "the", "--tokens", "3").out
    core_command(capsys, "export", "imported", "--to", "hf", "--out", "out")
    config = json.loads((here / "out/config.json").read_text())
    assert config["bos_token_id"] == config["eos_token_id"] == 329
    assert json.loads((here / "out/tokenizer_config.json").read_text())["model_max_length"] == DIMS["S"]
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(here / "out")
    assert theirs("don't jump")["input_ids"] == small_bpe().encode("don't jump").tolist()
    assert theirs.eos_token_id == 329


def test_a_tokenizer_of_another_kind_is_not_taken_for_ours_but_left_to_the_library(tmp_path):
    pytest.importorskip("tokenizers")
    whole = to_tokenizers(small_bpe())
    others = [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {**whole["pre_tokenizer"], "add_prefix_space": True}},
        {"added_tokens": [*whole["added_tokens"], {"id": 330, "content": "<pad>"}]},
        {"model": {**whole["model"], "type": "Unigram"}},
        {"model": {**whole["model"], "ignore_merges": True}},
        {"model": {**whole["model"], "merges": whole["model"]["merges"][::-1]}},
        {"model": {**whole["model"], "vocab": {**whole["model"]["vocab"], "!": 1000}}},  # an id that is left out
    ]
    for other in others:
        (tmp_path / "tokenizer.json").write_text(json.dumps({**whole, **other}))
        try:
            found = read_folder(tmp_path)
        except DataError:
            continue  # the library's word on a file that it cannot read either
        assert isinstance(found, LibraryTokenizer), other
    for damaged in ("{", "[]", '{"model": 3}', json.dumps({**whole, "added_tokens": [3]})):
        (tmp_path / "tokenizer.json").write_text(damaged)
        refused(lambda: read_folder(tmp_path), "tokenizer.json", kind=DataError)
    odd = Tokenizer("bpe", [*small_bpe().tokens[:256], b"the quick"])
    refused(lambda: to_tokenizers(odd), "is not a merge of two tokens", kind=DataError)


def test_a_tokenizer_is_asked_for_or_said_to_be_missing(here, capsys):
    folder = foreign.hf_folder(here / "hf")
    assert "the source has none" in core_command(capsys, "import", folder, "without").out
    assert "50" in core_command(capsys, "import", folder, "x", "--tokenizer", "bytes", code=6).err
    refused(lambda: open_path("nowhere", load_registry()), kind=UsageError)
    assert not (here / "x").exists()
