"""Tokenizers: ids and back, what is refused, where GPT-2's comes from, and how one is chosen."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from core.cli.tokenizer import command
from core.data.builtin import builtin_documents
from core.errors import DataError, UsageError
from core.tokenizers import byte_pairs as module
from core.tokenizers import gpt2
from core.tokenizers.bpe_training import train_bpe
from core.tokenizers.byte_pairs import BytePairTokenizer as Tokenizer
from core.tokenizers.byte_pairs import bytes_tokenizer, split_runs
from core.tokenizers.preference import choose_tokenizer, parse_spec
from core.tokenizers.recorded import from_json, load_tokenizer
from core.tokenizers.token_files import read_merges

TEXT = "the cat sat on the mat and the dog sat on the log. It's 12 o'clock!\n" * 20
# A vocab.bpe of three merges; its letter for a blank is U+0120.
MERGES = "#version: 0.2\nt h\nth e\n\u0120 the\n".encode()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache of its own for each test, nobody's environment, and no network."""
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "tiktoken"))
    monkeypatch.delenv("CORELM_GPT2_RANKS", raising=False)
    monkeypatch.delenv("CORELM_OFFLINE", raising=False)
    monkeypatch.setattr(gpt2, "URL", "http://127.0.0.1:9/vocab.bpe")  # the discard port: nothing listens


@pytest.fixture
def small_gpt2(monkeypatch):
    """As if GPT-2's tokenizer had three merges."""
    tokenizer = Tokenizer("gpt2", read_merges(MERGES, "test"))
    monkeypatch.setattr(gpt2, "HASH", tokenizer.hash)
    monkeypatch.setattr(gpt2, "URL_SHA256", hashlib.sha256(MERGES).hexdigest())
    return tokenizer


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


# ---- GPT-2's


def test_gpt2_is_taken_from_tiktokens_cache_which_is_only_read(tmp_path, monkeypatch, small_gpt2):
    folder = tmp_path / "tiktoken"
    folder.mkdir()
    theirs = folder / hashlib.sha1(gpt2.URL.encode()).hexdigest()
    theirs.write_bytes(MERGES)
    assert gpt2.load_gpt2(offline=True).kind == "gpt2"
    theirs.write_bytes(b"#version: 0.2\nt h\n")  # poisoned, or half written
    with pytest.raises(DataError, match="is left alone and not used.*expected GPT-2's tokens"):
        gpt2.load_gpt2(offline=True)
    assert theirs.read_bytes() == b"#version: 0.2\nt h\n"


def test_the_names_in_tiktokens_cache_are_the_published_ones(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "there")
    files = [path.name for path, _ in gpt2._places()]
    assert files[1] == "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"


def test_a_named_file_is_used_and_never_fallen_back_from(tmp_path, monkeypatch, small_gpt2):
    (tmp_path / "v.bpe").write_bytes(MERGES)
    choice = choose_tokenizer([f"gpt2:{tmp_path / 'v.bpe'}"])
    assert choice.tokenizer.hash == small_gpt2.hash and "from" in choice.why
    monkeypatch.setenv("CORELM_GPT2_RANKS", str(tmp_path / "v.bpe"))
    assert choose_tokenizer(["gpt2"]).tokenizer.kind == "gpt2"
    (tmp_path / "v.bpe").write_bytes(b"#version: 0.2\nt h\n")
    with pytest.raises(DataError, match="expected GPT-2's tokens"):
        gpt2.load_gpt2()


class Server:
    """A server that answers every connection with `answer`, or never when it is None."""

    def __init__(self, answer: bytes | None):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/vocab.bpe"
        self.answer, self.calls, self.open = answer, 0, []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.calls += 1
            self.open.append(connection)
            if self.answer is not None:
                connection.recv(65536)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.answer)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + self.answer)
                connection.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        for connection in self.open:
            connection.close()


def use(monkeypatch, server: Server, seconds: float = 0.3) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpt2, "URL", server.url)
    monkeypatch.setattr(gpt2, "DOWNLOAD_SECONDS", seconds)


def test_a_download_is_checked_and_cached(monkeypatch, small_gpt2):
    with Server(MERGES) as server:
        use(monkeypatch, server, 10)
        assert gpt2.load_gpt2().hash == small_gpt2.hash
        assert gpt2.load_gpt2().hash == small_gpt2.hash
        assert server.calls == 1 and gpt2.cached_file().read_bytes() == MERGES


def test_a_black_hole_ends_in_time_with_three_fixes_and_is_remembered(monkeypatch, small_gpt2):
    with Server(None) as server:
        use(monkeypatch, server)
        with pytest.raises(DataError) as error:
            gpt2.load_gpt2()
        assert "no answer" in error.value.message
        assert all(f"({i})" in error.value.hint for i in (1, 2, 3))
        with pytest.raises(DataError, match="failed 0 min ago"):
            gpt2.load_gpt2()
        assert server.calls == 1
        with pytest.raises(DataError, match="no answer"):  # core tokenizer fetch
            gpt2.load_gpt2(again=True)
        assert server.calls == 2
        later = time.time() + gpt2.REMEMBER_SECONDS + 1
        monkeypatch.setattr(gpt2.time, "time", lambda: later)
        with pytest.raises(DataError, match="no answer"):
            gpt2.load_gpt2()
        assert server.calls == 3


def test_a_captive_portals_page_is_named_and_not_kept(monkeypatch, small_gpt2):
    with Server(b"<html>Please sign in to the network") as server:
        use(monkeypatch, server, 10)
        with pytest.raises(DataError, match="is not vocab.bpe .*Please sign in"):
            gpt2.load_gpt2()
    assert not gpt2.cached_file().exists()


def test_offline_runs_download_nothing_and_fetch_still_does(monkeypatch, small_gpt2):
    with Server(MERGES) as server:
        use(monkeypatch, server, 10)
        monkeypatch.setenv("CORELM_OFFLINE", "1")
        with pytest.raises(DataError, match="downloads are switched off"):
            gpt2.load_gpt2()
        assert server.calls == 0
        assert gpt2.load_gpt2(again=True).hash == small_gpt2.hash


def test_the_time_limit_is_ten_seconds_in_all():
    assert gpt2.DOWNLOAD_SECONDS == 10


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
    assert choice.tokenizer.vocab_size == 270 and "280 asked for, the model has 270" in choice.why
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


# ---- core tokenizer


def invoke(*args: str, input: str | None = None):
    return CliRunner().invoke(command, list(args), input=input)


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


def test_fetch_says_where_the_file_is_or_what_to_do(monkeypatch, small_gpt2):
    failed = invoke("fetch")
    assert isinstance(failed.exception, DataError) and "(3)" in str(failed.exception)
    with Server(MERGES) as server:
        use(monkeypatch, server, 10)
        assert json.loads(invoke("fetch", "--json").stdout)["file"] == str(gpt2.cached_file())
