"""The optimizer's step over a store's flat arenas, recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.engine.store import ParameterStore
from core.errors import UsageError
from core.expr import cdiv
from core.op import CONTROL, SLOT, Optimizer, Tensors
from core.plan import GROUP
from core.plan.record import own_slots


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
    own = {"clip": 0.0, **optimizer.options, **options}
    p = Tensors(
        **own,
        **flat,
        flat={**flat, "group": group, "step": control},
        group=group,
        group_without=store.groups,
        parameters=_parameters(optimizer, store, own.get("weight_decay", 0.0)),
        groups=_groups(store, flat, group, control, own.get("weight_decay", 0.0)),
        control=control,
    )
    sums = [control[SLOT["loss"] : SLOT["loss"] + 1]]
    if own := own_slots(store.graph):
        sums.append(control[len(CONTROL) : len(CONTROL) + len(own)])
    cuts = list(store.slices.cuts) if store.slices else []

    def update(launch: Any) -> None:
        if collective and not summed:
            from core.engine.gradient_sums import record_sums  # of runs on several ranks

            record_sums(launch, store, collective)
        if collective:
            for losses in sums:
                launch.op(collective("sum"), flat=losses)
        optimizer.step(p, launch)
        if collective and cuts:
            launch.op(collective("gather"), part=flat["param"], flat=store.weights[:n], cuts=cuts)

    return update


def _groups(
    store: ParameterStore, flat: Mapping[str, Any], group: Any, control: Any, weight_decay: float
) -> list[Tensors]:
    """`p.groups`: a stretch of the flat arenas for each pair of a learning rate and a weight decay."""
    groups = []
    for stretch in store.stretches():
        part = slice(stretch.first - store.first, stretch.last - store.first)
        bytes_of = slice(part.start // GROUP, cdiv(part.stop, GROUP))
        tensors = {name: None if one is None else one[part] for name, one in flat.items()}
        decay = weight_decay if stretch.weight_decay is None else stretch.weight_decay
        groups.append(
            Tensors(
                flat={**tensors, "group": group[bytes_of], "step": control, "lr_factor": stretch.lr_factor},
                group_without=lambda names, those=bytes_of: store.groups(names)[those],
                lr_factor=stretch.lr_factor,
                weight_decay=decay,
            )
        )
    return groups


def _parameters(optimizer: Optimizer, store: ParameterStore, weight_decay: float) -> Any:
    """`p.parameters`: those of this rank's slice, which an optimizer has that declares `whole`."""
    if not store.slices or optimizer.whole:
        return store.one_by_one(weight_decay)
    from core.engine.slice_pieces import NotWhole  # of runs on several ranks

    return NotWhole(optimizer.name)
