"""The optimizer's step over a store's flat arenas, recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.engine.store import ParameterStore
from core.errors import UsageError
from core.op import SLOT, Optimizer, Tensors


def update_of(
    optimizer: Optimizer, options: Mapping[str, Any], store: ParameterStore, control: Any, over_ranks: str
) -> Callable[[Any], None]:
    """`optimizer.step` over the store's tensors: a call with a launch launches its ops. options: the run's, over the
    optimizer's own; control: the control record; over_ranks: the op that sums over
    the ranks of the run, for gradients and loss; "" for one rank.

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
    loss = control[SLOT["loss"] : SLOT["loss"] + 1]

    def update(launch: Any) -> None:
        if over_ranks:
            launch.op(over_ranks, flat=store.grads)
            launch.op(over_ranks, flat=loss)
        optimizer.step(p, launch)

    return update
