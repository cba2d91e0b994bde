"""The files of a config: the named one, and those that it extends.

The module reads and parses; validate.py checks keys and values. A shipped config is found by its path or stem when the
current folder has no such file, in a checkout and in a wheel alike.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import tomli

import core
from core.config.schema import Document
from core.config.spelling import show
from core.errors import UsageError, did_you_mean
from core.outside import read_whole

LARGEST = 1 << 20  # bytes: a config beyond this is some other file, perhaps a checkpoint given by mistake

AT = re.compile(r"\s*\(at line (\d+), column (\d+)\)$")


@dataclass(frozen=True)
class Source:
    """One file as read: its path, how messages show it, its text, and what it says."""

    path: Path
    shown: str
    text: str
    document: Document


# --- files -----------------------------------------------------------------------------------------------------


def show_path(path: Path) -> str:
    """A path for a message: relative to the current directory if inside it."""
    try:
        return Path(os.path.realpath(path)).relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return str(path)


def within(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path is in one of the folders once its symbolic links are followed."""
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(os.path.realpath(folder)) for folder in folders)


def shipped_folders() -> list[Path]:
    return [Path(root) / "configs" for root in core.__path__]


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the project, by stem."""
    return {path.stem: path for folder in shipped_folders() for path in sorted(folder.glob("*.toml"))}


def shipped(name: str) -> Path | None:
    """The shipped config of this path or stem: `tiny`, `tiny.toml`, `configs/tiny.toml`."""
    stem = name.replace("\\", "/").removeprefix("./").removeprefix("configs/").removesuffix(".toml")
    return shipped_configs().get(stem)


def find_config(name: str | Path) -> tuple[Path, str]:
    """The path of a config, and a note when it is a shipped one that was not found here.

    `name` is a path, or the path or stem of a shipped config. Raises UsageError naming the nearest shipped one.
    """
    path = Path(name)  # os.path below: Path's own questions raise at NUL and over-long names
    if os.path.isfile(path):
        return path, ""
    path_shipped = shipped(str(name))
    if path_shipped is not None:
        return path_shipped, f"no file {show(str(name))} here: the shipped {show_path(path_shipped)} is used"
    problem = "is a folder, not a config" if os.path.isdir(path) else "does not exist"
    raise UsageError(
        f"config {show(str(name))} {problem}{did_you_mean(path.stem, shipped_configs())}",
        hint=f"give the path of a TOML file, or a shipped config: {', '.join(shipped_configs())}",
    )


def read_source(path: Path, text: str | None = None) -> Source:
    """A TOML file; text: what it holds, if it was read."""
    text = read_text(path) if text is None else text
    return Source(path, show_path(path), text, parse_toml(text, show_path(path)))


def read_text(path: Path) -> str:
    """The text of a TOML file. Raises UsageError: no file, too large, or not UTF-8, with line and column."""
    shown = show_path(path)
    try:
        data = read_whole(path, LARGEST)
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read: {error.strerror or error}", hint="expected a TOML file") from None
    try:
        return data.decode("utf-8").removeprefix("\ufeff")  # some editors put a byte order mark in front
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
        raise UsageError(
            f"{shown}:{line}:{column}: not UTF-8 (byte 0x{data[error.start]:02x})", hint="save the file as UTF-8"
        ) from None


def parse_toml(text: str, shown: str) -> Document:
    """A TOML text, parsed. Raises UsageError with file, line and column, for duplicate keys too."""
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        message, place = AT.sub("", str(error)), AT.search(str(error))
        lines = text.splitlines() or [""]
        line, column = (int(place[1]), int(place[2])) if place else (len(lines), len(lines[-1]) + 1)
        written = lines[line - 1].strip() if line <= len(lines) else ""
        raise UsageError(f"{shown}:{line}:{column}: not TOML: {message}\n    {written[:100]}") from None
    except (RecursionError, ValueError) as error:  # nesting without end, a number of thousands of digits
        raise UsageError(f"{shown}:1:1: not TOML that can be read: {error}") from None


def read_toml(path: Path) -> Document:
    """A TOML file, parsed. Raises UsageError with file, line and column."""
    return read_source(path).document


# --- extends ---------------------------------------------------------------------------------------------------


def read_chain(path: Path) -> tuple[list[Source], list[str]]:
    """A config and what it extends, the base first; and problems of the chain itself."""
    chain: list[Source] = []  # the top first
    while True:
        source = read_source(path)
        chain.append(source)
        base = source.document.get("extends")
        if not isinstance(base, str) or not base:  # absent, or a wrong type, which the schema's check reports
            return chain[::-1], []
        base_path = find_base(base, source.path)
        walked = " -> ".join(s.shown for s in chain)
        if base_path is None:
            close = did_you_mean(Path(base).stem, shipped_configs())
            return chain[::-1], [
                f"{source.shown} extends: expected a file relative to {show_path(path.parent) or '.'} or a shipped "
                f"config, got {show(base)}, which does not exist{close} (chain: {walked} -> {base})"
            ]
        if not within(base_path, [Path.cwd(), chain[0].path.parent, *shipped_folders()]):
            return chain[::-1], [
                f"{source.shown} extends: {show_path(base_path)} is outside the folders that a base may come from: the "
                f"current directory, that of {chain[0].shown}, and the shipped configs (chain: {walked} -> {base})"
            ]
        if any(base_path.resolve() == s.path.resolve() for s in chain):
            return chain[::-1], [f"{source.shown} extends: a cycle: {walked} -> {show_path(base_path)}"]
        path = base_path


def find_base(base: str, path: Path) -> Path | None:
    """The file of `extends = base` in `path`: relative to it, with or without .toml, or a shipped one."""
    here = [path.parent / base, path.parent / f"{base}.toml"]
    return next((p for p in here if os.path.isfile(p)), None) or shipped(base)
