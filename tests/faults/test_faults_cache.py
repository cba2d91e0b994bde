"""The cache is bounded by bytes, entries and age, and swept beside the processes that use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import small_run

from core import cache
from core.cache import writing
from core.data.shards import Shard
from core.data.text_files import text_document
from core.data.text_pieces import token_pieces
from core.tokenizers.byte_pairs import bytes_tokenizer

ROOT = Path(__file__).resolve().parents[2]
DAY = 86400
CONFIG = small_run.unwatched(train={"steps": 30, "checkpoint_every": 30})


@pytest.fixture(autouse=True)
def here(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORELM_CACHE_LIMIT", "1")
    monkeypatch.setattr(writing, "_written", 0)
    (workdir / "cache" / "machine").unlink()  # the other tests', not to be swept
    return workdir


def entry(name: str, kib: int = 4, days: float = 0.0) -> Path:
    """A file of the cache, or the file of a folder where the name has two parts behind `tokens`."""
    path = Path("cache", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(kib << 10))
    used = time.time() - days * DAY
    for touched in (path, path.parent) if name.startswith("tokens/") else (path,):
        os.utime(touched, (used, used))
    return path


def test_beyond_the_limit_what_was_not_used_for_longest_is_removed() -> None:
    kernels = [entry(f"kernels/{i}.bin", 190, days=i + 1) for i in range(3)]
    tokens = [entry(f"tokens/{i}/tokens_000000.bin", 300, days=10 + i) for i in range(3)]
    verdicts = entry("checks.json", 4000, days=400)
    assert writing.sweep() > 0
    assert [path.exists() for path in kernels] == [True] * 3
    assert [path.exists() for path in tokens] == [True, False, False], "the folder goes whole"
    assert not Path("cache/tokens/2").exists() and verdicts.exists(), "what cannot be made again stays"
    assert writing.sweep() == 0


def test_entries_of_half_a_year_and_what_killed_processes_left_are_removed() -> None:
    old, new = entry("digests/a.json", days=181), entry("digests/b.json", days=179)
    left, fresh = entry("tokens/.staged-1-a/x.bin", days=2), entry("tokens/.staged-1-b/x.bin")
    writing.sweep()
    assert not old.exists() and new.exists()
    assert not left.parent.exists() and fresh.exists()


def test_more_entries_than_the_bound_are_swept_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_ENTRIES", 16)
    paths = [entry(f"digests/{i:02}.json", days=40 - i) for i in range(20)]
    writing.sweep()
    assert [path.exists() for path in paths] == [False] * 6 + [True] * 14


def test_a_link_in_the_cache_is_removed_and_what_it_leads_to_stays() -> None:
    Path("mine").mkdir()
    Path("mine/x").write_bytes(os.urandom(2 << 20))
    Path("cache/tokens").mkdir(parents=True)
    os.symlink(Path("mine").absolute(), "cache/tokens/a")
    os.symlink(Path("mine/x").absolute(), "cache/tokens/b")
    for i in range(8):
        entry(f"kernels/{i}.bin", 200)
    writing.sweep()
    assert Path("mine/x").stat().st_size == 2 << 20


def test_a_use_makes_an_entry_the_newest() -> None:
    first, second = entry("kernels/a.bin", 600, days=9), entry("kernels/b.bin", 600, days=8)
    cache.used(first)
    writing.sweep()
    assert first.exists() and not second.exists()


def test_a_folder_that_a_process_holds_is_not_swept() -> None:
    held, free = entry("tokens/a/x.bin", 2000, days=300), entry("tokens/b/x.bin", 2000, days=300)
    script = f"from core import cache; print(cache.hold(cache.Path({str(held.parent)!r})), flush=True); input()"
    words = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        writing.sweep()
        assert held.exists() and not free.parent.exists()
        other.kill()
    os.utime(held.parent / cache.USED, (0, 0))
    for path in (held, held.parent):
        os.utime(path, (0, 0))
    writing.sweep()
    assert not held.parent.exists(), "a lock ends with its process"
    assert not cache.hold(held.parent)


def test_a_tiny_limit_and_a_sweep_at_every_moment_break_no_run(here: Path) -> None:
    """Two runs with texts of their own, while another process sweeps without pause."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = []
    for name in ("a", "b"):
        Path(name).mkdir()
        Path(name, "small.toml").write_text(CONFIG)
        Path(name, "text.txt").write_text(f"the quick brown {name} jumps over the lazy dog. " * 30_000)
    ended = threading.Event()

    def sweeping() -> None:
        while not ended.is_set():
            writing.sweep()
            time.sleep(0.002)

    thread = threading.Thread(target=sweeping)
    thread.start()
    try:
        words = [sys.executable, "-m", "core.cli", "train", "small.toml", "--device", "cpu", "--out", "r"]
        runs = [
            subprocess.Popen(words, cwd=n, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for n in ("a", "b")
        ]
        for run in runs:
            _, said = run.communicate(timeout=300)
            assert run.returncode == 0, said.decode()[-800:]
    finally:
        ended.set()
        thread.join()
    for name in ("a", "b"):
        lines = [json.loads(line) for line in Path(name, "r/metrics.jsonl").read_text().splitlines()]
        assert len(lines) == 30 and lines[-1]["loss"] < lines[0]["loss"]


def test_tokens_that_were_swept_are_made_again() -> None:
    Path("text.txt").write_text("the quick brown fox. " * 2000)
    tokenizer, notes = bytes_tokenizer(), list[str]()

    def pieces() -> list[int]:
        made = token_pieces([text_document(Path("text.txt"), notes)], tokenizer, notes, None, "train")
        assert all(isinstance(piece, Shard) for piece in made)
        return [int(n) for piece in made for n in piece.open()[0:5]]

    first = pieces()
    (folder,) = Path("cache/tokens").iterdir()
    assert (folder / cache.USED).exists()
    writing._remove(writing.CacheEntry(folder, True, 0, 0.0))
    assert folder.exists(), "this process holds it"
    for mark in cache._held.values():
        os.close(mark)
    cache._held.clear()
    assert writing._remove(writing.CacheEntry(folder, True, 0, 0.0)) and not folder.exists()
    assert pieces() == first and notes == []
