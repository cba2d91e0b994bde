"""Pictures of graphs: values on their way forwards in blue, slopes on their way back in red."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from .drawing import EDGE, Canvas, Point
from .source import page


def slopes() -> str:
    """Lesson 1's graph: the values and slopes of its own code."""
    space = page("01_slopes", "reversed(graph)")
    v, s = space["values"], space["slopes"]
    handed = s["a"] * v["w"]  # of x's two readers: a hands this, c hands its own slope
    c = Canvas(
        "Values forwards, slopes back",
        f"The graph a = x * w, c = a + x, loss = c * c at x = {v['x']:g}, w = {v['w']:g}. Values run to the right in "
        f"blue: a is {v['a']:g}, c is {v['c']:g}, loss is {v['loss']:g}. Slopes run back in red: loss 1, c {s['c']:g}, "
        f"a {s['a']:g}, w {s['w']:g}. x is read by a and by c, so it gets {handed:g} from a and {s['c']:g} from c, "
        f"together {s['x']:g}.",
        400,
    )
    c.headline(
        "Values run forwards, slopes run back",
        "A slope that arrives is multiplied by the arrow's own. At the fork, the two that come back to x add.",
    )
    places = {"x": (96, 150), "w": (96, 318), "a": (300, 250), "c": (450, 150), "loss": (614, 150)}
    roads = [
        ("x", "c", "slope 1", f"{s['c']:g} · 1 = {s['c']:g}"),
        ("x", "a", f"slope w = {v['w']:g}", f"{s['a']:g} · {v['w']:g} = {handed:g}"),
        ("w", "a", f"slope x = {v['x']:g}", f"{s['a']:g} · {v['x']:g} = {s['w']:g}"),
        ("a", "c", "slope 1", f"{s['c']:g} · 1 = {s['a']:g}"),
        ("c", "loss", f"slope 2c = {2 * v['c']:g}", f"1 · {2 * v['c']:g} = {s['c']:g}"),
    ]
    for start, end, own, back in roads:
        two_ways(c, places[start], places[end], own, back)
    formulas = {"a": "a = x · w", "c": "c = a + x", "loss": "loss = c · c"}
    for name, (x, y) in places.items():
        c.circle(x, y, 27, "plain", "dim", 1.2)
        c.text(x, y + 6, f"{v[name]:g}", size=18, fill="blue", anchor="middle", bold=True)
        c.text(x, y - 36, formulas.get(name, name), anchor="middle", mono=True)
        words = f"{handed:g} + {s['c']:g} = {s['x']:g}" if name == "x" else f"{s[name]:g}"
        c.text(x, y + 46, words, size=15, fill="red", anchor="middle", bold=True)
    c.legend(470, 376, [("blue", "value"), ("red", "slope of the loss")])
    return c.svg()


def two_ways(c: Canvas, start: Point, end: Point, own: str, back: str, gap: float = 34) -> None:
    """An edge of a graph: a blue arrow forwards with its slope above it, below it a red one with the gradient."""
    along = math.atan2(end[1] - start[1], end[0] - start[0])
    ux, uy = math.cos(along), math.sin(along)
    upper, lower = (uy * 5, -ux * 5), (-uy * 5, ux * 5)
    a, b = (start[0] + ux * gap, start[1] + uy * gap), (end[0] - ux * gap, end[1] - uy * gap)
    c.line([(a[0] + upper[0], a[1] + upper[1]), (b[0] + upper[0], b[1] + upper[1])], "blue", width=1.8, arrow=True)
    c.line([(b[0] + lower[0], b[1] + lower[1]), (a[0] + lower[0], a[1] + lower[1])], "red", width=1.8, arrow=True)
    x, y = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
    if abs(uy) < 0.1:
        c.text(x, y - 12, own, size=12, fill="dim", anchor="middle")
        c.text(x, y + 22, back, fill="red", anchor="middle", bold=True)
    elif uy > 0:  # downwards: its upper side is at the right
        c.text(x + 12, y - 8, own, size=12, fill="dim")
        c.text(x - 14, y + 22, back, fill="red", anchor="end", bold=True)
    else:
        c.text(x - 14, y - 8, own, size=12, fill="dim", anchor="end")
        c.text(x - 4, y + 26, back, fill="red", bold=True)


def layernorm() -> str:
    """Lesson 4's graph: a row and its gradient at every node of the page's own code."""
    s = page("04_layernorm", "dx = dc - dc.mean()")
    c = Canvas(
        "Layernorm's graph, forwards and back",
        "x becomes c by taking its mean away, c becomes the variance v by square and mean, v becomes r by one over the "
        "root, and n is c * r. The row's values stand in blue below each node, its gradient in red beside them. c is "
        "read twice, by v and by n, so two gradients are added there.",
        372,
    )
    c.headline(
        "c is read twice, so two gradients meet there",
        "The row of four numbers at each node, and its gradient: blue is computed to the right, red to the left.",
    )
    centre, top, cell = {"x": 72, "c": 216, "v": 358, "r": 490, "n": 628}, 190, 46
    for name, x in centre.items():
        node(c, x, top, name, np.ravel(s[name]).tolist(), np.ravel(s[f"d{name}"]).tolist(), cell)
    labels = [("x", "c", ["− mean"]), ("c", "v", ["mean", "of c²"]), ("v", "r", ["1 / √v"]), ("r", "n", ["c · r"])]
    middle = top + 51
    for start, end, words in labels:
        a, b = centre[start] + cell + 5, centre[end] - cell - 5
        c.line([(a, middle - 5), (b, middle - 5)], "blue", width=1.8, arrow=True)
        c.line([(b, middle + 5), (a, middle + 5)], "red", width=1.8, arrow=True)
        for i, word in enumerate(reversed(words)):
            c.text((a + b) / 2, middle - 13 - 13 * i, word, size=11, fill="dim", anchor="middle")
    # the second road of c, over the others
    a, b, y = centre["c"], centre["n"], top - 30
    c.curve((a + 12, y), (a + 80, y - 92), (b - 80, y - 92), (b - 12, y), "blue", width=1.8, arrow=True)
    c.curve((b - 25, y + 4), (b - 90, y - 78), (a + 90, y - 78), (a + 25, y + 4), "red", width=1.8, arrow=True)
    c.text((a + b) / 2, y - 76, "c · r", size=11, fill="dim", anchor="middle")
    direct, through = row(s["dc_direct"]), row(s["dv"] * 2 * s["c"] / 4)
    fork = [("the fork: ", "ink"), ("dc", "red"), (" =  ", "ink"), (direct, "red"), (" from n  +  ", "ink")]
    c.text(EDGE, top + 138, [*fork, (through, "red"), (" from v", "ink")])
    note = "A shift of the row changes no n, and neither does a stretch: dx sums to 0, and so does dx · c."
    c.text(EDGE, top + 160, note, fill="dim")
    return c.svg()


def node(c: Canvas, x: float, top: float, name: str, values: list[float], slopes: list[float], cell: float) -> None:
    """A node around x: a column of values and a column of slopes, of four rows or one in the middle of them."""
    step = 26
    first = top + (4 - len(values)) * step / 2
    c.text(x, first - 12, name, size=16, anchor="middle", mono=True, bold=True)
    for i, (value, slope) in enumerate(zip(values, slopes, strict=True)):
        y = first + i * step
        c.box(x - cell, y, cell - 1, step - 2, "blue-soft", r=3)
        c.box(x + 1, y, cell - 1, step - 2, "red-soft", r=3)
        c.text(x - 7, y + 17, short(value), size=12, fill="blue", anchor="end")
        c.text(x + cell - 6, y + 17, short(slope), size=12, fill="red", anchor="end")


def short(value: float) -> str:
    """A number with two decimals at most, and a real minus."""
    return f"{round(float(value), 2) + 0:g}".replace("-", "−")


def row(values: Iterable[float]) -> str:
    """Numbers of an array, in brackets."""
    return "(" + ", ".join(map(short, values)) + ")"
