"""The sums of gradients over ranks, part by part: in the update, or beside the backward of the last micro-step.

The parts are the same in both cases, since the size of a collective may decide the order of its sums. They follow from
the layout alone, from its end on, where backward completes gradients first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from core.engine.bound import AfterSteps
from core.engine.store import ParameterStore
from core.expr import cdiv
from core.plan import ParameterLayout
from core.plan.record import Pick, RecordedStep

LEAST, MOST = 8 << 20, 16 << 20  # elements of a part: 32 to 64 MB of f32
PIECE = 1 << 10  # a part that is cut within a parameter is cut at multiples of this number of elements
Collective = Callable[[str], str]


def parts_of(layout: ParameterLayout, least: int = 0, most: int = 0) -> list[tuple[int, int]]:
    """(start, stop) of the parts of the gradients' arena, from its end: whole parameters, at least `least` elements
    but for the last part; one of over `most` elements is cut into equal pieces."""
    least, most = least or LEAST, most or MOST
    starts = sorted(place.offset for place in layout.places.values() if place.trains)
    parts, stop = [], layout.trainable
    for start in reversed(starts):
        if stop - start < least and start > 0:
            continue
        count = cdiv(stop - start, most)
        each = cdiv(cdiv(stop - start, count), PIECE) * PIECE
        cuts = [*range(start, stop, each), stop]
        parts += list(zip(cuts, cuts[1:], strict=False))[::-1]
        stop = start
    return parts


def record_sum(launch: Any, store: ParameterStore, collective: Collective, part: tuple[int, int]) -> None:
    """Record the sum of a part of the gradients: on every rank, or of a store with slices towards their owners."""
    start, stop = part
    flat = store.grads[start:stop]
    if not store.slices:
        launch.op(collective("sum"), flat=flat)
        return
    cuts = [min(max(cut, start), stop) - start for cut in store.slices.cuts]
    rank = store.slices.ranks.rank
    launch.op(collective("scatter"), flat=flat, part=flat[cuts[rank] : cuts[rank + 1]], cuts=cuts)


def record_sums(launch: Any, store: ParameterStore, collective: Collective) -> None:
    """Record the sums of all gradients, one part after another."""
    for part in parts_of(store.layout):
        record_sum(launch, store, collective, part)


def sums_beside(store: ParameterStore, collective: Collective, pick: Pick) -> AfterSteps | None:
    """after(recorded): by the number of a recorded step, the commands after it that start the sums of the parts that
    it completes; after the last step, those that wait for all. None where the device runs nothing beside a step."""
    device, parts = store.device, parts_of(store.layout)

    def started(order: Sequence[tuple[int, int]]) -> list[list[Any]]:
        calls = (partial(record_sum, store=store, collective=collective, part=part) for part in order)
        return device.beside([device.record_calls(call, pick) for call in calls])

    def after(recorded: Sequence[RecordedStep]) -> Mapping[int, Sequence[Any]]:
        completed = completions(store.layout, recorded, parts)
        order = sorted(parts, key=lambda part: completed[part])  # stable: of equals, the one at the end is first
        *starts, join = started(order)
        commands: dict[int, list[Any]] = {}
        for part, start in zip(order, starts, strict=True):
            commands.setdefault(completed[part], []).extend(start)
        commands.setdefault(len(recorded) - 1, []).extend(join)
        return commands

    return after if started(parts) else None


def completions(
    layout: ParameterLayout, recorded: Sequence[RecordedStep], parts: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], int]:
    """The number of the recorded step after which a part is complete: the last writer of any gradient in it."""
    writers: dict[str, int] = {}
    for number, record in enumerate(recorded):
        buffers = (buffer for buffer in record.step.tensors.values() if buffer is not None and buffer.home == "grad")
        writers |= {buffer.name.removeprefix("d"): number for buffer in buffers}
    completed = dict.fromkeys(parts, 0)
    for name, place in layout.places.items():
        for start, stop in parts:
            if place.trains and place.offset < stop and start < place.offset + place.size:
                completed[start, stop] = max(completed[start, stop], writers.get(name, 0))
    return completed
