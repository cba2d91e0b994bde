"""core.outside: files that others made are read within limits, in memory of their size."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UsageError
from core.outside import PART, read_utf8, read_whole


def test_a_limit_far_above_a_file_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "few"
    file.write_bytes(b"few bytes")
    assert read_whole(file, 1 << 50) == b"few bytes"


def test_a_file_of_several_parts_is_read_whole_up_to_the_limit_and_refused_above_it(tmp_path: Path) -> None:
    file, contents = tmp_path / "many", bytes(range(256)) * (PART // 256) + b"end"
    file.write_bytes(contents)
    assert read_whole(file, len(contents)) == contents
    with pytest.raises(OSError, match="larger than"):
        read_whole(file, len(contents) - 1)


def test_text_that_is_not_utf8_is_refused_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("é = 1", "utf-8")
    assert read_utf8(UsageError, path) == "é = 1"
    path.write_bytes(b"\xe9 = 1")
    with pytest.raises(UsageError, match=r"page\.md: not UTF-8") as caught:
        read_utf8(UsageError, path)
    assert caught.value.hint == "save it as UTF-8"
    with pytest.raises(UsageError, match="larger than 2 bytes"):
        read_utf8(UsageError, path, 2)
