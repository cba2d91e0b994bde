"""The optimizer's step over a store's flat arenas, recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.engine.store import ParameterStore
from core.errors import UsageError
from core.op import SLOT, Optimizer, Tensors


def update_of(
    optimizer: Optimizer,
    options: Mapping[str, Any],
    store: ParameterStore,
    control: Any,
    collective: Callable[[str], str] | None = None,
    summed: bool = False,
) -> Callable[[Any], None]:
    """`optimizer.step` over the store's tensors: a call with a launch launches its ops. options: the run's, over the
    optimizer's own; control: the control record; collective: the op that does "sum", "scatter" or "gather" over the
    ranks of the run; None for one rank. summed: whether the gradients are summed over ranks before.

    Of a store with slices each rank updates its own: gradients are summed towards their owners, and the owners' weights
    go to all. Raises UsageError where no parameter trains.
    """
    n, first, last = store.layout.trainable, store.first, store.last
    if not n:
        raise UsageError(f"[train] freeze leaves no parameter of {store.graph.name} to train")
    flat = {"param": store.weights[first:last], "grad": store.grads[first:last], **store.states, "master": store.master}
    group = store.groups()
    p = Tensors(
        **{"clip": 0.0, **optimizer.options, **options},
        **flat,
        flat={**flat, "group": group, "step": control},
        group=group,
        group_without=store.groups,
        parameters=_parameters(optimizer, store),
        control=control,
    )
    loss = control[SLOT["loss"] : SLOT["loss"] + 1]
    cuts = list(store.slices.cuts) if store.slices else []

    def update(launch: Any) -> None:
        if collective and not summed:
            from core.engine.gradient_sums import record_sums  # of runs on several ranks

            record_sums(launch, store, collective)
        if collective:
            launch.op(collective("sum"), flat=loss)
        optimizer.step(p, launch)
        if collective and cuts:
            launch.op(collective("gather"), part=flat["param"], flat=store.weights[:n], cuts=cuts)

    return update


def _parameters(optimizer: Optimizer, store: ParameterStore) -> Any:
    """`p.parameters`: those of this rank's slice, which an optimizer has that declares `whole`."""
    if not store.slices or optimizer.whole:
        return store.one_by_one()
    from core.engine.slice_pieces import NotWhole  # of runs on several ranks

    return NotWhole(optimizer.name)
