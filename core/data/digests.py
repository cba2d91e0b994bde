"""Digests of files: of the whole and of each MiB, remembered while a file's size and time stamps stay the same.

Bits that flip on a disk change no time stamp, so that a remembered digest describes the file of that time, and not the
bytes of a read now: `Blocks` compares each MiB with its digest when it is first read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core import signals
from core.cache import cache_folder, read_json, used
from core.outside import named, open_file

BLOCK = 1 << 20  # bytes that have a digest of their own
WORTH_REMEMBERING = 1 << 18  # bytes of a file: a smaller one is hashed again in less time than an entry takes to read
FRESH_NS = 2_000_000_000  # a file changed this recently may change again without a new time stamp


@dataclass(frozen=True)
class Digests:
    """sha256 of a file and of each of its blocks, in hexadecimal."""

    sha256: str
    blocks: tuple[str, ...]


def mark_of(path: str | os.PathLike[str] | int) -> list[int]:
    """The size, times and inode of a file, which change whenever it is written or replaced: no program sets the inode
    or the
    change time."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def read_digests(path: Path) -> Digests:
    """The digests of a file's contents, read now. OSError passes."""
    whole, blocks = hashlib.sha256(), []
    with named(path), open_file(path) as file:
        while block := file.read(BLOCK):
            signals.check()
            whole.update(block)
            blocks.append(block_digest(block))
    return Digests(whole.hexdigest(), tuple(blocks))


def block_digest(block: bytes | memoryview) -> str:
    return hashlib.sha256(block).hexdigest()


def file_digests(path: Path) -> Digests:
    """The digests of a file, remembered by its path, size, times and inode. OSError passes."""
    mark = mark_of(path)
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    entry = cache_folder() / "digests" / f"{name}.json"
    entry_value = read_json(entry) if mark[0] >= WORTH_REMEMBERING else None
    if isinstance(entry_value, dict) and entry_value.get("mark") == mark:
        with contextlib.suppress(KeyError, TypeError):
            used(entry)
            return Digests(str(entry_value["sha256"]), tuple(str(block) for block in entry_value["blocks"]))
    digests = read_digests(path)
    if mark[0] >= WORTH_REMEMBERING and time.time_ns() - max(mark[1:3]) > FRESH_NS and mark_of(path) == mark:
        from core.cache.writing import try_write  # a file is hashed once

        try_write(entry, json.dumps({"mark": mark, "sha256": digests.sha256, "blocks": digests.blocks}).encode())
    return digests


def file_sha256(path: Path) -> str:
    """The sha256 of a file's contents, remembered as `file_digests` does."""
    return file_digests(path).sha256


class Blocks:
    """The blocks of a file that were read and agreed with their digests."""

    def __init__(self, digests: Sequence[str]) -> None:
        self.digests = digests
        self._seen = bytearray(len(digests))

    def check(self, read: Callable[[int, int], bytes], start: int, stop: int) -> int | None:
        """Compare the blocks that hold bytes start .. stop and were not compared before; read(start, count) gives
        bytes of the file. The first block that differs, or None."""
        for number in range(start // BLOCK, -(-stop // BLOCK)):
            if self._seen[number]:
                continue
            if block_digest(read(number * BLOCK, BLOCK)) != self.digests[number]:
                return number
            self._seen[number] = 1
        return None
