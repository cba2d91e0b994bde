"""Faults of evaluation, exchange and the network, injected: rows of docs/reliability.md."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import foreign_files as foreign
import loopback_hub as loopback
import numpy as np
import pytest
from core.plugins.huggingface import export as export_huggingface
from core.plugins.llmc import export as export_llmc

import core
from core import checkpoint, cli, files
from core.data import fetch
from core.errors import CheckpointError
from core.interop.export import prepare
from core.interop.import_ import import_model
from core.interop.opened import open_path
from core.loader import load_registry
from core.tokenizers.byte_pairs import bytes_tokenizer

NAMES = loopback.NAMES
FIXES = ("(1) look at the network and its proxy", "(2) set HF_ENDPOINT", "(3) fetch the files elsewhere")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CORELM_OFFLINE", "1")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def hub(here, monkeypatch):
    with loopback.serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


@pytest.fixture
def imported(here, capsys):
    """A checkpoint of the golden model."""
    command(capsys, "import", foreign.hf_folder(here / "hf"), "imported")
    return here / "imported"


def command(capsys, *words, code=0):
    """What a command prints; a traceback is never among it."""
    capsys.readouterr()
    assert cli.run([str(word) for word in words]) == code, capsys.readouterr()
    found = capsys.readouterr()
    assert "Traceback" not in found.err and "bug of ours" not in found.err
    return found


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- the network -------------------------------------------------------------------------------------------------


def get(capsys, code=6):
    """`core get` where something is here already: the error. The time is that of fetch.SECONDS, which is short here."""
    begun = time.monotonic()
    said = command(capsys, "get", "fineweb", "--shards", 2, "--out", "data", code=code).err
    assert time.monotonic() - begun < 5
    return said


def test_a_network_that_does_not_answer(hub, here, capsys, monkeypatch):
    assert fetch.SECONDS < 10  # what a user waits
    monkeypatch.setattr(fetch, "SECONDS", 0.4)
    (here / "data").mkdir()
    (here / "data" / NAMES[0]).write_bytes(hub.files[NAMES[0]])
    before = contents(here / "data")
    hub.silence = ("POST",)
    said = get(capsys)
    assert "no answer from" in said and all(fix in said for fix in FIXES)
    assert contents(here / "data") == before


def test_a_proxy_that_swallows_everything(here):
    """In a process of its own, because the library reads the proxy's name once."""
    code = "import sys; from core import cli; from core.data import fetch; fetch.SECONDS = 0.4; sys.exit(cli.run())"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {**os.environ, "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "HF_ENDPOINT": "http://hub.invalid"}
        environment |= {"NO_PROXY": "", "PYTHONPATH": str(Path(core.__file__).parent.parent)}
        done = subprocess.run(
            [sys.executable, "-c", code, "get", "hellaswag", "--out", "data"],
            capture_output=True, text=True, timeout=60, env=environment, check=False,
        )  # fmt: skip
    assert done.returncode == 6 and "no answer from http://hub.invalid within" in done.stderr
    assert all(fix in done.stderr for fix in FIXES) and not (here / "data").exists()


def test_a_network_that_is_off(here, capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")  # nobody listens there now
    said = get(capsys)
    assert f"http://127.0.0.1:{port}" in said and all(fix in said for fix in FIXES)
    assert not (here / "data").exists()


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_sign_in_page_in_place_of_the_hub(hub, here, capsys, method):
    hub.page, hub.page_for = b"<html>Welcome to the hotel's network</html>", (method,)
    (here / "data").mkdir()
    (here / "data" / NAMES[0]).write_bytes(hub.files[NAMES[0]])
    said = get(capsys)
    assert "a sign-in page?" in said and all(fix in said for fix in FIXES)
    assert (here / "data" / NAMES[0]).read_bytes() == hub.files[NAMES[0]]
    assert not any(b"hotel" in data for data in contents(here / "data").values())


def test_a_connection_that_falls_silent_half_way(hub, here, capsys, monkeypatch):
    hub.drop_after = 3000

    def silence_then(*arguments):
        if any("/resolve/" in path for _, path, _ in hub.asked):  # the file; what came before has the usual time
            hub.silence = ("GET",)
            monkeypatch.setattr(fetch, "SECONDS", 0.4)

    monkeypatch.setattr(loopback.Handler, "log_request", silence_then)
    said = get(capsys)
    assert "3,000 of 7,024 bytes are kept" in said and all(fix in said for fix in FIXES)
    hub.silence = ()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    command(capsys, "get", "fineweb", "--shards", 2, "--out", "data")
    assert {p.name: p.read_bytes() for p in (here / "data").glob("*.bin")} == hub.files


def test_bytes_that_change_on_the_way(hub, here, capsys):
    true = hub.describe(NAMES[0])
    hub.files[NAMES[0]] = b"\0" + hub.files[NAMES[0]][1:]
    hub.change = {"lfs": true["lfs"]}
    assert "the hub has" in get(capsys)
    assert not list((here / "data").glob("*.bin")) and not list((here / "data/.partial").iterdir())


def test_a_file_that_is_here_and_another(hub, here, capsys):
    (here / "data").mkdir()
    (here / "data" / NAMES[1]).write_bytes(b"my own notes")
    assert "it is unchanged" in get(capsys)
    assert contents(here / "data") == {Path(NAMES[1]): b"my own notes"}


def test_a_disk_without_room_for_a_download(hub, here, capsys, monkeypatch):
    usage = shutil.disk_usage(here)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage._replace(free=fetch.SPARE + 20_000))
    said = get(capsys)
    assert "21,072 bytes are missing" in said and not (here / "data").exists()


def test_a_hub_that_says_hostile_things(hub, here, capsys):
    for change in (
        {"lfs": {"oid": "../../../etc/x" + "0" * 50, "size": 1, "pointerSize": 1}},
        {"size": -5},
        {"size": "7"},
        {"path": "../elsewhere"},
        {"oid": None, "lfs": None},
        {"type": 3},
    ):
        hub.change = change
        said = get(capsys)
        assert "not as the hub does" in said or "has no fineweb" in said, change
    assert not (here / "data").exists()


# --- files from outside ------------------------------------------------------------------------------------------


def header_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(path, text, data):
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


LN_F, QKV = "transformer.ln_f.bias", "transformer.h.0.attn.c_attn.weight"


def hostile(change):
    def damage(path):
        header, data = header_of(path)
        with_header(path, json.dumps(change(header)).encode(), data)

    return damage


def twice(path):
    header, data = header_of(path)
    text = json.dumps(header)
    with_header(path, (text[:-1] + f', "{LN_F}": ' + json.dumps(header[LN_F]) + "}").encode(), data)


HOSTILE = {
    "a length beyond the file": (lambda p: p.write_bytes(struct.pack("<Q", 2**62) + b"{}"), "header claims"),
    "tensors over one another": (
        hostile(lambda h: {**h, LN_F: {**h[LN_F], "data_offsets": h["transformer.ln_f.weight"]["data_offsets"]}}),
        "starts at byte",
    ),
    "one name twice": (twice, f'"{LN_F}" is in the header twice'),
    "an unknown type": (hostile(lambda h: {**h, LN_F: {**h[LN_F], "dtype": "F7"}}), "has dtype 'F7'"),
    "a size of 2**61": (hostile(lambda h: {**h, LN_F: {**h[LN_F], "shape": [2**61, 8]}}), LN_F),
    "a missing tensor": (
        hostile(lambda h: {("other" if k == QKV else k): v for k, v in h.items()}),
        '"h.0.attn.c_attn.weight", for h.0.qkv.weight, is missing',
    ),
    "no JSON": (lambda p: with_header(p, b"[" * 100_000, b""), "not JSON"),
}


@pytest.mark.parametrize("damage, words", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_safetensors_file_in_a_folder_to_import(here, capsys, damage, words):
    folder = foreign.hf_folder(here / "hf")
    damage(folder / "model.safetensors")
    said = command(capsys, "import", folder, "out", code=7).err
    assert words in said and str(folder) in said
    assert not (here / "out").exists()


def test_an_llmc_file_that_was_cut_short(here, capsys):
    path = foreign.llmc_file(here / "m.bin")
    path.write_bytes(path.read_bytes()[:-100])
    assert "cut short" in command(capsys, "import", path, "out", code=7).err
    assert not (here / "out").exists()


# --- exports -----------------------------------------------------------------------------------------------------


def test_the_logits_of_an_export_are_those_of_the_checkpoint(imported, capsys):
    """The head is tied and the vocabulary padded: neither is lost, and neither comes back doubled."""
    tokens = foreign.make.batches(foreign.DIMS)[0]["tokens"]
    expected = core.load("imported").logits(tokens)
    for to, out in (("hf", "out"), ("llmc", "out.bin")):
        command(capsys, "export", "imported", "--to", to, "--out", out)
        np.testing.assert_array_equal(core.load(out).logits(tokens), expected)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


DAMAGE = {
    "a flipped bit": (lambda c: flip(c / checkpoint.MODEL), "sha256 is"),
    "a file that was cut short": (lambda c: (c / checkpoint.MODEL).write_bytes(b"12"), "2 bytes, expected"),
    "a file that is gone": (lambda c: (c / checkpoint.STATE).unlink(), "state.json: missing"),
    "a model.toml that was changed": (lambda c: flip(c / checkpoint.MODEL_TOML), "model.toml: sha256 is"),
    "no manifest": (lambda c: (c / checkpoint.MANIFEST).unlink(), "imported"),
}


@pytest.mark.parametrize("damage, words", DAMAGE.values(), ids=DAMAGE)
def test_an_invalid_checkpoint_is_neither_exported_nor_measured(imported, here, capsys, damage, words):
    damage(imported)
    before = sorted(here.iterdir())
    for verb in (("export", "imported", "--to", "hf", "--out", "out"), ("eval", "imported", "--data", "builtin")):
        assert words in command(capsys, *verb, code=7).err
    assert sorted(here.iterdir()) == before


def test_a_disk_that_refuses_in_the_middle_of_an_export_or_import(here, monkeypatch):
    """At every call of each writer: nothing of what was begun stays, and what was there is as it was."""
    registry = load_registry()
    opened = open_path(foreign.hf_folder(here / "hf"), registry)
    export = prepare(opened, registry, "f32", bytes_tokenizer)
    writers = {
        "folder": lambda out: export_huggingface.write(export, registry, out),
        "file": lambda out: export_llmc.write(export, registry, out),
        "checkpoint": lambda out: import_model(opened, registry, out, None),
    }
    before = sorted(here.rglob("*"))
    for name, write in writers.items():
        for turn in range(200):
            calls = iter(range(turn + 1))

            def refuse(call, path, calls=calls, turn=turn):
                if next(calls, None) == turn and not call.startswith(("remove", "unlink")):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

            monkeypatch.setattr(files, "POINT", refuse)
            try:
                write(here / name)
                break
            except CheckpointError as error:
                assert "No space left on device; the partial file was removed" in str(error)
            finally:
                monkeypatch.setattr(files, "POINT", lambda call, path: None)
            assert sorted(here.rglob("*")) == before
        assert turn > 5 and (here / name).exists()
        before = sorted(here.rglob("*"))
