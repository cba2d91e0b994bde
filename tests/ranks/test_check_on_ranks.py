"""`core check` of collective ops: two ranks under mpiexec, a wrong variant, a machine without mpiexec."""

from __future__ import annotations

from pathlib import Path

import pytest
from mpi_runs import NEEDS_MPI

from core.loader import load_registry
from core.testing.check import check_variant

WRONG = """
from functools import partial
from core import Variant

class AllReduceWrong(Variant):
    op, name, device, dtypes = "all_reduce", "wrong", "cpu", ("f32", "f64")
    def forward(self, t, launch):
        launch.call(partial(self.sum, t))
    def sum(self, t):
        t.ranks.all_reduce(t.flat)
        t.flat[-1:] *= 1 + 1e-3 * t.ranks.rank

def core_variants():
    return [AllReduceWrong]
"""


@NEEDS_MPI
def test_each_rank_compares_its_own_tensors_with_the_reference() -> None:
    registry = load_registry()
    op, variant = "reduce_scatter", "host"
    report = check_variant(registry.op(op), registry.variant(op, variant), registry)
    assert report.passed and not report.left_out, report.left_out
    assert {check: runs for check, (runs, _) in report.checks.items()}.keys() == {"forward", "repeat", "bounds"}
    assert report.checks["forward"][0] >= 16 and report.sizes.keys() == set(registry.variant(op, variant).dtypes)


@NEEDS_MPI
def test_a_variant_that_is_wrong_on_one_rank_alone_fails(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    registry = load_registry([str(tmp_path / "wrong.py")])
    report = check_variant(registry.op("all_reduce"), registry.variant("all_reduce", "wrong"), registry)
    assert not report.passed and report.failed_checks() == ["forward"]
    assert all("rank 1: relative error" in failure.message for failure in report.failures)


def test_without_mpiexec_a_variant_is_not_checked_and_the_report_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    registry = load_registry()
    report = check_variant(registry.op("all_reduce"), registry.variant("all_reduce", "mpi"), registry)
    assert report.passed and not report.sizes and "no mpiexec" in report.left_out
