"""GPT-2's tokenizer: found in tiktoken's cache or a named file, else downloaded within a time limit, and verified."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time

import pytest
from tokenizer_texts import MERGES, invoke

from core.errors import DataError
from core.tokenizers import gpt2
from core.tokenizers.preference import choose_tokenizer

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


def test_fetch_says_where_the_file_is_or_what_to_do(monkeypatch, small_gpt2):
    failed = invoke("fetch")
    assert isinstance(failed.exception, DataError) and "(3)" in str(failed.exception)
    with Server(MERGES) as server:
        use(monkeypatch, server, 10)
        assert json.loads(invoke("fetch", "--json").stdout)["file"] == str(gpt2.cached_file())
