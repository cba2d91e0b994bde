"""Tokenizers: ids and back, what is refused, where GPT-2's comes from, and how one is chosen."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import MERGES, invoke

from core.data.builtin import builtin_documents
from core.errors import DataError, UsageError
from core.tokenizers import byte_pairs as module
from core.tokenizers import gpt2
from core.tokenizers.bpe_training import train_bpe
from core.tokenizers.byte_pairs import BytePairTokenizer as Tokenizer
from core.tokenizers.byte_pairs import bytes_tokenizer, split_runs
from core.tokenizers.preference import choose_tokenizer, parse_spec
from core.tokenizers.recorded import from_json, load_tokenizer

TEXT = "the cat sat on the mat and the dog sat on the log. It's 12 o'clock!\n" * 20


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train_bpe([TEXT], 280)


# ---- text to ids and back


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_comes_back(text):
    for tokenizer in (bytes_tokenizer(), TRAINED):
        ids = tokenizer.encode(text)
        assert ids.dtype == np.int32 and ids.ndim == 1
        assert tokenizer.eot not in ids
        assert tokenizer.decode(ids) == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


TRAINED = train_bpe([TEXT], 280)


def test_special_tokens_are_never_read_from_text(bpe):
    for tokenizer in (bpe, bytes_tokenizer()):
        ids = tokenizer.encode("a<|endoftext|>b")
        assert tokenizer.eot not in ids and len(ids) > 3
        assert tokenizer.decode([tokenizer.eot]) == "<|endoftext|>"


def test_lone_surrogates_become_u_fffd_and_pairs_their_character(bpe):
    for tokenizer in (bpe, bytes_tokenizer()):
        assert tokenizer.decode(tokenizer.encode("a\ud800b\udfff")) == "a\ufffdb\ufffd"
        assert tokenizer.decode(tokenizer.encode("\ud83d\ude00")) == "😀"


def test_ids_that_stand_for_nothing_decode_to_u_fffd(bpe):
    for tokenizer in (bpe, bytes_tokenizer()):
        assert tokenizer.decode([97, tokenizer.vocab_size, 50303, -1, 98]) == "a\ufffd\ufffd\ufffdb"
        assert tokenizer.decode([]) == ""
        assert tokenizer.decode([0xE2, 0x82]) == "\ufffd"


@pytest.mark.parametrize("unit", [" ", "a", "-", "\0", "\n", "\r\n", "_-", "1", "é"])
def test_a_megabyte_of_one_kind_neither_panics_nor_takes_long(bpe, unit):
    text = unit * (1_000_000 // len(unit)) + "x"
    assert bpe.decode(bpe.encode(text)) == text


def test_only_runs_beyond_the_limit_are_cut():
    limit = module.LONGEST_RUN
    ordinary = "word " * 10_000 + "x" * limit + " " * limit + "y"
    assert list(split_runs(ordinary)) == [ordinary]
    long = "é" * (2 * limit + 5)
    assert [len(part) for part in split_runs("a b " + long + ". c")] == [4 + limit, limit, 5 + 3]
    assert "".join(split_runs(long + " " * 10_000)) == long + " " * 10_000


def test_pieces_are_those_of_gpt2s_published_pattern(bpe):
    openai_public = pytest.importorskip("tiktoken_ext.openai_public")
    import tiktoken

    ranks = {token: rank for rank, token in enumerate(bpe.tokens)}
    theirs = tiktoken.Encoding("x", pat_str=openai_public.r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
    text = "".join(block for d in builtin_documents("val") for block in d.blocks())
    text += "  two  \n\n\n x's 'sit' it'S ½٣ 中文字 \t\r\n é\u0301 !!?  "
    assert bpe.encode(text).tolist() == theirs.encode_ordinary(text)


def test_gpt2s_own_ids_where_it_is_on_this_machine(monkeypatch):
    monkeypatch.undo()
    try:
        tokenizer = gpt2.load_gpt2(offline=True)
    except DataError:
        pytest.skip("GPT-2's tokenizer is not on this machine")
    assert tokenizer.vocab_size == 50257 and tokenizer.eot == 50256
    assert tokenizer.encode("hello world").tolist() == [31373, 995]


# ---- bpe


def test_a_trained_bpe_is_bytes_then_merges_then_end_of_text(bpe):
    assert bpe.tokens[:256] == tuple(bytes([b]) for b in range(256))
    assert b" the" in bpe.tokens and bpe.eot == bpe.vocab_size - 1 == 279
    assert len(bpe.encode(TEXT)) < len(TEXT) / 2


def test_training_twice_gives_the_same_tokenizer(bpe):
    assert train_bpe([TEXT], 280).hash == bpe.hash
    assert train_bpe([TEXT], 279).hash != bpe.hash
    assert train_bpe(["", "ab"], 4096).vocab_size <= 258  # a short text has few merges
    assert train_bpe([" " * 300_000 + "x\ud800"], 280).vocab_size > 257
    with pytest.raises(DataError, match="at least 257"):
        train_bpe([TEXT], 256)


# ---- files


def test_json_is_complete(bpe):
    for tokenizer in (bpe, bytes_tokenizer()):
        again = from_json(tokenizer.to_json())
        assert again.record() == tokenizer.record()
        assert again.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()


def damage(value: dict, **changes) -> str:
    return json.dumps({**value, **changes})


def test_a_damaged_json_is_refused(bpe):
    good = json.loads(bpe.to_json())
    other = good["tokens"].replace("dGhl", "dGhm", 1)
    cases = {
        "": "not a tokenizer",
        "[]": "not a tokenizer",
        "{}": "not a tokenizer",
        damage(good, format="corelm tokenizer 2"): "expected format",
        damage(good, kind="pickle"): "expected kind",
        damage(good, tokens=other): "damaged|a duplicate",
        damage(good, tokens=good["tokens"].rsplit(" ", 1)[0]): "damaged",
        damage(good, tokens="!!"): "not a tokenizer",
        damage(good, tokens="YQ=="): "255 of the 256 bytes have no token",
        "[" * 100_000: "not a tokenizer",
    }
    assert other != good["tokens"]
    for text, message in cases.items():
        with pytest.raises(DataError, match=message):
            from_json(text)


def test_ranks_and_merges_files_are_read(tmp_path, bpe, small_gpt2):
    ranks = tmp_path / "x.tiktoken"
    ranks.write_bytes(b"".join(base64.b64encode(t) + f" {i}\n".encode() for i, t in enumerate(bpe.tokens)))
    assert load_tokenizer(ranks).hash == bpe.hash
    merges = tmp_path / "vocab.bpe"
    for newline in (b"\n", b"\r\n"):
        merges.write_bytes(MERGES.replace(b"\n", newline))
        tokenizer = load_tokenizer(merges, "gpt2")
        assert tokenizer.tokens[256:] == (b"th", b"the", b" the") and tokenizer.tokens[0] == b"!"
        assert tokenizer.encode("the the").tolist() == [257, 258]


BAD_FILES = {
    "html": (b"<html>Sign in</html>", "expected a token in base64"),
    "twice": (b"YQ== 0\nYg== 0\n", "rank 0 occurs twice"),
    "hole": (b"YQ== 0\nYg== 2\n", "rank 1 is missing"),
    "bytes": (b"YQ== 0\n", "255 of the 256 bytes"),
    "merge": (b"#version: 0.2\nt h e\n", "expected a merge"),
    "twins": (b"#version: 0.2\nt h\nt h\n", "a duplicate"),
    "empty": (b"", "256 of the 256 bytes"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_would_make_the_encoder_panic_is_refused(tmp_path, name):
    raw, message = BAD_FILES[name]
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(DataError, match=message):
        load_tokenizer(tmp_path / "x")
    with pytest.raises(DataError, match="cannot be read"):
        load_tokenizer(tmp_path / "absent")


# ---- choosing


def test_the_first_available_is_taken_and_the_reasons_are_kept():
    choice = choose_tokenizer(["gpt2", "bpe"], text=lambda: [TEXT], digest="d", vocab_size=280, offline=True)
    assert choice.tokenizer.kind == "bpe" and choice.tokenizer.vocab_size == 280
    assert "passed over gpt2: it is not on this machine" in choice.why


def test_a_trained_bpe_is_cached_by_its_text_and_size(monkeypatch):
    first = choose_tokenizer(["bpe"], text=lambda: [TEXT], digest="d", vocab_size=280).tokenizer

    def never():
        raise AssertionError("trained again")

    again = choose_tokenizer(["bpe"], text=never, digest="d", vocab_size=280).tokenizer
    assert again.hash == first.hash
    for changed in ({"digest": "e", "vocab_size": 280}, {"digest": "d", "vocab_size": 279}):
        with pytest.raises(AssertionError, match="trained again"):
            choose_tokenizer(["bpe"], text=never, **changed)


def test_a_tokenizer_larger_than_the_model_is_refused_and_a_bpe_trained_smaller(tmp_path, bpe):
    choice = choose_tokenizer(["bpe"], text=lambda: [TEXT], vocab_size=280, max_vocab=270)
    assert choice.tokenizer.vocab_size == 270 and "280 requested, the model has 270" in choice.why
    (tmp_path / "t.json").write_text(bpe.to_json())
    with pytest.raises(DataError, match="its 280 ids do not fit the model's vocabulary of 270"):
        choose_tokenizer([f"bpe:{tmp_path / 't.json'}"], max_vocab=270)
    with pytest.raises(DataError, match="257 ids do not fit"):
        choose_tokenizer(["bytes"], max_vocab=256)


def test_all_refusals_are_listed_with_their_reasons(tmp_path):
    with pytest.raises(DataError) as error:
        choose_tokenizer(["gpt2", "bpe", f"bpe:{tmp_path / 'no'}"], offline=True, where="x.toml [data] tokenizer")
    message = str(error.value)
    assert message.startswith("x.toml [data] tokenizer")
    assert (
        "no text to train it on" in message and "downloads are switched off" in message and "no: cannot be" in message
    )


def test_an_unknown_name_is_a_usage_error_with_the_nearest():
    with pytest.raises(UsageError, match='unknown tokenizer "gtp2"; did you mean "gpt2"'):
        choose_tokenizer(["bpe", "gtp2"], text=lambda: [TEXT])
    assert parse_spec("bpe:C:/x") == ("bpe", Path("C:/x"))
    with pytest.raises(UsageError):
        parse_spec("bpe:")


def test_train_encode_and_decode_from_the_command_line(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    out = tmp_path / "t.json"
    made = invoke("train", "--json", "--vocab-size", "280", "--out", str(out), str(tmp_path / "a.txt"))
    assert json.loads(made.stdout)["vocab_size"] == 280
    spec = f"bpe:{out}"
    ids = invoke("encode", "--tokenizer", spec, "the cat").output.split()
    assert ids == invoke("encode", "--tokenizer", spec, input="the cat").output.split()
    assert invoke("decode", "--tokenizer", spec, *ids).output == "the cat\n"
    assert json.loads(invoke("decode", "--json", "--tokenizer", spec, input=" ".join(ids)).stdout)["text"] == "the cat"
    pieces = json.loads(invoke("encode", "--json", "--tokenizer", spec, "the cat").stdout)["pieces"]
    assert "".join(pieces) == "the cat"
    assert isinstance(invoke("train", "--out", str(out), str(tmp_path / "a.txt")).exception, UsageError)
    assert isinstance(invoke("decode", "--tokenizer", spec, input="one two").exception, UsageError)
