"""Differences between a run and the checkpoint that it continues from: configs, variants, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.checkpoint import Checkpoint
from core.train.display import Display
from core.train.provenance import machine_changes
from core.train.wiring import Parts


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    keys: dict[str, Any] = {}
    for key, value in document.items():
        name = f"{prefix}{key}"
        keys |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return keys


def differences(before: Mapping[str, Any], after: Mapping[str, Any], most: int = 20) -> list[str]:
    """`key: before -> after`, a line each."""
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    lines = [f"{key}: {before.get(key, 'absent')!s} -> {after.get(key, 'absent')!s}" for key in keys[:most]]
    return lines + ([f"... and {len(keys) - most} more"] if len(keys) > most else [])


def announce_changes(
    parts: Parts, start: Checkpoint, before: Mapping[str, Any] | None, record: Mapping[str, Any], display: Display
) -> None:
    """The checkpoint of the start, and the changes since it was saved. before: the config of then, if it is known."""
    config = parts.config
    display.line(f"resumed from {start}")
    for line in differences(flat(before or config.document), flat(config.document)):
        display.line(f"config change: {line}")
    for line in differences(start.state["variants"], record["nodes"]):
        display.line(f"variant change: {line}")
    made, now = start.state["made_with"] or record["made_with"], record["made_with"]
    for line in differences(made, now):
        display.line(f"change since the checkpoint: {line}")
    if changed := machine_changes(made, now, parts.engine.device.depends()):
        display.line(
            f"the resumed run stays close to the uninterrupted one, not bit-exact: different {', '.join(changed)}"
        )
