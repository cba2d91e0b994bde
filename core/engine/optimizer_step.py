"""The optimizer's step over a store's flat arenas, recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.engine.store import ParameterStore
from core.errors import UsageError
from core.op import Optimizer, Tensors
from core.plan.record import Pick


def record_update(
    optimizer: Optimizer, options: Mapping[str, Any], store: ParameterStore, control: Any, pick: Pick
) -> Sequence[Any]:
    """The commands of `optimizer.step`. options: the run's, over the optimizer's own; control: the control record.

    Raises UsageError where no parameter trains.
    """
    n = store.layout.trainable
    if not n:
        raise UsageError(f"[train] freeze leaves no parameter of {store.graph.name} to train")
    flat = {"param": store.weights[:n], "grad": store.grads, **store.states, "master": store.master}
    group = store.groups()
    p = Tensors(
        **{"clip": 0.0, **optimizer.options, **options},
        **flat,
        flat={**flat, "group": group, "step": control},
        group=group,
        group_without=store.groups,
        parameters=store.one_by_one(),
        control=control,
    )
    commands: Sequence[Any] = store.device.record_calls(lambda launch: optimizer.step(p, launch), pick)
    return commands
