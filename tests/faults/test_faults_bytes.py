"""Data is what it was: bits that flip, files that are replaced, cut or swapped, before, during and between runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run

from core.checkpoint.safetensors_file import write_tensors
from core.checkpoint.tensor_file import TensorFile
from core.data import TokenSource, digests, shards
from core.data.digests import BLOCK
from core.data.shard_writer import write_shards
from core.data.shards import FORMATS, HEADER_BYTES, json_sidecar, open_shard, sha256_sidecar
from core.errors import CheckpointError, DataError
from core.signals import Stop
from core.train.display import Display
from core.train.loop import Trainer
from core.train.run import read_lines
from core.train.setup import TrainArguments, prepare

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def here(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(digests, "FRESH_NS", -(10**15))  # as if every file were a day old
    return workdir


def config(data: str) -> None:
    small_run.write(Path(), small_run.unwatched(data={"train": data}, train={"steps": 4, "checkpoint_every": 2}))


def tokens(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 257, count).astype(np.uint16)


def shard(count: int = 4 * BLOCK // 2, seed: int = 0) -> Path:
    Path("d").mkdir(exist_ok=True)
    return write_shards([tokens(count, seed)], Path("d"), f"s{seed}", FORMATS[0], {})[0]


@pytest.fixture
def rotting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits that rot on a disk change no time of the file: here, neither does a write."""
    monkeypatch.setattr(digests, "mark_of", lambda path: [os.stat(path).st_size, 0, 0])
    monkeypatch.setattr("core.data.unchanged.mark_of", lambda path: [os.stat(path).st_size, 0, 0])


def overwrite(path: Path, at: int, data: bytes) -> None:
    """In place, with the times put back."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def drawn(source: TokenSource) -> Iterator[Any]:
    for step in range(source.sequences):
        yield tuple(source.batch(step).values())


@pytest.mark.parametrize("sidecars", ["both", "sha256 alone", "none"])
def test_bits_that_flip_are_seen_when_their_bytes_are_first_read(rotting: None, sidecars: str) -> None:
    path = shard()
    if sidecars != "both":
        json_sidecar(path).unlink()
    if sidecars == "none":
        sha256_sidecar(path).unlink()
    TokenSource([path], 1, 1024).describe()  # a run that saw it whole
    overwrite(path, HEADER_BYTES + 2 * BLOCK, b"\xff")
    source = TokenSource([path], 1, 1024)
    with pytest.raises(DataError, match=rf"bin: bytes {2 * BLOCK:,} to {3 * BLOCK:,} differ from their recorded"):
        list(drawn(source))


def test_bits_that_flipped_end_a_run_with_6(rotting: None) -> None:
    path = shard(count=1 << 16)
    config(str(path))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    status = path.stat()
    overwrite(path, 9000, b"A")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    command = [sys.executable, "-m", "core.cli", "train", "small.toml", "--device", "cpu", "--out", "a"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 6 and "s0_000000.bin" in done.stderr and "sha256" in done.stderr


def test_text_that_was_replaced_with_its_size_and_time_gives_its_own_tokens() -> None:
    config("text.txt")
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 9000)
    first = losses("a")
    status = Path("text.txt").stat()
    Path("text.txt").write_text("a slow green cat walks under an eager cow!!! " * 9000)
    os.utime("text.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert Path("text.txt").stat().st_size == status.st_size
    replaced = losses("b")
    os.environ["CORELM_CACHE"] = str(Path("fresh").absolute())
    assert replaced == losses("c") != first


def trainer(stack: ExitStack, out: str, **asked: Any) -> Trainer:
    return prepare(TrainArguments("small.toml", device="cpu", out=Path(out), **asked), Display(quiet=True), stack)


def losses(out: str) -> list[float]:
    with ExitStack() as stack:
        assert trainer(stack, out).train(Stop()) == 0
    return [m["loss"] for m in read_lines(Path(out, "metrics.jsonl"))]


def test_a_shard_that_shrinks_while_it_is_read_is_an_error_with_its_name() -> None:
    path = shard()
    source = TokenSource([path], 1, 1024)
    source.batch(0)
    os.truncate(path, 2000)
    with pytest.raises(DataError, match=r"s0_000000.bin: (ends at byte 2,000|bytes .* differ from their recorded)"):
        list(drawn(source))


def test_a_file_of_tensors_that_shrinks_is_an_error_with_its_name() -> None:
    write_tensors(Path("t.safetensors"), {"a": np.ones(1000, np.float32)}, {})
    opened = TensorFile(Path("t.safetensors"))
    os.truncate("t.safetensors", 300)
    with pytest.raises(CheckpointError, match='t.safetensors: tensor "a" cannot be read: the file ends within'):
        opened["a"]


@pytest.mark.parametrize("how", ["in place", "renamed over it"])
def test_a_shard_that_is_replaced_during_a_run_is_seen_by_its_next_epoch(how: str) -> None:
    path, other = shard(count=20 * 1024 + 1), shard(count=20 * 1024 + 1, seed=1)
    source = TokenSource([path], 1, 1024)
    for step in range(20):
        source.batch(step)
    if how == "in place":
        overwrite(path, HEADER_BYTES, other.read_bytes()[HEADER_BYTES:])
    else:
        os.replace(other, path)
    with pytest.raises(DataError, match="s0_000000.bin: changed during the run"):
        source.batch(20)


def test_a_shard_that_was_only_copied_back_during_a_run_is_the_same() -> None:
    path = shard(count=20 * 1024 + 1)
    source = TokenSource([path], 1, 1024)
    before = [source.batch(step)["tokens"].tolist() for step in range(20)]
    path.write_bytes(path.read_bytes())
    assert sorted(source.batch(step)["tokens"].tolist() for step in range(20, 40)) == sorted(before)


def test_a_change_of_one_byte_before_a_resume_is_seen() -> None:
    path = shard()
    sha256_sidecar(path).unlink()
    json_sidecar(path).unlink()
    config(str(path))
    with ExitStack() as stack:
        trainer(stack, "a").train(Stop())
    size = path.stat().st_size
    sampled = {(size - HEADER_BYTES - shards.SAMPLE_BYTES) * i // (shards.SAMPLES - 1) for i in range(shards.SAMPLES)}
    at = next(n for n in range(0, size, 8192) if all(abs(n - s) > shards.SAMPLE_BYTES for s in sampled))
    overwrite(path, HEADER_BYTES + at, bytes([path.read_bytes()[HEADER_BYTES + at] ^ 1]))
    with pytest.raises((DataError, CheckpointError), match="s0_000000.bin .* changed"), ExitStack() as stack:
        trainer(stack, "a", resume=True)


def test_more_shards_than_files_may_be_open_are_read_all_the_same() -> None:
    Path("d").mkdir()
    for seed in range(300):
        write_shards([tokens(2 * 16 + 1, seed)], Path("d"), f"s{seed:03}", FORMATS[0], {})
    config("d/*.bin")
    words = f'"{sys.executable}" -m core.cli train small.toml --device cpu --out a --set train.steps=20'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", f"ulimit -n 64; {words}"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-800:]


def test_the_sidecar_of_a_shard_has_a_digest_of_each_mib() -> None:
    path = shard()
    found = shards.recorded_digests(path)
    assert found is not None and found == digests.read_digests(path) and len(found.blocks) == 5
    assert open_shard(path).digests() == found
