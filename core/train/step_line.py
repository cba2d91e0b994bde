"""The line of a step, with its metrics as text. It prints nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.words import count, duration, human, percent


def step_line(metrics: Mapping[str, Any], steps: int, eta: float | None) -> str:
    """`step 12/40 | loss 7.1234 | norm 1.318 | lr 6.00e-04 | 1302.1 ms | 197 tok/s | mem 3.1G | eta 1m28s`.

    `loss_z`, `norm_z`, `mfu` and `memory` are shown where the metrics have them.
    """
    parts = [
        f"step {metrics['step']}/{steps}",
        f"loss {metrics['loss']:.4f}{_score(metrics.get('loss_z'))}",
        f"norm {metrics['norm']:.3f}{_score(metrics.get('norm_z'))}",
        f"lr {metrics['lr']:.2e}",
        f"{metrics['ms']:.1f} ms",
        f"{count(metrics['tokens_per_s'])} tok/s",
    ]
    if metrics.get("mfu") is not None:
        parts.append(f"mfu {percent(metrics['mfu'])}")
    if metrics.get("memory") is not None:
        parts.append(f"mem {human(metrics['memory'])}")
    if eta is not None:
        parts.append(f"eta {duration(eta)}")
    return " | ".join(parts)


def _score(z: float | None) -> str:
    return "" if z is None else f" ({z:+.1f}z)"
