"""A text through several checkpoints of a run: loss and likeliest tokens by place, and the weights of its maps.

All numbers are computed again from the checkpoints, dropout off; the run's folder is only read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core import roles
from core.api import Model, build_model
from core.data.documents import Reading
from core.data.text_pieces import as_list
from core.devices import AUTO, CPU, DeviceKind
from core.engine import Engine
from core.engine.batch import Array
from core.errors import CheckpointError, DataError, UsageError
from core.interop.opened import open_path
from core.measure.evaluate import token_loss
from core.measure.held_out import token_source
from core.measure.weight_maps import weight_maps
from core.outside import read_whole, reads
from core.tokenizers.tokenizer import Tokenizer
from core.view.run_record import RunRecord
from core.view.subject import ViewOptions

TOKENS, MORE_TOKENS = 64, 256  # of a text: by default, and at most
CHARACTERS = 64  # of a text, for each examined token: more are not read
LIKELIEST = 5  # tokens
SCALE = 1000  # weights are whole numbers of this part


@dataclass(frozen=True)
class TextSample:
    """A text as ids (n + 1,) i32: each of the first n predicts the next one. name: its origin."""

    name: str
    ids: Array
    whole: bool  # whether this is all of it


@dataclass
class TextAtStep:
    """Predictions of one checkpoint's model on a text of n tokens after its first.

    losses, ranks: (n,) nats of each token that came, and its place among all by probability, from 1.
    likeliest: for each place the ids that were expected most, with probabilities.
    maps: (node, name) -> weights in thousandths, u16: (heads, n, n) of queries over keys, or (n, N) of tokens over
    experts.
    """

    step: int
    losses: list[float]
    ranks: list[int]
    likeliest: list[list[tuple[int, float]]]
    maps: dict[tuple[str, str], Array] = field(default_factory=dict)


def spread(values: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the values, the first and the last among them, evenly apart."""
    if len(values) <= count:
        return list(values)
    if count == 1:
        return [values[-1]]
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def kind_for(record: RunRecord) -> DeviceKind:
    """The device that texts are computed on: the one on which the run is computed again, the cpu for the simulator."""
    return CPU if record.kind.simulated else record.kind


def models_at(record: RunRecord, steps: Sequence[int]) -> Iterator[tuple[int, Model]]:
    """(step, the run's model with that checkpoint's parameters), the same model each time. A checkpoint that the run
    has removed meanwhile is passed over; CheckpointError for a damaged one."""
    model: Model | None = None
    kind = kind_for(record)
    precision = record.config.precision if record.config.precision in (*kind.precisions, AUTO) else kind.precisions[0]
    for step in steps:
        path = record.checkpoint_folder(step)
        try:
            opened = open_path(path, record.registry)
        except (CheckpointError, UsageError):
            if path.exists():
                raise
            continue
        if model is None:
            model = build_model(opened, record.registry, kind.name, precision)
        else:
            model.engine.load_parameters(opened.parameters(model.graph))
            opened.release()
        yield step, model


def sample_of(record: RunRecord, model: Model, options: ViewOptions) -> TextSample | None:
    """The text of `--text`, else the first held-out tokens of the run; None for a run without any.

    Raises UsageError for a text of fewer than two tokens, DataError for files that cannot be read.
    """
    most = min(MORE_TOKENS if options.more else TOKENS, model.graph.positions or TOKENS)
    if options.text is not None:
        if model.tokenizer is None:
            raise UsageError("--text needs a tokenizer, and none came with this run", hint="leave --text out")
        with reads(DataError, options.text):
            text = read_whole(options.text).decode("utf-8", "replace")
        ids = model.tokenizer.encode(text[: most * CHARACTERS])
        name, whole = options.text.name, len(ids) <= most + 1 and len(text) <= most * CHARACTERS
    else:
        data = record.config.data
        names = data.val if isinstance(data.val, Mapping) else as_list(data.val)
        if not names:
            return None
        reading = Reading(data.field, data.separator, data.messages)
        source, _ = token_source(model.engine, model.tokenizer, names, reading, data.layout)
        batch = next(source.val_batches(most, 1))
        tokens, targets = batch[roles.TOKENS][0], batch[roles.TARGETS][0]
        first = batch.get(roles.DOCUMENTS, np.zeros((1, 1)))[0] == 0
        end = int(np.flatnonzero((targets >= 0) & first)[-1]) + 1  # after it is padding, or another document
        ids, name, whole = np.append(tokens[:end], targets[end - 1]), "held-out text", end + 1 == source.tokens
    if len(ids) < 2:
        raise UsageError(f"{name} has {len(ids)} tokens; expected two at least: one is predicted from the other")
    return TextSample(name, ids[: most + 1].astype(np.int32), whole)


def text_at(step: int, model: Model, sample: TextSample) -> TextAtStep:
    """Losses, likeliest tokens and maps of a text under a model. UsageError for one without a loss by token."""
    engine, name = model.engine, model.engine.token_input
    tokens, targets = sample.ids[None, :-1], sample.ids[None, 1:]
    batch = {name: tokens, model.graph.target_input: targets}
    losses, logits = engine.values(batch, [token_loss(engine), engine.logits_value])
    scores = logits[0].astype(np.float64)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    own = np.take_along_axis(scores, targets[0, :, None], axis=-1)
    best = np.argsort(-scores, axis=-1, kind="stable")[:, :LIKELIEST]
    with np.errstate(all="ignore"):  # a checkpoint may hold parameters that overflow
        maps = dict(maps_of(engine, tokens))
    return TextAtStep(
        step,
        losses[0].astype(float).tolist(),
        (1 + (scores > own).sum(-1)).tolist(),
        [[(int(i), float(row[i])) for i in ids] for row, ids in zip(p, best, strict=True)],
        maps,
    )


def maps_of(engine: Engine, tokens: Array) -> Iterator[tuple[tuple[str, str], Array]]:
    """((node, name), weights in thousandths) of one row of tokens (1, T); 0 for those that are nan."""
    for node, name, weights in weight_maps(engine, {engine.token_input: tokens}):
        yield (node, name), np.rint(np.nan_to_num(weights[0]) * SCALE).astype(np.uint16)


def token_text(tokenizer: Tokenizer | None, number: int) -> str:
    """A token as text; bytes that are no whole character are escaped."""
    if tokenizer is None or not 0 <= number < tokenizer.vocab_size:
        return f"#{number}"
    if number == tokenizer.eot:
        return "<end of text>"
    return tokenizer.decode_bytes([number]).decode("utf-8", "backslashreplace")
