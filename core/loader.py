"""Loads plugins, one by one, into a registry.

Each plugin is imported and its hooks are called inside a guard: a plugin that fails is listed as broken with its
reason, and nothing of it is registered. The failure is fatal only where the plugin is needed: by a path on the command
line, by a model that requires it, by an op that it would have defined. core.plan chooses among the loaded variants.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pluggy

from core import hooks, signals
from core.containment import PASSES, contained
from core.discovery import BUILT_IN, GIVEN, Candidate, describe, discover
from core.errors import BuildError, CoreError
from core.registry import (
    BROKEN,
    DISABLED,
    LOADED,
    Contribution,
    PluginRecord,
    Registry,
    Rejected,
    build_registry,
)


def load_registry(
    paths: Sequence[str | os.PathLike[str]] = (),
    *,
    disable: Sequence[str] = (),
    only: Sequence[str] | None = None,
    require: Sequence[str] = (),
    strict: bool = True,
) -> Registry:
    """The built-in ops and every plugin: shipped, installed, and those at `paths` (a folder or a .py file).

    disable: names of plugins or distributions to leave out. only: the shipped and installed ones to take, () for none
    of them; None stands for what CORELM_PLUGINS says. require: plugins that must be loaded. strict=False is for
    listings: it raises nothing, not for conflicts nor for a given path that is broken, and lists them.

    Raises BuildError for a broken plugin that was given or required, and for two definitions of one name.
    """
    discovery = discover(paths, disable, only)
    if strict and discovery.problems:
        raise discovery.problems[0]
    for text in discovery.notes:
        warnings.warn(text, stacklevel=2)
    loading = Loading(strict)
    for candidate in discovery.candidates:
        loading.collect(candidate)
    registry = loading.build()
    registry.problems = [str(problem) for problem in discovery.problems]
    registry.plugins = [loading.records[id(c)] for c in discovery.candidates]
    registry.plugins += [_record(c, DISABLED) for c in discovery.disabled]
    for name in require:
        registry.plugin(name)
    return registry


@dataclass
class Loading:
    """Contributions so far, and what became of each plugin."""

    strict: bool
    contributions: list[Contribution] = field(default_factory=list)
    records: dict[int, PluginRecord] = field(default_factory=dict)

    def collect(self, candidate: Candidate) -> None:
        """Import a plugin and call its hooks. Whatever it raises makes it broken, SystemExit included."""
        record = self.records[id(candidate)] = _record(candidate, LOADED)
        try:
            with contained():
                self.contributions.append(contribution_of(candidate, import_plugin(candidate)))
        except PASSES:
            raise
        except BaseException as error:
            self._broken(record, error)
        signals.check()

    def build(self) -> Registry:
        """A registry of all that fits; each plugin is in it whole or not at all."""
        while True:
            try:
                registry = build_registry(self.contributions)
            except Rejected as rejected:
                self.contributions.remove(rejected.contribution)
                record = self.records[id(rejected.contribution.plugin)]
                self._broken(record, rejected.error, fatal=rejected.conflict)
            else:
                break
        for contribution in self.contributions:
            self.records[id(contribution.plugin)].contribution = contribution
        return registry

    def _broken(self, record: PluginRecord, error: BaseException, fatal: bool = False) -> None:
        record.status = BROKEN
        from core.registry.broken import reason_of

        record.reason = reason_of(error, record.candidate)
        record.traceback = "".join(traceback.format_exception(error))
        asked_for = record.kind in (BUILT_IN, GIVEN)
        if self.strict and (fatal or asked_for):
            own = error.hint if isinstance(error, CoreError) else ""
            hint = own or "CORELM_TRACEBACK=1 shows the whole traceback"
            raise BuildError(
                f'plugin "{record.name}" ({record.origin}) cannot be loaded: {record.reason}', hint=hint
            ) from error


def _record(candidate: Candidate, status: str) -> PluginRecord:
    return PluginRecord(
        candidate.name,
        candidate.kind,
        candidate.origin,
        status,
        candidate.version,
        candidate.home,
        candidate,
    )


# --- importing ---------------------------------------------------------------------------------------------------


def import_plugin(candidate: Candidate) -> ModuleType:
    """The plugin's module. Exceptions of its import pass through."""
    if candidate.entry is not None:
        loaded = candidate.entry.load()
    elif candidate.module:
        loaded = importlib.import_module(candidate.module)
    else:
        from core.path_import import import_path

        loaded = import_path(candidate)
    if not isinstance(loaded, ModuleType):
        raise BuildError(
            f"{describe(candidate)} names {loaded!r}; expected a module with functions called core_*",
            hint='an entry point reads `name = "package.module"`, without a colon',
        )
    if not loaded.__name__.startswith(OURS):
        _imported[loaded.__name__.partition(".")[0]] = describe(candidate)
    return loaded


OURS = f"{__name__.partition('.')[0]}."
_imported: dict[str, str] = {}  # top-level module -> the plugin that it is


def blamed(error: BaseException) -> str:
    """The plugin in whose code an error was raised, directly or in a library that it called; "" when it was in ours."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(OURS):
            return ""
        if (top := module.partition(".")[0]) in _imported:
            return _imported[top]
    return ""


# --- calling hooks -----------------------------------------------------------------------------------------------


class PluginManager(pluggy.PluginManager):
    """pluggy's, for which a function called like a hook is one, marked or not."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        marked = super().parse_hookimpl_opts(plugin, name)
        if marked is not None or name not in hooks.SPECS or not callable(getattr(plugin, name)):
            return marked
        return {"wrapper": False, "hookwrapper": False, "optionalhook": False, "tryfirst": False, "trylast": False,
                "specname": None}  # fmt: skip


DERIVED = "a class derived from "  # and the name of the class
# hook -> what each item of its list is, in words, and the place of its class, which a plugin with the hook imports
ITEMS = {
    "core_ops": ("an Op", "core.op:Op"),
    "core_variants": (DERIVED, "core.op:Variant"),
    "core_models": ("a path", ""),
    "core_tuned": ("a path", ""),
    "core_optimizers": (DERIVED, "core.op:Optimizer"),
    "core_schedules": (DERIVED, "core.op:Schedule"),
    "core_evaluations": (DERIVED, "core.evaluation:Evaluation"),
    "core_formats": (DERIVED, "core.weight_format:WeightFormat"),
    "core_devices": ("a DeviceKind", "core.devices:DeviceKind"),
    "core_ranks": (DERIVED, "core.ranks.ranks_kind:RanksKind"),
    "core_tokenizers": (DERIVED, "core.tokenizers.tokenizer_kind:TokenizerKind"),
    "core_data": (DERIVED, "core.data_reader:DataReader"),
    "core_lenses": (DERIVED, "core.lens:Lens"),
    "core_commands": ("a click.Command", "click:Command"),
}


def _fits(item: Any, words: str, place: str) -> bool:
    """Whether an item of a hook's list is what ITEMS says."""
    if not place:
        return isinstance(item, str | os.PathLike)
    module, _, name = place.partition(":")
    kind = getattr(importlib.import_module(module), name)
    return isinstance(item, type) and issubclass(item, kind) if words == DERIVED else isinstance(item, kind)


def contribution_of(candidate: Candidate, module: ModuleType) -> Contribution:
    """The results of the module's hooks, with their types checked. Raises BuildError, or a hook's own exception."""
    _check_api(module)
    _check_names(module)
    manager = PluginManager(hooks.GROUP)  # one for each plugin: what it returns has an owner, and nothing leaks
    manager.add_hookspecs(hooks)
    try:
        manager.register(module, candidate.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise BuildError(" ".join(str(error).split())) from None
    contribution = Contribution(candidate)
    for name, specification in hooks.SPECS.items():
        hook = getattr(manager.hook, name)
        for written in hook.get_hookimpls():
            if name in ITEMS:
                getattr(contribution, name.removeprefix("core_")).extend(_items(name, hook, written.function))
            else:
                from core.registry.step_hooks import StepHook, take_by_name  # of the plugins that have one

                take_by_name(written, tuple(inspect.signature(specification).parameters))
                contribution.step_hooks.append(StepHook(candidate.name, hook))
    return contribution


def _check_api(module: ModuleType) -> None:
    stated = getattr(module, "core_api", hooks.CORE_API)
    if stated != hooks.CORE_API:
        raise BuildError(
            f"it states core_api = {stated!r}; this corelm speaks {hooks.CORE_API}",
            hint="install a version of the plugin, or of corelm, that fits",
        )


def _check_names(module: ModuleType) -> None:
    """A misspelt hook would be ignored without a word, and so would a module that is no plugin."""
    named = {n: v for n, v in vars(module).items() if n.startswith("core_") and callable(v) and n != "core_api"}
    for name, function in named.items():
        if name not in hooks.SPECS or not _callable_as(name, function):
            from core.registry.broken import wrong_hook

            raise wrong_hook(name, function)
    if not named:
        from core.registry.broken import no_hook

        raise no_hook(module)


def _callable_as(name: str, function: Any) -> bool:
    """Whether a function can be called as the hook of this name: with its arguments or fewer, to return a list."""
    arguments = inspect.signature(hooks.SPECS[name]).parameters
    unknown = [p for p in inspect.signature(function).parameters.values() if p.name not in arguments]
    more = any(p.default is p.empty or p.kind in VARIADIC for p in unknown)
    return not (more or inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function))


VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _items(name: str, hook: Callable[[], list[Any]], function: Any) -> list[Any]:
    """The list that the plugin's one implementation of a hook returns; pluggy drops a None."""
    returned = next(iter(hook()), None)
    wrong = [item for item in returned if not _fits(item, *ITEMS[name])] if isinstance(returned, list | tuple) else []
    if wrong or not isinstance(returned, list | tuple):
        from core.registry.broken import wrong_list

        raise wrong_list(name, function, returned, wrong, *ITEMS[name])
    return list(returned)
