"""The registry: names to ops, variants, models and the rest, each with the plugin that brought it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from core.devices import RESIDENT, DeviceKind, choose
from core.errors import BuildError
from core.registry.contribution import LOADED, CourseFile, ModelFile, PluginRecord

if TYPE_CHECKING:
    import click

    from core.adapter import Adapter
    from core.data_reader import DataReader
    from core.evaluation import Evaluation
    from core.lens import Lens
    from core.op import Op, Optimizer, Schedule, Variant
    from core.ranks.ranks_kind import RanksKind
    from core.registry.step_hooks import StepHook
    from core.tokenizers.tokenizer_kind import TokenizerKind
    from core.weight_format import WeightFormat

T = TypeVar("T")
REFERENCE = "reference"


@dataclass
class Registry:
    """All contents of plugins by name. Look-ups raise BuildError with the nearest name."""

    ops: dict[str, Op] = field(default_factory=dict)
    variants: dict[str, dict[str, Variant]] = field(default_factory=dict)
    models: dict[str, ModelFile] = field(default_factory=dict)
    optimizers: dict[str, Optimizer] = field(default_factory=dict)
    schedules: dict[str, Schedule] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    formats: dict[str, WeightFormat] = field(default_factory=dict)  # of weights
    devices: dict[str, DeviceKind] = field(default_factory=lambda: dict(RESIDENT))
    ranks: dict[str, RanksKind] = field(default_factory=dict)  # engines that join processes
    tokenizers: dict[str, TokenizerKind] = field(default_factory=dict)
    readers: dict[str, DataReader] = field(default_factory=dict)
    adapters: dict[str, Adapter] = field(default_factory=dict)  # of models' graphs
    lenses: dict[str, Lens] = field(default_factory=dict)  # of plugins: core/view has its own
    courses: dict[str, CourseFile] = field(default_factory=dict)
    commands: list[click.Command] = field(default_factory=list)
    step_hooks: list[StepHook] = field(default_factory=list)
    tuned: list[Path] = field(default_factory=list)  # files of tuned choices; a later one precedes an earlier
    plugins: list[PluginRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # problems that a listing ignores
    rest: Callable[[], None] | None = None  # completes a registry for one device
    pending: dict[str, Callable[[], None]] = field(default_factory=dict)  # by op: adds variants from its formulas

    def variants_of(self, op: str) -> dict[str, Variant]:
        """The variants of an op by name; those that follow from its formulas are made at the first use."""
        if op in self.pending:
            self.pending.pop(op)()
        return self.variants.get(op, {})

    def complete(self) -> Registry:
        """This registry, with all that a run on one device does not need: other devices' variants, evaluations, lenses,
        commands and engines of ranks. BuildError for a plugin that fails then."""
        for op in list(self.pending):
            self.variants_of(op)
        rest, self.rest = self.rest, None
        if rest is not None:
            rest()
        return self

    def op(self, name: str, where: str = "") -> Op:
        """An op by its name. UsageError, with the nearest name and `where`, if there is none."""
        return self._find("op", name, self.ops, where)

    def variant(self, op: str, name: str, where: str = "") -> Variant:
        """A variant of an op by its name; UsageError likewise."""
        self.op(op, where)
        if name not in self.variants_of(op):
            self.complete()
        return self._find(f'variant of "{op}" called', name, self.variants.get(op, {}), where)

    def collective(self, does: str) -> str:
        """The name of the op that does this with a flat tensor over ranks: "sum", "scatter" or "gather". UsageError
        where no plugin brings it."""
        ops = {op.collective: name for name, op in self.ops.items() if op.collective}
        return self._find("op that is collective", does, ops, "a run on several ranks")

    def reference(self, op: str) -> Variant:
        """The NumPy implementation that defines the op. A fused op has none of its own."""
        return self.variant(op, REFERENCE)

    def model(self, name: str, where: str = "") -> ModelFile:
        """A model's file by its name; UsageError likewise."""
        return self._find("model", name, self.models, where)

    def optimizer(self, name: str, where: str = "") -> Optimizer:
        """An optimizer by its name; UsageError likewise."""
        return self._find("optimizer", name, self.optimizers, where)

    def schedule(self, name: str, where: str = "") -> Schedule:
        """A schedule by its name; UsageError likewise."""
        return self._find("schedule", name, self.schedules, where)

    def format_of(self, table: str) -> WeightFormat:
        """The format of weights that reads a [table] of models. BuildError, with the plugins that may bring it."""
        formats = {one.table: one for one in self.formats.values() if one.table}
        if table not in formats:
            raise self.missing("format of weights with the table", table, formats, hook="core_formats")
        return formats[table]

    def device(self, name: str) -> DeviceKind:
        """The device for `--device NAME`: a name, or "auto" for hardware that is detected, else the first device.

        Raises UsageError for a name that no plugin brings.
        """
        return choose(name, self.devices)

    def home(self, variant: Variant) -> DeviceKind:
        """The device that runs a variant on every machine: its place of checks by default.

        Raises BuildError where none does.
        """
        for kind in self.devices.values():
            if kind.runs == variant.device and kind.everywhere:
                return kind
        raise BuildError(
            f"no device that every machine has runs {variant.op}.{variant.name}, a {variant.device} variant"
        )

    def has_kernels(self, variant: Variant) -> bool:
        """Whether a variant launches kernels, which are compiled for its device."""
        return any(kind.compiles for kind in self.devices.values() if kind.runs == variant.device)

    def plugin(self, name: str, where: str = "") -> PluginRecord:
        """The loaded plugin of that name; BuildError if it is missing, broken or disabled, and why."""
        record = next((r for r in self.plugins if r.name == name and r.status == LOADED), None)
        if record is None:
            from core.registry.unknown_names import not_loaded

            raise not_loaded(name, self.plugins, where)
        return record

    def suspects(self, name: str, hook: str = "") -> list[PluginRecord]:
        """Broken and disabled plugins whose sources mention `name`, and have the hook that would bring it."""
        from core.mentions import mentions

        away = [r for r in self.plugins if r.status != LOADED and mentions(r.candidate, name)]
        return [r for r in away if not hook or mentions(r.candidate, hook)]

    def _find(self, kind: str, name: str, table: Mapping[str, T], where: str) -> T:
        if name in table:
            return table[name]
        raise self.missing(kind, name, table, where)

    def missing(self, kind: str, name: str, names: Iterable[str], where: str = "", hook: str = "") -> BuildError:
        """The error for an unknown name: the nearest known one, and the plugins that may bring it."""
        from core.registry.unknown_names import unknown

        return unknown(kind, name, names, where, self.suspects(name, hook))
