"""Loads plugins, one by one, into a registry.

Each plugin is imported and its hooks are called inside a guard: a plugin that fails is listed as broken with its
reason, and nothing of it is registered. The failure is fatal only where the plugin is needed: by a path on the command
line, by a model that requires it, by an op that it would have defined. core.plan chooses among the loaded variants.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from core import hooks, signals
from core.containment import PASSES, contained
from core.data_reader import DataReader
from core.devices import DeviceKind
from core.discovery import BUILT_IN, GIVEN, Candidate, describe, discover
from core.errors import BuildError, CoreError, did_you_mean, words_of
from core.evaluation import Evaluation
from core.lens import Lens
from core.op import Op, Optimizer, Schedule, Variant
from core.ranks.ranks_kind import RanksKind
from core.registry import (
    BROKEN,
    DISABLED,
    LOADED,
    Contribution,
    PluginRecord,
    Registry,
    Rejected,
    StepHook,
    build_registry,
    shorten,
)
from core.tokenizers.tokenizer_kind import TokenizerKind
from core.weight_format import WeightFormat


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
            self.records[id(contribution.plugin)].brings = brings(contribution)
        return registry

    def _broken(self, record: PluginRecord, error: BaseException, fatal: bool = False) -> None:
        record.status = BROKEN
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


def brings(contribution: Contribution) -> dict[str, list[str]]:
    """Names by kind, kinds that are empty left out."""
    named = {
        "ops": [op.name for op in contribution.ops],
        "variants": [f"{cls.op}.{cls.name}" for cls in contribution.variants],
        "models": [Path(path).stem for path in contribution.models],
        "optimizers": [cls.name for cls in contribution.optimizers],
        "schedules": [cls.name for cls in contribution.schedules],
        "evaluations": [cls.name for cls in contribution.evaluations],
        "formats": [cls.name for cls in contribution.formats],
        "devices": [kind.name for kind in contribution.devices],
        "engines": [cls.name for cls in contribution.ranks],
        "tokenizers": [cls.name for cls in contribution.tokenizers],
        "readers": [cls.name for cls in contribution.data],
        "lenses": [cls.name for cls in contribution.lenses],
        "tuned": [Path(path).name for path in contribution.tuned],
        "commands": [command.name or "" for command in contribution.commands],
        "hooks": ["core_step_end" for _ in contribution.step_hooks],
    }
    return {kind: names for kind, names in named.items() if names}


def reason_of(error: BaseException, candidate: Candidate) -> str:
    """One line: the error, and the author's own file and line where it happened."""
    if isinstance(error, CoreError):
        return error.message
    text = words_of(error).splitlines()[0]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({shorten(error.filename)}:{error.lineno})"
    root = str(candidate.root or candidate.home or "")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if root and frame.filename.startswith(root):
            return f"{text} ({shorten(frame.filename)}:{frame.lineno})"
    return text


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


def _is_class(base: type) -> Callable[[Any], bool]:
    return lambda item: isinstance(item, type) and issubclass(item, base)


def _is_command(item: Any) -> bool:
    import click

    return isinstance(item, click.Command)


# hook -> what each item of its list is, in words, and the test for it
ITEMS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "core_ops": ("an Op", lambda item: isinstance(item, Op)),
    "core_variants": ("a class derived from Variant", _is_class(Variant)),
    "core_models": ("a path", lambda item: isinstance(item, str | os.PathLike)),
    "core_tuned": ("a path", lambda item: isinstance(item, str | os.PathLike)),
    "core_optimizers": ("a class derived from Optimizer", _is_class(Optimizer)),
    "core_schedules": ("a class derived from Schedule", _is_class(Schedule)),
    "core_evaluations": ("a class derived from Evaluation", _is_class(Evaluation)),
    "core_formats": ("a class derived from WeightFormat", _is_class(WeightFormat)),
    "core_devices": ("a DeviceKind", lambda item: isinstance(item, DeviceKind)),
    "core_ranks": ("a class derived from RanksKind", _is_class(RanksKind)),
    "core_tokenizers": ("a class derived from TokenizerKind", _is_class(TokenizerKind)),
    "core_data": ("a class derived from DataReader", _is_class(DataReader)),
    "core_lenses": ("a class derived from Lens", _is_class(Lens)),
    "core_commands": ("a click.Command", _is_command),
}


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
                _by_name(written, tuple(inspect.signature(specification).parameters))
                contribution.step_hooks.append(StepHook(candidate.name, hook))
    return contribution


def _by_name(written: pluggy.HookImpl, names: tuple[str, ...]) -> None:
    """Have an implementation take all arguments of its specification, and its function those that it names.

    pluggy before 1.7 fills no parameter that has a default; so it is filled here, by every version.
    """
    function = written.function
    takes = [name for name in inspect.signature(function).parameters if name in names]

    @functools.wraps(function)
    def called(*values: Any) -> Any:
        arguments = dict(zip(names, values, strict=True))
        return function(**{name: arguments[name] for name in takes})

    implementation: Any = written  # its attributes are final to type checkers
    implementation.function, implementation.argnames, implementation.kwargnames = called, names, ()


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
        place = place_of(function)
        if name not in hooks.SPECS:
            raise BuildError(
                f"{place}: there is no hook {name}{did_you_mean(name, hooks.SPECS)}",
                hint=f"the hooks are: {', '.join(hooks.SPECS)}; names core_* are kept for them",
            )
        _check_signature(name, function, place)
    if not named:
        raise BuildError(
            f"{shorten(str(getattr(module, '__file__', None) or module.__name__))} defines no hook",
            hint=f"a plugin defines at least one of: {', '.join(hooks.SPECS)}",
        )


def _check_signature(name: str, function: Any, place: str) -> None:
    specified = inspect.signature(hooks.SPECS[name])
    written = inspect.signature(function)
    unknown = [p.name for p in written.parameters.values()
               if p.name not in specified.parameters and (p.default is p.empty or p.kind in VARIADIC)]  # fmt: skip
    if unknown or inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        keyword = "async def" if inspect.iscoroutinefunction(function) else "def"
        raise BuildError(
            f"{place}: written: {keyword} {name}{written.replace(return_annotation=written.empty)}; "
            f"specified: def {name}({', '.join(specified.parameters)})",
            hint="a plain function, neither generator nor async, with these arguments or fewer",
        )


VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _items(name: str, hook: Callable[[], list[Any]], function: Any) -> list[Any]:
    """The list that the plugin's one implementation of a hook returns; pluggy drops a None."""
    returned = next(iter(hook()), None)
    words, fits = ITEMS[name]
    if not isinstance(returned, list | tuple):
        raise BuildError(f"{place_of(function)}: {name} returned {_kind(returned)}; expected a list")
    for item in returned:
        if not fits(item):
            raise BuildError(f"{place_of(function)}: {name} returned a list with {_kind(item)}; expected {words}")
    return list(returned)


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"{type(value).__name__} {str(value)[:60]!r}"


def place_of(function: Any) -> str:
    """file:line of a function, as far as it is known."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return shorten(f"{code.co_filename}:{code.co_firstlineno}") if code else getattr(function, "__module__", "?")
