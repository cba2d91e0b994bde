"""Builds a registry whole from the plugins' contributions: all ops first, then all variants, then the rest.

A contribution that does not fit (a duplicate, an unknown name) raises `Rejected`, which the loader turns into a broken
plugin; nothing of it remains. No plugin is imported and no variant is chosen here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.devices import AUTO, DeviceKind
from core.discovery import BUILT_IN, SHIPPED, Candidate
from core.dtypes import PRECISIONS
from core.errors import BuildError
from core.op import NAME, Op, Variant
from core.registry.contribution import Contribution, CourseFile, ModelFile, Rejected
from core.registry.fields import LAUNCHERS, check_variant, missing_methods, refuse_unknown
from core.registry.inherited import resolve_base
from core.registry.lookup import REFERENCE, Registry
from core.registry.places import asset, folder_of, folder_of_class, place_of_class, place_of_command, shorten

HOST = "host"  # the variant of an op without kernels: its reference, with copies both ways


@dataclass
class Building:
    """A registry that is being filled. `claims`: a name -> its plugin, and a function that gives its place. device: of
    the variants that are brought; "" for those of all devices."""

    registry: Registry
    contributions: Sequence[Contribution]
    device: str = ""
    claims: dict[str, tuple[Contribution, Callable[[], str]]] = field(default_factory=dict)
    conflicts: list[Rejected] = field(default_factory=list)

    def claim(self, contribution: Contribution, claimed: str, place: Callable[[], str]) -> bool:
        """Whether `claimed` is new. If not, both places are noted, to be judged once all else is known to fit."""
        first, first_place = self.claims.setdefault(claimed, (contribution, place))
        if first_place is place:
            return True
        origins = first.plugin.origin, contribution.plugin.origin
        error = BuildError(
            f"{claimed} is defined twice: {first_place()} ({origins[0]}) and {place()} ({origins[1]})",
            hint=f'rename one, or switch a plugin off: [plugins] disable = ["{contribution.plugin.name}"]',
        )
        self.conflicts.append(Rejected(contribution, error, conflict=first is not contribution))
        return False


def build(contributions: Sequence[Contribution], device: str = "") -> Building:
    """All contributions in one registry, or Rejected for one that does not fit. device: that of their variants.

    A duplicate counts only if both plugins are sound otherwise: one that is refused anyway takes no name.
    """
    building = Building(Registry(devices={}), contributions, device)
    try:
        for step in (
            _add_devices,
            _add_ops,
            _check_patterns,
            add_variants,
            _add_generated,
            _check_references,
            add_on_host,
            _add_models,
            add_courses,
            add_classes,
            add_rest,
        ):
            step(building)
    except Rejected as rejected:
        doubled = [c for c in building.conflicts if c.contribution is rejected.contribution]
        raise (doubled or [rejected])[0] from None  # its other faults may follow from the duplicate
    for conflict in building.conflicts:
        raise conflict
    return building


def _add_devices(building: Building) -> None:
    for contribution in building.contributions:
        for kind in contribution.devices:
            if wrong := misfit(kind):
                raise Rejected(contribution, BuildError(f'device "{kind.name}": {wrong}'))
            if building.claim(contribution, f'device "{kind.name}"', functools.partial(_origin_of, contribution)):
                building.registry.devices[kind.name] = replace(kind, origin=contribution.plugin.origin)


def misfit(kind: DeviceKind) -> str:
    """The reason why a row cannot be in the table of devices; "" where it can."""
    if not NAME.fullmatch(kind.name) or kind.name == AUTO:
        return f'the name is not a lower-case identifier other than "{AUTO}"'
    if not NAME.fullmatch(kind.runs):
        return f'runs is "{kind.runs}"; expected the `device` of the variants that run on it, such as "cpu"'
    if not kind.precisions or not set(kind.precisions) <= set(PRECISIONS):
        return f"precisions are {', '.join(kind.precisions) or 'none'}; expected some of {', '.join(PRECISIONS)}"
    if kind.simulated and not kind.compiles:
        return "it is simulated and compiles nothing; the simulator runs compiled kernels"
    return ""


def _origin_of(contribution: Contribution) -> str:
    return shorten(str(contribution.plugin.home or contribution.plugin.name))


def _add_ops(building: Building) -> None:
    for contribution in building.contributions:
        for op in contribution.ops:
            if building.claim(contribution, f'op "{op.name}"', functools.partial(shorten, op.where)):
                op.origin = contribution.plugin.origin
                building.registry.ops[op.name] = op
                building.registry.variants[op.name] = {}


def _check_patterns(building: Building) -> None:
    """Check that the pattern of a fused op calls existing ops with existing names."""
    for contribution in building.contributions:
        for op in contribution.ops:
            try:
                check_replaces(op, building.registry)
            except BuildError as error:
                raise Rejected(contribution, error) from None


def check_replaces(op: Op, registry: Registry) -> None:
    """BuildError unless every statement of `op.replaces` calls a known op with known names."""
    where = f'{shorten(op.where)}: op "{op.name}" replaces'
    names = [*op.inputs, *op.params]
    for statement in op.statements:
        called = registry.op(statement.op, where)
        call = f"{statement.op}({', '.join(statement.arguments)})"
        refuse_unknown(f"{where}: {call}", "input, parameter or earlier result", statement.arguments, names)
        refuse_unknown(f"{where}: {call}", "attribute", statement.attrs, called.attrs)
        takes = [*called.inputs, *called.params]
        if len(statement.arguments) > len(takes) or len(statement.outputs) > len(called.outputs):
            raise BuildError(
                f"{where}: {', '.join(statement.outputs)} = {call} has more names than {statement.op}, "
                f"which is {', '.join(called.outputs)} = {statement.op}({', '.join(takes)})"
            )
        names += statement.outputs
    if op.statements:
        refuse_unknown(f"{where}: outputs", "result", op.outputs, names)


def add_variants(building: Building) -> None:
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
        blocked = [(c, cls) for c, cls in waiting if cls.base and cls.base not in variants.get(cls.op, {})]
        for contribution, cls in ready or waiting:  # when none is ready, the first one has the reason
            try:
                _add_variant(building, contribution.plugin, cls)
            except BuildError as error:
                where = f"{place_of_class(cls)}: {cls.__name__}"
                raise Rejected(contribution, BuildError(f"{where}: {error.message}", hint=error.hint)) from None
        waiting = blocked


def _add_variant(building: Building, plugin: Candidate, cls: type[Variant]) -> None:
    registry = building.registry
    op = registry.op(cls.op)
    siblings = registry.variants[cls.op]
    base = siblings.get(cls.base)
    if cls.base and base is None:
        if f'variant "{cls.op}.{cls.base}"' in building.claims:
            raise BuildError(f'base = "{cls.base}" leads in a circle')
        raise registry.missing(f'variant of "{cls.op}" called', cls.base, siblings, "base")
    variant = resolve_base(cls, base)() if base is not None else cls()
    check_variant(variant, cls, op, dict.fromkeys(kind.runs for kind in registry.devices.values()))
    variant.schema = op
    variant.origin = plugin.origin
    variant.folder = folder_of_class(cls)
    variant.sources = _sources(variant, cls, base, plugin) if registry.has_kernels(variant) else {}
    siblings[cls.name] = variant


def _add_generated(building: Building) -> None:
    """The variants that follow from ops' formulas; for a run on one device, shipped ones at the first use of the op."""
    for contribution in building.contributions:
        waits = building.device and contribution.plugin.kind in (BUILT_IN, SHIPPED)
        for op in contribution.ops:
            if op.formulas and waits:
                building.registry.pending[op.name] = functools.partial(_generate, building, contribution, op)
            elif op.formulas:
                try:
                    _generate(building, contribution, op)
                except BuildError as error:
                    raise Rejected(contribution, error) from None


def _generate(building: Building, contribution: Contribution, op: Op) -> None:
    """Add the variants that follow from an op's formulas. Raises BuildError for formulas that cannot be read."""
    from core.generated.formulas import Formulas  # of ops that have any
    from core.generated.variants import variants_of

    siblings = building.registry.variants[op.name]
    for variant in variants_of(Formulas(op), with_reference=REFERENCE not in siblings):
        variant.schema, variant.origin = op, contribution.plugin.origin
        variant.folder = Path(op.where.rpartition(":")[0]).parent
        siblings.setdefault(variant.name, variant)


def _check_references(building: Building) -> None:
    for contribution in building.contributions:
        for op in contribution.ops:
            pending = op.name in building.registry.pending
            if not op.statements and not pending and REFERENCE not in building.registry.variants[op.name]:
                error = BuildError(
                    f'{shorten(op.where)}: op "{op.name}" has no reference',
                    hint=f'bring a class that derives from Reference, with op = "{op.name}", in core_variants',
                )
                raise Rejected(contribution, error)


def add_on_host(building: Building) -> None:
    """A variant `host` of each op that has no kernel on a kind of device with kernels."""
    registry = building.registry
    with_kernels = sorted({kind.runs for kind in registry.devices.values() if kind.compiles})
    if building.device and building.device not in with_kernels:
        return
    for contribution in building.contributions:
        for op in contribution.ops:
            siblings = registry.variants[op.name]
            missing = [runs for runs in with_kernels if all(v.device != runs for v in siblings.values())]
            if op.statements or not missing or HOST in siblings:
                continue
            from core.generated.on_host import host_variant  # of ops without kernels

            reference: Any = siblings[REFERENCE]
            variant = host_variant(op, reference, missing[0])
            variant.schema, variant.origin = op, contribution.plugin.origin
            variant.folder = reference.folder
            siblings[HOST] = variant


def _add_models(building: Building) -> None:
    for contribution in building.contributions:
        plugin = contribution.plugin
        for file in contribution.models:
            path = _brought(contribution, file, "core_models")
            if building.claim(contribution, f'model "{path.stem}"', functools.partial(shorten, str(path))):
                building.registry.models[path.stem] = ModelFile(path.stem, path, plugin.origin)


def add_courses(building: Building) -> None:
    for contribution in building.contributions:
        plugin = contribution.plugin
        for file in contribution.courses:
            path = _brought(contribution, file, "core_courses")
            if building.claim(contribution, f'course "{path.stem}"', functools.partial(shorten, str(path))):
                building.registry.courses[path.stem] = CourseFile(path.stem, path, plugin.origin, plugin.name)


def _brought(contribution: Contribution, file: Path | str, hook: str) -> Path:
    """A file that a plugin brings. Raises Rejected for one that is not there, or not in the plugin's folder."""
    plugin = contribution.plugin
    try:
        return asset(plugin, folder_of(plugin), file, hook)
    except BuildError as error:
        raise Rejected(contribution, error) from None


def add_classes(building: Building) -> None:
    """Optimizers, schedules, evaluations, formats of weights, engines of ranks, tokenizers, readers of data, adapters,
    lenses."""
    registry = building.registry
    for contribution in building.contributions:
        brought: tuple[tuple[str, dict[str, Any], Sequence[type]], ...] = (
            ("optimizer", registry.optimizers, contribution.optimizers),
            ("schedule", registry.schedules, contribution.schedules),
            ("evaluation", registry.evaluations, contribution.evaluations),
            ("format", registry.formats, contribution.formats),
            ("engine", registry.ranks, contribution.ranks),
            ("kind of tokenizers", registry.tokenizers, contribution.tokenizers),
            ("reader of data", registry.readers, contribution.data),
            ("adapter", registry.adapters, contribution.adapters),
            ("lens", registry.lenses, contribution.lenses),
        )
        for kind, table, classes in brought:
            for cls in classes:
                if missing := missing_methods(cls):
                    problem = f"{kind} {cls.__name__} does not define {', '.join(missing)}"
                    raise Rejected(contribution, BuildError(f"{place_of_class(cls)}: {problem}"))
                instance: Any = cls()
                if not NAME.fullmatch(instance.name):
                    problem = f'{kind} name "{instance.name}" is not a lower-case identifier'
                    raise Rejected(contribution, BuildError(f"{place_of_class(cls)}: {problem}"))
                place = functools.partial(place_of_class, cls)
                claims = [f'{kind} "{instance.name}"', *getattr(instance, "claims", ())]
                if False not in [building.claim(contribution, claim, place) for claim in claims]:
                    instance.origin = contribution.plugin.origin
                    table[instance.name] = instance


def add_rest(building: Building) -> None:
    for contribution in building.contributions:
        for command in contribution.commands:
            if building.claim(contribution, f'command "{command.name}"', functools.partial(place_of_command, command)):
                building.registry.commands.append(command)
        building.registry.step_hooks += contribution.step_hooks
        building.registry.tuned += [_brought(contribution, file, "core_tuned") for file in contribution.tuned]


def _sources(
    variant: Variant, cls: type[Variant], base: Variant | None, plugin: Candidate
) -> dict[str, tuple[Path, ...]]:
    """The kernels' files of each launcher: the class's own, or its base's for a launcher that is inherited; nothing
    for a class whose `source` is (), which launches no kernels."""
    folder = folder_of_class(cls)
    files = (cls.source,) if isinstance(cls.source, str) else cls.source
    own = tuple(asset(plugin, folder, name, "source") if name else folder / f"{cls.op}.cu" for name in files)
    written = {name for parent in cls.__mro__[: cls.__mro__.index(Variant)] for name in vars(parent)}
    return {**(base.sources if base is not None else {}), **{m: own for m in LAUNCHERS if m in written and own}}
