"""The last pass: lifetimes to offsets in the arena, largest first."""

from __future__ import annotations

from bisect import insort

from core.plan.buffers import Buffer


def place(buffers: list[Buffer]) -> int:
    """Give each buffer an offset so that no two that live at once overlap; the bytes needed in all."""
    placed: list[tuple[int, int, int, int]] = []  # (offset, end, first and last step) of each, by offset
    total = 0
    for buffer in sorted(buffers, key=lambda b: (-b.nbytes, b.first, b.name)):
        size, offset = buffer.nbytes, 0
        for start, end, first, last in placed:
            if first > buffer.last or buffer.first > last:
                continue
            if offset + size <= start:
                break
            offset = max(offset, end)
        buffer.offset = offset
        total = max(total, offset + size)
        insort(placed, (offset, offset + size, buffer.first, buffer.last))
    return total
