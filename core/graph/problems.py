"""All problems of a model, collected, so that one attempt reports every independent one.

A mistake inside a repeated block, which each repeat would report again, is kept once for its place in the file.
"""

from __future__ import annotations

from core.errors import BuildError, CoreError, raise_all

MOST = 20  # problems that one error lists; beyond that the reader has enough to do


class Problems:
    """Collects problems by the place in the file that they concern."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[str, str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, place: str, message: str, hint: str = "") -> None:
        """One more problem at `place`; the message is complete in itself. A repeat of the same place is dropped."""
        self._found.setdefault(place, [(message, hint)])

    def also(self, place: str, message: str, hint: str = "") -> None:
        """Like `add`, for a place that can have several problems of its own (a table with two wrong keys)."""
        self._found.setdefault(place, []).append((message, hint))

    def take(self, place: str, error: CoreError) -> None:
        """Add an error's message and hint as a problem of `place`."""
        self.add(place, error.message, error.hint)

    def finish(self, kind: type[CoreError] = BuildError) -> None:
        """Raise `kind` with everything found; do nothing when there is nothing."""
        collected = [problem for problems in self._found.values() for problem in problems]
        if len(collected) == 1:
            raise kind(collected[0][0], hint=collected[0][1])
        listed = [f"{message} ({hint})" if hint else message for message, hint in collected[:MOST]]
        if len(collected) > MOST:
            listed.append(f"... and {len(collected) - MOST} more")
        raise_all(listed, kind)
