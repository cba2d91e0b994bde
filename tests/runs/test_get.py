"""core get: what is published comes here whole, is taken up where it stopped, and is what the hub says it is.

A server on loopback speaks what the hub does: a listing with hashes, and files by ranges.
"""

from __future__ import annotations

import json
import sys

import loopback_hub as loopback
import pytest

from core import cli
from core.data import fetch
from core.data.fetch import Collection

NAMES, REPOSITORY = loopback.NAMES, loopback.REPOSITORY


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback, and a working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with loopback.serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def get(capsys, *words, code=0):
    assert cli.run(["get", *map(str, words)]) == code, capsys.readouterr()
    return capsys.readouterr()


def fetched(hub):
    """The ranges of the files that were asked for."""
    return [(path.rpartition("/")[2], at) for method, path, at in hub.asked if method == "GET" and "/resolve/" in path]


def test_fineweb_comes_with_the_validation_shard_and_hashes(hub, tmp_path, capsys):
    printed = get(capsys, "fineweb", "--shards", 2).out
    folder = tmp_path / "data/fineweb10B"
    assert sorted(p.name for p in folder.iterdir()) == sorted([*NAMES, *(f"{n}.sha256" for n in NAMES)])
    for name in NAMES:
        assert (folder / name).read_bytes() == hub.files[name]
        assert f"{folder.relative_to(tmp_path) / name}  7,024 bytes  fetched, hash verified" in printed
    assert f"/datasets/{REPOSITORY}/resolve/main/{NAMES[1]}" in [path for _, path, _ in hub.asked]
    assert cli.run(["data", "verify", "data/fineweb10B/*.bin"]) == 0


def test_what_is_here_is_not_fetched_again(hub, capsys):
    get(capsys, "fineweb", "--shards", 1)
    hub.asked.clear()
    found = json.loads(get(capsys, "fineweb", "--shards", 2, "--json").out)
    assert [f["new"] for f in found] == [False, False, True]
    assert fetched(hub) == [(NAMES[2], "bytes=0-")]


def test_a_dropped_connection_is_taken_up_where_it_ended(hub, tmp_path, capsys):
    hub.drop_after = 1000
    get(capsys, "fineweb", "--shards", 1, "--out", "here")
    assert fetched(hub) == [(NAMES[0], "bytes=0-"), (NAMES[0], "bytes=1000-"), (NAMES[1], "bytes=0-")]
    assert (tmp_path / "here" / NAMES[0]).read_bytes() == hub.files[NAMES[0]]


def test_a_killed_download_goes_on_where_it_stopped(hub, tmp_path, capsys, monkeypatch):
    """Ctrl-C half-way, then the same command again."""

    def interrupt(part, *arguments):
        part.add(hub.files[NAMES[0]][:2500])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fetch, "resume", interrupt)
        get(capsys, "fineweb", "--shards", 1, "--out", "here", code=130)
    assert [p.name for p in (tmp_path / "here").iterdir()] == [".partial"]
    get(capsys, "fineweb", "--shards", 1, "--out", "here")
    assert fetched(hub)[0] == (NAMES[0], "bytes=2500-")
    assert (tmp_path / "here" / NAMES[0]).read_bytes() == hub.files[NAMES[0]]
    assert not (tmp_path / "here/.partial").exists()


def test_a_server_without_ranges_sends_all_again(hub, tmp_path, capsys):
    hub.drop_after = 1000
    hub.ranges = False
    get(capsys, "fineweb", "--shards", 1, "--out", "here")
    assert (tmp_path / "here" / NAMES[0]).read_bytes() == hub.files[NAMES[0]]


def test_gpt2_comes_as_a_folder_with_small_files_by_gits_hash(hub, tmp_path, capsys):
    hub.files = {"config.json": b'{"a": 1}', "tokenizer.json": b"{}", "model.safetensors": b"\0" * 5000}
    printed = get(capsys, "gpt2", "--size", "355m").out
    folder = tmp_path / "data/gpt2-medium"
    assert (folder / "config.json").read_bytes() == b'{"a": 1}'
    assert "core import data/gpt2-medium OUT" in printed
    assert any(path == "/openai-community/gpt2-medium/resolve/main/config.json" for _, path, _ in hub.asked)


def test_hellaswag_is_fetched_to_where_eval_is_told_to_look(hub, tmp_path, capsys):
    hub.files = {"hellaswag_val.bin": b"\1" * 10}
    assert "--hellaswag data/hellaswag/hellaswag_val.bin" in get(capsys, "hellaswag").out
    assert (tmp_path / "data/hellaswag/hellaswag_val.bin").read_bytes() == b"\1" * 10


def test_a_file_that_the_hub_does_not_have_is_named(hub, capsys):
    del hub.files[NAMES[2]]
    printed = get(capsys, "fineweb", "--shards", 2, code=6)
    assert NAMES[2] in printed.err and REPOSITORY in printed.err


def test_without_the_library_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert 'pip install "corelm[hub]"' in get(capsys, "hellaswag", code=2).err


def test_no_more_shards_than_there_are(capsys):
    assert "103" in get(capsys, "fineweb", "--shards", 104, code=2).err


def test_two_files_of_one_collection_are_asked_for_at_once(hub, tmp_path):
    fetch.fetch(Collection(REPOSITORY, "dataset", tuple(NAMES)), tmp_path / "out")
    assert [path for method, path, _ in hub.asked if method == "POST"] == [
        f"/api/datasets/{REPOSITORY}/paths-info/main"
    ]
