"""Start and end of a model's texts: the token ids of config.json, and generation_config.json whole.

They come with another program's files, stay with a checkpoint (state.json) and a run that starts from it, and are
exported unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY = "generation"  # of state.json
BEGIN, END, PADDING = "bos_token_id", "eos_token_id", "pad_token_id"


@dataclass(frozen=True)
class Generation:
    """ids: the `..._token_id` keys of config.json, None for null. config: generation_config.json; None without one."""

    ids: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None

    @property
    def ends(self) -> frozenset[int]:
        """Every id that ends a text: of generation_config.json, or of config.json where that names none."""
        for source in (self.config or {}, self.ids):
            value = source.get(END)
            ids = [i for i in (value if isinstance(value, list) else [value]) if type(i) is int and i >= 0]
            if ids:
                return frozenset(ids)
        return frozenset()

    def state(self) -> dict[str, Any]:
        """For state.json; {} where nothing came."""
        return {KEY: {"ids": dict(self.ids), "config": self.config}} if self.ids or self.config else {}


def of_state(state: Mapping[str, Any]) -> Generation:
    """The Generation that `Generation.state` wrote."""
    record = state.get(KEY)
    if not isinstance(record, dict) or not isinstance(record.get("ids"), dict):
        return Generation()
    return Generation(record["ids"], record.get("config"))


def of_ids(end: int) -> Generation:
    """The settings of a file whose texts start and end with one id."""
    return Generation({BEGIN: end, END: end})
