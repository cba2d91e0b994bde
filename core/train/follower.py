"""The run's folder as ranks other than 0 have it: they read, and rank 0 writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.train.run import Run


class Follower(Run):
    """A Run that writes nothing and takes no lock."""

    def __enter__(self) -> Follower:
        return self

    def write_config(self, source: str, resolved: str) -> None:
        """Nothing."""

    def write_variants(self, variants: Mapping[str, Any]) -> None:
        """Nothing."""

    def log(self, text: str) -> None:
        """Nothing."""

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def sample(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def health(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def rewind(self, step: int, health: bool = False) -> None:
        """Nothing."""
