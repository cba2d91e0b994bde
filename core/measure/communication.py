"""The communication of a step on several ranks, its hidden part, and the efficiency compared with one rank.

Each rank first trains alone, in the same processes and with as many micro-steps; then all train together. The
collectives are timed once more alone, with nothing beside them: by events on a GPU, by the clock elsewhere.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from core.engine import Engine
from core.engine.gradient_sums import record_sums
from core.measure.bench import Bench, bench
from core.op import SLOT
from core.words import ms, percent


@dataclass(frozen=True)
class Communication:
    """Seconds, of the slowest rank: a step of one rank alone, a step of all together, its collectives alone."""

    ranks: int
    alone: float
    together: float
    collectives: float

    @property
    def hidden(self) -> float:
        """The share of the collectives that adds nothing to a step, 0 to 1."""
        exposed = min(max(self.together - self.alone, 0.0), self.collectives)
        return 1 - exposed / self.collectives if self.collectives else 1.0

    @property
    def efficiency(self) -> float:
        """The tokens per second and rank, divided by those of one rank alone."""
        return self.alone / self.together

    def data(self) -> dict[str, Any]:
        """The numbers by name, times in milliseconds."""
        times = {"alone_ms": self.alone, "together_ms": self.together, "communication_ms": self.collectives}
        return {"ranks": self.ranks, **{name: 1e3 * s for name, s in times.items()}, "hidden": self.hidden,
                "efficiency": self.efficiency}  # fmt: skip

    def line(self) -> str:
        """One line for people."""
        return (
            f"{self.ranks} ranks: communication {ms(self.collectives)} ms a step, {percent(self.hidden)} of it hidden; "
            f"a step takes {ms(self.together)} ms, and one rank alone {ms(self.alone)} ms: efficiency "
            f"{percent(self.efficiency)}"
        )


def together(engine: Engine, alone: Bench, micro: int, steps: int) -> tuple[Communication, Bench]:
    """The steps of all ranks together, beside those of each alone; all ranks call it. The Bench has the tokens of
    all ranks."""
    shared = bench(engine, micro, steps)
    times = [alone.seconds, shared.seconds, collectives_of(engine, steps)]
    numbers = engine.ranks.agree(times, "max").tolist()
    return Communication(engine.ranks.size, *numbers), replace(shared, tokens=shared.tokens * engine.ranks.size)


def collectives_of(engine: Engine, rounds: int) -> float:
    """Seconds of a step's collectives alone, the median of some rounds."""
    commands = engine.device.record_calls(collectives_in(engine), engine.chooser.pick)
    taken = []
    for _ in range(rounds + 1):
        engine.ranks.wait()
        taken.append(engine.device.elapsed([commands])[0])
    return statistics.median(taken[1:])


def collectives_in(engine: Engine) -> Callable[[Any], None]:
    """A call with a launch launches them: the sums of gradients and loss, and of slices the weights to all."""
    collective, store = engine.collective, engine.store
    assert collective is not None
    loss = engine.control[SLOT["loss"] : SLOT["loss"] + 1]

    def launch_all(launch: Any) -> None:
        record_sums(launch, store, collective)
        launch.op(collective("sum"), flat=loss)
        if store.slices:
            weights, cuts = store.weights[: store.layout.trainable], list(store.slices.cuts)
            launch.op(collective("gather"), part=weights[store.first : store.last], flat=weights, cuts=cuts)

    return launch_all
