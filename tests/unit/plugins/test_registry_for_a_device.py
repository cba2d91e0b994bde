"""A registry for one device lacks what a run on it does not need, and `complete` brings that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from plugin_files import VARIANT, op_plugin

from core.errors import BuildError
from core.loader import load_registry, runs_of
from core.registry import Registry


def names(registry: Registry) -> dict[str, set[str]]:
    tables = {
        name: set(table) for name, table in vars(registry).items() if isinstance(table, dict) and name != "pending"
    }
    variants = {f"variants of {op}": set(table) for op, table in registry.variants.items()}
    return {**tables, **variants, "commands": {str(command.name) for command in registry.commands}}


def test_a_registry_for_the_cpu_lacks_kernels_and_is_completed_to_the_whole_one() -> None:
    part, whole = load_registry(device="cpu"), load_registry()
    assert all(variant.device == "cpu" for table in part.variants.values() for variant in table.values())
    assert not part.evaluations and not part.commands and not part.ranks
    assert names(part) != names(whole) == names(part.complete())
    for completed, record in zip(part.plugins, whole.plugins, strict=True):
        assert {k: set(v) for k, v in completed.brings.items()} == {k: set(v) for k, v in record.brings.items()}
    assert names(part.complete()) == names(whole), "once"


def test_a_variant_of_another_device_completes_the_registry_when_it_is_looked_up() -> None:
    part = load_registry(device="cpu")
    assert part.variant("gelu", "vector").device == "cuda" and part.evaluations


def test_a_registry_for_the_cpu_imports_no_launcher_of_kernels() -> None:
    code = "import sys; from core.loader import load_registry; load_registry(device='cpu'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "core.ops.gelu" in loaded
    assert not [name for name in loaded if ".cuda" in name or name in ("core.scalars", "core.plugins.nccl.library")]


@pytest.mark.parametrize("device, expected", [("cpu", "cpu"), ("sim", ""), ("cuda", ""), ("mirror", "")])
def test_only_a_resident_device_without_kernels_has_a_registry_of_its_own(device: str, expected: str) -> None:
    assert runs_of(device) == expected


def test_an_outsiders_variants_for_other_devices_wait_too(tmp_path: Path) -> None:
    path = op_plugin(tmp_path / "mine.py", more=VARIANT.format(op="alpha", fields="source = ()"))
    part = load_registry([path], device="cpu")
    assert list(part.variants["alpha"]) == ["reference"]
    assert set(part.complete().variants["alpha"]) == {"reference", "other"}


def test_a_variant_with_a_base_needs_the_whole_registry(tmp_path: Path) -> None:
    text = 'class Based(Variant):\n    op, name, base = "alpha", "based", "other"\nOTHERS.append(Based)\n'
    path = op_plugin(tmp_path / "mine.py", more=VARIANT.format(op="alpha", fields="source = ()") + text)
    part = load_registry([path], device="cpu")
    assert part.variants["alpha"]["based"].device == "cuda" and part.rest is None


def test_a_variant_that_does_not_fit_is_an_error_when_it_is_brought(tmp_path: Path) -> None:
    path = op_plugin(tmp_path / "mine.py", more=VARIANT.format(op="alpha", fields='arch = "sm"'))
    part = load_registry([path], device="cpu")
    with pytest.raises(BuildError, match='arch "sm" is not of the form'):
        part.complete()


def test_variants_from_formulas_are_made_at_the_first_use_of_their_op() -> None:
    part = load_registry(device="cpu")
    op = next(iter(part.pending))
    assert not part.variants[op]
    assert part.variants_of(op)["reference"].schema is part.op(op) and op not in part.pending
    assert not part.complete().pending and names(part) == names(load_registry())
