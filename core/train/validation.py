"""A validation: the mean loss over the batches that are held out, and each loss term's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.signals import Stop
from core.train.job import Job


def validate(job: Job, stop: Stop) -> tuple[dict[str, Any], dict[str, float]] | None:
    """(`val_loss`, `val_tokens`, and of several loss terms `val_losses`; each term's mean by its key in [loss]), over
    all ranks. None where a signal stopped it half-way, or nothing counts."""
    assert job.val_batches is not None
    stopped, keys = False, dict.fromkeys(job.engine.graph.terms.values())
    sums = np.zeros(2 + len(keys))
    for index, batch in enumerate(job.val_batches()):
        if stop.requested:
            stopped = True
            break
        job.display.status(f"validating, batch {index + 1}")
        total, count, own = job.engine.evaluate_terms(batch)
        sums += [total, count, *own.values()]
    stops, total, count, *others = job.ranks.agree([stopped, *sums]).tolist()
    if stops or not count:
        return None
    losses = {key: value / count for key, value in zip(keys, others, strict=True)}
    metrics = {"val_loss": total / count, "val_tokens": int(count)}
    return metrics | ({"val_losses": losses} if len(losses) > 1 else {}), losses
