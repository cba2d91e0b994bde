"""The verdicts that come with this release are of the code as it is."""

from __future__ import annotations

from core.loader import load_registry
from core.testing.release import COMMAND, stale


def test_every_shipped_variant_comes_with_a_verdict_on_the_code_as_it_is() -> None:
    lacking = stale(load_registry())
    assert not lacking, f"run `{COMMAND}`, which checks what has changed: {', '.join(lacking)}"
