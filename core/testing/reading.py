"""The counts of docs/reading.md: lines of each listed file, and of each walk.

python -m core.testing.reading
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/reading.md"
ROW = re.compile(r"^(\| \d+ \| `([^`]+)` \| )[\d,]+( \|)", re.M)
SUM = re.compile(r"^(These )[\d,]+( lines)", re.M)


def counted(text: str, root: Path = ROOT) -> str:
    """The page with the count of every row, and after each table the sum of its rows."""
    total = 0
    lines = []
    for line in text.splitlines(keepends=True):
        if row := ROW.match(line):
            count = len((root / row[2]).read_text("utf-8").splitlines())
            total += count
            line = ROW.sub(rf"\g<1>{count:,}\g<3>", line)
        elif SUM.match(line):
            line, total = SUM.sub(rf"\g<1>{total:,}\g<2>", line), 0
        lines.append(line)
    return "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(counted(PAGE.read_text("utf-8")), "utf-8")
