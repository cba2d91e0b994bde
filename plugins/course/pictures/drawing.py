"""SVG by hand: boxes, words, lines and arrows, in colours that have a light and a dark value.

A picture is 700 units wide, a page's width in pixels. It brings its own ground, so it is readable on any page, and its
colours follow the reader's preference for light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

WIDTH = 700
EDGE = 24  # margin at the left and the right
COLOURS = {  # name -> light, dark
    "paper": ("#ffffff", "#14181f"),
    "frame": ("#dfe3e8", "#2f3742"),
    "ink": ("#1c2128", "#e8edf3"),
    "dim": ("#5b6672", "#9aa6b3"),
    "grid": ("#e6e9ed", "#29313b"),
    "plain": ("#f1f3f6", "#222a34"),
    "blue": ("#0b62c4", "#6db3ff"),
    "blue-soft": ("#dbeafb", "#173453"),
    "red": ("#c0302a", "#ff8d80"),
    "red-soft": ("#fbe1de", "#4f211f"),
    "orange": ("#b35c00", "#f2a65a"),
    "orange-soft": ("#fbe6cb", "#4d3214"),
    "green": ("#1d7a3a", "#66cc85"),
    "green-soft": ("#d6f0dd", "#173a23"),
    "violet": ("#6f42b8", "#bda3f5"),
    "violet-soft": ("#e9e0f8", "#322650"),
}
Point = tuple[float, float]
Words = str | Sequence[tuple[str, str]]  # text, or (text, colour) parts of a line


def number(value: float) -> str:
    """A coordinate: one decimal, none where it is 0."""
    return f"{value + 0:.1f}".removesuffix(".0").replace("-0", "0" if abs(value) < 0.05 else "-0")


class Canvas:
    """A picture under construction: methods add shapes from back to front, `svg` has the text of the file.

    title: for the reader's tooltip and a screen reader. description: the contents in sentences, also the page's
    alternative text. height: units.
    """

    def __init__(self, title: str, description: str, height: float) -> None:
        self.title, self.description, self.height = title, description, height
        self.parts: list[str] = []
        self.fills: set[str] = {"paper"}
        self.strokes: set[str] = {"frame"}
        self._space(WIDTH, height)

    def headline(self, text: str, note: str = "") -> None:
        """The picture's message in a line, and a quieter second one."""
        self.text(EDGE, 32, text, size=16, bold=True)
        if note:
            self.text(EDGE, 52, note, size=12.5, fill="dim")

    def box(
        self, x: float, y: float, w: float, h: float, fill: str = "", stroke: str = "", *,
        r: float = 4, width: float = 1, dash: bool = False, opacity: float = 1,
    ) -> None:  # fmt: skip
        """A rectangle with its upper left corner at (x, y)."""
        shape = f'<rect x="{number(x)}" y="{number(y)}" width="{number(w)}" height="{number(h)}"'
        self._add(shape + (f' rx="{number(r)}"' if r else ""), fill, stroke, width, dash, opacity)

    def circle(self, x: float, y: float, r: float, fill: str = "", stroke: str = "", width: float = 1) -> None:
        """A circle around (x, y)."""
        self._add(f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(r)}"', fill, stroke, width)

    def shape(self, points: Iterable[Point], fill: str, opacity: float = 1) -> None:
        """A filled polygon."""
        corners = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self._add(f'<polygon points="{corners}"', fill, "", 0, opacity=opacity)

    def line(
        self, points: Sequence[Point], stroke: str = "ink", *,
        width: float = 1.5, dash: bool = False, arrow: bool = False, opacity: float = 1,
    ) -> None:  # fmt: skip
        """A line through points; an arrow's head ends at the last one."""
        points = list(points)
        if arrow:
            points[-1] = self._head(points[-2], points[-1], stroke, width)
        corners = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self._add(f'<polyline points="{corners}"', "", stroke, width, dash, opacity)

    def curve(
        self, start: Point, bend: Point, bend_end: Point, end: Point, stroke: str = "ink", *,
        width: float = 1.5, dash: bool = False, arrow: bool = False, opacity: float = 1,
    ) -> None:  # fmt: skip
        """A cubic Bezier curve; an arrow's head ends at `end`."""
        if arrow:
            end = self._head(bend_end, end, stroke, width)
        (a, b), (c, d), (e, f), (g, h) = start, bend, bend_end, end
        spots = " ".join(number(v) for v in (a, b))
        rest = ", ".join(f"{number(x)} {number(y)}" for x, y in ((c, d), (e, f), (g, h)))
        self._add(f'<path d="M{spots} C{rest}"', "", stroke, width, dash, opacity)

    def text(
        self, x: float, y: float, words: Words, *, size: float = 13, fill: str = "ink", anchor: str = "start",
        bold: bool = False, mono: bool = False, turned: bool = False,
    ) -> None:  # fmt: skip
        """Words on the baseline y, at, around or before x. turned: they run upwards."""
        parts = [(words, fill)] if isinstance(words, str) else list(words)
        self.fills.update(colour for _, colour in parts)
        inner = "".join(f'<tspan class="{colour}">{escape(text)}</tspan>' for text, colour in parts[1:])
        look = f' text-anchor="{anchor}"' * (anchor != "start") + ' font-weight="600"' * bold
        look += ' font-family="ui-monospace,Menlo,Consolas,monospace"' * mono
        look += f' transform="rotate(-90 {number(x)} {number(y)})"' * turned
        look += ' xml:space="preserve"' * bool(inner)
        start = f'<text class="{parts[0][1]}" x="{number(x)}" y="{number(y)}" font-size="{number(size)}"{look}>'
        self.parts.append(f"{start}{escape(parts[0][0])}{inner}</text>")

    def legend(self, x: float, y: float, rows: Iterable[tuple[str, str]], size: float = 12) -> None:
        """Colour and meaning, side by side on one line; the squares stand on the baseline y."""
        for colour, words in rows:
            self.box(x, y - 10, 11, 11, colour, r=2)
            self.text(x + 17, y, words, size=size, fill="dim")
            x += 34 + size * 0.54 * len(words)

    def svg(self) -> str:
        """The file's text."""
        names = sorted(self.fills | self.strokes)
        light = ";".join(f"--{name}:{COLOURS[name][0]}" for name in names)
        dark = ";".join(f"--{name}:{COLOURS[name][1]}" for name in names)
        rules = "".join(f".{name}{{fill:var(--{name})}}" for name in sorted(self.fills))
        rules += "".join(f".s-{name}{{stroke:var(--{name})}}" for name in sorted(self.strokes))
        size = f'width="{WIDTH}" height="{number(self.height)}" viewBox="0 0 {WIDTH} {number(self.height)}"'
        head = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc" fill="none" '
            'font-family="system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif">',
            f'<title id="title">{escape(self.title)}</title>',
            f'<desc id="desc">{escape(self.description)}</desc>',
            f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}{rules}</style>",
        ]
        return "\n".join([*head, *self.parts, "</svg>", ""])

    def _space(self, width: float, height: float) -> None:
        self.box(0.5, 0.5, width - 1, height - 1, "paper", "frame", r=8)

    def _head(self, before: Point, tip: Point, colour: str, width: float) -> Point:
        """Draw an arrow's head; the point at which its line ends."""
        length = 5 + 2 * width
        angle = math.atan2(tip[1] - before[1], tip[0] - before[0])
        along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
        base = tip[0] - length * along[0], tip[1] - length * along[1]
        half = length * 0.45
        self.shape([tip, *((base[0] + s * half * across[0], base[1] + s * half * across[1]) for s in (1, -1))], colour)
        return base[0] + along[0], base[1] + along[1]

    def _add(self, shape: str, fill: str, stroke: str, width: float, dash: bool = False, opacity: float = 1) -> None:
        self.fills.update([fill] if fill else [])
        self.strokes.update([stroke] if stroke else [])
        classes = " ".join([*([fill] if fill else []), *([f"s-{stroke}"] if stroke else [])])
        look = f' stroke-width="{number(width)}"' * (bool(stroke) and width != 1)
        look += ' stroke-dasharray="4 3"' * dash + f' opacity="{opacity:.2f}"' * (opacity != 1)
        self.parts.append(f'{shape} class="{classes}"{look}/>')
