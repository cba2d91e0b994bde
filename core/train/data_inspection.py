"""The data of a config without a run: rows of a step's batch with their documents, text and targets; a mix's shares.

Nothing is trained and no memory of a model is filled: the graph is built for its inputs alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from core.config import micro_steps, resolve_config
from core.data import Data, DataSource
from core.errors import UsageError
from core.graph import Graph, load_model
from core.roles import DOCUMENTS, POSITIONS, ROLES, TARGETS, TOKENS
from core.tokenizers.tokenizer import Tokenizer
from core.train.display import Display
from core.train.wiring import find_data
from core.words import printable

Batch = Mapping[str, np.ndarray[Any, Any]]


def inspected(
    path: str, overrides: Sequence[str], device: str, plugins: Sequence[str], step: int, rows: int
) -> dict[str, Any]:
    """The batches of a config's run: the source, its mix, and the first `rows` rows of step `step`, from 1, in their
    order.

    Errors as of a run. UsageError for a step beyond the last one.
    """
    config, registry = resolve_config(path, overrides=overrides, device=device, plugins=plugins)
    if not 1 <= step <= config.train.steps:
        raise UsageError(f"step {step}: expected 1 to {config.train.steps}, the steps of the run")
    graph = load_model(config.model, registry).build(registry, dict(config.dims))
    weights = None
    if config.weights:
        from core.interop.weights import open_weights

        weights = open_weights(config.weights, graph, registry)
    data = find_data(config, registry, graph, None, weights, Display(quiet=True))
    B, T = graph.batch
    micro = micro_steps(config.train.tokens_per_step, B, T, 1, config.where("train.tokens_per_step"))
    return {
        "config": str(config.path),
        "tokenizer": data.tokenizer.name if data.tokenizer else None,
        "notes": data.notes,
        "train": summary(data.train),
        "val": summary(data.val) if data.val else None,
        "mix": mix_of(data.train, config.data.mix),
        "step": step,
        "batch": list(batch_rows(data, graph, step, micro, rows)),
    }


def summary(source: DataSource) -> dict[str, Any]:
    """rows and tokens of an epoch, the inputs that a row has, and its layout."""
    facts = source.describe()
    layout = {"layout": facts["layout"]} if "layout" in facts else {}
    return {"rows": source.sequences, "tokens": source.tokens, "T": source.T, "inputs": list(source.keys), **layout}


def mix_of(source: DataSource, weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """The sources of a mix: weight, share of the drawn rows, rows of an epoch, epochs in the time of one of the mix."""
    quotas: Mapping[str, int] = getattr(source, "quotas", {})
    members: Mapping[str, DataSource] = getattr(source, "members", {})
    total = sum(quotas.values())
    return [
        {
            "source": name,
            "weight": weights[name],
            "share": quota / total,
            "rows": members[name].sequences,
            "epochs": source.sequences * quota / total / members[name].sequences,
        }
        for name, quota in quotas.items()
    ]


def batch_rows(data: Data, graph: Graph, step: int, micro: int, most: int) -> Iterator[dict[str, Any]]:
    source = data.train
    first = (step - 1) * micro * source.B
    numbers = source.order(np.arange(first, first + min(most, micro * source.B)))
    batch = source.rows(numbers)
    for at, number in enumerate(numbers.tolist()):
        row = {key: values[at] for key, values in batch.items()}
        others = {graph.roles.get(k, k): array_facts(v) for k, v in row.items() if k not in ROLES or TOKENS not in row}
        yield {"row": number, "documents": documents_of(row, data.tokenizer), "inputs": others}


def array_facts(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Shape, dtype and range of an input that is no role."""
    least, most = (values.min().item(), values.max().item()) if values.size else (None, None)
    return {"shape": list(values.shape), "dtype": values.dtype.name, "min": least, "max": most}


def documents_of(row: Batch, tokenizer: Tokenizer | None) -> list[dict[str, Any]]:
    """The documents of a row: number, first and last place and position, and the tokens in runs that count in the loss
    or do not. Padding has none that count, and no text."""
    if TOKENS not in row:
        return []
    tokens = row[TOKENS]
    documents = row.get(DOCUMENTS, np.zeros(len(tokens), np.int32))
    targets = row.get(TARGETS, np.full(len(tokens), -1, np.int32))
    positions = row.get(POSITIONS, np.arange(len(tokens)))
    shown = []
    for number in np.unique(documents).tolist():
        places = np.flatnonzero(documents == number)
        first, last = int(places[0]), int(places[-1])
        ids = [int(i) for i in tokens[places]]
        counts = [False, *(bool(t >= 0) for t in targets[places])]
        if counts[-1]:
            ids.append(int(targets[last]))
        runs = groupby(zip(ids, counts, strict=False), key=lambda pair: pair[1])
        padding = TARGETS in row and not any(counts) and number == documents.max() and not any(ids)
        shown.append(
            {
                "document": number,
                "places": [first, last],
                "positions": [int(positions[first]), int(positions[last])],
                "padding": padding,
                "parts": [] if padding else [part_of(count, [i for i, _ in run], tokenizer) for count, run in runs],
            }
        )
    return shown


def part_of(counts: bool, ids: list[int], tokenizer: Tokenizer | None) -> dict[str, Any]:
    text = printable(tokenizer.decode(ids)) if tokenizer is not None else None
    return {"loss": counts, "tokens": ids, "text": text}
