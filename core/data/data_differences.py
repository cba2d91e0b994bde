"""Differences between the data of two runs, by the records of `TokenSource.describe`."""

from __future__ import annotations

from typing import Any


def diff_description(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences of two `describe()`, a line each, [] if a run can continue. A file that moved is the same
    file."""
    name = now["name"]
    lines = [
        f"{name}: {key} was {recorded.get(key)}, is {now.get(key)}"
        for key in ("seed", "T", "tokens", "sequences", "layout", "quotas", "members")
        if recorded.get(key) != now.get(key)
    ]
    before, after = recorded.get("files", []), now["files"]
    for i in range(max(len(before), len(after))):
        old = before[i] if i < len(before) else None
        new = after[i] if i < len(after) else None
        if old is None or new is None:
            lines.append(f"{name}: - {old['file']}" if old else f"{name}: + {new['file']}" if new else "")
        elif (contents_of(old, new), old["bytes"]) != (contents_of(new, old), new["bytes"]):
            change = "changed" if old["file"] == new["file"] else f"replaced by {new['file']}"
            lines.append(f"{name}: {old['file']} ({old['tokens']:,} tokens) {change} ({new['tokens']:,} tokens)")
    return lines


def contents_of(record: dict[str, Any], other: dict[str, Any]) -> str:
    """The digest that two records of a file have in common: the sha256, or the samples of an older checkpoint."""
    key = "sha256" if record.get("sha256") and other.get("sha256") else "hash"
    return str(record[key])
