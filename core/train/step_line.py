"""The line of a step, with its metrics as text. It prints nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.words import count, duration, human, percent


def step_line(metrics: Mapping[str, Any], steps: int, eta: float | None) -> str:
    """`step 12/40 | loss 7.1234 | norm 1.318 | lr 6.00e-04 | 1302.1 ms | 197 tok/s | mem 3.1G | eta 1m28s`.

    A loss of several terms has theirs: `loss 7.1234 of loss 7.1000, balance 1.1700`. `loss_z`, `norm_z`, `mfu`, `sol`
    and `memory` are shown where the metrics have them; of a step whose gradients overflowed, that it was skipped.
    """
    parts = [
        f"step {metrics['step']}/{steps}",
        f"loss {metrics['loss']:.4f}{_score(metrics.get('loss_z'))}{in_words(metrics.get('losses', {}))}",
        f"norm {metrics['norm']:.3f}{_score(metrics.get('norm_z'))}",
        f"lr {metrics['lr']:.2e}",
        f"{metrics['ms']:.1f} ms",
        f"{count(metrics['tokens_per_s'])} tok/s",
    ]
    if metrics.get("mfu") is not None:
        parts.append(f"mfu {percent(metrics['mfu'])}")
    if metrics.get("sol") is not None:
        parts.append(f"sol {percent(metrics['sol'])}")
    if metrics.get("next_loss_scale") is not None:
        parts.append(f"skipped, loss scale {metrics['loss_scale']:,.10g} -> {metrics['next_loss_scale']:,.10g}")
    if metrics.get("memory") is not None:
        parts.append(f"mem {human(metrics['memory'])}")
    if eta is not None:
        parts.append(f"eta {duration(eta)}")
    return " | ".join(parts)


def in_words(losses: Mapping[str, float]) -> str:
    """ " of loss 7.1234, balance 0.0123", the values of several loss terms."""
    return " of " + ", ".join(f"{key} {value:.4f}" for key, value in losses.items()) if losses else ""


def _score(z: float | None) -> str:
    return "" if z is None else f" ({z:+.1f}z)"
