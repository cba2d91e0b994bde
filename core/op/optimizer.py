"""Optimizer and Schedule: how parameters follow their gradients, and the learning rate of each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar


class Optimizer(ABC):
    """An optimizer: options with defaults, state tensors beside each parameter element, one recorded step.

    `step(p, launch)` is called once; it launches ops (`launch.op("adamw_update", ...)`) over the flat arenas:
    `p.param`, `p.grad`, each state by name, `p.group` (which elements train, and which decay), `p.control` (the control
    record, see core.step_record), and the options by name; `p.flat` has all of them but the options by the names of an
    update's inputs: `launch.op("adamw_update", **p.flat, eps=p.eps)`. For updates that need whole matrices
    (`whole`), `p.parameters` has one entry for each that trains: name, shape, decays, and by the names above its own
    parts of the arenas in its shape; `p.group_without(names)` is `p.group` with these left untrained, so that another
    update can take all the rest at once.

    `p.groups` has the same in stretches of one learning rate and one weight decay ([[optimizer.groups]]): of each,
    `flat` (with `lr_factor`, of the learning rate of the step), `weight_decay`, and `group_without(names)`. An
    optimizer that updates by them, and each of `p.parameters` by its own `lr_factor` and `weight_decay`, declares
    `groups = True`; another one is refused where a config has groups.

    On several ranks these are a rank's slice of the arenas (`[train] shard`), cut at chunks or, for `whole`, between
    parameters; a norm over the slice is a norm over all slices, by ops that use `slices`.
    """

    name: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    below: ClassVar[Mapping[str, float]] = {}  # option -> exclusive upper bound of its numbers: {"betas": 1.0}
    state: ClassVar[Mapping[str, str]] = {}  # {"m": "n : acc"}: n elements, as many as the parameter arena
    groups: ClassVar[bool] = False  # True: updates by `p.groups`
    whole: ClassVar[bool] = False  # True: needs whole matrices (Muon), not slices of the arena
    origin: str = ""

    @abstractmethod
    def step(self, p: Any, launch: Any) -> None:
        """Record the launches that update one parameter: `p` has its weights, gradient and states, flat arrays of n
        elements."""


class Schedule(ABC):
    """A learning-rate schedule: `lr(step, steps, peak, options)` for step 0 .. steps-1."""

    name: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    origin: str = ""

    @abstractmethod
    def lr(self, step: int, steps: int, peak: float, options: Mapping[str, Any]) -> float:
        """The learning rate of step 0 .. steps-1."""

    def remarks(self, steps: int, options: Mapping[str, Any]) -> Iterable[str]:
        """Remarks on these options in a run of `steps`, a sentence each; printed before step 1."""
        return ()
