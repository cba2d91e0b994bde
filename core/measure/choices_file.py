"""The file of tuned choices that a plugin ships, and `core tune --write-defaults` writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from core.errors import BuildError
from core.outside import read_whole

if TYPE_CHECKING:
    pass


CHOICE = {"arch": str, "what": str, "variant": str, "config": dict, "source": str}  # of that file


def read_choices(path: Path) -> list[dict[str, Any]]:
    """Its choices: arch, what (a tuning key), variant, config, source; [] where there is no file.

    Raises BuildError for a file of another form.
    """
    try:
        choices = tomli.loads(read_whole(path).decode()).get("choice", [])
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise BuildError(f"{path}: {error}", hint="`core tune --write-defaults FILE` writes one") from None
    for number, choice in enumerate(choices, 1):
        if lacks := [name for name in CHOICE if not isinstance(choice.get(name), CHOICE[name])]:
            raise BuildError(
                f"{path}: [[choice]] {number} has no {' and no '.join(lacks)}; it needs {', '.join(CHOICE)}"
            )
    return list(choices)
