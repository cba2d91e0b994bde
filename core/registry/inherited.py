"""`base`: a variant's class that inherits from another variant of the op, named and not imported."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from core.errors import BuildError
from core.op import Reference, Variant
from core.registry.fields import FIELDS
from core.registry.places import place_of_class

STAMPED = ("schema", "origin", "folder", "sources")  # set by us, not by the author


def resolve_base(cls: type[Variant], base: Variant) -> type[Variant]:
    """`cls` with `base` as its parent: it inherits all that `cls` does not define, except name and priority."""
    if issubclass(cls, Reference):
        raise BuildError(f"{place_of_class(cls)}: {cls.__name__}: a reference has no base")
    next_class = _launched(base) if isinstance(base, Reference) else type(base)
    own = {key: getattr(cls, key) for key in ("op", "name", "base", "priority")}
    own["__module__"] = cls.__module__
    own["__doc__"] = cls.__doc__
    own["__qualname__"] = cls.__qualname__
    return type(cls.__name__, (cls, next_class), own)


def written_class(variant: Variant) -> type[Variant]:
    """The class of a variant as its author wrote it; `resolve_base` puts another one in front of it."""
    kind = type(variant)
    return kind.__mro__[1] if variant.base else kind


def _launched(reference: Reference) -> type[Variant]:
    """The reference as a variant that records its work, so that another can take one direction from it."""
    members: dict[str, Any] = {
        key: getattr(reference, key) for key in FIELDS if key not in ("op", "name", "priority", *STAMPED)
    }
    for method in ("forward", "backward"):
        written = getattr(reference, method)
        members[method] = None if written is None else _recorded(written)
    return type(f"Launched{type(reference).__name__}", (Variant,), members)


def _recorded(method: Callable[[Any], None]) -> Callable[[Any, Any, Any], None]:
    @functools.wraps(method)
    def launcher(self: Any, t: Any, launch: Any) -> None:
        launch.call(lambda: method(t))

    return launcher
