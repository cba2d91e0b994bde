"""The file of tuned choices that a plugin ships, and `core tune --write-defaults` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli

from core.errors import BuildError
from core.outside import read_whole

CHOICE = {"arch": str, "what": str, "variant": str, "config": dict, "source": str}  # of that file
SMS = "sms"  # and this, where a choice is for chips with that number of multiprocessors


def read_choices(path: Path) -> list[dict[str, Any]]:
    """Its choices: arch, `what` (a tuning key), variant, config, source, perhaps sms; [] where there is no file.

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
        if not isinstance(choice.get(SMS, 1), int):
            raise BuildError(
                f"{path}: [[choice]] {number} has {SMS} = {choice[SMS]!r}, and no number of multiprocessors"
            )
    return list(choices)
