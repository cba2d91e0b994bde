"""The contents of plugins, by name: for listings."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def names_by_kind(contribution: Any) -> dict[str, list[str]]:
    """The names in a `Contribution`, by kind; empty kinds are left out."""
    named = {
        "ops": [op.name for op in contribution.ops],
        "variants": [f"{cls.op}.{cls.name}" for cls in contribution.variants],
        "models": [Path(path).stem for path in contribution.models],
        "optimizers": [cls.name for cls in contribution.optimizers],
        "schedules": [cls.name for cls in contribution.schedules],
        "evaluations": [cls.name for cls in contribution.evaluations],
        "formats": [cls.name for cls in contribution.formats],
        "devices": [kind.name for kind in contribution.devices],
        "engines": [cls.name for cls in contribution.ranks],
        "tokenizers": [cls.name for cls in contribution.tokenizers],
        "readers": [cls.name for cls in contribution.data],
        "adapters": [cls.name for cls in contribution.adapters],
        "lenses": [cls.name for cls in contribution.lenses],
        "tuned": [Path(path).name for path in contribution.tuned],
        "courses": [Path(path).stem for path in contribution.courses],
        "commands": [command.name or "" for command in contribution.commands],
        "hooks": [hook.name for hook in contribution.step_hooks],
    }
    return {kind: names for kind, names in named.items() if names}
