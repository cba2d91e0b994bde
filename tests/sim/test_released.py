"""The verdicts that come with this release are of the code as it is."""

from __future__ import annotations

import pytest

from core.loader import load_registry
from core.testing.check import check_variant
from core.testing.compiles import compiler
from core.testing.release import COMMAND, entries_of, stale

REGISTRY = load_registry()


def test_every_shipped_variant_comes_with_a_verdict_on_the_code_as_it_is() -> None:
    lacking = stale(REGISTRY)
    assert not lacking, f"run `{COMMAND}`, which checks what has changed: {', '.join(lacking)}"


def test_verdicts_on_kernels_record_the_compilations_of_one_compiler() -> None:
    rows = [row for entry in entries_of(REGISTRY) if entry.variant.sources for row in entry.rows]
    assert len({str(row.get("compiled")).partition(":")[0] for row in rows}) == 1


@pytest.mark.parametrize("name", ["gelu.vector", "rmsnorm.naive"])
def test_recorded_compilations_are_those_of_the_kernels_as_they_are(name: str) -> None:
    (row, *_) = next(entry for entry in entries_of(REGISTRY) if entry.name == name).rows
    if not row["compiled"].startswith(f"{compiler()}:"):
        pytest.skip(f"recorded with another compiler than {compiler()}")
    op, variant = name.split(".")
    report = check_variant(REGISTRY.op(op), REGISTRY.variant(op, variant), REGISTRY, checks=(), recorded=False)
    assert report.compiled == row["compiled"]
