"""Pages of lessons, Markdown files: their fenced blocks, and their pictures for a terminal and for a single file."""

from __future__ import annotations

import base64
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from core.errors import UsageError
from core.outside import read_utf8, read_whole, reads

LONGEST = 1 << 20  # bytes of a page, and of a picture
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$\n?", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"!\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
KINDS = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}


class PagePart(NamedTuple):
    """A stretch of a page. words: of its fence, such as "python", "python ops/add.py", "" for text between fences."""

    words: str
    text: str

    @property
    def fenced(self) -> str:
        """The part as the page has it."""
        return f"```{self.words}\n{self.text}```\n" if self.words else self.text


def read_page(path: Path) -> str:
    """A page's text. Raises UsageError for a file that is no readable text."""
    return read_utf8(UsageError, path, LONGEST)


def parts(text: str) -> Iterator[PagePart]:
    """A page's fenced blocks and the text between them, in their order."""
    at = 0
    for match in FENCE.finditer(text):
        if text[at : match.start()].strip():
            yield PagePart("", text[at : match.start()])
        yield PagePart(match[1] or "text", match[2])
        at = match.end()
    if text[at:].strip():
        yield PagePart("", text[at:])


def for_terminal(text: str, width: int = 100) -> str:
    """A page with the description of each picture in its place."""

    def described(match: re.Match[str]) -> str:
        lines = textwrap.wrap(" ".join(match[1].split()), width)
        return "\n".join([f"[picture {match[2]}]", *(f"    {line}" for line in lines)])

    return PICTURE.sub(described, text)


def with_pictures_inside(text: str, page: Path) -> str:
    """A page whose pictures are part of it, as data: addresses."""

    def inside(match: re.Match[str]) -> str:
        address = data_address(page.parent / match[2])
        return f"![{' '.join(match[1].split())}]({address})" if address else match[0]

    return PICTURE.sub(inside, text)


def data_address(picture: Path) -> str:
    """A picture as an address that contains it; "" for one that is missing, or of another kind."""
    kind = KINDS.get(picture.suffix)
    if kind is None or not picture.is_file():
        return ""
    with reads(UsageError, picture):
        raw = read_whole(picture, LONGEST)
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"
