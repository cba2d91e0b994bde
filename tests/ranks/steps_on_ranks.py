"""A few steps of an engine on all ranks, on batches with masked targets; rank 0 writes what came of them.

    mpiexec -n 2 python tests/ranks/steps_on_ranks.py MODEL.toml OUT.npz MICRO_STEPS SETTINGS_AS_JSON

The batches of a step are the same for every number of ranks: MICRO_STEPS times the ranks in all.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from core.engine import Engine, Settings, gradient_sums
from core.graph import load_model
from core.loader import load_registry
from core.plan.layout import ParameterGroup
from core.ranks.group import ALONE
from core.ranks.joining import join
from core.ranks.launched import launched

STEPS = 3


def batch(engine: Engine, number: int) -> dict[str, Any]:
    """Batch `number` of the run: tokens, and targets of which a share that differs from batch to batch is masked."""
    rng = np.random.default_rng(number)
    B, T, V = (int(engine.graph.dims[name]) for name in "BTV")
    tokens, targets = rng.integers(0, V, (2, B, T)).astype(np.int32)
    targets[rng.random((B, T)) < 0.2 * (number % 4)] = -1
    return {engine.token_input: tokens, "targets": targets}


def main(model: str, out: str, micro_steps: int, settings: dict[str, Any]) -> None:
    registry = load_registry()
    gradient_sums.LEAST, gradient_sums.MOST = settings.pop("parts", None) or (gradient_sums.LEAST, gradient_sums.MOST)
    settings["groups"] = [ParameterGroup(**group) for group in settings.pop("groups", ())]
    this = launched()
    ranks = join(registry.ranks, registry.device(settings["device"]), this) if this.size > 1 else ALONE
    engine = Engine(load_model(model, registry), registry, Settings(**settings), None, ranks)
    engine.initialize(3)
    numbers: dict[str, Any] = {}
    for step in range(STEPS):
        parts = [(step * micro_steps + index) * ranks.size + ranks.rank for index in range(micro_steps)]
        record = engine.step([batch(engine, number) for number in parts], 1e-2)
        numbers |= {f"loss.{step}": record.loss, f"norm.{step}": record.norm}
        numbers |= {f"loss.{step}.{key}": value for key, value in record.losses.items()}
        if step == 0 and not engine.slices:  # else each rank has the sum of its own slice alone
            numbers |= {f"gradient.{name}": array.copy() for name, array in engine.parameter_gradients()}
    numbers |= {f"parameter.{name}": array.copy() for name, array in engine.parameters().items()}
    if ranks.leads:
        np.savez(out, **numbers)
    ranks.wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))
