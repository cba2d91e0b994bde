"""`--set KEY=VALUE`: the TOML document of each override."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import tomli

from core.config.schema import Document
from core.config.spelling import Keys, show


@dataclass(frozen=True)
class Override:
    """One `--set KEY=VALUE`: its document."""

    shown: str
    path: Keys
    value: Any

    @property
    def document(self) -> Document:
        inner = self.value
        for key in reversed(self.path):
            inner = {key: inner}
        return inner  # type: ignore[no-any-return]


def parse_override(text: str) -> Override | str:
    """`train.steps=10` read as TOML, or the problem with it."""
    shown = f"--set {text}"
    left, equals, right = split(text)
    if not equals or not left.strip():
        return f"{shown}: expected KEY=VALUE, as in train.steps=10"
    path = split_keys(left.strip())
    if path is None:
        return f"{shown}: {show(left)} is not a dotted key, as in train.steps"
    if path[0] == "extends":
        return f"{shown}: extends is for files; give the other config instead"
    try:
        parsed = tomli.loads(f"v = {right.strip()}")
    except (tomli.TOMLDecodeError, RecursionError, ValueError) as error:
        if right.strip()[:1] in ("[", "{", '"', "'"):  # meant as TOML: as a string it would be a strange one
            from core.config.unreadable import AT

            return f"{shown}: the value is not TOML: {AT.sub('', str(error))}"
        return Override(shown, path, right)
    return Override(shown, path, parsed["v"] if list(parsed) == ["v"] else right)


def split(text: str) -> tuple[str, bool, str]:
    """KEY, whether there is an `=`, VALUE: at the first `=` that is not in quotes."""
    quote = ""
    for at, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "=":
            return text[:at], True, text[at + 1 :]
    return text, False, ""


def split_keys(text: str) -> Keys | None:
    """A dotted key as its parts; None when it is none.

    A shell eats the quotes of `nodes."h.*.fc"`, so under the table of globs the rest is one key.
    """
    parts: list[str] = []
    try:
        inner: Any = tomli.loads(f"{text} = 0")
        while isinstance(inner, dict):
            if len(inner) != 1:
                return None
            [(part, inner)] = inner.items()
            parts.append(part)
    except (tomli.TOMLDecodeError, RecursionError):
        parts = text.split(".")
        if any(not p or re.search(r"[\s\"'\[\]{}#]", p) for p in parts):
            return None
    first = 2 if parts[0] == "on" else 0
    if parts[first : first + 1] == ["nodes"] and len(parts) > first + 2:
        parts[first + 1 :] = [".".join(parts[first + 1 :])]
    return tuple(parts)
