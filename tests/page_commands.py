"""Pages of the project and the commands that they show, as words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
PLUGINS, READING, IDEA = ROOT / "docs/plugins.md", ROOT / "docs/reading.md", ROOT / "docs/idea.md"
VIEW = ROOT / "docs/view.md"
FOLDERS = (
    ROOT,
    *(
        ROOT / name
        for name in ("docs", "benchmarks", "plugins", "plugins/course/pages", "core/sim/native", "tests/ptx")
    ),
)
PAGES = sorted(page for folder in FOLDERS for page in folder.glob("*.md"))


def fenced(page: Path, language: str) -> list[str]:
    """The page's blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


def in_order(text: str) -> Iterator[tuple[str, str] | list[str]]:
    """What a page has its reader do: files as (path, contents), commands as words.

    A file is a block that opens with a comment that is a path, `# rms/rms.py`.
    """
    for language, block in re.findall(r"^```(sh|python|toml|cuda)\n(.*?)^```$", text, re.M | re.S):
        if language == "sh":
            lines = block.replace("\\\n", " ").splitlines()
            words = (shlex.split(part, comments=True) for line in lines for part in line.split(" && "))
            yield from (w for w in words if w)
        elif named := re.match(r"(?:#|//) ([\w./-]+\.(?:py|toml|cu))\b", block):
            yield named[1], block


def commands(page: Path) -> list[list[str]]:
    """The commands of the page's shell blocks, one list of words each."""
    return [step for step in in_order(page.read_text("utf-8")) if isinstance(step, list)]


def shown(program: str) -> Iterator[tuple[str, list[str]]]:
    """(page, words after the program's name) of its calls on any page: in fenced and indented blocks, in the text."""
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        indented = re.findall(rf"^    ({program} [^\n]*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
        inline = re.findall(rf"`({program} [^`\n]*)`", text)
        for words in (*commands(page), *(shlex.split(code, comments=True) for code in (*indented, *inline))):
            if words[0] == program:
                yield page.name, words[1:]


def invocations() -> Iterator[tuple[str, list[str]]]:
    return ((page, words) for page, words in shown("core") if re.match(r"[a-z-]", words[0]))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are on code hosts."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
