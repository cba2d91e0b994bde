"""The results of a plugin's hooks, with their types checked.

Each plugin has a manager of pluggy of its own: its results have an owner, and a broken plugin harms no other. A run on
one device calls the hooks that it needs (`HookCalls.first`), and the others if it needs them
(`HookCalls.rest`). Import of plugins and guards around them: core/loader.py.
"""

from __future__ import annotations

import importlib
import inspect
import os
from types import ModuleType, SimpleNamespace
from typing import Any

import pluggy

from core import hooks
from core.discovery import BUILT_IN, SHIPPED, Candidate
from core.errors import BuildError
from core.registry import Contribution


class PluginManager(pluggy.PluginManager):
    """pluggy's, for which a function called like a hook is one, marked or not."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        marked = super().parse_hookimpl_opts(plugin, name)
        if marked is not None or name not in hooks.SPECS or not callable(getattr(plugin, name)):
            return marked
        return {"wrapper": False, "hookwrapper": False, "optionalhook": False, "tryfirst": False, "trylast": False,
                "specname": None}  # fmt: skip


DERIVED = "a class derived from "  # and the name of the class
# hook -> the kind of each item of its list, for messages, and the place of its class, imported by plugins with the hook
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
    "core_adapters": (DERIVED, "core.adapter:Adapter"),
    "core_lenses": (DERIVED, "core.lens:Lens"),
    "core_courses": ("a path", ""),
    "core_commands": ("a click.Command", "click:Command"),
}


def _fits(item: Any, words: str, place: str) -> bool:
    """Whether an item of a hook's list has the type in ITEMS."""
    if not place:
        return isinstance(item, str | os.PathLike)
    module, _, name = place.partition(":")
    kind = getattr(importlib.import_module(module), name)
    return isinstance(item, type) and issubclass(item, kind) if words == DERIVED else isinstance(item, kind)


# hooks that a training run calls only if it needs their results
LATER = ("core_evaluations", "core_ranks", "core_lenses", "core_courses", "core_commands")


class HookCalls:
    """The calls of one plugin's hooks. `contribution` has their results so far.

    device: the `device` of the variants to bring; "" for those of all devices. A shipped plugin's hooks of LATER wait
    where a device is given, for the tests of a release have called them; any other plugin's are all called at once.

    Raises BuildError for a module that is no plugin, or one of another API.
    """

    def __init__(self, candidate: Candidate, module: ModuleType, device: str = "") -> None:
        _check_api(module)
        _check_names(module)
        manager = PluginManager(hooks.GROUP)
        manager.add_hookspecs(_specifications(module))
        try:
            manager.register(module, candidate.name)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise BuildError(" ".join(str(error).split())) from None
        self.contribution = Contribution(candidate)
        self.inherits = False  # whether one of its variants has a base, which may be for any device
        self._device, self._hook = device, manager.hook
        waits = device and candidate.kind in (BUILT_IN, SHIPPED)
        self._later = LATER if waits else ()

    def first(self) -> Contribution:
        """The results that a run on the device needs. Raises BuildError, or a hook's own exception."""
        for name in hooks.SPECS:
            if name not in self._later:
                self._call(name, self.contribution)
        own = self.contribution.variants
        if self._device:
            # the base of an outsider's variant may be any variant, and gives it its device
            self.inherits = not self._later and any(cls.base for cls in own)
            own[:] = [cls for cls in own if cls.device == self._device]
        return self.contribution

    def rest(self) -> Contribution:
        """The results that `first` left out, and no others. Raises likewise."""
        more = Contribution(self.contribution.plugin)
        for name in self._later:
            self._call(name, more)
        if self._device:
            self._device = ""
            self._call("core_variants", more)
        more.variants[:] = [cls for cls in more.variants if cls not in self.contribution.variants]
        self._later = ()
        return more

    def _call(self, name: str, contribution: Contribution) -> None:
        """Call a hook; its results become part of the contribution."""
        hook = getattr(self._hook, name, None)
        if hook is None:
            return
        for written in hook.get_hookimpls():
            if name in ITEMS:
                arguments = {"device": self._device} if name == "core_variants" else {}
                items = _items(name, next(iter(hook(**arguments)), None), written.function)
                getattr(contribution, name.removeprefix("core_")).extend(items)
            else:
                from core.registry.step_hooks import StepHook, take_by_name  # of the plugins that have one

                take_by_name(written, tuple(inspect.signature(hooks.SPECS[name]).parameters))
                contribution.step_hooks.append(StepHook(contribution.plugin.name, hook, name))


def _specifications(module: ModuleType) -> Any:
    """The specifications of the hooks that a module has, or of all where it marks one, which may have any name: pluggy
    takes longer to read them all than to import most plugins."""
    if any(hasattr(value, f"{hooks.GROUP}_impl") for value in vars(module).values()):
        return hooks
    return SimpleNamespace(**{name: spec for name, spec in hooks.SPECS.items() if name in vars(module)})


def _check_api(module: ModuleType) -> None:
    stated = getattr(module, "core_api", hooks.CORE_API)
    if stated != hooks.CORE_API:
        raise BuildError(
            f"it states core_api = {stated!r}; this version of corelm has core_api = {hooks.CORE_API}",
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


def _items(name: str, returned: Any, function: Any) -> list[Any]:
    """The list that the plugin's one implementation of a hook returned; pluggy drops a None."""
    wrong = [item for item in returned if not _fits(item, *ITEMS[name])] if isinstance(returned, list | tuple) else []
    if wrong or not isinstance(returned, list | tuple):
        from core.registry.broken import wrong_list

        raise wrong_list(name, function, returned, wrong, *ITEMS[name])
    return list(returned)
