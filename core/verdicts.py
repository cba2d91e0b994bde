"""The findings of the op check: one record for each variant, dtype and place, with the sizes that it covered.

Records are kept in two kinds of file: those of this machine in the cache folder, those of a release in verdicts.json in
the plugin's folder. A record counts while the sources that it was made from are unchanged. A run looks up the variants
that it chose, names the sizes that no check has covered, and passes over a variant that failed. On a GPU the record of
that chip comes first, then the simulator's, which models neither timing nor memory order. A damaged or unwritable
store equals an empty one.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import core
from core.cache import cache_folder, read_json
from core.devices import RESIDENT
from core.discovery import BUILT_IN, SHIPPED
from core.op import Op, Variant
from core.registry import PluginRecord, Registry
from core.variant_sources import key_of

if TYPE_CHECKING:
    from core.device.protocol import Device

STORE = "checks.json"  # in the cache folder: the verdicts of this machine
RELEASED = "verdicts.json"  # in a plugin's folder: the verdicts of its release
ROWS = "rows"  # the size of `...`
IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
SHOWN = 2  # sizes that a table's cell names

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Verdict:
    """The finding on one variant in one dtype at one place.

    device: its name; chip: the GPU's model and architecture, "" elsewhere. checks: sub-check -> the worst
    relative error that it saw. sizes and smallest: dim of the op's schema -> the largest and the smallest size that
    was checked; older records have no smallest ones. finding: the first failure, "" for a variant that passed.
    tried: sizes of nodes, as `label` writes them, that a check with a bound of time got as near to as its time allowed.
    compiled: the compilations that passed, as core.testing.compiles records them; "" where none was made.
    """

    device: str
    chip: str
    dtype: str
    passed: bool
    checks: Mapping[str, float] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=dict)
    smallest: Sizes = field(default_factory=dict, kw_only=True)
    finding: str = ""
    tried: tuple[str, ...] = ()
    compiled: str = field(default="", kw_only=True)
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    version: str = core.__version__

    @property
    def where(self) -> str:
        """The chip, or the device where there is none."""
        return self.chip or self.device

    @property
    def there(self) -> str:
        """The place as text: `in the simulator`, `on the cpu`, `on NVIDIA H200, sm_90a`."""
        kind = RESIDENT.get(self.where)
        return kind.where if kind is not None else f"on {self.where}"

    @property
    def worst(self) -> float:
        """The largest relative error of all sub-checks."""
        return max(self.checks.values(), default=0.0)

    def beyond(self, sizes: Sizes) -> dict[str, int]:
        """The sizes of a node that are larger than any that was checked."""
        return {dim: size for dim, size in sizes.items() if size > self.sizes.get(dim, 0)}

    def below(self, sizes: Sizes) -> dict[str, int]:
        """The sizes of a node that are smaller than any that was checked, as far as that was recorded."""
        return {dim: size for dim, size in sizes.items() if size < self.smallest.get(dim, 0)}

    @property
    def has_range(self) -> bool:
        """Whether the smallest size of each dim was recorded, in addition to the largest."""
        return set(self.sizes) <= set(self.smallest)

    def with_more(self, other: Verdict) -> Verdict:
        """This record and a later one of the same variant as one: it passed if both did, at the sizes of both."""
        if self.passed != other.passed:
            return other if self.passed else self
        checks = {n: max(self.checks.get(n, 0.0), other.checks.get(n, 0.0)) for n in {**self.checks, **other.checks}}
        sizes, least = largest([self.sizes, other.sizes]), smallest([self.smallest, other.smallest])
        tried = tuple(dict.fromkeys((*self.tried, *other.tried)))
        compiled = other.compiled or self.compiled
        return replace(other, checks=checks, sizes=sizes, smallest=least, tried=tried, compiled=compiled)

    def at(self, sizes: Sizes) -> str:
        """A table's cell for nodes of these sizes: `checked to C=1,031`, `not checked at C=4,096`."""
        if not self.passed:
            return f"failed {self.there}"
        if beyond := self.beyond(sizes):
            return f"not checked at {label(dict(list(by_reach(beyond, self.sizes).items())[:SHOWN]))}"
        nearest = list(by_reach(sizes, self.sizes))[:1]
        held = label({dim: self.sizes[dim] for dim in nearest})
        return f"checked{held and ' to '}{held}" + f" {self.there}" * (
            self.device in RESIDENT and RESIDENT[self.device].simulated
        )


def by_reach(sizes: Sizes, covered: Sizes) -> dict[str, int]:
    """The sizes, the one furthest beyond the covered ones first."""
    return dict(sorted(sizes.items(), key=lambda item: -item[1] / max(covered.get(item[0], 0), 0.5)))


def label(sizes: Sizes) -> str:
    """`rows=4,096 C=768`"""
    return " ".join(f"{dim}={size:,}" for dim, size in sizes.items())


def sizes_of(op: Op, dims: Mapping[str, Any]) -> dict[str, int]:
    """The size of every dim that the shapes of an op's tensors name, `rows` for `...`, as far as `dims` has them."""
    patterns = [slot.pattern for slots in (op.inputs, op.outputs, op.state) for slot in slots.values()]
    patterns += op.param_patterns.values()
    sizes: dict[str, int] = {}
    names = [n for p in patterns for token in p.tokens for n in IDENTIFIER.findall(token)]
    if any(p.leading for p in patterns) and "..." in dims:
        sizes[ROWS if ROWS not in names else "..."] = math.prod(dims["..."])
    for name in names:
        value = dims.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            sizes.setdefault(name, int(value))
    return sizes


def largest(many: Iterable[Sizes]) -> dict[str, int]:
    """Each dim's largest size."""
    maxima: dict[str, int] = {}
    for sizes in many:
        maxima |= {dim: max(size, maxima.get(dim, 0)) for dim, size in sizes.items()}
    return maxima


def smallest(many: Iterable[Sizes]) -> dict[str, int]:
    """Each dim's smallest size."""
    minima: dict[str, int] = {}
    for sizes in many:
        minima |= {dim: min(size, minima.get(dim, size)) for dim, size in sizes.items()}
    return minima


def place_of(device: Device) -> str:
    """The place of a check on an open device: its chip, or its name where it has none."""
    return chip_of(device) or str(device.name)


def chip_of(device: Device) -> str:
    """A GPU's model and architecture; "" for any other device."""
    return f"{device.model}, {device.arch}" if device.model else ""


# --- the stores ----------------------------------------------------------------------------------------------------

Name = tuple[str, str, str]  # op, variant, dtype
Row = dict[str, Any]  # a record as JSON: a Verdict's fields, `op`, `variant`, `sources`, and `numpy` on this machine


class Verdicts:
    """The verdicts on the variants of `registry`: those in the file `path`, and those of the plugins' releases."""

    def __init__(self, registry: Registry, path: Path | None = None) -> None:
        self.registry = registry
        self.path = cache_folder() / STORE if path is None else path
        self.known: dict[Path, dict[Name, list[Row]]] = {}  # the records of each file that was read
        self.unwritten: list[Row] = []  # this process's own, where its file cannot be written
        self._keys: dict[tuple[str, str], str] = {}  # op and variant -> the key of the sources

    def lookup(self, variant: Variant, where: str, dtype: str) -> Verdict | None:
        """The verdict on a variant as it is now at a place (see `place_of`), else at its home, as in the simulator;
        None for neither."""
        places = (where, self.registry.home(variant).name if self.registry.has_kernels(variant) else where)
        return next((v for p in places if (v := self.at(variant, p, dtype)) is not None), None)

    def at(self, variant: Variant, where: str, dtype: str) -> Verdict | None:
        """The verdict on a variant at this place and no other."""
        name = (variant.op, variant.name, dtype)
        own = [row for row in self._rows(self.path).get(name, ()) if row.get("numpy") == np.__version__]
        path = release_file(plugin_of(variant, self.registry))
        rows = [*(self._rows(path).get(name, ()) if path else ()), *own]
        if not rows:
            return None
        own_name = (variant.op, variant.name)
        if own_name not in self._keys:
            self._keys[own_name] = key_of(variant, self.registry)
        sources = self._keys[own_name]
        verdicts = [verdict_of(row) for row in rows if row.get("sources") == sources]
        here = [verdict for verdict in verdicts if verdict is not None and verdict.where == where]
        return functools.reduce(Verdict.with_more, here) if here else None

    def compiled(self, variant: Variant) -> set[str]:
        """The records of compilations of a variant's kernels that passed, of whichever text they were made."""
        path = release_file(plugin_of(variant, self.registry))
        names = [(variant.op, variant.name, dtype) for dtype in variant.dtypes]
        stores = [self._rows(place) for place in (path, self.path) if place is not None]
        rows = [row for held in stores for name in names for row in held.get(name, ())]
        return {str(row["compiled"]) for row in rows if row.get("compiled")}

    def _rows(self, path: Path) -> dict[Name, list[Row]]:
        """A file's records by op, variant and dtype; read once."""
        if path not in self.known:
            try:
                stat = path.stat()
                self.known[path] = _unchanged(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
            except OSError:
                self.known[path] = {}
        return self.known[path]

    def failure(self, variant: Variant, where: str, dtype: str) -> str | None:
        """The reason why a variant may not run at a place: the finding of its check there. None without a failure."""
        verdict = self.lookup(variant, where, dtype)
        if verdict is None or verdict.passed:
            return None
        return f"its check failed {verdict.there}: {verdict.finding or 'see core check'}"

    def failures_on(self, device: Device, dtype: str) -> Callable[[Variant], str | None]:
        """`failure` for variants on an open device, by the verdicts that are known at each call."""
        place = place_of(device)
        return lambda variant: self.failure(variant, place, dtype)


def by_name(rows: Iterable[Row]) -> dict[Name, list[Row]]:
    """Records by op, variant and dtype."""
    rows_by_name: dict[Name, list[Row]] = {}
    for row in rows:
        rows_by_name.setdefault((str(row.get("op")), str(row.get("variant")), str(row.get("dtype"))), []).append(row)
    return rows_by_name


@functools.lru_cache(maxsize=64)
def _unchanged(path: Path, inode: int, changed: int, size: int) -> dict[Name, list[Row]]:
    """The records of a file as it was then, which this process reads once."""
    return by_name(rows_in(path))


def rows_in(path: Path) -> list[Row]:
    """The records of a file; none where it is absent or damaged."""
    held = read_json(path)
    return [row for row in held if isinstance(row, dict)] if isinstance(held, list) else []


def verdict_of(row: Row) -> Verdict | None:
    """The record in a JSON value; None for any other value."""
    fields = Verdict.__dataclass_fields__
    try:
        values = {name: value for name, value in row.items() if name in fields}
        return Verdict(**{"chip": "", **values, "tried": tuple(values.get("tried", ()))})
    except TypeError:
        return None


# --- whose they are ------------------------------------------------------------------------------------------------


def plugin_of(variant: Variant, registry: Registry) -> PluginRecord | None:
    """The plugin that brought a variant."""
    return next((record for record in registry.plugins if record.origin == variant.origin), None)


def ships(variant: Variant, registry: Registry) -> bool:
    """Whether a variant is part of this release, all of whose variants have passed the check."""
    record = plugin_of(variant, registry)
    return record is not None and record.kind in (BUILT_IN, SHIPPED)


def release_file(record: PluginRecord | None) -> Path | None:
    """The file of a plugin's own verdicts, existing or not; None for a plugin that is a single file."""
    if record is None or record.path is None or record.path.is_file():
        return None
    return record.path / RELEASED
