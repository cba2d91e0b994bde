"""Shared by readers of other programs' files: the registered model that fits one, and parameters made on demand.

A table in the model's TOML maps the file's names and sizes; the format, which a plugin brings, reads the file by it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.by_name import ByName
from core.errors import BuildError, CheckpointError, CoreError, UsageError, raise_all
from core.expr import Number
from core.graph import Graph, ModelDocument, ModelSource, load_model
from core.graph.build import build_graph
from core.graph.dims import evaluate_dims
from core.graph.model_schema import check_document
from core.graph.problems import Problems
from core.interop.generation import Generation
from core.registry import Registry

Array = np.ndarray[Any, Any]
Dims = dict[str, Any]  # numbers, arithmetic, or lists of these
MOST = 12  # problems that one error lists: a file of another model has hundreds


class Weights(ByName):
    """Parameters by our names, without padding, each made at its use: memory is needed for one at a time.

    Names and shapes were checked when this was made. Floating point of any width.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Array]]) -> None:
        held = dict(makers)
        super().__init__(held, lambda name: held[name]())


@dataclass(frozen=True)
class ModelMatch:
    """A model that fits a file: its source, the dims that the file gives it, and the file's parameters.

    generation: how its texts begin and end. notes: differences of the model's computation from the file's own program.
    """

    source: ModelSource
    dims: Dims
    weights: Weights
    generation: Generation = Generation()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """The parameters of a file for a model that is settled, and how its texts begin and end."""

    weights: Weights
    generation: Generation = Generation()


TENSORS, CONFIG, UNREADABLE = range(3)  # the part that a model does not fit, the nearest first


class Misfit(CheckpointError):
    """A file that is not a model's. far: how far it is from being so; the smaller, the nearer.

    The number of reasons, of which the message may list fewer, after the compared part: TENSORS, or CONFIG before
    any tensor was compared.
    """

    def __init__(self, message: str, *, hint: str = "", far: tuple[int, int]) -> None:
        super().__init__(message, hint=hint)
        self.far = far


@contextmanager
def about(file: str) -> Iterator[None]:
    """Puts the file's name before a CheckpointError from within."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error.message}", hint=error.hint) from None


def find_model(
    registry: Registry, table: str, attempt: Callable[[ModelSource], ModelMatch | None]
) -> ModelMatch | None:
    """The registered model with a [table] that `attempt` can fit to a file; None when every attempt gives None.

    attempt: None for a model of another kind, CheckpointError or BuildError for one that should fit and does not.
    Of the sizes of one model, the one with the most dims of the file. A model that extends another inherits its
    tables: where both fit, the file is the base's, whose tables were written for it. Raises CheckpointError when
    none fits, with the reasons of the nearest one, and when models fit of which none is the others' base.
    """
    matches: list[ModelMatch] = []
    reasons: dict[str, tuple[tuple[int, ...], CoreError]] = {}
    for name in registry.models:
        far, bases = (UNREADABLE, 1), 0
        try:
            source = load_model(name, registry)
            if table not in source.document:
                continue
            problems = Problems()
            check_document(source, problems, registry)
            problems.finish()
            far, bases = (TENSORS, 1), len(source.files)
            fitted = attempt(source)
        except CoreError as error:
            reasons[name] = (*getattr(error, "far", far), bases), error
            continue
        if fitted is not None:
            matches.append(fitted)
    if matches:
        return _settle(matches, table)
    if not reasons:
        return None
    raise _nearest(reasons)


def _nearest(reasons: Mapping[str, tuple[tuple[int, ...], CoreError]]) -> CoreError:
    """The error of the model that lacks least (of several, a base), with its name where others answer to the file."""
    name = min(reasons, key=lambda name: reasons[name][0])
    error = reasons[name][1]
    kind = UsageError if all(isinstance(other, UsageError) for _, other in reasons.values()) else CheckpointError
    alike = all(other.message == error.message for _, other in reasons.values())
    return kind(("" if alike else f"no model fits; the nearest is {name}: ") + error.message, hint=error.hint)


def _settle(matches: list[ModelMatch], table: str) -> ModelMatch:
    """One of the models that fit."""

    def body(fitted: ModelMatch) -> dict[str, Any]:
        return {k: v for k, v in fitted.source.document.items() if k != "dims"}

    def changed(fitted: ModelMatch) -> int:
        own = fitted.source.document.get("dims", {})
        return sum(own.get(name) != size for name, size in fitted.dims.items())

    def is_base(fitted: ModelMatch) -> bool:
        return all(fitted.source.files[0] in other.source.files for other in matches)

    base = next((f for f in matches if is_base(f)), None)
    if base is None:
        raise CheckpointError(
            f"several models fit: {', '.join(f.source.name for f in matches)}",
            hint=f"distinguish them in their [{table}], or leave a plugin out (CORELM_PLUGINS)",
        )
    sizes = [f for f in matches if body(f) == body(base)]
    return min(sizes, key=lambda f: (changed(f), len(f.source.files), f.source.name))


def build(source: ModelDocument, registry: Registry, dims: Mapping[str, Number | str]) -> Graph:
    """The graph for the sizes that a file gives; the build for a run tests whether parameters depend on the batch.

    CheckpointError for sizes that make no model.
    """
    try:
        return build_graph(source, registry, dims, batch_free=False)
    except BuildError as error:
        raise CheckpointError(f"its sizes make no model: {error.message}", hint=error.hint) from None


def with_length(source: ModelDocument, dims: Dims) -> Dims:
    """`dims`, with T no longer than the S that the file gives: the model's own T may be."""
    own = {**source.document.get("dims", {}), **dims}
    T, S = own.get("T"), own.get("S")
    return {**dims, "T": S} if isinstance(T, int) and isinstance(S, int) and T > S else dims


def check_dims(dims: Mapping[str, Any], graph: Graph, keys: Mapping[str, str]) -> None:
    """CheckpointError unless the sizes in a file are the graph's. keys: dim -> its name in the file."""
    sizes = evaluate_dims({**graph.dims, **dims}, (), lambda name: keys.get(name, name))
    raise_all(
        [
            f"{keys.get(name, name)} is {sizes[name]}, and the model's {name} is {graph.dims[name]}"
            for name in dims
            if graph.dims[name] != sizes[name]
        ],
        CheckpointError,
        hint="the model's dims must be those of the file",
    )


def raise_some(problems: list[str], hint: str = "", compared: int = TENSORS) -> None:
    """One Misfit with the first of `problems`, if there are any. compared: as in `Misfit.far`."""
    more = [f"... and {len(problems) - MOST} more"] if len(problems) > MOST else []
    try:
        raise_all(problems[:MOST] + more, CheckpointError, hint=hint)
    except CheckpointError as error:
        raise Misfit(error.message, hint=error.hint, far=(compared, len(problems))) from None


def name_pattern(template: str) -> re.Pattern[str]:
    """`h.{i}.qkv.weight` as a pattern over parameter names, with the group `i` for the number."""
    parts = re.split(r"\{([A-Za-z_]\w*)\}", template)
    seen: set[str] = set()
    text = ""
    for index, part in enumerate(parts):
        if index % 2 == 0:
            text += re.escape(part)
        elif part in seen:
            text += f"(?P={part})"
        else:
            seen.add(part)
            text += rf"(?P<{part}>\d+)"
    return re.compile(text)
