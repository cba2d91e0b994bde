"""The run's folder on ranks other than 0, which only read it: rank 0 writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.train.run import Run


class Follower(Run):
    """A Run that writes nothing and takes no lock."""

    writes = False

    def __enter__(self) -> Follower:
        return self

    def write_config(self, source: str, resolved: str) -> None:
        """No-op: rank 0 writes."""

    def write_variants(self, variants: Mapping[str, Any], kernels: Iterable[Path] = ()) -> None:
        """No-op: rank 0 writes."""

    def log(self, text: str) -> None:
        """No-op: rank 0 writes."""

    def metrics(self, record: Mapping[str, Any]) -> None:
        """No-op: rank 0 writes."""

    def sample(self, record: Mapping[str, Any]) -> None:
        """No-op: rank 0 writes."""

    def health(self, record: Mapping[str, Any]) -> None:
        """No-op: rank 0 writes."""

    def sync(self) -> None:
        """No-op: rank 0 writes."""

    def rewind(self, step: int, health: bool = False) -> None:
        """No-op: rank 0 writes."""
