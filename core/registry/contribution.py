"""A plugin's contribution before it is registered, and the record of its status afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from core.discovery import Candidate
from core.errors import CoreError

if TYPE_CHECKING:
    import click

    from core.adapter import Adapter
    from core.data_reader import DataReader
    from core.devices import DeviceKind
    from core.evaluation import Evaluation
    from core.lens import Lens
    from core.op import Op, Optimizer, Schedule, Variant
    from core.ranks.ranks_kind import RanksKind
    from core.registry.step_hooks import StepHook
    from core.tokenizers.tokenizer_kind import TokenizerKind
    from core.weight_format import WeightFormat

LOADED, BROKEN, DISABLED = "loaded", "broken", "disabled"


@dataclass(frozen=True)
class ModelFile:
    """A model's TOML file. `name` is its stem."""

    name: str
    path: Path
    origin: str


@dataclass(frozen=True)
class CourseFile:
    """A course's TOML file. `name` is its stem, `plugin` the name of the plugin that brings it."""

    name: str
    path: Path
    origin: str
    plugin: str


@dataclass
class Contribution:
    """The results of one plugin's hooks, with the right types and not yet registered."""

    plugin: Candidate
    ops: list[Op] = field(default_factory=list)
    variants: list[type[Variant]] = field(default_factory=list)
    models: list[Path | str] = field(default_factory=list)
    tuned: list[Path | str] = field(default_factory=list)
    optimizers: list[type[Optimizer]] = field(default_factory=list)
    schedules: list[type[Schedule]] = field(default_factory=list)
    evaluations: list[type[Evaluation]] = field(default_factory=list)
    formats: list[type[WeightFormat]] = field(default_factory=list)
    devices: list[DeviceKind] = field(default_factory=list)
    ranks: list[type[RanksKind]] = field(default_factory=list)
    tokenizers: list[type[TokenizerKind]] = field(default_factory=list)
    data: list[type[DataReader]] = field(default_factory=list)
    adapters: list[type[Adapter]] = field(default_factory=list)
    lenses: list[type[Lens]] = field(default_factory=list)
    courses: list[Path | str] = field(default_factory=list)
    commands: list[click.Command] = field(default_factory=list)
    step_hooks: list[StepHook] = field(default_factory=list)

    def add(self, more: Contribution) -> None:
        """Take over the results of further hooks of the same plugin."""
        for name, results in vars(more).items():
            if name != "plugin":
                getattr(self, name).extend(results)


@dataclass
class PluginRecord:
    """A plugin and its status. `reason` is one line for a broken one."""

    name: str
    kind: str
    origin: str
    status: str
    version: str
    path: Path | None
    candidate: Candidate
    contribution: Contribution | None = None
    reason: str = ""
    traceback: str = ""

    @property
    def brings(self) -> dict[str, list[str]]:
        """Names by kind, kinds that are empty left out; none of a plugin that is not loaded."""
        from core.registry.brought import names_by_kind  # for listings

        return names_by_kind(self.contribution) if self.contribution is not None else {}

    @property
    def brings_any(self) -> bool:
        """Whether anything of it is registered."""
        return self.contribution is not None and any(v for k, v in vars(self.contribution).items() if k != "plugin")


class Rejected(Exception):
    """A contribution that cannot be registered, and why. `conflict`: another plugin has the same name."""

    def __init__(self, contribution: Contribution, error: CoreError, conflict: bool = False) -> None:
        super().__init__(str(error))
        self.contribution = contribution
        self.error = error
        self.conflict = conflict
