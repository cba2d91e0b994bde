"""A few steps of engines on all ranks, on batches with masked targets; rank 0 writes what came of them.

    mpiexec -n 2 python tests/ranks/steps_on_ranks.py FOLDER CASES_AS_JSON

The batches of a step are the same for every number of ranks: a case's micro-steps times the ranks in all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from core.engine import Engine, Settings, gradient_sums
from core.graph import load_model
from core.loader import load_registry
from core.plan.layout import ParameterGroup
from core.ranks.group import ALONE, Ranks
from core.ranks.joining import join
from core.ranks.launched import launched

STEPS = 3
REGISTRY = load_registry()


def batch(engine: Engine, number: int) -> dict[str, Any]:
    """Batch `number` of the run: tokens, and targets of which a share that differs from batch to batch is masked."""
    rng = np.random.default_rng(number)
    B, T, V = (int(engine.graph.dims[name]) for name in "BTV")
    tokens, targets = rng.integers(0, V, (2, B, T)).astype(np.int32)
    targets[rng.random((B, T)) < 0.2 * (number % 4)] = -1
    return {engine.token_input: tokens, "targets": targets}


def numbers_of(ranks: Ranks, model: Path, micro_steps: int, parts: tuple[int, int], settings: dict[str, Any]) -> Any:
    """Losses, norms, the first step's gradients and the parameters after STEPS steps, by name. parts: LEAST and MOST of
    the gradients' sums."""
    gradient_sums.LEAST, gradient_sums.MOST = parts
    settings["groups"] = [ParameterGroup(**group) for group in settings.pop("groups", ())]
    engine = Engine(load_model(str(model), REGISTRY), REGISTRY, Settings(**settings), None, ranks)
    engine.initialize(3)
    numbers: dict[str, Any] = {}
    for step in range(STEPS):
        own = [(step * micro_steps + index) * ranks.size + ranks.rank for index in range(micro_steps)]
        record = engine.step([batch(engine, number) for number in own], 1e-2)
        numbers |= {f"loss.{step}": record.loss, f"norm.{step}": record.norm}
        numbers |= {f"loss.{step}.{key}": value for key, value in record.losses.items()}
        if step == 0 and not engine.slices:  # else each rank has the sum of its own slice alone
            numbers |= {f"gradient.{name}": array.copy() for name, array in engine.parameter_gradients()}
    return numbers | {f"parameter.{name}": array.copy() for name, array in engine.parameters().items()}


def main(folder: Path, cases: dict[str, dict[str, Any]]) -> None:
    """cases: by name, each with the name of its model. Those with "alone" are rank 0's, without the others."""
    ranks = join(REGISTRY.ranks, REGISTRY.device("cpu"), launched())
    usual = [gradient_sums.LEAST, gradient_sums.MOST]
    for name, case in cases.items():
        group = ALONE if case.pop("alone") else ranks
        if group is ranks or ranks.leads:
            model, micro_steps, parts = (case.pop(key) for key in ("model", "micro_steps", "parts"))
            numbers = numbers_of(group, folder / model, micro_steps, parts or usual, case)
            if ranks.leads:
                np.savez(folder / f"{name}.npz", **numbers)
    ranks.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
