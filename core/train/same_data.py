"""The comparison of a run's data with that of the checkpoint that it continues from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.data import Data, diff_description
from core.errors import DataError
from core.train.display import Display

if TYPE_CHECKING:
    from core.checkpoint import Checkpoint


def check_same_data(start: Checkpoint, data: Data, allow_change: bool, display: Display) -> None:
    """Raises DataError for data that differs from the checkpoint's; `allow_change` prints the differences instead."""
    before, now = start.state.get("data") or {}, data.describe()
    if not before.get("train"):
        return
    lines = diff_description(before["train"], now["train"])
    if before.get("val") and now["val"]:
        lines += diff_description(before["val"], now["val"])
    if not lines:
        return
    if not allow_change:
        raise DataError(
            "the data differs from the checkpoint's training data:\n" + "\n".join(f"  {line}" for line in lines),
            hint="restore the data, or pass --allow-data-change, which records the change",
        )
    for line in lines:
        display.line(f"data change, allowed: {line}")
