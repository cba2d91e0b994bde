"""The last pass: lifetimes to offsets in the arena, largest first."""

from __future__ import annotations

from core.plan.buffers import Buffer


def place(buffers: list[Buffer]) -> int:
    """Give each buffer an offset so that no two that live at once overlap; the bytes needed in all."""
    placed: list[Buffer] = []
    total = 0
    for buffer in sorted(buffers, key=lambda b: (-b.nbytes, b.first, b.name)):
        together = [p for p in placed if p.first <= buffer.last and buffer.first <= p.last]
        offset = 0
        for other in sorted(together, key=lambda p: p.offset):
            if offset + buffer.nbytes <= other.offset:
                break
            offset = max(offset, other.offset + other.nbytes)
        buffer.offset = offset
        total = max(total, offset + buffer.nbytes)
        placed.append(buffer)
    return total
