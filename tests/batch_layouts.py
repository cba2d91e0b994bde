"""The inputs of a batch, a config of data, and the documents of a batch's rows."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as of_field

import numpy as np

from core.data import open_data
from core.graph import Value

B, T, V = 2, 24, 600
CHATS = [
    [("user", "the cat"), ("assistant", "sat on"), ("user", "and"), ("assistant", "the mat")],
    [("system", "dog"), ("user", "log"), ("assistant", "the dog sat")],
    [("user", "it's 12"), ("assistant", "o'clock")],
    [("user", "the"), ("assistant", "mat")],
    [("user", "dog"), ("assistant", "on the log and the cat sat on the mat. " * 3)],
]


@dataclass
class Config:
    train: object
    val: object = of_field(default_factory=list)
    tokenizer: object = "bytes"
    vocab_size: int = 300
    field: str = "text"
    separator: str = "%%"
    messages: str = ""
    layout: str = "stream"
    mix: dict = of_field(default_factory=dict)


def feeds(*names, T=T, **more):
    """Integer inputs of (B, T) by role, and others by their shape."""
    values = {name: Value(name, (B, T), "i32", V if name in ("tokens", "targets") else None) for name in names}
    return values | {name: Value(name, shape, None) for name, shape in more.items()}


ALL = feeds("tokens", "targets", "documents", "positions")


def opened(config, inputs=ALL, T=T, seed=0, **settings):
    return open_data(config, dims={"B": B, "T": T, "V": V}, seed=seed, vocab=V, feeds=inputs, **settings)


def documents_of(row):
    """The tokens of each document of a row, padding left out, each with its targets and positions."""
    for number in np.unique(row["documents"]):
        mine = row["documents"] == number
        if (row["targets"][mine] >= 0).any():
            yield {key: values[mine] for key, values in row.items()}


def rows_of(source):
    batch = source.rows(np.arange(source.sequences))
    return [{key: values[n] for key, values in batch.items()} for n in range(source.sequences)]


ROWS = 6


def saved(folder, name, array):
    np.save(folder / name, array)
    return str(folder / name)
