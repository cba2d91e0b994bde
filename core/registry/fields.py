"""The checks of a variant's class: the op or the core knows every name in it."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Collection, Iterable
from weakref import WeakSet

from core.dtypes import PRECISIONS
from core.errors import BuildError, did_you_mean
from core.op import NAME, Op, Pattern, Reference, Variant
from core.registry.lookup import REFERENCE

AUTO = "auto"  # a config's word for "choose one": no variant can have this name
ARCH = re.compile(r"sm_\d{2,3}[af+]?")
LAUNCHERS = ("forward", "backward", "forward_backward")
METHODS = (*LAUNCHERS, "configs", "workspace", "counters", "why_not", "parts", "maps")
FIELDS = tuple(Variant.__annotations__)
_SOUND: WeakSet[type[Variant]] = WeakSet()  # classes whose own names are right
KNOWN = (*FIELDS, *Reference.__annotations__, *METHODS)


def check_variant(variant: Variant, cls: type[Variant], op: Op, devices: Collection[str]) -> None:
    """BuildError, naming the nearest name, for anything in the class that the op or the core does not know.

    devices: the legal values of `device`, the `runs` of the table of devices.
    """
    _check_identity(variant, devices)
    if cls not in _SOUND:  # registries of one process have most classes in common
        _check_signatures(cls)
        _check_misspelt(cls)
        _SOUND.add(cls)
    inputs, params, outputs = list(op.inputs), list(op.params), list(op.outputs)
    d_inputs, d_outputs = ["d" + n for n in inputs], ["d" + n for n in outputs]
    rows: tuple[tuple[str, Iterable[str], Iterable[str]], ...] = (
        ("reads", variant.reads, [*inputs, *params, *outputs]),
        ("can_add", variant.can_add, inputs),
        ("alias", variant.alias, d_inputs),
        ("alias value", variant.alias.values(), [*d_inputs, *d_outputs]),
        ("inplace", variant.inplace, d_inputs),
        ("inplace value", variant.inplace.values(), [*inputs, *outputs, *d_outputs, *variant.saved]),
        ("partial", variant.partial, params),
        ("dtypes", variant.dtypes, PRECISIONS),
        ("tolerance", variant.tolerance, PRECISIONS),
    )
    for key, names, allowed in rows:
        if isinstance(names, str):
            raise BuildError(f'{key} is the string "{names}"; expected a tuple: ("{names}",)')
        refuse_unknown(key, "name", names, allowed)
    for name, pattern in variant.saved.items():
        Pattern.parse(pattern, f"saved {name}")
        if name in (*inputs, *params, *outputs, *op.attrs, *op.state, *d_inputs, *d_outputs):
            raise BuildError(f'saved "{name}" has the name of something else of op "{op.name}"')


def _check_identity(variant: Variant, devices: Collection[str]) -> None:
    if not NAME.fullmatch(variant.name) or variant.name == AUTO:
        raise BuildError(f'variant name "{variant.name}" is not a lower-case identifier other than "{AUTO}"')
    if (variant.name == REFERENCE) != isinstance(variant, Reference):
        raise BuildError(f'a class that derives from Reference is called "{REFERENCE}", and no other is')
    if variant.device not in devices:
        near = did_you_mean(variant.device, devices)
        raise BuildError(f'device "{variant.device}" is not one of {", ".join(devices)}{near}')
    if not ARCH.fullmatch(variant.arch):
        raise BuildError(f'arch "{variant.arch}" is not of the form "sm_80+", "sm_80", "sm_90a" or "sm_100f"')


def _check_signatures(cls: type[Variant]) -> None:
    """A launcher with other arguments would fail when a plan is bound, far from its author."""
    expected = ("self", "t") if issubclass(cls, Reference) else ("self", "t", "launch")
    for method in LAUNCHERS:
        function = inspect.getattr_static(cls, method, None)
        if not inspect.isfunction(function):
            continue
        try:
            inspect.signature(function).bind(*expected)
        except TypeError:
            written = f"{method}{inspect.signature(function)}"
            raise BuildError(f"written: {written}; specified: {method}({', '.join(expected)})") from None


def _check_misspelt(cls: type[Variant]) -> None:
    """`can_ad` or `whynot` would be ignored without a word: names this close to a field's are refused."""
    for name in vars(cls):
        if name.startswith("_") or name in KNOWN:
            continue
        close = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.86)
        if close:
            raise BuildError(f'"{name}" means nothing here; did you mean "{close[0]}"? If not, rename it')


def missing_methods(cls: type) -> list[str]:
    """Methods that a plugin's class lacks: abstract ones, and those that its other members promise."""
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    base = next((kind for kind in cls.__mro__ if "promises" in vars(kind)), cls)
    for member, methods in vars(base).get("promises", {}).items():
        if getattr(cls, member) != getattr(base, member):
            missing += [name for name in methods if getattr(cls, name) is getattr(base, name)]
    return missing


def refuse_unknown(where: str, kind: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    allowed = list(allowed)
    for name in names:
        if name not in allowed:
            raise BuildError(
                f'{where}: unknown {kind} "{name}"{did_you_mean(str(name), allowed)}',
                hint=f"known: {', '.join(allowed) or 'none'}",
            )
