"""The tokenizer that a shard's sidecar names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.data.shards import LARGEST_SIDECAR, json_sidecar
from core.errors import DataError
from core.outside import parse_json, read_whole


def tokenizer_record(path: Path) -> dict[str, Any] | None:
    """The record of the tokenizer in a shard's sidecar: kind, name, hash, vocab_size, eot. None without one."""
    sidecar = json_sidecar(path)
    if not sidecar.exists():
        return None
    try:
        value = parse_json(read_whole(sidecar, LARGEST_SIDECAR))
        record = value.get("tokenizer")
        if record is None:
            return None
        size = record["vocab_size"]
        if (
            type(size) is not int
            or size < 1
            or not all(isinstance(record[key], str) for key in ("kind", "name", "hash"))
        ):
            raise ValueError
        return dict(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{sidecar}: expected a JSON object that names the shard's tokenizer: kind, name, hash, vocab_size",
            hint="write the shard again, or remove this file",
        ) from None
