"""The detector of spikes of a run's loss and of its gradients' norm, and of parameters that no gradient reaches.

It computes and remembers; the loop prints and stops. Its `state` is part of a checkpoint, so that a resumed run judges
as the unbroken one. The device refuses non-finite numbers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.engine import NO_LIMITS

WARN, SKIP, ABORT = "warn", "skip", "abort"
MOST_SKIPS = 10  # in a row: a level that is here to stay is no spike, and would be skipped to the end
LOOKS = 8  # at the gradients, evenly in `zero_steps`
NAMED = 5  # parameters in one warning


class Window:
    """The last `size` values; `score` measures how unusual another one is. Values that are not finite stay out."""

    def __init__(self, size: int = 128, values: Iterable[float] = ()) -> None:
        self._values: deque[float] = deque((v for v in values if math.isfinite(v)), maxlen=size)

    def values(self) -> list[float]:
        """Oldest first, for checkpoints."""
        return list(self._values)

    def add(self, value: float) -> None:
        if math.isfinite(value):
            self._values.append(value)

    def score(self, value: float) -> float | None:
        """(value - mean) / standard deviation of the window; None until it is full or when all are equal."""
        mean, deviation = self._moments()
        return (float(value) - mean) / deviation if deviation > 0 and math.isfinite(value) else None

    def limit(self, z: float) -> float:
        """The value whose score is z; infinite where no value has a score, and for a z of 0."""
        mean, deviation = self._moments()
        return mean + z * deviation if z and deviation > 0 else math.inf

    def _moments(self) -> tuple[float, float]:
        """Mean and standard deviation of a full window; zeros before."""
        n = self._values.maxlen or 0
        if len(self._values) < n:
            return 0.0, 0.0
        mean = math.fsum(self._values) / n
        return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in self._values) / n)


@dataclass(frozen=True)
class Seen:
    """The scores of a step's loss and norm among those before. spikes: a few words on each spike."""

    loss_z: float | None
    norm_z: float | None
    spikes: list[str]


@dataclass
class Detector:
    """The settings of `[detect]`, and the history so far. A z or `zero_steps` of 0 is never."""

    action: str = WARN
    loss_z: float = 7.0
    norm_z: float = 7.0
    window: int = 128
    zero_steps: int = 200
    skipped: int = 0  # steps in a row
    zeros: dict[str, int] = field(default_factory=dict)  # parameter -> looks in a row that found nothing but zeros

    def __post_init__(self) -> None:
        self.losses, self.norms = Window(self.window), Window(self.window)

    # --- spikes ------------------------------------------------------------------------------------------------

    def limits(self) -> tuple[float, float]:
        """The loss and the norm above which the next step is a spike."""
        return self.losses.limit(self.loss_z), self.norms.limit(self.norm_z)

    @property
    def refuses(self) -> bool:
        """Whether a spike's update must not happen."""
        return self.action != WARN

    def limits_of_updates(self) -> tuple[float, float]:
        """The loss and the norm above which the next step updates nothing: infinite where a spike only warns."""
        return self.limits() if self.refuses else NO_LIMITS

    def see(self, loss: float, norm: float) -> Seen:
        """Judge a step, and remember it unless its update was refused. A norm that is not finite is that of a step
        without an update, since gradients overflowed under their loss scale: no spike, and not remembered."""
        if not math.isfinite(norm):
            return Seen(self.losses.score(loss), None, [])
        seen = Seen(self.losses.score(loss), self.norms.score(norm), self._spikes(loss, norm))
        if seen.spikes and self.refuses:
            self.skipped += 1
        else:
            self.skipped = 0
            self.losses.add(loss)
            self.norms.add(norm)
        return seen

    @property
    def stuck(self) -> bool:
        """Whether too many steps in a row were skipped for another skip to help."""
        return self.skipped >= MOST_SKIPS

    def ending(self, seen: Seen) -> str:
        """Why a spike ends the run."""
        why = f'[detect] action = "{self.action}"'
        return f"{'; '.join(seen.spikes)}; {why}" + (f", {self.skipped} in a row" if self.stuck else "")

    def _spikes(self, loss: float, norm: float) -> list[str]:
        rows = zip(("loss", "norm"), (loss, norm), self.limits(), (self.losses, self.norms), strict=True)
        return [
            f"{name} {value:.4g} is a spike ({window.score(value):+.1f}z, above {limit:.4g})"
            for name, value, limit, window in rows
            if value > limit
        ]

    # --- parameters that no gradient reaches -------------------------------------------------------------------

    @property
    def look_every(self) -> int:
        """Steps between looks at the gradients; 0 is never."""
        return -(-self.zero_steps // LOOKS)

    def look(self, zero: Collection[str]) -> str:
        """Remember the parameters whose gradient was exactly zero; a warning for those that were long enough, once."""
        self.zeros = {name: self.zeros.get(name, 0) + 1 for name in zero}
        needed = -(-self.zero_steps // self.look_every)
        named = [name for name, looks in self.zeros.items() if looks == needed]
        if not named:
            return ""
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        return (
            f"warning: for {self.zero_steps} steps the gradient of {', '.join(named[:NAMED])}{more} was exactly zero: "
            "it does not train; does the loss depend on it, and is its backward right?"
        )

    # --- in a checkpoint ---------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The state that a resumed run needs: keys of state.json, checked there."""
        windows = {"loss": self.losses.values(), "norm": self.norms.values()}
        return {"windows": windows, "skipped": self.skipped, "zeros": self.zeros}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint; missing parts keep their values."""
        windows = state.get("windows", {})
        self.losses, self.norms = (Window(self.window, windows.get(name, ())) for name in ("loss", "norm"))
        self.skipped, self.zeros = state.get("skipped", 0), dict(state.get("zeros", {}))


def not_finite(tensors: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """The first of `tensors` that holds a NaN or an infinity; "" when all are finite. Mostly one product a tensor."""
    for name, tensor in tensors.items():
        flat = tensor.reshape(-1)
        if not np.isfinite(np.dot(flat, flat)) and not np.isfinite(flat).all():
            return name
    return ""
