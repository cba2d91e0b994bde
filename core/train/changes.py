"""Differences between a run and the checkpoint that it continues from: configs, variants, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.checkpoint import Checkpoint
from core.train.differences import differences
from core.train.display import Display
from core.train.provenance import machine_changes
from core.train.wiring import Parts


def announce_changes(
    parts: Parts, start: Checkpoint, before: Mapping[str, Any] | None, record: Mapping[str, Any], display: Display
) -> None:
    """The checkpoint of the start, and the changes since it was saved. before: the config of then, if it is known."""
    config = parts.config
    display.line(f"resumed from {start}")
    for line in differences(before or config.document, config.document):
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
