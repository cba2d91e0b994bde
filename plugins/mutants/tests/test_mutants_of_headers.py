"""Mutants of headers: one of each fault, in all files of a launcher that include the header."""

from __future__ import annotations

import pytest
from core.plugins.mutants.kernels import KernelBench

from core.testing import load_registry

REGISTRY = load_registry(only=())
OLD, NEW = "values[e] += more[e];", "values[e] = more[e];"


@pytest.fixture(scope="module")
def bench() -> KernelBench:
    """Three kernels from two files; their common header adds earlier contents, as one of the kernels needs."""
    made = KernelBench(REGISTRY.op("head_loss"), REGISTRY.variant("head_loss", "mma"), REGISTRY)
    made.swap.trials = [t for t in made.swap.trials if t.case.label.startswith("x=(515, 8)") and t.dtype == "bf16"]
    return made


def test_a_fault_of_a_header_is_one_mutant_which_the_check_refuses(bench: KernelBench) -> None:
    (one,) = (m for m in bench.mutants if OLD in m.fault.before and NEW in m.fault.after)
    assert one.method == "forward_backward" and one.file.name == "mma_results.cuh"
    assert one.file.read_text("utf-8").splitlines()[one.fault.line - 1].strip() == one.fault.before
    assert one.place == f"mma_results.cuh:{one.fault.line}"
    assert {source.name for source in one.sources} == {"matmul_mma.cu", "matmul_mma_dweight.cu"}
    assert all(NEW in text and OLD not in text for text in one.texts.values())
    assert bench.caught(one) == "accumulate"


def test_a_fault_of_a_kernels_own_file_is_in_that_file_alone(bench: KernelBench) -> None:
    one = next(m for m in bench.mutants if m.fault.function == "block_both")
    assert [source.name for source in one.sources] == [one.file.name] == ["cross_entropy.cu"]
    (text,) = one.texts.values()
    assert one.fault.after in " ".join(text.split())


def test_no_simulator_of_a_broken_text_is_kept(bench: KernelBench) -> None:
    device, one = bench.swap.runner.target, next(m for m in bench.mutants if m.fault.function == "block_both")
    bench.swap.failed_checks()
    held = len(device._simulators), len(device._by_file), len(device._by_ptx)
    bench.caught(one)
    assert (len(device._simulators), len(device._by_file), len(device._by_ptx)) == held


def test_a_mutant_after_one_that_reached_strict_mode_runs_as_if_it_were_the_first(bench: KernelBench) -> None:
    """Without strict mode it runs in native code again, not on strict mode's interpreter, which takes other code."""
    one = next(m for m in bench.mutants if m.fault.after == "if (false) add(values, by_column);")  # a head has no bias
    assert [bench.caught(one), bench.caught(one)] == ["", ""]
