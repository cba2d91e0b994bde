"""A Hugging Face folder of a model: config.json and model.safetensors, by its [hf] run backwards.

Written are the first of the architectures, of a dim's keys, of the values that [hf.expect] allows, and of the prefixes.
A tied tensor is written once, under its owner's name, as Hugging Face does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.errors import BuildError, CheckpointError, DataError
from core.interop import BEGIN, END, PADDING, Array, Export, Registry, Weights, check_meaning, write_tensors
from core.outputs import staged

from . import folder as reader
from .config import CONFIG, TABLE, listed, written
from .folder import GENERATION, WHOLE
from .rules import Rule, rules

TORCH = {"f32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # precision -> its name in config.json


def write(export: Export, registry: Registry, out: Path) -> str:
    """Write the folder `out`, whole or not at all; a line on its tokenizer.

    Raises BuildError for a model whose [hf] does not describe it, CheckpointError when the disk refuses.
    """
    if TABLE not in export.graph.source.document:
        raise BuildError(
            f"{export.graph.source.where()} has no [{TABLE}] to write Hugging Face's names with",
            hint="docs/models.md shows the table",
        )
    extra, ids, note = _tokenizer(export)
    config, tensors = config_of(export, ids), tensors_of(export)
    with staged(out) as path:
        files.make_folder(path)
        files.write_durably(path / CONFIG, files.to_json(config))
        write_tensors(path / WHOLE, tensors, {"format": "pt"})  # transformers requires it
        if export.opened.generation.config is not None:
            files.write_durably(path / GENERATION, files.to_json(dict(export.opened.generation.config)))
        for name, data in extra.items():
            files.write_durably(path / name, data)
        files.sync_folder(path)
        _read_back(export, registry, path)
    return note


def _tokenizer(export: Export) -> tuple[dict[str, bytes], dict[str, int], str]:
    """The tokenizer's files, the ids of its start and end of text, and a line about it."""
    from core.tokenizers.folder import FILE, write_files

    tokenizer = export.tokenizer()
    if tokenizer is None:
        return {}, {}, "without a tokenizer: the model has none"
    ends = {BEGIN: tokenizer.bos, END: tokenizer.eot}
    ids = {key: value for key, value in ends.items() if value is not None}
    longest: Any = export.graph.source.document.get("dims", {}).get("S")
    try:
        return write_files(tokenizer, longest if isinstance(longest, int) else None), ids, f"with {FILE}"
    except DataError as error:
        return {}, ids, f"without a tokenizer: {error.message}"


def _read_back(export: Export, registry: Registry, path: Path) -> None:
    """BuildError unless the plugin's own reader finds this model, and no other, in the files."""
    folder = reader.open_folder(path)
    try:
        reader.fitting(folder, export.graph)
    except CheckpointError as error:
        why = error.message.removeprefix(f"{path}: ")
        raise BuildError(f"{export.graph.source.where()} [{TABLE}] does not describe the model: {why}") from None

    def find() -> Any:
        answers = reader.architectures(registry)
        return reader.find(folder, registry, {}) if answers & set(folder.architectures) else None

    check_meaning(export, registry, find, "Hugging Face's names")


def config_of(export: Export, ids: Mapping[str, int]) -> dict[str, Any]:
    """config.json: the model's entries in [hf], its sizes, the precision, and the ids that texts begin and end with.

    ids: the tokenizer's, for a model that brings none of its own.
    """
    graph = export.graph
    where = graph.source.where(TABLE)
    names = listed(graph.source, "architectures")
    if not names:
        raise BuildError(f"{where}: there are no architectures to write")
    config: dict[str, Any] = {"architectures": names[:1]}
    for key, value in written(graph):
        _put(config, key, value, where)
    own = export.opened.generation.ids
    none = {} if own else dict.fromkeys((BEGIN, END, PADDING))  # null: a class's default may be no id of this model
    return {**config, "torch_dtype": TORCH[export.precision], **none, **ids, **own}


def _put(config: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a dotted key. BuildError for a key with two values."""
    *tables, last = key.split(".")
    for name in tables:
        config = config.setdefault(name, {})
        if not isinstance(config, dict):
            raise BuildError(f"{where}: {key} is a key of {name}, which has a value of its own")
    if config.setdefault(last, value) != value:
        raise BuildError(f"{where}: {key} has two values, {config[last]!r} and {value!r}")


def tensors_of(export: Export) -> Weights:
    """The model's parameters by Hugging Face's names and in their shapes, each made at its access."""
    prefix = (listed(export.graph.source, "prefix") or [""])[0]
    makers: dict[str, Callable[[], Array]] = {}
    for parameter, rule in rules(export.graph).items():
        for e, group in enumerate(rule.tensors):
            for r, tensor in enumerate(group):
                name = prefix + tensor
                if name in makers:
                    raise BuildError(f'[{TABLE}.params]: two parameters map to the tensor "{name}"')
                makers[name] = _maker(export, name, parameter, rule, e, r)
    return Weights(makers)


def _maker(export: Export, name: str, parameter: str, rule: Rule, e: int, r: int) -> Callable[[], Array]:
    def made() -> Array:
        part = rule.part(export.weights[parameter], e, r)
        return export.stored(f"tensor {name}", np.ascontiguousarray(part, np.float32))

    return made
