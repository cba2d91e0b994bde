"""Loads plugins, one by one, into a registry.

Each plugin is imported and its hooks are called inside a guard: a plugin that fails is listed as broken with its
reason, and nothing of it is registered. The failure is fatal only where the plugin is needed: by a path on the command
line, by a model that requires it, by an op that it would have defined. core.plan chooses among the loaded variants.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType

from core import signals
from core.containment import PASSES, contained
from core.devices import AUTO, RESIDENT, choose
from core.discovery import BUILT_IN, GIVEN, Candidate, describe, discover
from core.errors import BuildError, CoreError
from core.hook_results import HookCalls
from core.registry import BROKEN, DISABLED, LOADED, Building, PluginRecord, Registry, Rejected, build


def load_registry(
    paths: Sequence[str | os.PathLike[str]] = (),
    *,
    disable: Sequence[str] = (),
    only: Sequence[str] | None = None,
    require: Sequence[str] = (),
    strict: bool = True,
    device: str = "",
) -> Registry:
    """The built-in ops and every plugin: shipped, installed, and those at `paths` (a folder or a .py file).

    disable: names of plugins or distributions to leave out. only: the shipped and installed ones to take, () for none
    of them; None stands for the value of CORELM_PLUGINS. require: plugins that must be loaded. strict=False is for
    listings: it raises nothing, not for conflicts nor for a given path that is broken, and lists them. device: the
    name of the device that a run begins on; the variants of other kinds of devices, and hooks that few runs need, then
    wait for `Registry.complete`, unless the device compiles kernels. "" is everything.

    Raises BuildError for a broken plugin that was given or required, and for two definitions of one name.
    """
    discovery = discover(paths, disable, only)
    if strict and discovery.problems:
        raise discovery.problems[0]
    for text in discovery.notes:
        warnings.warn(text, stacklevel=2)
    loading = Loading(strict, runs_of(device))
    for candidate in discovery.candidates:
        loading.collect(candidate)
    registry = loading.build()
    registry.problems = [str(problem) for problem in discovery.problems]
    registry.plugins = [loading.records[id(c)] for c in discovery.candidates]
    registry.plugins += [_record(c, DISABLED) for c in discovery.disabled]
    if loading.device and registry.device(device).runs != loading.device:  # hardware that a plugin's device detects
        registry.complete()
    for name in require:
        registry.plugin(name)
    return registry


def runs_of(device: str) -> str:
    """The `device` of the variants that a run on a resident device needs alone; "" where it may need others too."""
    if device != AUTO and device not in RESIDENT:
        return ""
    kind = choose(device, RESIDENT)
    return "" if kind.compiles else kind.runs


@dataclass
class Loading:
    """The plugins so far, and the status of each. device: that of the variants to bring, "" for all."""

    strict: bool
    device: str = ""
    calls: list[HookCalls] = field(default_factory=list)
    records: dict[int, PluginRecord] = field(default_factory=dict)

    def collect(self, candidate: Candidate) -> None:
        """Import a plugin and call its hooks. Whatever it raises makes it broken, SystemExit included."""
        record = self.records[id(candidate)] = _record(candidate, LOADED)
        try:
            with contained():
                calls = HookCalls(candidate, import_plugin(candidate), self.device)
                calls.first()
                self.calls.append(calls)
        except PASSES:
            raise
        except BaseException as error:
            self._broken(record, error)
        signals.check()

    def build(self) -> Registry:
        """A registry of all that fits; each plugin is in it whole or not at all."""
        if any(calls.inherits for calls in self.calls):
            self.device = ""
            for calls in self.calls:
                calls.contribution.add(calls.rest())
        while True:
            contributions = [calls.contribution for calls in self.calls]
            try:
                building = build(contributions, self.device)
            except Rejected as rejected:
                self.calls = [calls for calls in self.calls if calls.contribution is not rejected.contribution]
                record = self.records[id(rejected.contribution.plugin)]
                self._broken(record, rejected.error, fatal=rejected.conflict)
            else:
                break
        for contribution in contributions:
            self.records[id(contribution.plugin)].contribution = contribution
        if self.device:
            building.registry.rest = partial(self._bring_rest, building)
        return building.registry

    def _bring_rest(self, building: Building) -> None:
        """Register the results that `HookCalls.first` left out. Raises BuildError for a part of it that does not
        fit."""
        from core.registry.extension import extend  # few runs on the cpu need it

        with contained():
            more = [calls.rest() for calls in self.calls]
        extend(building, more)

    def _broken(self, record: PluginRecord, error: BaseException, fatal: bool = False) -> None:
        record.status = BROKEN
        from core.registry.broken import reason_of

        record.reason = reason_of(error, record.candidate)
        record.traceback = "".join(traceback.format_exception(error))
        requested = record.kind in (BUILT_IN, GIVEN)
        if self.strict and (fatal or requested):
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
