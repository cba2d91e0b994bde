"""A text as the run's model learned it: loss by token, likeliest tokens, and attention of each head, by checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.engine.batch import Array
from core.lens import Lens
from core.tokenizers.tokenizer import Tokenizer
from core.view.sampled_text import (
    SCALE,
    TextAtStep,
    TextSample,
    kind_for,
    models_at,
    sample_of,
    spread,
    text_at,
    token_text,
)
from core.view.subject import Subject
from core.words import percent, printable, table

STEPS, MORE_STEPS = 4, 12  # checkpoints: by default, and at most
READ = 8 << 30  # bytes of all checkpoints that are read; the newest one is read at any size
LARGEST = 16  # weights of a row, where all of them are too many
MOST, MORE = 400_000, 4_000_000  # numbers of all maps together: by default, and at most
BUSIEST = 3  # experts of a node in a terminal
SHOWN = 24  # characters of a token in a terminal


class TextLens(Lens):
    """Held-out text, or that of `--text FILE`, through the run's checkpoints."""

    name, title, scripts = "text", "Text", ("text.js",)
    question = "What did the model expect, and where did it look?"

    def command(self, subject: Subject) -> str:
        """The view with its text; the training that makes a checkpoint, for a run without one."""
        if subject.runs and not subject.run.checkpoints:
            return f"core train {subject.run.config_name} --set train.checkpoint_every=100"
        text = subject.options.text
        if text is not None:
            return f"{super().command(subject)} --text {text.name}"
        held_out = subject.runs and subject.run.config.data.val
        return super().command(subject) + ("" if held_out else " --text FILE")

    def collect(self, subject: Subject) -> dict[str, Any] | None:
        """The dictionary of `text_data`; None without a checkpoint or text."""
        if not subject.runs or not subject.run.checkpoints:
            return None
        options, sample, at = subject.options, None, list[TextAtStep]()
        every = sorted(subject.run.checkpoints)
        fitting = READ // max(1, subject.run.checkpoint_bytes(every[-1]))
        steps = spread(every, max(1, min(MORE_STEPS if options.more else STEPS, fitting)))
        for step, model in models_at(subject.run, steps):
            sample = sample or sample_of(subject.run, model, options)
            if sample is None:
                return None
            at.append(text_at(step, model, sample))
        if sample is None:
            return None
        data = text_data(at, sample, model.tokenizer, options.no_text, MORE if options.more else MOST)
        if len(steps) < len(every):
            data["notes"].insert(0, f"{len(steps)} of the run's {len(every)} checkpoints are shown")
        if (here := kind_for(subject.run).name) != (there := subject.run.place):
            data["notes"].insert(0, f"computed on {here}, and the run on {there}: numbers are near, not equal")
        return data

    def lines(self, data: Mapping[str, Any]) -> list[str]:
        """Mean losses, the text token by token, the newest checkpoint's heads, and the omissions."""
        steps = data["steps"]
        means = [sum(one["losses"]) / len(one["losses"]) for one in steps]
        rows = [
            [one["step"], f"{mean:.4f}", f"{math.exp(min(mean, 700)):.1f}"]
            for one, mean in zip(steps, means, strict=True)
        ]
        lines = [data["name"], "", *table(["step", "mean loss", "perplexity"], rows, right={0, 1, 2}), ""]
        lines += [*token_lines(data), ""]
        return [*lines, *head_lines(steps[-1], data["sparse"]), *data["notes"]]


def text_data(
    at: Sequence[TextAtStep], sample: TextSample, tokenizer: Tokenizer | None, no_text: bool, most: int
) -> dict[str, Any]:
    """The lens's dictionary. tokens: texts, the first of which nothing predicts; none with `no_text`. steps: by
    checkpoint, losses in nats and maps. sparse: whether rows of maps are [places, weights] of the largest."""

    def text(number: int) -> str:
        return "" if no_text else token_text(tokenizer, number)

    maps, sparse, notes = kept_maps(at, most)
    if not sample.whole:
        notes.insert(0, f"only the first {len(sample.ids)} tokens of the text are shown")
    return {
        "name": "text, left out" if no_text else sample.name,
        "count": len(sample.ids),
        "tokens": [] if no_text else [text(int(i)) for i in sample.ids],
        "unit": SCALE,
        "sparse": sparse,
        "steps": [
            {
                "step": one.step,
                "losses": [round(loss, 4) for loss in one.losses],
                "ranks": one.ranks,
                "likeliest": [[[text(i), round(p, 4)] for i, p in row] for row in one.likeliest],
                "maps": [map_data(node, name, one.maps[node, name], sparse) for node, name in maps[one.step]],
            }
            for one in at
        ],
        "notes": notes,
    }


# --- maps -------------------------------------------------------------------------------------------------------------


def kept_maps(at: Sequence[TextAtStep], most: int) -> tuple[dict[int, list[tuple[str, str]]], bool, list[str]]:
    """(step -> the maps that are shown, whether of each row the largest weights alone, omissions as text).

    All maps of all checkpoints where these are at most `most` numbers, then less of each row, then the newest
    checkpoint's alone, then some of its nodes.
    """
    last = at[-1]
    keys, left_out = list(last.maps), []
    size = {sparse: sum(numbers(weights, sparse) for weights in last.maps.values()) for sparse in (False, True)}
    ways = [(steps, sparse) for steps in (len(at), 1) for sparse in (False, True)]
    steps, sparse = next((way for way in ways if way[0] * size[way[1]] <= most), ways[-1])
    if sparse:
        left_out.append(f"of each row of a map, all but the {LARGEST} largest weights")
    if steps < len(at):
        left_out.append(f"maps of checkpoints before step {last.step:,}")
    if steps * size[sparse] > most:
        keys = spread(keys, max(1, len(keys) * most // size[sparse]))
        left_out.append(f"maps of {len(last.maps) - len(keys)} of {len(last.maps)} nodes")
    shown = {one.step: keys if one in at[len(at) - steps :] else [] for one in at}
    return shown, sparse, [f"left out: {'; '.join(left_out)}. --more shows more"] if left_out else []


def numbers(weights: Array, sparse: bool) -> int:
    """Numbers of a map: those up to the last weight of each row, half of them over keys, or of the largest ones."""
    columns = int(weights.shape[-1])
    used = (columns + 1) // 2 if weights.ndim == 3 else columns
    return int(weights.size) // columns * (2 * min(LARGEST, columns) if sparse else used)


def map_data(node: str, name: str, weights: Array, sparse: bool) -> dict[str, Any]:
    """A map by head and row: weights up to the last one above 0, or [places, weights] of the largest. over: "tokens",
    (heads, n, n), or "experts", (n, N) as one head."""
    return {
        "node": node,
        "name": name,
        "over": "tokens" if weights.ndim == 3 else "experts",
        "columns": weights.shape[-1],
        "heads": [
            [row_data(row, sparse) for row in head] for head in (weights if weights.ndim == 3 else weights[None])
        ],
    }


def row_data(row: Array, sparse: bool) -> list[Any]:
    """A row of a map as JSON."""
    if not sparse:
        used = row.nonzero()[0]
        return [int(weight) for weight in row[: used[-1] + 1 if len(used) else 0]]
    places = sorted(int(i) for i in (-row.astype(int)).argsort(kind="stable")[:LARGEST] if row[i])
    return [places, [int(row[i]) for i in places]]


def pairs_of(row: Sequence[Any], sparse: bool) -> Iterator[tuple[int, float]]:
    """(place, share) of a row of a map."""
    pairs = zip(*row, strict=True) if sparse else enumerate(row)
    yield from ((place, weight / SCALE) for place, weight in pairs)


# --- lines ------------------------------------------------------------------------------------------------------------


def token_lines(data: Mapping[str, Any]) -> list[str]:
    """A row a token: its loss at each checkpoint, its rank and the likeliest at the last one."""
    steps, rows = data["steps"], []
    last = steps[-1]
    for place in range(data["count"] - 1):
        expected = ", ".join(f"{shown(text)} {percent(p)}".strip() for text, p in last["likeliest"][place])
        token = shown(data["tokens"][place + 1]) if data["tokens"] else ""
        losses = [f"{one['losses'][place]:.2f}" for one in steps]
        rows.append([place + 1, token, *losses, last["ranks"][place], expected])
    header = ["at", "token", *(f"at {one['step']:,}" for one in steps), "rank", f"likeliest at {last['step']:,}"]
    return table(header, rows, right={0, *range(2, 3 + len(steps))})


def shown(text: str) -> str:
    """A token in quotes for a terminal's line; "" for one that is left out."""
    line = repr(printable(text))
    return "" if not text else line if len(line) <= SHOWN else f"{line[: SHOWN - 4]}...{line[-1]}"


def head_lines(one: Mapping[str, Any], sparse: bool) -> list[str]:
    """Mean attention of each head of a checkpoint: at the token itself, the one before, the first one; and the
    experts that take the most of each node."""
    heads, loads = list[list[Any]](), list[list[Any]]()
    for entry in one["maps"]:
        for number, head in enumerate(entry["heads"]):
            weights = [dict(pairs_of(row, sparse)) for row in head]
            if entry["over"] == "tokens":
                heads.append([entry["node"], number, *looks(weights)])
            else:
                loads.append([entry["node"], *experts(weights, entry["columns"])])
    header = ["node", "head", "itself", "before", "first", "tokens back"]
    lines = table(header, heads, right={1, 2, 3, 4, 5}) if heads else []
    lines += ["", *table(["node", f"the {BUSIEST} busiest experts"], loads)] if loads else []
    return [f"maps at step {one['step']:,}", *lines, ""] if lines else []


def looks(weights: Sequence[Mapping[int, float]]) -> list[str]:
    """Mean shares of the token itself, the one before it and the first one, and the mean distance in tokens."""
    n = len(weights)
    own, before = (sum(row.get(i - back, 0.0) for i, row in enumerate(weights)) / n for back in (0, 1))
    first = sum(row.get(0, 0.0) for row in weights) / n
    distance = sum(share * (i - j) for i, row in enumerate(weights) for j, share in row.items()) / n
    return [percent(own), percent(before), percent(first), f"{distance:.1f}"]


def experts(weights: Sequence[Mapping[int, float]], count: int) -> list[str]:
    """The experts with the largest mean shares of the tokens, in one cell."""
    loads = [sum(row.get(j, 0.0) for row in weights) / len(weights) for j in range(count)]
    busiest = sorted(range(count), key=lambda j: -loads[j])[:BUSIEST]
    return [", ".join(f"{j}: {percent(loads[j])}" for j in busiest) + f" of {count}"]
