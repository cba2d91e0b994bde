"""Tests `Reference.parts` by perturbation, in f64: an element depends on its stated parts, and on nothing else.

A few elements of every tensor that the reference writes are tested. All elements outside of one's parts are perturbed
at once: its bits may not change. An integer that regroups other rows may change how sums are rounded. And each part is
perturbed on its own: over all examples, it must change the elements often enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from core.expr import evaluate
from core.op import SLOT, Reference, make_tensors
from core.op.parts import Index, Ranges, boxes_of
from core.testing.case import UNBOUNDED
from core.testing.compare import Array
from core.testing.log import Log
from core.testing.runner import Call
from core.testing.trial import Trial
from core.testing.trials import LEAST

SAMPLES = 2  # numbers of each tensor that are tested in each example
LARGE = 8192  # elements of inputs and parameters beyond which an example is left out
TRIES_EACH = 2  # elements of a part that are perturbed alone, for each number
TRIES = 8  # of a part, before it has to have had an effect
SHARE = 0.125  # of the tries that have to change the number
ROUNDING = 1e-9  # relative, where integers elsewhere regroup the terms of a sum


def check_parts(log: Log, trial: Trial) -> None:
    """The numbers of an example: nothing outside of their parts changes them. The effect of the parts is counted in the
    log, for `check_parts_matter`."""
    reference = trial.variant
    if not isinstance(reference, Reference) or not reference.has_parts:
        return
    if trial.dtype != "f64" or not LEAST <= trial.elements <= LARGE:
        return
    reference.schema = reference.schema or trial.op  # of a class that was not registered
    rng = np.random.default_rng(trial.elements)
    for call in (Perturbed(trial, call, rng) for call in trial.calls()):
        for tensor, index, boxes in call.samples():
            check_sample(log, call, tensor, index, boxes)


def check_parts_matter(log: Log) -> None:
    """Over all examples, each part that was stated changed the number often enough."""
    for (tensor, source), (tries, effects) in log.parts.items():
        if tries >= TRIES:
            message = f"{tensor} is declared to be made of {source}, which changed it in {effects} of {tries} tries"
            log.verdict("parts", effects >= SHARE * tries, message, hint="name the elements that matter, and no others")


class Perturbed:
    """A call of the reference that is made again with other contents."""

    def __init__(self, trial: Trial, call: Call, rng: np.random.Generator) -> None:
        self.trial, self.call, self.rng = trial, call, rng
        self.before = self.run({})
        added = {name.removeprefix("add_") for name, adds in call.flags.items() if adds}
        writes = [*call.writes, *trial.op.mutates, *added]
        self.written = [name for name in writes if name in self.before] or [n for n in ("step",) if n in self.before]
        others = {*trial.case.extras, *trial.op.state, "start"} | added
        self.sources = {n: v for n, v in call.given.items() if v is not None and n not in others}

    def run(self, contents: Mapping[str, Array]) -> dict[str, Array]:
        """All tensors after the call, with these contents in place of the call's own."""
        return self.trial.runner.run(replace(self.call, given={**self.call.given, **contents})).tensors

    def samples(self) -> Iterator[tuple[str, Index, dict[str, list[Ranges]]]]:
        """(tensor, index, its parts) of a few numbers of each tensor, as far as the reference states their parts."""
        t = make_tensors(self.call.dims, {**self.before, **self.call.given}, **self.call.flags)
        shapes = {name: value.shape for name, value in self.sources.items()}
        reference: Reference = self.trial.variant  # type: ignore[assignment]
        for tensor in self.written:
            for _ in range(SAMPLES):
                anywhere = tuple(int(self.rng.integers(size)) for size in self.before[tensor].shape)
                index = (SLOT["norm"],) if tensor == "step" else anywhere
                parts = reference.parts(t, tensor, index)
                if parts is not None:
                    yield tensor, index, boxes_of(parts, shapes)

    def changes(self, tensor: str, index: Index, contents: Mapping[str, Array], rounding: float = 0.0) -> bool:
        """Whether a number has other bits with these contents; or, with `rounding`, differs by more than that."""
        old, new = self.before[tensor][index], self.run(contents)[tensor][index]
        if old.tobytes() == new.tobytes():
            return False
        return not abs(float(new) - float(old)) <= rounding * float(np.abs(self.before[tensor]).max())

    def place_of_change(self, tensor: str, index: Index, name: str, contents: Array, rounding: float) -> list[int]:
        """The index of an element of `name` that changes the number on its own, as far as halving finds one."""
        value = self.sources[name]
        left = np.flatnonzero(contents != value)
        while left.size > 1:
            half = left[: left.size // 2]
            tried = value.copy()
            tried.flat[half] = contents.flat[half]
            left = half if self.changes(tensor, index, {name: tried}, rounding) else left[half.size :]
        return [int(i) for i in np.unravel_index(int(left[0]), value.shape)]

    def outside(self, name: str, boxes: list[Ranges]) -> Array:
        """A tensor with other contents everywhere but in the boxes."""
        value = self.sources[name]
        held = np.zeros(value.shape, bool)
        for box in boxes:
            held[np.ix_(*box)] = True
        return np.where(held, value, self.others(name))

    def moved(self, name: str, boxes: list[Ranges], number: int) -> Array:
        """A tensor with one other element, which is in a box: the first of all, the last, or any."""
        box = (boxes[0], boxes[-1], boxes[int(self.rng.integers(len(boxes)))])[number % 3]
        at = tuple((axis[0], axis[-1], axis[int(self.rng.integers(len(axis)))])[number % 3] for axis in box)
        value = self.sources[name].copy()
        value[at] = self.others(name)[at]
        return value

    def others(self, name: str) -> Array:
        """Contents of which every element differs from the tensor's by about its own size; integers within their bound,
        where that has more than one."""
        value = self.sources[name]
        if value.dtype.kind == "f":
            noise = self.rng.standard_normal(value.shape)
            finite = np.where(np.isfinite(value), value, 0)  # -inf of a mask has no size
            scale = float(np.sqrt(np.mean(np.square(finite)))) or 1.0
            return np.asarray(finite + scale * (noise + np.sign(noise)))
        bound = self.trial.case.pattern(name).bound
        limit = int(evaluate(bound, self.call.dims, name)) if bound else UNBOUNDED
        more = self.rng.integers(1, max(limit, 2), value.shape)
        return ((value + more) % limit).astype(value.dtype)


def check_sample(log: Log, call: Perturbed, tensor: str, index: Index, boxes: Mapping[str, list[Ranges]]) -> None:
    """Perturb all elements outside of the boxes at once, floats and then integers; and some elements of the boxes."""
    outside = {name: call.outside(name, boxes.get(name, [])) for name in call.sources}
    for kind, rounding in (("f", 0.0), ("iu", ROUNDING)):
        contents = {n: v for n, v in outside.items() if v.dtype.kind in kind}
        if not call.changes(tensor, index, contents, rounding):
            log.passed("parts")
            continue
        changing = (n for n, v in contents.items() if call.changes(tensor, index, {n: v}, rounding))
        name = next(changing, next(iter(contents)))
        place = call.place_of_change(tensor, index, name, contents[name], rounding)
        message = f"{tensor} at {list(index)} changes with {name} at {place}, which is not part of it"
        log.failed("parts", message, hint="`parts` or `made_of` of the reference has to name it")
    for name, held in boxes.items():
        tries, effects = log.parts.get((tensor, name), (0, 0))
        for number in range(tries, tries + TRIES_EACH):
            effects += call.changes(tensor, index, {name: call.moved(name, held, number)})
        log.parts[tensor, name] = (tries + TRIES_EACH, effects)
