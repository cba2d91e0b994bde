"""llm.c's model files: read to the last number, or refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest
from read_weights import BATCH, DIMS, GOLD, OURS, bf16, llmc_file, make, refused, same

import core


@pytest.mark.parametrize("padded", [50, 64, 128, 131])
def test_an_llmc_file_is_the_same_model_whatever_its_padding(tmp_path, padded):
    model = core.load(llmc_file(tmp_path / "model.bin", padded=padded))
    same(model.params)
    assert model.graph.name == "gpt2_124m" and model.graph.dims["P"] == 128
    np.testing.assert_allclose(model.logits(BATCH["tokens"]), GOLD["logits"], atol=1e-4)


def test_an_llmc_file_in_bf16_is_widened_exactly(tmp_path):
    model = core.load(llmc_file(tmp_path / "model.bin", version=5))
    same(model.params, {name: bf16(value)[1] for name, value in OURS.items()})


def test_the_eleventh_layer_of_an_llmc_file_comes_after_the_tenth(tmp_path):
    ours = {name: value.astype(np.float32) for name, value in make.weights({**DIMS, "L": 11}).items()}
    same(core.load(llmc_file(tmp_path / "model.bin", ours=ours, L=11)).params, ours)


LLMC = {
    "version 1": ({"header": {1: 1}}, ["version 1", "3 (all f32), 5 (all bf16)"]),
    "version 4": ({"header": {1: 4}}, ["version 4"]),
    "a token shard": ({"header": {0: 20240520}}, ["a shard of tokens"]),
    "a tokenizer": ({"header": {0: 20240328}}, ["a tokenizer"]),
    "another architecture": ({"header": {0: 20240803}}, ["no model has the magic 20240803"]),
    "more layers": ({"header": {4: 3}}, ["and its header describes", "cut short"]),
    "no layers": ({"header": {4: 0}}, ["number 4, L, is 0"]),
    "a negative size": ({"header": {6: -24}}, ["number 6, C, is -24"]),
    "2 billion layers": ({"header": {4: 2**31 - 1}}, ["sizes make no model"]),
    "a number more": ({"header": {8: 1}}, ["number 8 is 1, expected 0"]),
    "heads that do not divide": ({"header": {5: 7}}, ["sizes make no model"]),
    "fewer rows than the vocabulary": ({"padded": 50, "header": {7: 49}}, ["sizes make no model", "rows"]),
    "bytes behind the end": ({"extra": b"\0\0\0\0"}, ["and its header describes"]),
}


@pytest.mark.parametrize("given, words", LLMC.values(), ids=LLMC)
def test_an_llmc_file_that_is_none_is_refused(tmp_path, given, words):
    path = llmc_file(tmp_path / "model.bin", **given)
    refused(lambda: core.load(path), str(path), *words)


def test_a_file_that_ends_in_the_header_or_in_the_data_is_refused(tmp_path):
    whole = llmc_file(tmp_path / "model.bin").read_bytes()
    for size, word in ((600, "too short"), (len(whole) - 4, "cut short"), (2, "not a file of a known format")):
        (tmp_path / "model.bin").write_bytes(whole[:size])
        refused(lambda: core.load(tmp_path / "model.bin"), word)
