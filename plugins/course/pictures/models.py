"""Pictures of models: an op as a box, the residual stream, the shares of a head."""

from __future__ import annotations

from pathlib import Path

import core
from core.testing import load_registry

from .drawing import EDGE, Canvas
from .source import COURSE, measured

DIMS = {"B": 2, "T": 5, "S": 8, "V": 11, "C": 8, "H": 2, "L": 2}  # of lesson 6's page


def op_box() -> str:
    """Lesson 2's op as a box: its schema's inputs and outputs, and the tensors that it keeps."""
    registry = load_registry([str(Path(COURSE) / "puzzles/e02_silu_answer.py")])
    op, reference = registry.op("my_silu"), registry.reference("my_silu")
    (x,), (y,), (saved,) = op.inputs, op.outputs, reference.reads
    c = Canvas(
        "An op: two halves, and a tensor between them",
        f"A box with two halves. In forward, {x} goes in at the left and {y} leaves at the right. {saved} is kept "
        f"until backward, where d{y} comes back at the right and d{x} is added to the gradient at the left.",
        286,
    )
    c.headline("An op has two halves, and keeps what the second one reads")
    left, right, top, half = 226, 474, 66, 76
    c.box(left, top, right - left, half, "blue-soft", "blue", r=8, width=1.4)
    c.box(left, top + half + 36, right - left, half, "red-soft", "red", r=8, width=1.4)
    middle = (left + right) / 2
    c.text(middle, top + 32, "forward", size=16, fill="blue", anchor="middle", bold=True)
    c.text(middle, top + 54, f"computes {y} from {x}", fill="ink", anchor="middle")
    low = top + half + 36
    c.text(middle, low + 32, "backward", size=16, fill="red", anchor="middle", bold=True)
    c.text(middle, low + 54, f"hands d{y} on, times the slope of {y} for {x}", size=12, anchor="middle")
    ends = [
        (top + 38, "blue", x, ("the input",), False),
        (top + 38, "blue", y, ("the result",), True),
        (low + 38, "red", f"d{y}", ("the slope of the", f"loss for {y} arrives"), True),
        (low + 38, "red", f"d{x}", (f"added: {x} may have", "other readers"), False),
    ]
    for at, colour, name, words, is_right in ends:
        a, b = (right + 4, right + 66) if is_right else (left - 66, left - 4)
        c.line([(a, at), (b, at)] if colour == "blue" else [(b, at), (a, at)], colour, width=2.2, arrow=True)
        edge, anchor = (b + 12, "start") if is_right else (a - 12, "end")
        c.text(edge, at + 6, name, size=19, fill=colour, anchor=anchor, mono=True, bold=True)
        for i, line in enumerate(words):
            c.text(edge, at + 26 + 15 * i, line, size=11.5, fill="dim", anchor=anchor)
    c.line([(middle - 40, top + half + 2), (middle - 40, low - 3)], "green", width=2.2, arrow=True)
    c.text(middle - 28, top + half + 23, [(f"{saved} ", "green"), ("is kept: backward reads it", "dim")], size=12.5)
    return c.svg()


def attention_map() -> str:
    """Lesson 5's map: the shares of a head that was trained to look up letters, and three of its rows as bars."""
    data = measured("attention")
    tokens, shares = data["tokens"], data["shares"]
    half, count = len(tokens) // 2, len(tokens)
    picked = [half, half + 2, count - 1]
    answers = {i: max(range(i + 1), key=shares[i].__getitem__) for i in range(half, count)}
    c = Canvas(
        "The shares of one head of attention",
        f"A triangle of {count} x {count} cells: each row is a query, each column a key, and a cell is as strong as "
        f"its share. The tokens are {' '.join(tokens)}. Each of the last {half} rows has one strong cell, at the "
        f"token with its letter: "
        + ", ".join(f"{tokens[i]} takes {shares[i][j]:.0f}% from {tokens[j]}" for i, j in answers.items())
        + ". Three of these rows are bars at the right.",
        486,
    )
    c.headline(
        "A query finds the key that answers it",
        "A trained head: letters get digits, then questions follow. Above the diagonal is the future, masked.",
    )
    triangle(c, tokens, shares, picked)
    for place, i in enumerate(picked):
        bars(c, 198 + 118 * place, tokens, shares[i], answers[i])
    return c.svg()


def triangle(c: Canvas, tokens: list[str], shares: list[list[float]], picked: list[int]) -> None:
    """The shares as cells, a query in each row, and a frame around the picked rows."""
    left, top, cell, count = 66, 122, 27, len(tokens)
    for i, row in enumerate(shares):
        y = top + cell * i
        c.text(left - 9, y + 18, tokens[i], size=12, anchor="end", mono=True, bold=i >= count // 2)
        c.text(left + cell * (i + 0.5), top - 8, tokens[i], size=11, anchor="middle", mono=True)
        for j, share in enumerate(row):
            c.box(left + cell * j, y, cell - 2, cell - 2, "plain", r=3)
            if share >= 1:
                c.box(left + cell * j, y, cell - 2, cell - 2, "blue", r=3, opacity=0.08 + 0.92 * share / 100)
        for j in range(i + 1, count):
            c.line([(left + cell * j + 9, y + cell / 2), (left + cell * j + cell - 10, y + cell / 2)], "grid")
    for i in picked:
        c.box(left - 2, top + cell * i - 2, cell * (i + 1) + 2, cell + 2, "", "orange", r=4, width=1.6)
    c.text(left + cell * count / 2, top - 30, "keys: the tokens so far", size=11.5, fill="dim", anchor="middle")
    c.text(EDGE - 4, top + cell * count / 2, "queries", size=11.5, fill="dim", anchor="middle", turned=True)


def bars(c: Canvas, base: float, tokens: list[str], row: list[float], answer: int) -> None:
    """A query's shares as bars on a base line. answer: the key with the largest one."""
    left, wide, query = 434, 19, len(row) - 1
    head = [(f"row {tokens[query]}", "orange"), (f"   {row[answer]:.0f}% from {tokens[answer]}", "dim")]
    c.text(left, base - 74, head, bold=True)
    c.line([(left, base), (left + wide * len(tokens), base)], "dim", width=1)
    for j, share in enumerate(row):
        h = max(56 * share / 100, 0.8)
        c.box(left + wide * j + 3, base - h, wide - 6, h, "blue", r=1)
    for j in (answer, query):
        c.text(left + wide * (j + 0.5), base + 15, tokens[j], size=11, anchor="middle", mono=True, bold=j == answer)


def stream() -> str:
    """Lesson 6's stream: the nodes of layer 0 of GPT-2's own graph, heights to scale of their widths."""
    graph = core.load("gpt2_124m", dims=DIMS, precision="f64").graph
    channels = graph.dims["C"]
    made = {node.name: node.outputs["y"] for node in graph.nodes if "y" in node.outputs}
    wide = {name: graph.values[value].shape[-1] // channels for name, value in made.items()}
    c = Canvas(
        "The residual stream of GPT-2",
        "A straight line from x0 at the left to ln_f at the right. In layer 0, two side roads leave it and are added "
        "back: ln_1, qkv, attn, proj, and ln_2, fc, act, down. A box is as high as its tensor is wide: C for the "
        "stream, 3 C for qkv, 4 C for fc and act. The layers after it do the same. A red arrow below runs back along "
        "the straight line: its slope is 1.",
        374,
    )
    c.headline(
        "Layers add to a stream, and the gradient runs straight back along it",
        "Height of a box: the width of its tensor, for each token.",
    )
    line, road, unit = 248, 152, 27
    c.line([(70, line), (606, line)], "blue", width=5)
    for name, x, w, fill in (("x0", 24, 46, "blue-soft"), ("ln_f", 608, 32, "plain"), ("logits", 646, 44, "plain")):
        c.box(x, line - unit / 2, w, unit, fill, "blue")
        c.text(x + w / 2, line + 4, name, size=11, anchor="middle", mono=True)
    c.line([(640, line), (646, line)], "blue")
    for first, names in ((102, ("ln_1", "qkv", "attn", "proj")), (312, ("ln_2", "fc", "act", "down"))):
        side_road(c, first, {name: wide[f"h.0.{name}"] for name in names}, line, road, unit)
    for a in (506, 552):
        c.curve((a, line), (a + 4, line - 46), (a + 34, line - 46), (a + 38, line - 9), "blue", arrow=True)
        plus(c, a + 38, line)
    captions = [
        (86, 206, "attention", "moves information between tokens"),
        (300, 200, "MLP", "works on each token alone"),
        (506, 88, "layer 1", "the same"),
    ]
    for x, w, head, words in captions:
        c.line([(x, line + 26), (x, line + 32), (x + w, line + 32), (x + w, line + 26)], "dim", width=1)
        c.text(x + w / 2, line + 48, head, size=12, anchor="middle", bold=True)
        c.text(x + w / 2, line + 63, words, size=11.5, fill="dim", anchor="middle")
    c.line([(606, line + 88), (70, line + 88)], "red", width=2.2, arrow=True)
    c.text(338, line + 108, "backwards, an addition hands its slope on, times 1", size=12, fill="red", anchor="middle")
    return c.svg()


def side_road(c: Canvas, first: float, wide: dict[str, int], line: float, road: float, unit: float) -> None:
    """Nodes above the stream, from a fork at the left of `first` to an addition. wide: name -> channels, in C."""
    pitch, w = 42, 34
    end = first + pitch * len(wide) + 10
    c.line([(first - 14, line), (first - 14, road), (first - 1, road)], "blue", arrow=True)
    for i, (name, count) in enumerate(wide.items()):
        x, h, colour = first + pitch * i, unit * count, "blue" if count == 1 else "orange"
        c.box(x, road - h / 2, w, h, f"{colour}-soft", colour)
        c.text(x + w / 2, road + 4, name, size=11, anchor="middle", mono=True)
        size = "C" if count == 1 else f"{count} C"
        c.text(x + w / 2, road - h / 2 - 5, size, size=11, fill="dim", anchor="middle")
        if i:
            c.line([(x - pitch + w, road), (x - 0.5, road)], "blue")
    c.line([(end - 18, road), (end, road), (end, line - 9)], "blue", arrow=True)
    plus(c, end, line)


def plus(c: Canvas, x: float, y: float) -> None:
    """An addition on the stream."""
    c.circle(x, y, 8, "paper", "blue", 1.6)
    c.line([(x - 4, y), (x + 4, y)], "blue", width=1.6)
    c.line([(x, y - 4), (x, y + 4)], "blue", width=1.6)
