"""Operating-system calls that fail, or at which the process is killed, from the entry point's first line to the end.

A spread sample; `python tests/os_calls.py` goes through all calls.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import os_calls  # noqa: E402
from traced_calls import AVAILABLE, Where  # noqa: E402

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="ptrace of Linux on x86-64")

# what is done -> where, the error (0: a kill), the exit code
SAMPLE = {
    "no descriptor for the signals": (Where("pipe2"), errno.EMFILE, 3),
    "a module that cannot be read": (Where("read", r"core/graph/padding\.py"), errno.EIO, 2),
    "a source of a variant that cannot be looked at": (Where("fstatat", r"ops/cpu/matmul\.py$", 8), errno.EIO, 2),
    "no thread": (Where("clone3", nth=1), errno.EAGAIN, 4),
    "text that cannot be opened": (Where("openat", r"text\.txt$", 1), errno.EIO, 6),
    "a shard that cannot be sought in": (Where("lseek", r"shards_val_000000\.bin$", 4), errno.EIO, 6),
    "a read that a signal interrupts": (Where("read", r"text\.txt$"), errno.EINTR, 0),
    "a checkpoint that cannot be looked at after a save": (Where("openat", r"a/checkpoints$", 5), errno.EIO, 0),
    "LATEST that cannot be written": (Where("write", r"LATEST"), errno.ENOSPC, 7),
    "a kill while tokens are cached": (Where("rename", r"staged"), 0, -9),
    "a kill while the run's folder is made": (Where("openat", r"a/LOCK$"), 0, -9),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calls") / "template"
    folder.mkdir()
    os_calls.prepare(folder, begun=False)
    return folder


@pytest.mark.parametrize("what", SAMPLE)
def test_a_call_that_fails_or_kills_ends_in_order_and_a_second_start_gives_the_same_bits(
    template: Path, tmp_path: Path, what: str
) -> None:
    where, error, code = SAMPLE[what]
    done, wrong = os_calls.judge(template, tmp_path / "try", "train", where, error)
    assert not wrong and done.at is not None, f"{done.at}: {wrong}"
    assert done.code == code, done.said
