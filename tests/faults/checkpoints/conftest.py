"""Fixtures of the faults of checkpoints: shards, an unbroken run, a folder with a checkpoint, a fault at a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoint_runs import contents, settle, started_quickly, train

from core import checkpoint, files
from core.data.shard_writer import write_shards
from core.data.shards import format_for
from core.tokenizers.byte_pairs import bytes_tokenizer
from core.train.run import read_lines


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of six sequences to train on, and one to validate on."""
    folder = tmp_path_factory.mktemp("shards")
    tokens = np.random.default_rng(0).integers(0, 57, 6 * 16 * 3 + 3).astype(np.uint16)
    record = {"tokenizer": bytes_tokenizer().record()}
    write_shards([tokens], folder, "train", format_for(257), record, shard_tokens=6 * 16 + 1)
    write_shards([tokens[:50] + np.uint16(200)], folder, "val", format_for(257), record)  # worse with every step
    assert len(list(folder.glob("train_*.bin"))) == 3
    return folder


@pytest.fixture(scope="module", autouse=True)
def prepared_quickly() -> Iterator[None]:
    with started_quickly():
        yield


@pytest.fixture
def here(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a config and shards; the cache is here too."""
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    settle(tmp_path, shards)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A run of 12 steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    settle(folder, shards)
    with started_quickly(), pytest.MonkeyPatch.context() as patched:
        patched.setenv("CORELM_CACHE", str(folder / "cache"))
        patched.chdir(folder)
        assert train(out=Path("run")) == 0
    losses = [line["val_loss"] for line in read_lines(folder / "run/metrics.jsonl") if "val_loss" in line]
    assert min(losses) < losses[-1], "a resume that forgets the best validation would not be seen"
    return folder / "run"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The checkpoints of a run that has one."""
    path = tmp_path / "run" / "checkpoints"
    path.mkdir(parents=True)
    checkpoint.save(path, 1, contents(1))
    return path


@pytest.fixture
def at_call(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, Callable[[], None]], None]]:
    """at_call(n, do): `do` happens instead of the nth file-system call from now, n = 0 the first."""

    def settled(number: int, do: Callable[[], None]) -> None:
        seen = iter(range(10**6))

        def point(call: str, path: Path) -> None:
            if next(seen) == number:
                do()

        monkeypatch.setattr(files, "POINT", point)

    yield settled
