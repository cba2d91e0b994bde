"""A page as one HTML file, which needs no network."""

from __future__ import annotations

from html import escape
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from core.learning.lesson_page import with_pictures_inside

STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --dim: #5b6672; --paper: #fff; --soft: #f4f6f8; --line: #dfe3e8;
  --link: #0b62c4 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8edf3; --dim: #9aa6b3; --paper: #0f1318; --soft: #1a2028; --line: #2f3742; --link: #6db3ff } }
body { margin: 0 auto; max-width: 700px; padding: 32px 20px 96px; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
h1, h2 { line-height: 1.25 } h2 { margin-top: 2em } a { color: var(--link) } img { max-width: 100%; margin: 8px 0 }
pre { background: var(--soft); border-radius: 6px; padding: 12px 14px; overflow-x: auto; line-height: 1.45 }
code { font: 13.5px ui-monospace, Menlo, Consolas, monospace }
:not(pre) > code { background: var(--soft); padding: 1px 4px; border-radius: 3px }
pre.output { background: none; border-left: 3px solid var(--line); border-radius: 0; margin-top: -8px;
  color: var(--dim); white-space: pre-wrap; overflow-wrap: anywhere }
table { border-collapse: collapse } th, td { border: 1px solid var(--line); padding: 5px 12px; text-align: left }
"""


class Markdown(MarkdownIt):
    """CommonMark with tables, and with every address: pictures inside the page have data: addresses."""

    def validateLink(self, url: str) -> bool:
        return True


def as_html(text: str, page: Path, title: str) -> str:
    """A page as HTML, its pictures inside. A link to a file beside it becomes a link to that file, if it exists."""
    markdown = Markdown("commonmark").enable("table")
    tokens = markdown.parse(with_pictures_inside(text, page))
    for token in (inner for outer in tokens for inner in outer.children or ()):
        if token.type == "link_open":
            relink(token, page.parent)
    body = markdown.renderer.render(tokens, markdown.options, {})
    for words in ("text", "output"):
        body = body.replace(f'<pre><code class="language-{words}">', '<pre class="output"><code>')
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n'


def relink(link: Token, folder: Path) -> None:
    """A relative link as one to the file itself; without a target where there is no such file, as in a wheel."""
    file, mark, place = str(link.attrs.get("href", "")).partition("#")
    if file and "://" not in file:
        path = (folder / file).resolve()
        link.attrs = {"href": f"{path.as_uri()}{mark}{place}"} if path.is_file() else {}
