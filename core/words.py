"""Numbers and tables as text: bytes, counts, durations, shares, milliseconds, aligned columns. Prints nothing.

>>> human(1.5 * 2**30), count(61_234), duration(88), percent(0.452), ms(0.0012)
('1.5 GiB', '61k', '1m28s', '45.2%', '1.200')
>>> table(("op", "times"), [["gelu", 12], ["matmul", 1_000]])
['op      times', 'gelu       12', 'matmul  1,000']
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any


def human(nbytes: float) -> str:
    """Bytes in the largest binary unit that leaves a number of at least 1: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"


def count(n: float) -> str:
    """197, 9,876, 61k, 1,735k."""
    return f"{n:,.0f}" if n < 10_000 else f"{n / 1000:,.0f}k"


def duration(seconds: float) -> str:
    """7s, 1m28s, 1h28m, 2d03h."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def ms(seconds: float) -> str:
    """Milliseconds with three decimals, without the unit."""
    return f"{1e3 * seconds:.3f}"


def percent(share: float | None) -> str:
    """45.2% of a share of 0.452; n/a for None."""
    return "n/a" if share is None else f"{100 * share:.1f}%"


def printable(text: str) -> str:
    """Text of a model without control characters: they could move a terminal's cursor or worse."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def cell(value: Any) -> str:
    """A table's cell: integers with commas, anything else as `str` writes it."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(
    header: Sequence[Any] | None,
    rows: Sequence[Sequence[Any]],
    right: Collection[int] | None = None,
    indent: str = "",
) -> list[str]:
    """Lines of a table, header (if any) first, columns two blanks apart.

    right: indices of the columns that are aligned to the right; by default those that hold numbers alone.
    """
    columns = range(len(header if header is not None else rows[0]))
    if right is None:
        right = [i for i in columns if rows and all(isinstance(row[i], int | float) for row in rows)]
    cells = [[cell(value) for value in row] for row in (*([] if header is None else [header]), *rows)]
    widths = [max(len(line[i]) for line in cells) for i in columns]
    return [
        (indent + "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(pairs))).rstrip()
        for pairs in ([*zip(line, widths, strict=True)] for line in cells)
    ]


def extent(sizes: Sequence[int]) -> str:
    """32x4 for (32, 4, 1)."""
    last = max((i for i, n in enumerate(sizes) if n > 1), default=0)
    return "x".join(str(n) for n in sizes[: last + 1])
