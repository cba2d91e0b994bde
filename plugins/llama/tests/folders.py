"""Folders of published configs, shrunk, held to the golden values of transformers in a plugin's golden/models.json.

Weights are drawn by their names, as in tests/published.py, which wrote the values.
"""

import json
import zlib

import numpy as np
import pytest
from core.plugins.huggingface.config import listed, read_config
from core.plugins.huggingface.rules import rules
from safetensors.numpy import save_file

import core
from core.graph import load_model
from core.loader import load_registry


def drawn(name, shape):
    noise = 0.15 * np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return (noise + (1.0 if "norm" in name or "ln_" in name else 0.0)).astype(np.float32)


def write_folder(folder, entry):
    """config.json and model.safetensors of an entry."""
    registry = load_registry()
    source = load_model(entry["model"], registry)
    dims, problems = read_config(source, entry["config"])
    assert not problems, problems
    graph = source.build(registry, {**dims, "T": 16})
    prefix, tensors = (listed(source, "prefix") or [""])[0], {}
    for parameter, rule in rules(graph).items():
        whole = np.broadcast_to(np.float32(0), core.expr.trim(graph.parameters[parameter].shape))
        for e, group in enumerate(rule.tensors):
            for r, tensor in enumerate(group):
                tensors[prefix + tensor] = drawn(prefix + tensor, rule.part(whole, e, r).shape)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(entry["config"]))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def agrees(entry, folder):
    """Loss, norm of the gradient, and greedy tokens of an entry written into `folder`."""
    stream = np.random.RandomState(20190214)
    tokens, targets = (stream.randint(0, 60, (2, 13)).astype(np.int32) for _ in range(2))
    model = core.load(write_folder(folder, entry))
    assert model.loss(tokens, targets) == pytest.approx(entry["loss"], rel=2e-6)
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in model.gradients(tokens, targets).values()))
    assert norm == pytest.approx(entry["norm"], rel=2e-5)
    greedy = model.generate(tokens[:, :4], max_new_tokens=12, temperature=0)
    assert greedy[:, 4:].tolist() == entry["greedy"]
