"""Checkpoints that several ranks write together: kills, disks that refuse, and damage that is read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked_ranks import GONE, on_ranks

from core import checkpoint, files
from core.checkpoint import Contents
from core.checkpoint.safetensors_file import write_tensors
from core.errors import CheckpointError, UsageError
from core.ranks.group import Ranks
from core.train.saving_on_ranks import save_on_ranks
from core.train.shared_folder import check_shared

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are forked and killed as POSIX has it")
RANKS = 2
CUT = 57  # of the elements of a.weight


def values(step: int) -> dict[str, Any]:
    weights = np.arange(120, dtype=np.float32).reshape(40, 3) + step
    return {"a.weight": weights, "b": np.full(7, step, np.float32)}


def save(ranks: Ranks, folder: Path, step: int) -> Path:
    """A checkpoint in which the slice of rank 0 ends within a.weight."""
    a, b = values(step).values()
    first, last = ((0, CUT), (CUT, 120))[ranks.rank]
    moments = {s: {"a.weight": a.reshape(-1)[first:last] * n} for n, s in ((2, "m"), (3, "v"))}
    if ranks.rank:
        moments = {s: {**held, "b": b * n} for n, (s, held) in zip((2, 3), moments.items(), strict=True)}
    contents = Contents(values(step), moments, "name = 'tiny'\n", None, {"step": step, "best_step": None})
    return save_on_ranks(ranks, {"a.weight": (first, last)}, None, folder, step, contents)


def assert_is(found: checkpoint.Checkpoint, step: int) -> None:
    assert found.step == step
    for name, array in values(step).items():
        np.testing.assert_array_equal(found.parameters[name], array)
        for factor, state in ((2, "m"), (3, "v")):
            np.testing.assert_array_equal(found.optimizer[state][name], array * factor)


def at_call(number: int, do: Callable[[], object], seen: list[str]) -> None:
    """Have `do` done before the call of that number."""

    def point(call: str, path: Path) -> None:
        seen.append(call)
        if len(seen) == number + 1:
            do()

    files.POINT = point


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoints"
    path.mkdir(parents=True)
    assert on_ranks(RANKS, lambda ranks: save(ranks, path, 1)) == [0, 0]
    assert_is(checkpoint.find(path), 1)
    return path


def calls_of_a_save(folder: Path) -> list[int]:
    """How many calls each rank makes."""
    other = folder.parent.parent / "other" / "checkpoints"
    other.mkdir(parents=True)

    def count(ranks: Ranks) -> None:
        seen: list[str] = []
        at_call(-1, lambda: None, seen)
        save(ranks, other, 2)
        (other / f"{ranks.rank}").write_text(str(len(seen)))

    assert on_ranks(RANKS, count) == [0, 0]
    return [int((other / f"{rank}").read_text()) for rank in range(RANKS)]


def test_kill_9_of_any_rank_at_any_call_of_a_save_leaves_the_one_before_whole(folder: Path) -> None:
    counts = calls_of_a_save(folder)
    assert counts[0] > 15 and counts[1] >= 3
    for victim, count in enumerate(counts):
        for number in range(count):

            def work(ranks: Ranks, victim: int = victim, number: int = number) -> None:
                if ranks.rank == victim:
                    at_call(number, lambda: os.kill(os.getpid(), signal.SIGKILL), [])
                save(ranks, folder, 2)

            codes = on_ranks(RANKS, work)
            assert codes[victim] == -signal.SIGKILL and codes[1 - victim] in (0, GONE), (victim, number)
            assert_is(checkpoint.load(folder / "step_00000001"), 1)
            newest, problems = checkpoint.newest(folder)
            assert newest is not None and not problems
            assert_is(newest, newest.step)
    checkpoint.sweep(folder)
    assert on_ranks(RANKS, lambda ranks: save(ranks, folder, 2)) == [0, 0]
    assert_is(checkpoint.find(folder), 2) and not list(folder.glob(".*"))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_disk_that_refuses_one_rank_is_said_by_all_and_nothing_is_left(folder: Path, victim: int) -> None:
    def work(ranks: Ranks, number: int) -> None:
        def fail() -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        if ranks.rank == victim:
            at_call(number, fail, [])
        with pytest.raises(CheckpointError, match=f"No space left on device .rank {victim} of 2 on ") as refused:
            save(ranks, folder, 2)
        assert "earlier checkpoints are unchanged" in refused.value.hint

    for number in range(0, calls_of_a_save(folder)[victim], 3):
        assert on_ranks(RANKS, lambda ranks, number=number: work(ranks, number)) == [0, 0], number
        assert not list(folder.glob(".*"))
        assert_is(checkpoint.load(folder / "step_00000001"), 1)


@pytest.mark.parametrize("stranger", [None, 1, 2])
def test_a_host_that_does_not_see_the_folder_is_named_on_every_rank(tmp_path: Path, stranger: int | None) -> None:
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()

    def work(ranks: Ranks) -> None:
        path = tmp_path / ("other" if ranks.rank == stranger else "ours")
        if stranger is None:
            return check_shared(path, ranks)
        with pytest.raises(UsageError, match=f"rank {stranger} on {socket.gethostname()}.*not the folder of rank 0"):
            check_shared(path, ranks)
        return None

    assert on_ranks(3, work) == [0, 0, 0]
    assert not list(tmp_path.glob("*/*"))


def test_a_rank_that_may_not_write_there_is_named(tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        def fail() -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        if ranks.rank == 1:
            at_call(0, fail, [])
        with pytest.raises(UsageError, match="rank 1 on .*cannot be written: Read-only file system"):
            check_shared(tmp_path, ranks)

    assert on_ranks(2, work) == [0, 0] and not list(tmp_path.iterdir())


SHARDS = [f"optimizer-0000{n}-of-00002.safetensors" for n in (1, 2)]
M, V, B = "m.a.weight", "v.a.weight", "m.b"
DAMAGE: dict[str, tuple[int, Callable[[dict[str, Any], dict[str, str]], Any], str]] = {
    "a part that is missing": (1, lambda t, r: t.pop(M), "ends at element 57, and its parameter has 120"),
    "a first part that is missing": (0, lambda t, r: t.pop(M), "begins at element 57, expected 0"),
    "a range of other elements": (1, lambda t, r: r.update({M: "60:120"}), "the range '60:120'"),
    "a range that is no range": (0, lambda t, r: r.update({V: "0-57"}), "expected first:last"),
    "a range that overlaps": (1, lambda t, r: r.update({M: "56:119"}), "begins at element 56, expected 57"),
    "a part without a range": (0, lambda t, r: r.pop(M), r"has shape \[57\], and its parameter has \[40, 3\]"),
    "a tensor of no parameter": (1, lambda t, r: t.update({"m.c": t[B]}), "of no parameter of the model"),
    "a name without a state": (1, lambda t, r: t.update({"c": t[B]}), "not named <state>.<parameter>"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_files_of_ranks_that_do_not_make_up_the_state_are_refused(folder: Path, what: str) -> None:
    which, change, said = DAMAGE[what]
    path = folder / "step_00000001"
    held = checkpoint.load(path).files[1 + which]
    tensors, metadata = {name: np.array(held[name]) for name in held}, dict(held.metadata)
    change(tensors, metadata)
    (path / SHARDS[which]).unlink()
    write_tensors(path / SHARDS[which], tensors, metadata)
    sealed(path)
    with pytest.raises(CheckpointError, match=said) as refused:
        checkpoint.load(path)
    assert "optimizer-0000" in refused.value.message


def sealed(path: Path) -> None:
    listed = {p.name: p.read_bytes() for p in path.iterdir() if p.name != checkpoint.MANIFEST}
    entries = {n: {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)} for n, raw in listed.items()}
    (path / checkpoint.MANIFEST).write_text(json.dumps({"format": 2, "files": entries}))


def test_a_manifest_lists_the_files_of_all_ranks_of_one_save(folder: Path) -> None:
    path = folder / "step_00000001"
    raw = (path / SHARDS[1]).read_bytes()
    (path / SHARDS[1]).unlink()
    with pytest.raises(CheckpointError, match=rf"{SHARDS[1]}: missing, expected"):
        checkpoint.load(path)
    (path / SHARDS[1]).write_bytes(raw)
    checkpoint.load(path)
    (path / SHARDS[0]).rename(path / "optimizer-00001-of-00003.safetensors")
    sealed(path)
    with pytest.raises(CheckpointError, match="are not all files of one save"):
        checkpoint.load(path)
