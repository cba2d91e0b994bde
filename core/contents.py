"""The ops, variants and other contents that modules define, collected for hooks. Nothing registers on import."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from core.op import Op, Optimizer, Schedule, Variant


def contents_of(kind: type, *modules: ModuleType) -> list[Any]:
    """The definitions of `kind` in `modules`, module by module, each in the order of its file.

    kind: Op, Variant (references too), Optimizer or Schedule. A module's imports do not count. Classes
    that do not run on their own have no `name`, or one that begins with an underscore. Raises TypeError for
    another kind, or for something in the place of a module.
    """
    if kind not in (Op, Variant, Optimizer, Schedule):
        raise TypeError(f"contents_of({kind!r}, ...): expected Op, Variant, Optimizer or Schedule")
    for module in modules:
        if not isinstance(module, ModuleType):
            raise TypeError(f"contents_of({kind.__name__}, ...): {module!r} is not a module")
    classes = (thing for module in modules for thing in vars(module).values() if _defines(module, thing, kind))
    return list(dict.fromkeys(classes))


def _defines(module: ModuleType, thing: Any, kind: type) -> bool:
    if kind is Op:
        return isinstance(thing, Op) and thing.where.rpartition(":")[0] == module.__file__
    if not (isinstance(thing, type) and issubclass(thing, kind) and thing.__module__ == module.__name__):
        return False
    return bool(getattr(thing, "name", "")) and not thing.__name__.startswith("_")
