"""What checkpoints promise: whole or not there, read by others, believed only when every byte is right."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from core import checkpoint
from core.checkpoint import Contents
from core.checkpoint.safetensors_file import write_tensors
from core.checkpoint.tensor_file import TensorFile
from core.errors import CheckpointError

RNG = np.random.default_rng(0)
TENSORS = {
    "wte.weight": RNG.standard_normal((7, 5)).astype(np.float32),
    "h.0.weight": RNG.standard_normal((3, 4, 2)),
    "ids": np.arange(6, dtype=np.int32),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
}


def contents(step: int) -> Contents:
    """Something else at every step."""
    weights = {"a.weight": np.full((40, 3), step, np.float32), "b": np.arange(step + 1, dtype=np.float32)}
    moments = {"m": {n: w + 1 for n, w in weights.items()}, "v": {n: w + 2 for n, w in weights.items()}}
    state = {"step": step, "seed": 1, "best_val": 0.1}
    return Contents(weights, moments, "name = 'tiny'\n", '{"kind": "bytes"}', state)


def assert_is(found: checkpoint.Checkpoint, step: int) -> None:
    want = contents(step)
    assert found.step == step and found.state["best_val"] == 0.1
    assert found.model_toml == want.model_toml and found.tokenizer_json == want.tokenizer_json
    assert list(found.parameters) == list(want.parameters)
    for name, array in want.parameters.items():
        np.testing.assert_array_equal(found.parameters[name], array)
        for state, tensors in want.optimizer.items():
            np.testing.assert_array_equal(found.optimizer[state][name], tensors[name])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoints"
    path.mkdir(parents=True)
    return path


# --- the file format -------------------------------------------------------------------------------------------


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    digest = write_tensors(tmp_path / "a.safetensors", TENSORS, {"format": "corelm"})
    assert digest == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    found = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert set(found) == set(TENSORS)
    for name, array in TENSORS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    safetensors.numpy.save_file(TENSORS, tmp_path / "a.safetensors", metadata={"who": "library"})
    found = TensorFile(tmp_path / "a.safetensors")
    assert found.metadata == {"who": "library"}
    for name, array in TENSORS.items():
        assert found[name].dtype == array.dtype and found.shapes[name] == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_bf16_is_widened_to_the_same_values(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5], [3.140625, 0.0]], np.float32)  # each has a bf16
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    header = {"x": entry(shape=[2, 2], dtype="BF16")}
    (tmp_path / "a.safetensors").write_bytes(with_header(header, bits.tobytes()))
    np.testing.assert_array_equal(TensorFile(tmp_path / "a.safetensors")["x"], values)


def test_views_with_gaps_are_written_as_their_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.checkpoint.safetensors_file.CHUNK", 64)  # several chunks a tensor
    padded = RNG.standard_normal((50, 9)).astype(np.float32)
    views = {"columns": padded[:, :7], "rows": padded[:33], "turned": padded.T, "swapped": padded.astype(">f4")}
    write_tensors(tmp_path / "a", views, {})
    found = safetensors.numpy.load_file(tmp_path / "a")
    for name, array in views.items():
        np.testing.assert_array_equal(found[name], array)


def with_header(header: object, data: bytes = b"\0" * 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int = 0, end: int = 8, shape: object = (2,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HOSTILE = {
    "too short": b"\x01\x02",
    "huge length": struct.pack("<Q", 2**62) + b"{}",
    "not JSON": with_header(b"{not json"),
    "not an object": with_header([1]),
    "deep nesting": with_header(b"[" * 100_000),
    "overlap": with_header({"x": entry(), "y": entry(4, 12)}, b"\0" * 12),
    "gap": with_header({"x": entry(), "y": entry(12, 20)}, b"\0" * 20),
    "duplicate": with_header(b'{"x":' + json.dumps(entry()).encode() + b',"x":' + json.dumps(entry()).encode() + b"}"),
    "unknown dtype": with_header({"x": entry(dtype="PICKLE")}),
    "wrong size": with_header({"x": entry(shape=[3])}),
    "overflowing shape": with_header({"x": entry(shape=[2**61, 2**61])}),
    "negative shape": with_header({"x": entry(shape=[-1, -2])}),
    "boolean shape": with_header({"x": entry(shape=[True, 2])}),
    "reversed offsets": with_header({"x": entry(8, 0)}),
    "cut short": with_header({"x": entry(0, 400, [100])}),
    "extended": with_header({"x": entry()}, b"\0" * 9),
    "metadata not text": with_header({"__metadata__": {"a": 1}, "x": entry()}),
    "extra key": with_header({"x": {**entry(), "code": "1"}}),
    "pickle": pickle.dumps({"x": 1}) + b"\0" * 64,
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused_with_its_name(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "evil.safetensors").write_bytes(raw)
    with pytest.raises(CheckpointError, match="evil.safetensors: not a valid safetensors file"):
        TensorFile(tmp_path / "evil.safetensors")


# --- saving and loading ----------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_was(folder: Path) -> None:
    path = checkpoint.save(folder, 3, contents(3))
    assert path.name == "step_00000003"
    assert {p.name for p in path.iterdir()} == {
        "model.safetensors",
        "optimizer.safetensors",
        "model.toml",
        "tokenizer.json",
        "state.json",
        "manifest.json",
    }
    assert (folder.parent / "LATEST").read_text() == "step_00000003\n"
    for where in (path, folder, folder.parent):
        assert_is(checkpoint.find(where), 3)


def test_file_modes_follow_the_umask(folder: Path) -> None:
    plain = folder / "plain"
    plain.write_text("x")
    path = checkpoint.save(folder, 1, contents(1))
    assert {p.stat().st_mode for p in path.iterdir()} == {plain.stat().st_mode}


def damage(path: Path, how: str) -> None:
    raw = bytearray(path.read_bytes())
    if how == "flip":
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    elif how == "cut":
        path.write_bytes(raw[:-2])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
@pytest.mark.parametrize("name", [*checkpoint.REQUIRED, checkpoint.TOKENIZER, checkpoint.MANIFEST])
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_found(folder: Path, name: str, how: str) -> None:
    checkpoint.save(folder, 1, contents(1))
    path = checkpoint.save(folder, 2, contents(2))
    damage(path / name, how)
    if (name, how) != (checkpoint.MANIFEST, "flip"):  # a flipped bit there shows as another file's hash or name
        with pytest.raises(CheckpointError, match=name):
            checkpoint.load(path)
    with pytest.raises(CheckpointError):
        checkpoint.find(path)
    found, problems = checkpoint.newest(folder)
    assert found is not None and len(problems) == 1 and "step_00000002" in problems[0]
    assert_is(found, 1)


def test_saving_a_step_again_keeps_a_valid_one_and_replaces_a_damaged_one(folder: Path) -> None:
    path = checkpoint.save(folder, 1, contents(1))
    before = (path / "model.safetensors").stat().st_ino
    checkpoint.save(folder, 1, contents(1))
    assert (path / "model.safetensors").stat().st_ino == before
    damage(path / "model.safetensors", "flip")
    checkpoint.save(folder, 1, contents(1))
    assert_is(checkpoint.load(path), 1)


def test_retention_keeps_the_newest_and_the_periodic_and_always_the_last_saved(folder: Path) -> None:
    for step in range(1, 8):
        checkpoint.save(folder, step, contents(step))
    checkpoint.retain(folder, 7, keep_last=2, keep_every=3)
    assert checkpoint.steps(folder) == [7, 6, 3]
    checkpoint.retain(folder, 7, keep_last=0, keep_every=0)
    assert checkpoint.steps(folder) == [7]
    assert not list(folder.glob(".*"))


def test_retention_does_not_count_later_steps_that_a_resume_fell_back_from(folder: Path) -> None:
    for step in (4, 8):
        checkpoint.save(folder, step, contents(step))
    damage(folder / "step_00000008" / "model.safetensors", "flip")
    checkpoint.save(folder, 6, contents(6))
    checkpoint.retain(folder, 6, keep_last=1, keep_every=0)
    assert checkpoint.steps(folder) == [8, 6]
    with pytest.warns(checkpoint.CheckpointWarning, match="step_00000008.*step_00000006 is taken instead"):
        assert_is(checkpoint.find(folder), 6)


def test_a_manifest_cannot_name_files_outside(folder: Path) -> None:
    path = checkpoint.save(folder, 1, contents(1))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../../LATEST"] = {"sha256": "0" * 64, "bytes": 1}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="not one of a checkpoint's files"):
        checkpoint.load(path)


@pytest.mark.parametrize("what", ["absent", "file", "empty"])
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x"
    if what == "file":
        path.write_bytes(pickle.dumps([1]))
    elif what == "empty":
        path.mkdir()
    with pytest.raises(CheckpointError, match="x: "):
        checkpoint.find(path)
