"""Configs of the project, in a checkout and in a wheel, and the legal values of `extends`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import core
from core.config.spelling import show, show_path
from core.errors import UsageError, did_you_mean


def shipped_folders() -> list[Path]:
    return [Path(root) / "configs" for root in core.__path__]


def shipped_configs() -> dict[str, Path]:
    """The configs of the project, by stem."""
    return {path.stem: path for folder in shipped_folders() for path in sorted(folder.glob("*.toml"))}


def shipped(name: str) -> Path | None:
    """The shipped config of this path or stem: `tiny`, `tiny.toml`, `configs/tiny.toml`."""
    stem = name.replace("\\", "/").removeprefix("./").removeprefix("configs/").removesuffix(".toml")
    return shipped_configs().get(stem)


def find_shipped(name: str) -> tuple[Path, str]:
    """The shipped config for a name that is no file here, and a note that it is used; `find_config`'s UsageError."""
    path_shipped = shipped(name)
    if path_shipped is not None:
        return path_shipped, f"no file {show(name)} here: the shipped {show_path(path_shipped)} is used"
    problem = "is a folder, not a config" if os.path.isdir(name) else "does not exist"
    inside = ", ".join(show_path(path) for path in sorted(Path(name).glob("*.toml"))[:3]) if os.path.isdir(name) else ""
    raise UsageError(
        f"config {show(name)} {problem}{did_you_mean(Path(name).stem, shipped_configs())}",
        hint=f"give the path of a TOML file{f' ({inside})' if inside else ''}, "
        f"or a shipped config: {', '.join(shipped_configs())}",
    )


def base_of(base: str, chain: Sequence[Path]) -> tuple[Path | None, str]:
    """The file that `extends = base` names in the last config of a chain, the top first; or None and the problem."""
    shown = [show_path(path) for path in chain]
    where, walked = f"{shown[-1]} extends", " -> ".join(shown)
    path = find_base(base, chain[-1])
    if path is None:
        close = did_you_mean(Path(base).stem, shipped_configs())
        return None, (
            f"{where}: expected a file relative to {show_path(chain[-1].parent) or '.'} or a shipped "
            f"config, got {show(base)}, which does not exist{close} (chain: {walked} -> {base})"
        )
    if not within(path, [Path.cwd(), chain[0].parent, *shipped_folders()]):
        return None, (
            f"{where}: {show_path(path)} is outside the folders that a base may come from: the "
            f"current directory, that of {shown[0]}, and the shipped configs (chain: {walked} -> {base})"
        )
    if any(path.resolve() == p.resolve() for p in chain):
        return None, f"{where}: a cycle: {walked} -> {show_path(path)}"
    return path, ""


def find_base(base: str, path: Path) -> Path | None:
    """The file of `extends = base` in `path`: relative to it, with or without .toml, or a shipped one."""
    here = [path.parent / base, path.parent / f"{base}.toml"]
    return next((p for p in here if os.path.isfile(p)), None) or shipped(base)


def within(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path is in one of the folders once its symbolic links are followed."""
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(os.path.realpath(folder)) for folder in folders)
