"""Pictures of numbers: softmax and its gradient, the bits of formats, an online sum, curves of runs."""

from __future__ import annotations

import math

import numpy as np

from .drawing import EDGE, WIDTH, Canvas, Point
from .measured import RUNS
from .source import measured, page, puzzle

FORMATS = {"f32": (8, 23), "TF32": (8, 10), "bf16": (8, 7), "f16": (5, 10)}  # exponent and mantissa bits


def softmax() -> str:
    """Lesson 3's three rows of bars, of the page's own z, p and dz."""
    s = page("03_words_to_loss", "dz = p")
    z, p, dz, target = s["z"], s["p"], s["dz"], s["t"]
    c = Canvas(
        "From scores to shares to the gradient",
        f"Three rows of bars for three tokens. Logits: {words_of(z, 0)}. Their shares after softmax: {words_of(p)}, in "
        f"sum 1. The gradient: {words_of(dz)}, in sum 0. It equals the shares, with 1 subtracted at the target, "
        f"token {target}.",
        458,
    )
    c.headline(
        "The gradient is the shares, less 1 at the target",
        "Three tokens of a vocabulary. The text continues with token 0, the target.",
    )
    rows = [("scores", "z, the logits: any numbers", z, 24, "blue"), ("shares", "p: positive, sum 1", p, 66, "green"),
            ("gradient", "dz: sum 0", dz, 66, "red")]  # fmt: skip
    base, column = (170, 278, 372), (322, 458, 594)
    c.box(column[target] - 62, 72, 124, 368, "plain", "", r=8)
    for i, x in enumerate(column):
        c.text(x, 92, f"token {i}", anchor="middle", bold=i == target)
    for (name, note, values, unit, colour), y in zip(rows, base, strict=True):
        c.text(EDGE, y - 12, name, size=14, fill=colour, bold=True)
        c.text(EDGE, y + 5, note, size=11.5, fill="dim")
        c.line([(244, y), (WIDTH - EDGE, y)], "dim", width=1)
        for x, value in zip(column, values, strict=True):
            h = float(value) * unit
            c.box(x - 24, min(y, y - h), 48, max(abs(h), 0.8), colour, r=2)
            c.text(
                x,
                y - h - 6 if value >= 0 else y - h + 16,
                words(value, 0 if name == "scores" else 3),
                size=12.5,
                fill=colour,
                anchor="middle",
                bold=True,
            )
    for y, text in ((base[0] + 32, "exp of each, divided by their sum"), (base[1] + 26, "less 1 at the target")):
        c.line([(EDGE + 6, y - 13), (EDGE + 6, y + 5)], "dim", arrow=True)
        c.text(EDGE + 18, y, text, size=11.5, fill="dim")
    share, y = float(p[target]) * 66, base[2]
    c.box(column[target] - 24, y - share, 48, share, "", "green", r=2, dash=True)
    c.line([(column[target] + 36, y - share), (column[target] + 36, y - share + 66)], "red", width=1.8, arrow=True)
    c.text(column[target] + 43, y + 28, "− 1", fill="red", bold=True)
    c.text(EDGE, y + 42, "A step against it raises the", size=11.5, fill="dim")
    c.text(EDGE, y + 57, "target's score, lowers the others.", size=11.5, fill="dim")
    return c.svg()


def words(value: float, digits: int = 3) -> str:
    """A number with a real minus."""
    return f"{value:.{digits}f}".replace("-", "−")


def words_of(values: np.ndarray, digits: int = 3) -> str:
    """Numbers of an array, in a sentence."""
    return ", ".join(words(v, digits) for v in values)


def formats() -> str:
    """Lesson 8's formats: fields to scale, with the bits of 0.1 rounded to nearest in each."""
    bits = page("08_numbers_and_bytes", "def bits")["bits"]
    rows = {name: bits_of(0.1, *fields) for name, fields in FORMATS.items()}
    assert "".join(rows["f32"]) == bits(0.1).replace(" ", "").replace("|", "")
    c = Canvas(
        "The bits of 0.1 in four formats",
        "Each format has a sign bit, exponent bits and mantissa bits, drawn to scale with the bits of 0.1: "
        + "; ".join(f"{name} {' '.join(fields)}" for name, fields in rows.items())
        + ". bf16 has the exponent of f32 and its first 7 mantissa bits; f16 has a shorter exponent.",
        306,
    )
    c.headline(
        "Exponent bits set the range, mantissa bits the precision",
        "0.1 in four formats, a box for each bit, rounded to the nearest.",
    )
    side, left, top = 16.6, 84, 92
    c.text(left + side / 2, top - 12, "sign", size=11, fill="dim", anchor="middle")
    c.text(left + 1.6 * side, top - 12, "  exponent", size=11, fill="violet")
    c.text(left + 9.6 * side, top - 12, "mantissa", size=11, fill="orange")
    for i, (name, (sign, exponent, mantissa)) in enumerate(rows.items()):
        y = top + 52 * i
        c.text(left - 14, y + 17, name, size=14, anchor="end", bold=True)
        for j, bit in enumerate(sign + exponent + mantissa):
            colour = "plain" if j == 0 else "violet-soft" if j <= len(exponent) else "orange-soft"
            edge = "dim" if j == 0 else "violet" if j <= len(exponent) else "orange"
            c.box(left + side * j, y, side - 1.5, 25, colour, edge, r=2, width=0.8)
            c.text(left + side * j + side / 2 - 0.7, y + 17, bit, size=11.5, fill="ink", anchor="middle", mono=True)
        x = left + side * (1 + len(exponent) + len(mantissa)) + 10
        value = (1 + int(mantissa, 2) / 2 ** len(mantissa)) * 2.0 ** (int(exponent, 2) - 2 ** (len(exponent) - 1) + 1)
        note = f"= {value:.9g}"
        if name == "bf16":
            note += ", rounded up: f32 continues with 11"
        if name == "f32":
            c.text(left, y + 41, f"{note}, 32 bits", size=11.5, fill="dim")
        else:
            c.text(x, y + 17, note, size=12, fill="dim")
    x = left + side * 16
    c.line([(x - 0.8, top + 27), (x - 0.8, top + 100)], "orange", width=1.4, dash=True)
    c.text(x + 8, top + 46, "bf16 ends here: the upper 16 bits of f32", size=11.5, fill="orange")
    return c.svg()


def bits_of(x: float, exponent: int, mantissa: int) -> tuple[str, str, str]:
    """Sign, exponent and mantissa of a positive normal number, rounded to nearest even, as digits."""
    power = math.floor(math.log2(x))
    digits = round(math.ldexp(x, mantissa - power))  # Python rounds a tie to even
    power, digits = (power + 1, digits >> 1) if digits >> (mantissa + 1) else (power, digits)
    bias = (1 << (exponent - 1)) - 1
    return "0", f"{power + bias:0{exponent}b}", f"{digits & ((1 << mantissa) - 1):0{mantissa}b}"


def online() -> str:
    """Lesson 12's pair: top and sum along a row of 32 elements, by the page's steps."""
    case = puzzle("p12_online")[0].task.cases[0]  # type: ignore[attr-defined]
    row = case.contents(np.random.default_rng(0), dict(case.dims))["x"][0]
    tops, sums, top, total = [], [], -math.inf, 0.0
    for x in row.tolist():
        higher = max(top, x)
        total, top = total * math.exp(top - higher) + math.exp(x - higher), higher
        tops.append(top)
        sums.append(total)
    rises = [i for i in range(1, len(row)) if tops[i] > tops[i - 1]]
    c = Canvas(
        "Top and sum of a row, element by element",
        f"Above, {len(row)} elements as dots and their largest so far, top, as a stair that rises {len(rises)} times. "
        f"Below, the sum of exp(x - top): it grows with each element, and at every rise of top it is scaled down. At "
        f"the end it is {sums[-1]:.3f}, the sum of the whole row.",
        430,
    )
    assert math.isclose(sums[-1], float(np.exp(row - row.max()).sum()))
    c.headline(
        "Each time top rises, the sum so far shrinks",
        "A row of 32 elements in one pass; the pair (top, sum) is all that stays.",
    )
    stairs_of_top(c, row.tolist(), tops, rises)
    bars_of_sum(c, tops, sums, rises)
    return c.svg()


LEFT, STEP, FLOOR = 84, (WIDTH - EDGE - 96) / 31, 392  # of the row: its first element, their distance, the lower axis


def stairs_of_top(c: Canvas, row: list[float], tops: list[float], rises: list[int]) -> None:
    """The elements as dots, and the largest so far as stairs; a dashed line goes down from each rise."""
    low, high = math.floor(min(row)), math.ceil(max(row))

    def at(value: float) -> float:
        return 226 - (value - low) / (high - low) * 136

    for mark in range(low, high + 1, 2):
        c.line([(LEFT - 8, at(mark)), (WIDTH - EDGE, at(mark))], "grid", width=1)
        c.text(LEFT - 14, at(mark) + 4, words(mark, 0), size=11, fill="dim", anchor="end")
    for i in rises:
        c.line([(LEFT + STEP * i, at(tops[i])), (LEFT + STEP * i, FLOOR)], "orange", width=1, dash=True, opacity=0.7)
    stairs: list[Point] = [(LEFT, at(tops[0]))]
    for i in range(1, len(row)):
        stairs += [(LEFT + STEP * i, at(tops[i - 1])), (LEFT + STEP * i, at(tops[i]))]
    c.line(stairs, "orange", width=2)
    for i, x in enumerate(row):
        c.circle(LEFT + STEP * i, at(x), 3.4, "orange" if i in (0, *rises) else "dim")
    c.text(WIDTH - EDGE, at(tops[-1]) - 7, "top, the largest so far", size=12, fill="orange", anchor="end", bold=True)
    c.text(EDGE, at(high) - 8, "x", size=12, fill="dim")


def bars_of_sum(c: Canvas, tops: list[float], sums: list[float], rises: list[int]) -> None:
    """The sum after each element: the part of the elements before it, and its own."""
    most, wide = max(sums) * 1.1, STEP * 0.56

    def at(value: float) -> float:
        return FLOOR - value / most * 130

    for mark in range(int(most) + 1):
        c.line([(LEFT - 8, at(mark)), (WIDTH - EDGE, at(mark))], "grid", width=1)
        c.text(LEFT - 14, at(mark) + 4, str(mark), size=11, fill="dim", anchor="end")
    for i, total in enumerate(sums):
        x, before = LEFT + STEP * i - wide / 2, sums[i - 1] if i else 0.0
        older = before * math.exp(tops[i - 1] - tops[i]) if i in rises else before
        c.box(x, at(older), wide, FLOOR - at(older), "blue" if i in rises else "blue-soft", "blue", r=1, width=0.8)
        if total > older:
            c.box(x, at(total), wide, at(older) - at(total), "green-soft", "green", r=1, width=0.8)
        if i in rises:
            corner = [(x - STEP + wide + 1, at(before)), (x + wide / 2, at(before)), (x + wide / 2, at(older))]
            c.line(corner, "red", width=1.6, arrow=True)
    c.text(WIDTH - EDGE, at(sums[-1]) - 8, f"sum = {sums[-1]:.3f}", size=12, fill="blue", anchor="end", bold=True)
    c.text(EDGE, 266, "sum of exp(x − top)", size=12, fill="blue")
    c.legend(176, 266, [("blue", "scaled down"), ("green", "the new element")], size=11.5)
    c.text(LEFT, FLOOR + 22, "element 0", size=11, fill="dim", anchor="middle")
    c.text(LEFT + STEP * 31, FLOOR + 22, "element 31", size=11, fill="dim", anchor="end")


HEALTHY = "a"
CURVES = {"e": ("orange", 5.5), "d": ("violet", 3.6), "c": ("blue", 1.8), "b": ("red", 2), "a": ("green", 2)}


def curves() -> str:
    """Lesson 7's five runs: loss, norm and lr from their metrics.jsonl, on logarithmic scales."""
    runs = measured("curves")
    steps = len(runs[HEALTHY])
    meaning = {name: ", ".join(changed(name)) or "healthy" for name in RUNS}
    last = {name: rows[-1][0] for name, rows in runs.items()}
    c = Canvas(
        "Loss, gradient norm and learning rate of five runs",
        "Three charts above each other, over 30 steps. "
        + " ".join(
            f"Run {n} ({meaning[n]}): loss {rows[0][0]:.3g} at first, {last[n]:.3g} at last, lr {rows[-1][2]:.2g}."
            for n, rows in runs.items()
        ),
        560,
    )
    c.headline(
        "Three runs do not move, each for its own reason",
        "All begin near log 257 = 5.55, as tokens are bytes here. The scales are logarithmic.",
    )
    panels = [
        ("loss", 84, (2.5, 100), (3, 10, 30, 100)),
        ("norm", 248, (0.3, 30), (0.3, 1, 3, 10, 30)),
        ("lr", 404, (1e-7, 10), (1e-6, 1e-4, 1e-2, 1)),
    ]
    for place, (name, top, limits, marks) in enumerate(panels):
        series = {n: [row[place] for row in rows] for n, rows in runs.items()}
        panel(c, top, name, series, limits, marks)
    c.text(285, 544, f"step 1 to {steps}", size=11.5, fill="dim", anchor="middle")
    causes = {"a": "learns", "b": "explodes", "c": "lr is tiny", "d": "eps outweighs √v", "e": "lr still warms up"}
    for i, (n, cause) in enumerate(causes.items()):
        y = 100 + 52 * i
        c.text(542, y, [(n, CURVES[n][0]), (f"  {cause}", "ink")], size=12.5, bold=True)
        c.text(558, y + 17, meaning[n] if n != HEALTHY else "lr 0.01, warm-up 5", size=11.5, fill="dim")
    return c.svg()


def panel(
    c: Canvas, top: float, name: str, series: dict[str, list[float]], limits: tuple[float, float],
    marks: tuple[float, ...],
) -> None:  # fmt: skip
    """The runs' values by step on a logarithmic scale, each line with its run's name at its end."""
    left, right, high = 92, 478, 116
    low, span = limits[0], math.log(limits[1] / limits[0])

    def at(value: float) -> float:
        return top + high - math.log(value / low) / span * high

    c.text(EDGE, top + 6, name, size=14, bold=True)
    for mark in marks:
        c.line([(left, at(mark)), (right, at(mark))], "grid", width=1)
        c.text(left - 8, at(mark) + 4, f"{mark:g}", size=10.5, fill="dim", anchor="end")
    for n, (colour, width) in CURVES.items():
        step = (right - left) / (len(series[n]) - 1)
        c.line([(left + step * i, at(value)) for i, value in enumerate(series[n])], colour, width=width)
    ends: list[tuple[float, list[str]]] = []
    for n in sorted(series, key=lambda n: -series[n][-1]):
        if ends and at(series[n][-1]) - ends[-1][0] < 10:
            ends[-1][1].append(n)
        else:
            ends.append((at(series[n][-1]), [n]))
    for i, (y, names) in enumerate(ends):
        y = max(y, ends[i - 1][0] + 14) if i else y
        parts = [(n + (", " if n != max(names) else ""), CURVES[n][0]) for n in sorted(names)]
        c.text(right + 8, y + 4.5, parts, size=13, bold=True)


def changed(name: str) -> list[str]:
    """The settings of a run that differ from the healthy one's."""
    words_by = ("lr", "warm-up", "eps")
    pairs = zip(words_by, RUNS[name], RUNS[HEALTHY], strict=True)
    return [
        f"{word} {value:,}" if word == "warm-up" else f"{word} {value:g}"
        for word, value, other in pairs
        if value != other
    ]
