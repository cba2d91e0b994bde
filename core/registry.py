"""Names to ops, variants, models, optimizers and schedules, each with the plugin that brought it.

A registry is built whole from the plugins' contributions: all ops first, then all variants, then the rest. A
contribution that does not fit (a duplicate, an unknown name) raises `Rejected`, which the loader turns into a broken
plugin; nothing of it stays behind. The registry imports no plugin and chooses no variant.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from core.discovery import Candidate
from core.dtypes import PRECISIONS
from core.errors import BuildError, CoreError, did_you_mean
from core.evaluation import Evaluation
from core.op import NAME, Op, Optimizer, Pattern, Reference, Schedule, Variant

if TYPE_CHECKING:
    import click

T = TypeVar("T")
LOADED, BROKEN, DISABLED = "loaded", "broken", "disabled"
REFERENCE = "reference"
AUTO = "auto"  # what a config says for "choose one": no variant can have this name
DEVICES = ("cpu", "cuda")  # what a variant can be written for; the simulator runs the variants of cuda
ARCH = re.compile(r"sm_\d{2,3}[af+]?")
LAUNCHERS = ("forward", "backward", "forward_backward")
METHODS = (*LAUNCHERS, "configs", "workspace", "counters", "why_not")
FIELDS = tuple(Variant.__annotations__)
STAMPED = ("origin", "folder", "sources")  # set by us, not by the author


@dataclass(frozen=True)
class ModelFile:
    """A model's TOML file. `name` is its stem."""

    name: str
    path: Path
    origin: str


@dataclass(frozen=True)
class StepHook:
    """A plugin's `core_step_end`: pluggy calls it with the arguments that it asks for."""

    plugin: str
    hook: Callable[..., Any]

    def __call__(self, run: Any, step: int, metrics: dict[str, Any]) -> None:
        self.hook(run=run, step=step, metrics=metrics)


@dataclass
class Contribution:
    """What one plugin's hooks returned, with the right types and not yet registered."""

    plugin: Candidate
    ops: list[Op] = field(default_factory=list)
    variants: list[type[Variant]] = field(default_factory=list)
    models: list[Path | str] = field(default_factory=list)
    tuned: list[Path | str] = field(default_factory=list)
    optimizers: list[type[Optimizer]] = field(default_factory=list)
    schedules: list[type[Schedule]] = field(default_factory=list)
    evaluations: list[type[Evaluation]] = field(default_factory=list)
    commands: list[click.Command] = field(default_factory=list)
    step_hooks: list[StepHook] = field(default_factory=list)


@dataclass
class PluginRecord:
    """A plugin and what became of it. `brings` lists names by kind; `reason` is one line for a broken one."""

    name: str
    kind: str
    origin: str
    status: str
    version: str
    path: Path | None
    candidate: Candidate
    brings: dict[str, list[str]] = field(default_factory=dict)
    reason: str = ""
    traceback: str = ""


class Rejected(Exception):
    """A contribution that cannot be registered, and why. `conflict`: it names what another plugin has."""

    def __init__(self, contribution: Contribution, error: CoreError, conflict: bool = False) -> None:
        super().__init__(str(error))
        self.contribution = contribution
        self.error = error
        self.conflict = conflict


@dataclass
class Registry:
    """Everything that plugins brought. Look-ups raise BuildError with the nearest name."""

    ops: dict[str, Op] = field(default_factory=dict)
    variants: dict[str, dict[str, Variant]] = field(default_factory=dict)
    models: dict[str, ModelFile] = field(default_factory=dict)
    optimizers: dict[str, Optimizer] = field(default_factory=dict)
    schedules: dict[str, Schedule] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    commands: list[click.Command] = field(default_factory=list)
    step_hooks: list[StepHook] = field(default_factory=list)
    tuned: list[Path] = field(default_factory=list)  # files of tuned choices; a later one comes before an earlier
    plugins: list[PluginRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # what a listing loaded in spite of

    def op(self, name: str, where: str = "") -> Op:
        return self._find("op", name, self.ops, where)

    def variant(self, op: str, name: str, where: str = "") -> Variant:
        self.op(op, where)
        return self._find(f'variant of "{op}"', name, self.variants.get(op, {}), where)

    def reference(self, op: str) -> Variant:
        """The NumPy implementation that says what is right. A fused op has none of its own."""
        return self.variant(op, REFERENCE)

    def model(self, name: str, where: str = "") -> ModelFile:
        return self._find("model", name, self.models, where)

    def optimizer(self, name: str, where: str = "") -> Optimizer:
        return self._find("optimizer", name, self.optimizers, where)

    def schedule(self, name: str, where: str = "") -> Schedule:
        return self._find("schedule", name, self.schedules, where)

    def plugin(self, name: str, where: str = "") -> PluginRecord:
        """The loaded plugin of that name; BuildError if it is missing, broken or disabled, and why."""
        prefix = f"{where}: " if where else ""
        records = [r for r in self.plugins if r.name == name]
        for record in records:
            if record.status == LOADED:
                return record
        for record in records:
            raise BuildError(f"{prefix}{state(record)}", hint=_remedy(record))
        names = [r.name for r in self.plugins]
        raise BuildError(
            f'{prefix}there is no plugin "{name}"{did_you_mean(name, names)}',
            hint=f"install it, or give its folder: --plugin PATH. There are: {', '.join(names)}",
        )

    def suspects(self, name: str) -> list[PluginRecord]:
        """Broken and disabled plugins whose sources mention `name`."""
        return [r for r in self.plugins if r.status != LOADED and r.candidate.mentions(name)]

    def _find(self, kind: str, name: str, known: Mapping[str, T], where: str) -> T:
        if name in known:
            return known[name]
        raise self.missing(kind, name, known, where)

    def missing(self, kind: str, name: str, known: Iterable[str], where: str = "") -> BuildError:
        """The error for an unknown name: the nearest known one, and the plugins that may bring it."""
        known = sorted(known)
        prefix = f"{where}: " if where else ""
        message = f'{prefix}there is no {kind} "{name}"{did_you_mean(name, known)}'
        suspects = self.suspects(name)
        for record in suspects:
            message += f"\n    {state(record)}, and it mentions {name}"
        if suspects:
            return BuildError(message, hint=_remedy(suspects[0]))
        return BuildError(message, hint=f"there are: {', '.join(known) or 'none'}")


def state(record: PluginRecord) -> str:
    """`plugin "mine" (./mine) is broken: ImportError: ...`"""
    reason = f": {record.reason}" if record.reason else ""
    return f'plugin "{record.name}" ({record.origin}) is {record.status}{reason}'


def _remedy(record: PluginRecord) -> str:
    if record.status == DISABLED:
        return f"take {record.name} out of [plugins] disable, or add it to CORELM_PLUGINS"
    return f"`core plugins {record.name}` shows its traceback"


# --- building --------------------------------------------------------------------------------------------------


@dataclass
class Building:
    """A registry that is being filled. `claims`: what was brought, by whom, and a function that says where."""

    registry: Registry
    contributions: Sequence[Contribution]
    claims: dict[str, tuple[Contribution, Callable[[], str]]] = field(default_factory=dict)
    conflicts: list[Rejected] = field(default_factory=list)

    def claim(self, contribution: Contribution, what: str, place: Callable[[], str]) -> bool:
        """Whether `what` is new. If not, both places are noted; it is judged once all else is known to fit."""
        first, first_place = self.claims.setdefault(what, (contribution, place))
        if first_place is place:
            return True
        origins = first.plugin.origin, contribution.plugin.origin
        error = BuildError(
            f"{what} is defined twice: {first_place()} ({origins[0]}) and {place()} ({origins[1]})",
            hint=f'rename one, or switch a plugin off: [plugins] disable = ["{contribution.plugin.name}"]',
        )
        self.conflicts.append(Rejected(contribution, error, conflict=first is not contribution))
        return False


def build_registry(contributions: Sequence[Contribution]) -> Registry:
    """All contributions in one registry, or Rejected for one that does not fit.

    A duplicate counts only if both plugins are sound otherwise: one that is refused anyway takes no name.
    """
    building = Building(Registry(), contributions)
    try:
        for step in (_add_ops, _check_patterns, _add_variants, _check_references, _add_models, _add_classes, _add_rest):
            step(building)
    except Rejected as rejected:
        doubled = [c for c in building.conflicts if c.contribution is rejected.contribution]
        raise (doubled or [rejected])[0] from None  # what is wrong with it may follow from the duplicate
    for conflict in building.conflicts:
        raise conflict
    return building.registry


def _add_ops(building: Building) -> None:
    for contribution in building.contributions:
        for op in contribution.ops:
            if building.claim(contribution, f'op "{op.name}"', functools.partial(shorten, op.where)):
                op.origin = contribution.plugin.origin
                building.registry.ops[op.name] = op
                building.registry.variants[op.name] = {}


def _check_patterns(building: Building) -> None:
    """What a fused op replaces must be ops that exist, called with names that exist."""
    for contribution in building.contributions:
        for op in contribution.ops:
            try:
                check_replaces(op, building.registry)
            except BuildError as error:
                raise Rejected(contribution, error) from None


def check_replaces(op: Op, registry: Registry) -> None:
    """BuildError unless every statement of `op.replaces` calls a known op with known names."""
    where = f'{shorten(op.where)}: op "{op.name}" replaces'
    known = [*op.inputs, *op.params]
    for statement in op.statements:
        called = registry.op(statement.op, where)
        call = f"{statement.op}({', '.join(statement.arguments)})"
        _refuse_unknown(f"{where}: {call}", "input, parameter or earlier result", statement.arguments, known)
        _refuse_unknown(f"{where}: {call}", "attribute", statement.attrs, called.attrs)
        takes = [*called.inputs, *called.params]
        if len(statement.arguments) > len(takes) or len(statement.outputs) > len(called.outputs):
            raise BuildError(
                f"{where}: {', '.join(statement.outputs)} = {call} has more names than {statement.op}, "
                f"which is {', '.join(called.outputs)} = {statement.op}({', '.join(takes)})"
            )
        known += statement.outputs
    if op.statements:
        _refuse_unknown(f"{where}: outputs", "result", op.outputs, known)


def _add_variants(building: Building) -> None:
    """Instances of the variant classes, each after the one that its `base` names."""
    variants = building.registry.variants
    waiting = [
        (contribution, cls)
        for contribution in building.contributions
        for cls in contribution.variants
        if building.claim(contribution, f'variant "{cls.op}.{cls.name}"', functools.partial(place_of_class, cls))
    ]
    while waiting:
        ready = [(c, cls) for c, cls in waiting if not cls.base or cls.base in variants.get(cls.op, {})]
        for contribution, cls in ready or waiting:  # when none is ready, the first one says why
            try:
                _add_variant(building, contribution.plugin, cls)
            except BuildError as error:
                where = f"{place_of_class(cls)}: {cls.__name__}"
                raise Rejected(contribution, BuildError(f"{where}: {error.message}", hint=error.hint)) from None
        waiting = [entry for entry in waiting if entry not in ready]


def _add_variant(building: Building, plugin: Candidate, cls: type[Variant]) -> None:
    registry = building.registry
    op = registry.op(cls.op)
    siblings = registry.variants[cls.op]
    base = siblings.get(cls.base)
    if cls.base and base is None:
        if f'variant "{cls.op}.{cls.base}"' in building.claims:
            raise BuildError(f'base = "{cls.base}" leads in a circle')
        raise registry.missing(f'variant of "{cls.op}"', cls.base, siblings, "base")
    variant = resolve_base(cls, base)() if base is not None else cls()
    check_variant(variant, cls, op)
    variant.origin = plugin.origin
    variant.folder = folder_of_class(cls)
    variant.sources = _sources(variant, cls, base, plugin)
    siblings[cls.name] = variant


def _check_references(building: Building) -> None:
    for contribution in building.contributions:
        for op in contribution.ops:
            if not op.statements and REFERENCE not in building.registry.variants[op.name]:
                error = BuildError(
                    f'{shorten(op.where)}: op "{op.name}" has no reference',
                    hint=f'bring a class that derives from Reference, with op = "{op.name}", in core_variants',
                )
                raise Rejected(contribution, error)


def _add_models(building: Building) -> None:
    for contribution in building.contributions:
        plugin = contribution.plugin
        for given in contribution.models:
            path = _brought(contribution, given, "core_models")
            if building.claim(contribution, f'model "{path.stem}"', functools.partial(shorten, str(path))):
                building.registry.models[path.stem] = ModelFile(path.stem, path, plugin.origin)


def _brought(contribution: Contribution, given: Path | str, hook: str) -> Path:
    """A file that a plugin brings. Raises Rejected for one that is not there, or not in the plugin's folder."""
    plugin = contribution.plugin
    try:
        return asset(plugin, _folder(plugin), given, hook)
    except BuildError as error:
        raise Rejected(contribution, error) from None


def _add_classes(building: Building) -> None:
    """Optimizers, schedules and evaluations."""
    registry = building.registry
    for contribution in building.contributions:
        brought: tuple[tuple[str, dict[str, Any], Sequence[type]], ...] = (
            ("optimizer", registry.optimizers, contribution.optimizers),
            ("schedule", registry.schedules, contribution.schedules),
            ("evaluation", registry.evaluations, contribution.evaluations),
        )
        for kind, table, classes in brought:
            for cls in classes:
                instance: Any = cls()
                if not NAME.fullmatch(instance.name):
                    what = f'{kind} name "{instance.name}" is not a lower-case identifier'
                    raise Rejected(contribution, BuildError(f"{place_of_class(cls)}: {what}"))
                if building.claim(contribution, f'{kind} "{instance.name}"', functools.partial(place_of_class, cls)):
                    instance.origin = contribution.plugin.origin
                    table[instance.name] = instance


def _add_rest(building: Building) -> None:
    for contribution in building.contributions:
        for command in contribution.commands:
            if building.claim(contribution, f'command "{command.name}"', functools.partial(_place_of_command, command)):
                building.registry.commands.append(command)
        building.registry.step_hooks += contribution.step_hooks
        building.registry.tuned += [_brought(contribution, given, "core_tuned") for given in contribution.tuned]


# --- base: what a class does not define comes from that variant ------------------------------------------------------


def resolve_base(cls: type[Variant], base: Variant) -> type[Variant]:
    """`cls` with `base` behind it: what `cls` does not define comes from there, its name and priority excepted."""
    if issubclass(cls, Reference):
        raise BuildError(f"{place_of_class(cls)}: {cls.__name__}: a reference has no base")
    behind = _launched(base) if isinstance(base, Reference) else type(base)
    own = {key: getattr(cls, key) for key in ("op", "name", "base", "priority")}
    own["__module__"] = cls.__module__
    own["__doc__"] = cls.__doc__
    own["__qualname__"] = cls.__qualname__
    return type(cls.__name__, (cls, behind), own)


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


# --- checks of a variant -------------------------------------------------------------------------------------------


def check_variant(variant: Variant, cls: type[Variant], op: Op) -> None:
    """BuildError, naming the nearest name, for anything in the class that the op or the core does not know."""
    _check_identity(variant)
    _check_signatures(cls)
    _check_misspelt(cls)
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
    for key, given, known in rows:
        if isinstance(given, str):
            raise BuildError(f'{key} is the string "{given}"; expected a tuple: ("{given}",)')
        _refuse_unknown(key, "name", given, known)
    for name, pattern in variant.saved.items():
        Pattern.parse(pattern, f"saved {name}")
        if name in (*inputs, *params, *outputs, *op.attrs, *op.state, *d_inputs, *d_outputs):
            raise BuildError(f'saved "{name}" has the name of something else of op "{op.name}"')


def _check_identity(variant: Variant) -> None:
    if not NAME.fullmatch(variant.name) or variant.name == AUTO:
        raise BuildError(f'variant name "{variant.name}" is not a lower-case identifier other than "{AUTO}"')
    if (variant.name == REFERENCE) != isinstance(variant, Reference):
        raise BuildError(f'a class that derives from Reference is called "{REFERENCE}", and no other is')
    if variant.device not in DEVICES:
        near = did_you_mean(variant.device, DEVICES)
        raise BuildError(f'device "{variant.device}" is not one of {", ".join(DEVICES)}{near}')
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
        if name.startswith("_") or name in FIELDS or name in METHODS:
            continue
        close = difflib.get_close_matches(name, [*FIELDS, *METHODS], n=1, cutoff=0.86)
        if close:
            raise BuildError(f'"{name}" means nothing here; did you mean "{close[0]}"? If not, rename it')


def _refuse_unknown(where: str, kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            raise BuildError(
                f'{where}: unknown {kind} "{name}"{did_you_mean(str(name), known)}',
                hint=f"known: {', '.join(known) or 'none'}",
            )


# --- files and places ------------------------------------------------------------------------------------------


def _sources(
    variant: Variant, cls: type[Variant], base: Variant | None, plugin: Candidate
) -> dict[str, tuple[Path, ...]]:
    """The kernels' files of each launcher: the class's own, or its base's where the launcher comes from there."""
    if variant.device == "cpu":
        return {}
    folder = folder_of_class(cls)
    given = (cls.source,) if isinstance(cls.source, str) else cls.source
    own = tuple(asset(plugin, folder, name, "source") if name else folder / f"{cls.op}.cu" for name in given)
    written = {name for parent in cls.__mro__[: cls.__mro__.index(Variant)] for name in vars(parent)}
    return {**(base.sources if base is not None else {}), **{m: own for m in LAUNCHERS if m in written}}


def asset(plugin: Candidate, folder: Path, given: Path | str, where: str) -> Path:
    """The file `given`, relative to `folder`, which must exist and lie in the plugin's own folder.

    Symbolic links are followed first, so that none leads out. Raises BuildError.
    """
    root = Path(os.path.realpath(plugin.root or folder))
    try:
        path = Path(os.path.realpath(folder / given))
    except ValueError:
        raise BuildError(f"{where}: {str(given)!r}: no file can be called so") from None
    if not path.is_relative_to(root):
        raise BuildError(f'{where}: "{given}" leads out of the plugin\'s folder {shorten(str(root))}')
    if not os.path.isfile(path):  # Path's own question raises for a name that is too long
        raise BuildError(f'{where}: no file "{shorten(str(path))}"')
    return path


def _folder(plugin: Candidate) -> Path:
    home = plugin.home or Path()
    return home if home.is_dir() else home.parent


def folder_of_class(cls: type) -> Path:
    """The folder of the file that a class is written in."""
    return Path(getattr(sys.modules.get(cls.__module__), "__file__", None) or ".").parent


def place_of_class(cls: type) -> str:
    """file:line of a class, as far as it is known. It reads the source: for errors and listings only."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__
    try:
        line = f":{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        line = ""
    return shorten(f"{file}{line}")


def _place_of_command(command: click.Command) -> str:
    code = getattr(command.callback, "__code__", None)
    return shorten(f"{code.co_filename}:{code.co_firstlineno}") if code else f"command {command.name}"


def shorten(place: str) -> str:
    """A path as a person would type it: relative to the current directory if inside it."""
    return place.removeprefix(f"{Path.cwd()}{os.sep}")
