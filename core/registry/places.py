"""Places of plugins' contents for messages: their files, and the line of a class, a command or a definition."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from core.discovery import Candidate
from core.errors import BuildError

if TYPE_CHECKING:
    import click


def asset(plugin: Candidate, folder: Path, file: Path | str, where: str) -> Path:
    """The path of `file`, relative to `folder`, which must exist within the plugin's own folder.

    Symbolic links are followed first, so that none leads out. Raises BuildError.
    """
    root = plugin.real_root or Path(os.path.realpath(folder))
    try:
        path = Path(os.path.realpath(folder / file))
    except ValueError:
        raise BuildError(f"{where}: {str(file)!r}: this is not a valid name of a file") from None
    if not path.is_relative_to(root):
        raise BuildError(f'{where}: "{file}" leads out of the plugin\'s folder {shorten(str(root))}')
    if not os.path.isfile(path):  # Path's own question raises for a name that is too long
        raise BuildError(f'{where}: no file "{shorten(str(path))}"')
    return path


def folder_of(plugin: Candidate) -> Path:
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


def place_of_command(command: click.Command) -> str:
    code = getattr(command.callback, "__code__", None)
    return shorten(f"{code.co_filename}:{code.co_firstlineno}") if code else f"command {command.name}"


def shorten(place: str) -> str:
    """A path as a person would type it: relative to the current directory if inside it."""
    return place.removeprefix(f"{Path.cwd()}{os.sep}")
