"""The files that `[data]` and `core data` name: globs, folders, pipes, missing files, too few tokens."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from data_files import DIMS, Config, prepare_shards, write_shard

from core.cli.data import command
from core.data import open_data
from core.data.shard_writer import ShardWriter
from core.data.shards import open_shard, verify_shard
from core.errors import CoreError, DataError, UsageError


def test_a_glob_that_matches_nothing_names_the_key_and_the_nearest_folder(tmp_path):
    (tmp_path / "fine").mkdir()
    write_shard(tmp_path / "fine" / "train_0.bin", [1])
    with pytest.raises(UsageError) as error:
        open_data(
            Config(str(tmp_path / "fine" / "trian_*.bin")),
            dims=DIMS,
            where=lambda key: f"configs/x.toml [{key.replace('.', '] ')}",
        )
    message = str(error.value)
    assert error.value.exit_code == 2
    assert "configs/x.toml [data] train" in message and "fine, which holds train_0.bin" in message
    with pytest.raises(UsageError, match=r"nearest folder .*, which holds fine; did you mean \"fine\""):
        open_data(Config(str(tmp_path / "fnie" / "deep" / "*.bin")), dims=DIMS)


def test_a_missing_file_an_empty_list_and_a_folder_of_shards_say_what_to_write(tmp_path):
    write_shard(tmp_path / "a.bin", [1])
    with pytest.raises(UsageError, match="does not exist"):
        open_data(Config(str(tmp_path / "b.bin")), dims=DIMS)
    with pytest.raises(UsageError, match="empty list"):
        open_data(Config([]), dims=DIMS)
    with pytest.raises(DataError, match=r"\*\.bin"):
        open_data(Config(str(tmp_path)), dims=DIMS)


def test_names_that_no_file_can_have_are_usage_errors(tmp_path):
    for name in ("a\0b", "x" * 300, str(tmp_path / ("y" * 300) / "*.bin")):
        with pytest.raises(UsageError):
            open_data(Config(name), dims=DIMS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_and_a_file_that_cannot_be_read_are_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "texts").mkdir()
    os.mkfifo(tmp_path / "texts" / "pipe")
    with pytest.raises(DataError, match="pipe: expected a file"):
        open_data(Config(str(tmp_path / "texts")), dims=DIMS)
    path = write_shard(tmp_path / "a.bin", np.arange(20))

    def denied(file, *args, ordinary=open, **options):
        if str(file) == str(path):
            raise PermissionError(13, "Permission denied")
        return ordinary(file, *args, **options)

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(DataError, match=r"a\.bin: cannot be read: Permission denied"):
        open_data(Config(str(path)), dims=DIMS)


def test_globs_are_taken_in_the_order_of_names_and_each_file_once(tmp_path):
    for name in "bca":
        write_shard(tmp_path / f"{name}.bin", np.arange(20))
    data = open_data(Config([str(tmp_path / "*.bin"), str(tmp_path / "a.bin")], tokenizer="gpt2"), dims=DIMS)
    assert [Path(f["file"]).name for f in data.train.describe()["files"]] == ["a.bin", "b.bin", "c.bin"]


def test_train_and_val_sharing_a_file_is_a_warning(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("some text " * 20)
    data = open_data(Config(str(path), str(path)), dims=DIMS)
    assert any(note.startswith("warning: train and val share") and "a.txt" in note for note in data.notes)


def test_too_few_tokens_are_refused_with_the_arithmetic(tmp_path):
    path = write_shard(tmp_path / "a.bin", np.arange(16))
    with pytest.raises(DataError, match=r"train: expected at least 17 tokens \(B \* T \+ 1 = 2 \* 8 \+ 1\), got 16"):
        open_data(Config(str(path), tokenizer="gpt2"), dims=DIMS)


def test_raw_ids_are_converted_and_then_train(tmp_path):
    raw = tmp_path / "train.bin"
    np.arange(1000, dtype="<u2").tofile(raw)
    assert prepare_shards(tmp_path / "out", "--raw", "uint16", str(raw)).exit_code == 0
    shard = open_shard(tmp_path / "out" / "out_train_000000.bin")
    assert shard.open().tolist() == list(range(1000)) and verify_shard(shard.path)
    open_data(Config(str(shard.path), tokenizer="gpt2"), dims={**DIMS, "V": 1000})
    raw.write_bytes(b"odd")
    assert isinstance(prepare_shards(tmp_path / "odd", "--raw", "uint16", str(raw)).exception, DataError)


def test_an_interrupted_prepare_leaves_no_shard(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.setattr(ShardWriter, "close", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
    prepare_shards(tmp_path / "out", "--tokenizer", "bytes", str(tmp_path / "a.txt"))
    assert list((tmp_path / "out").iterdir()) == []


def test_inspect_shows_shards_and_texts_and_has_a_json_twin(tmp_path):
    path = write_shard(tmp_path / "a.bin", [3, 1, 4, 1, 5])
    (tmp_path / "a.txt").write_text("text")
    result = CliRunner().invoke(command, ["inspect", "--json", str(path), str(tmp_path / "a.txt")])
    shard, document = json.loads(result.stdout)
    assert shard["tokens"] == 5 and shard["largest id"] == 5 and shard["first ids"] == [3, 1, 4, 1, 5]
    assert document["bytes"] == 4
    plain = CliRunner().invoke(command, ["inspect", str(path)])
    assert plain.exit_code == 0 and "GPT-2, uint16" in plain.output


def test_verify_without_any_hash_does_not_claim_success(tmp_path):
    path = write_shard(tmp_path / "a.bin", [3, 1, 4])
    result = CliRunner().invoke(command, ["verify", str(path)])
    assert isinstance(result.exception, CoreError) and result.exception.exit_code == 1


def test_every_command_in_the_docs_is_understood():
    from core.cli import tokenizer

    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text("utf-8")
    lines = re.findall(r"^    core (data|tokenizer) (.*)$", page, re.MULTILINE)
    assert len(lines) >= 8
    for group, line in lines:
        name, *args = shlex.split(line)
        verb = {"data": command, "tokenizer": tokenizer.command}[group].commands[name]
        verb.make_context(name, args)
