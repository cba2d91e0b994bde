"""Views -> one HTML file: its own style and script by their hashes, data as inert text, no request.

Data of more than SMALL characters are gzip in base64, which the page decodes when their view is first opened.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import BuildError, UsageError
from core.files import settled
from core.lens import Lens
from core.outputs import target_file
from core.outside import open_file

FOLDER = Path(__file__).parent / "page"
STYLE, BASE, TOUR = "view.css", "base.js", "tour.js"
TITLE = "<title>core view: "
HEAD = 1 << 12  # bytes, in which the title of a page begins
SMALL = 1 << 14  # characters of JSON that are not worth compressing
ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class View:
    """The result of one lens. data: None where there are none; `command` makes them. problem: its exception, or "".

    own: whether the lens is the core's, so that its script may draw it.
    """

    lens: Lens
    command: str
    data: dict[str, Any] | None = None
    problem: str = ""
    marks: Sequence[Mapping[str, Any]] = field(default_factory=list)
    own: bool = False

    def lines(self) -> list[str]:
        """The view for a terminal. Never empty."""
        if self.problem:
            return [f"{self.lens.title}: {self.problem}"]
        if self.data is None:
            return [f"{self.lens.title}: no data", f"  hint: {self.command}"]
        return self.lens.lines(self.data)

    def as_json(self) -> Any:
        """The data; where there are none, why, and the command that makes them."""
        if self.problem:
            return {"problem": self.problem, "command": self.command}
        return {"absent": True, "command": self.command} if self.data is None else settled(self.data)


def page_of(views: Sequence[View], title: str, *, plain: bool = False) -> str:
    """The page as text. plain: no data compressed. BuildError for a script that would end its element."""
    style, script = style_of(views), script_of(views)
    policy = (
        f"default-src 'none'; script-src {hash_of(script)}; style-src {hash_of(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    about = {"title": title, "views": [head_of(view) for view in views]}
    blocks = [block("about", about, plain=True)]
    for view in views:
        if view.data is not None:
            blocks.append(block(f"data-{view.lens.name}", {"data": view.data, "marks": list(view.marks)}, plain=plain))
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"{TITLE}{html.escape(title)}</title>",
            f"<style>{style}</style>",
            "</head>\n<body>\n<noscript>This page draws itself: it needs JavaScript, and no network.</noscript>",
            *blocks,
            f"<script>{script}</script>",
            "</body>\n</html>\n",
        ]
    )


def page_place(path: Path, option: str) -> Path:
    """A file to write a page to: a new or empty one, or an older page. UsageError, naming the option, for any other."""
    if target_file(path, option).is_file():
        try:
            with open_file(path) as file:
                head = file.read(HEAD)
        except OSError as error:
            raise UsageError(f"{option} {path}: {error.strerror or error}", hint="name another file") from None
        if head and TITLE.encode() not in head:
            raise UsageError(
                f"{option} {path}: a file that is not a page of core view is there; it is unchanged",
                hint="name another file, or move it away",
            )
    return path


def head_of(view: View) -> dict[str, Any]:
    """The head of a view, which the page has before it decodes the data."""
    lens = view.lens
    return {
        "name": lens.name,
        "title": lens.title or lens.name,
        "question": lens.question,
        "command": view.command,
        "problem": view.problem,
        "absent": view.data is None,
        "drawn": bool(lens.scripts and view.own),
    }


def text_of(name: str) -> str:
    """A file of the page's folder."""
    return (FOLDER / name).read_text("utf-8")


def scripts_of(views: Sequence[View]) -> list[tuple[str, ...]]:
    """The files that draw the views, by lens, each once; a plugin's lens has none."""
    return list(dict.fromkeys(view.lens.scripts for view in views if view.own and view.lens.scripts))


def style_of(views: Sequence[View]) -> str:
    """The page's one style: view.css, and beside a view's script the .css file of its name, where there is one."""
    own = [Path(name).with_suffix(".css").name for names in scripts_of(views) for name in names]
    return "\n".join(text_of(name) for name in (STYLE, *own) if (FOLDER / name).is_file())


def script_of(views: Sequence[View]) -> str:
    """The page's one script: base.js, tour.js, the files of each lens in a block of its own, then the start.

    BuildError for text that would end the element.
    """
    own = ("\n".join(["{", *map(text_of, names), "}"]) for names in scripts_of(views))
    parts = ['"use strict";', text_of(BASE), text_of(TOUR), *own, "start();"]
    script = "\n".join(parts)
    if "</script" in script.lower() or "<!--" in script:
        raise BuildError("a script of the page has text that would end it")
    return script


def hash_of(text: str) -> str:
    """A source of the content policy: this text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def block(name: str, value: Any, *, plain: bool) -> str:
    """Data as an element that no browser runs: JSON, or gzip of it in base64."""
    text = json.dumps(settled(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    if plain or len(text) <= SMALL:
        return f'<script type="application/json" id="{name}">{escaped(text)}</script>'
    packed = base64.b64encode(gzip.compress(text.encode("utf-8", "backslashreplace"), 9, mtime=0)).decode()
    return f'<script type="application/gzip" id="{name}">{packed}</script>'


def escaped(text: str) -> str:
    """JSON without a character that HTML or JavaScript could read as more than text."""
    for character, code in ESCAPED.items():
        text = text.replace(character, code)
    return text
