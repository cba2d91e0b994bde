"""A folder of a published config, shrunk, and golden values: transformers' results with the same weights.

Weights and tokens are drawn again from `numpy.random.RandomState`, whose streams NumPy has frozen; the weights by the
names of their tensors. So the golden values are a few numbers, and no weights are stored.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core.checkpoint.safetensors_file import write_tensors
from core.errors import CheckFailed
from core.expr import trim
from core.graph import load_model
from core.registry import Registry
from core.testing.model_check import distance
from core.testing.small_model import CONFIG, TABLE, Array, shared_registry

SEED = 20190214
SHAPE, VOCABULARY = (2, 13), 60  # of the tokens; of ids
PROMPT, NEW = 4, 12  # tokens of a prompt, and generated after it
LOSS, NORM = 2e-6, 2e-5  # relative errors


def write_folder(entry: Mapping[str, Any], path: Path, registry: Registry | None = None) -> Path:
    """Write config.json and model.safetensors of `entry` into the new folder `path`, and return it.

    entry: model, a registered model's name; config, all of config.json; dims, the model's values in it. Weights
    are f32: normal(0, 0.15), a norm's weight around 1.
    """
    registry = registry or shared_registry()
    graph = load_model(entry["model"], registry).build(registry, {**entry["dims"], "T": 16})
    format: Any = registry.format_of(TABLE)
    tensors: dict[str, Array] = {}
    for name, held in format.tensors(graph).items():
        whole = np.broadcast_to(np.float32(0), trim(graph.parameters[name].shape))
        tensors |= {tensor: _drawn(tensor, view(whole).shape) for tensor, view in held}
    path.mkdir()
    (path / CONFIG).write_text(json.dumps(entry["config"]), "utf-8")
    write_tensors(path / "model.safetensors", tensors, {"format": "pt"})
    return path


def _drawn(name: str, shape: tuple[int, ...]) -> Array:
    noise = 0.15 * np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return (noise + (1.0 if "norm" in name or "ln_" in name else 0.0)).astype(np.float32)


def check_values(entry: Mapping[str, Any], model: Any) -> None:
    """Compare a model (`core.load` of a result of `write_folder`) with the golden values of `entry`.

    entry: loss, the mean cross-entropy of (2, 13) tokens; norm, the 2-norm of all gradients; greedy, the (2, 12) tokens
    that follow the first four; dims, sizes. Raises CheckFailed with everything that differs.
    """
    stream = np.random.RandomState(SEED)
    tokens, targets = (stream.randint(0, VOCABULARY, SHAPE).astype(np.int32) for _ in range(2))
    squares = sum((gradient.astype(np.float64) ** 2).sum() for gradient in model.gradients(tokens, targets).values())
    results = {"loss": (model.loss(tokens, targets), LOSS), "norm": (np.sqrt(squares), NORM)}
    wrong = [
        f"{name} is {value:.9g}, expected {entry[name]:.9g} within {bound:.0e}"
        for name, (value, bound) in results.items()
        if not distance(value, entry[name]) <= bound
    ]
    greedy = model.generate(tokens[:, :PROMPT], max_new_tokens=NEW, temperature=0)[:, PROMPT:].tolist()
    if greedy != entry["greedy"]:
        wrong.append(f"the greedy tokens are {greedy}, expected {entry['greedy']}")
    if wrong:
        raise CheckFailed(f"{entry['model']}: " + "; ".join(wrong))
