"""Finds plugins without importing them: built in, shipped, installed, and given by path.

The result lists all plugins and marks those that the user switched off. The loader imports and registers them; so a
listing of commands stays fast, and the source of a broken plugin can still be searched for the names that it defines.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import core
from core.errors import BuildError, UsageError, did_you_mean
from core.hooks import GROUP

BUILT_IN, SHIPPED, INSTALLED, GIVEN = "built-in", "shipped", "installed", "path"
OWN = "corelm"  # the origin of built-in plugins
LIMIT = "CORELM_PLUGINS"  # comma list: only these of the shipped and installed ones; "" is none of them


@dataclass(frozen=True)
class Candidate:
    """A plugin that was found and not yet imported.

    home: its folder, or its file; None when an installed module is not on the path.
    root: the folder that holds its files.
    """

    name: str
    kind: str
    origin: str  # for messages: "plugin llama", "corelm-foo 1.2 (entry point foo)", a path
    home: Path | None
    root: Path | None
    module: str = ""
    entry: EntryPoint | None = None
    version: str = ""
    distribution: str = ""

    @functools.cached_property
    def real_root(self) -> Path | None:
        """`root` without symbolic links."""
        return self.root and Path(os.path.realpath(self.root))


@dataclass
class Discovery:
    """Candidates in loading order, the disabled ones, problems of their names, and notes."""

    candidates: list[Candidate] = field(default_factory=list)
    disabled: list[Candidate] = field(default_factory=list)
    problems: list[Exception] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def discover(
    paths: Sequence[str | os.PathLike[str]] = (), disable: Sequence[str] = (), only: Sequence[str] | None = None
) -> Discovery:
    """All plugins: built in first, then shipped, installed and given ones.

    disable: names of plugins, or of distributions, to leave out. only: the shipped and installed ones to take; None
    stands for the value of CORELM_PLUGINS. Raises BuildError for a path that is no plugin.
    """
    discovery = Discovery()
    only = _limit() if only is None else only
    unpathed = [*built_in(), *shipped(), *installed()]
    switchable = [c for c in unpathed if c.kind != BUILT_IN]
    at_paths = given_paths(paths)
    for kind, names in (("disable", disable), (LIMIT, only or ())):
        for name in names:
            _check_name(kind, name, [*switchable, *at_paths], discovery)
    for candidate in [*unpathed, *at_paths]:
        off = _is_named(candidate, disable) or (
            only is not None and candidate in switchable and not _is_named(candidate, only)
        )
        if off and candidate.kind != BUILT_IN:
            discovery.disabled.append(candidate)
        else:
            discovery.candidates.append(candidate)
    _prefer_given(discovery)
    _drop_same_names(discovery)
    return discovery


def _limit() -> list[str] | None:
    value = os.environ.get(LIMIT)
    return None if value is None else [name for name in (part.strip() for part in value.split(",")) if name]


def _is_named(candidate: Candidate, names: Sequence[str]) -> bool:
    return candidate.name in names or (candidate.distribution != "" and candidate.distribution in names)


def _check_name(kind: str, name: str, candidates: Sequence[Candidate], discovery: Discovery) -> None:
    if any(_is_named(c, [name]) for c in candidates):
        return
    names = sorted({c.name for c in candidates})
    discovery.problems.append(
        UsageError(
            f'{kind} names the plugin "{name}", and no plugin of that name can be switched{did_you_mean(name, names)}',
            hint=f"there are: {', '.join(names) or 'none'}",
        )
    )


def _prefer_given(discovery: Discovery) -> None:
    """A plugin that is installed and given by path as well counts once: the one at the path, which the user named."""
    for preferred in [c for c in discovery.candidates if c.kind == GIVEN]:
        for other in [c for c in discovery.candidates if c.kind == INSTALLED]:
            if preferred.home == other.home or preferred.name == other.name:
                discovery.candidates.remove(other)
                discovery.disabled.append(other)
                if preferred.home != other.home:
                    discovery.notes.append(
                        f"plugin {preferred.name}: {preferred.origin} is used, not the one of {other.origin}"
                    )


def _drop_same_names(discovery: Discovery) -> None:
    """Leave out the second of two plugins with one name, and report an error."""
    first: dict[str, Candidate] = {}
    for candidate in list(discovery.candidates):
        other = first.setdefault(candidate.name, candidate)
        if other is not candidate:
            discovery.candidates.remove(candidate)
            discovery.disabled.append(candidate)
            discovery.problems.append(
                BuildError(
                    f'two plugins are called "{candidate.name}": {describe(other)} and {describe(candidate)}',
                    hint="rename the one that is given"
                    if candidate.kind == GIVEN
                    else "switch one off, by its distribution's name: [plugins] disable, or uninstall it",
                )
            )


def describe(candidate: Candidate) -> str:
    """The origin and the path."""
    home = str(candidate.home) if candidate.home else ""
    return f"{candidate.origin} ({home})" if home and home != candidate.origin else candidate.origin


# --- places of plugins ----------------------------------------------------------------------------------------


def built_in() -> list[Candidate]:
    """The built-in ops, models beside them, devices and tokenizers: through the door of a stranger's plugin."""
    core_folder = Path(core.__file__).parent
    devices, own = core_folder / "devices", core_folder / "resident_rows.py"
    for parent in core.__path__:
        home = Path(parent) / "ops"
        if (home / "__init__.py").is_file():
            rows = (
                ("ops", home, home.parent, "core.ops"),
                ("devices", devices, devices, "core.devices.residents"),
                ("core", own, core_folder, "core.resident_rows"),
            )
            return [Candidate(n, BUILT_IN, OWN, h, root, m, version=core.__version__) for n, h, root, m in rows]
    raise BuildError(
        f"the built-in ops are missing from {', '.join(core.__path__)}",
        hint="install corelm again, or run `core doctor`",
    )


def shipped() -> list[Candidate]:
    """Every package under `core.plugins`."""
    homes: dict[str, Path] = {}
    for parent in core.__path__:
        for init in sorted((Path(parent) / "plugins").glob("*/__init__.py")):
            homes.setdefault(init.parent.name, init.parent)
    return [
        Candidate(name, SHIPPED, f"plugin {name}", home, home, f"core.plugins.{name}", version=core.__version__)
        for name, home in sorted(homes.items())
    ]


def installed() -> list[Candidate]:
    """The entry points of the group `corelm`, sorted by name and distribution."""
    candidates = []
    for entry in entry_points(group=GROUP):
        distribution = entry.dist.name if entry.dist else ""
        version = entry.dist.version if entry.dist else ""
        owner = " ".join(part for part in (distribution, version) if part) or entry.value
        home = _module_home(entry.module)
        root = home if home is None or home.is_dir() else home.parent
        origin = f"{owner} (entry point {entry.name})"
        candidates.append(
            Candidate(entry.name, INSTALLED, origin, home, root, entry.module, entry, version, distribution)
        )
    return sorted(candidates, key=lambda c: (c.name, c.distribution))


def _module_home(module: str) -> Path | None:
    """The folder or file of a module's top level package, found without importing it."""
    try:
        spec = PathFinder.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin else None


def given_paths(paths: Sequence[str | os.PathLike[str]]) -> list[Candidate]:
    """Plugins given by path: a folder with an __init__.py, or a .py file. One given twice counts once."""
    candidates: dict[Path, Candidate] = {}
    for argument in paths:
        text = os.fspath(argument)
        # os.path: Path's own questions raise for NULs, loops of links, and names that are too long
        path = Path(os.path.realpath(os.path.expanduser(text))) if "\0" not in text else Path(text)
        if os.path.isfile(path / "__init__.py"):
            candidates.setdefault(path, Candidate(path.name, GIVEN, text, path, path))
        elif os.path.isfile(path) and path.suffix == ".py":
            candidates.setdefault(path, Candidate(path.stem, GIVEN, text, path, path.parent))
        else:
            why = (
                "a folder without an __init__.py" if os.path.isdir(path)
                else "no Python file" if os.path.exists(path)
                else "not there"
            )  # fmt: skip
            raise BuildError(
                f'--plugin "{text}" is {why}', hint="a plugin is a folder with an __init__.py, or a .py file"
            )
    return list(candidates.values())
