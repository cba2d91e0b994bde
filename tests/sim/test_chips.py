"""The one table of chips: what runs where, what a thread block may take, and that nothing else lists chips."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import core.sim
from core import Variant
from core.device.launch import LaunchRecord
from core.device.planned import PlannedDevice
from core.errors import BuildError, CoreError
from core.kernels.chips import (
    CHIPS,
    GPUS,
    architecture,
    block_registers,
    chip_of,
    chips_of,
    launch_problems,
    resident_blocks,
    runs_on,
)
from core.kernels.nvrtc import Kernel, architectures_of
from core.kernels.nvrtc_library import supported
from core.loader import load_registry
from core.registry import check_variant

ROOT = Path(__file__).parents[2]
BOTH = """
extern "C" __global__ void both(float* y) {
    __shared__ float s[32];
    extern __shared__ float room[];
    s[threadIdx.x] = room[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = s[31 - threadIdx.x] + room[31 - threadIdx.x];
}
"""


@pytest.mark.parametrize(
    ("declared", "runs", "refused"),
    [
        ("sm_75+", "sm_75 sm_80 sm_87 sm_88 sm_90a sm_103a sm_107a sm_110a sm_121a", ""),
        ("sm_90+", "sm_90a sm_100a sm_103a sm_107a sm_110a sm_120a sm_121a", "sm_75 sm_89"),
        ("sm_80", "sm_80", "sm_75 sm_86 sm_87 sm_90a"),
        ("sm_103", "sm_103 sm_103a sm_103f", "sm_100a sm_107a"),
        ("sm_90a", "sm_90a", "sm_90 sm_100a"),
        ("sm_100a", "sm_100a", "sm_100 sm_100f sm_103a sm_107a sm_110a"),
        ("sm_103a", "sm_103a", "sm_100a sm_107a"),
        ("sm_100f", "sm_100a sm_100f sm_103a sm_103f sm_107a", "sm_100 sm_90a sm_110a sm_120a"),
        ("sm_103f", "sm_103a sm_107a", "sm_100a sm_110a"),
        ("sm_110f", "sm_110a", "sm_100a sm_103a sm_120a"),
        ("sm_120f", "sm_120a sm_121a", "sm_120 sm_110a sm_100a"),
        ("sm_121f", "sm_121a", "sm_120a"),
    ],
)
def test_what_a_variant_declares_decides_where_it_runs(declared, runs, refused):
    """As CUDA 13.5's linker takes PTX of that target for those chips; plain names are ours: that chip alone."""
    assert [arch for arch in runs.split() if not runs_on(declared, arch)] == []
    assert [arch for arch in refused.split() if runs_on(declared, arch)] == []


def test_a_capability_is_compiled_for_with_all_that_it_has():
    capabilities = ((7, 5), (8, 7), (8, 9), (9, 0), (10, 3), (11, 0), (12, 1))
    named = "sm_75 sm_87 sm_89 sm_90a sm_103a sm_110a sm_121a"
    assert [architecture(*c) for c in capabilities] == named.split()


def test_a_variant_declares_a_family_and_a_planned_chip_of_it_runs_it():
    class Mine(Variant):
        op, name, arch, backward = "gelu", "mine", "sm_100f", None

        def forward(self, t, launch): ...

    assert [PlannedDevice(arch).can_run(Mine()) is None for arch in ("sm_100a", "sm_103a", "sm_107a")] == [True] * 3
    assert "it needs sm_100f, and the plan is for sm_110a" in str(PlannedDevice("sm_110a").can_run(Mine()))
    gelu = load_registry().op("gelu")
    check_variant(Mine(), Mine, gelu, ("cpu", "cuda"))
    Mine.arch = "sm_100g"
    with pytest.raises(BuildError, match='"sm_90a" or "sm_100f"'):
        check_variant(Mine(), Mine, gelu, ("cpu", "cuda"))


@pytest.mark.parametrize("arch", ["sm_100f+", "sm_90b", "90a", "sm_9"])
def test_an_architecture_that_is_none_is_refused(arch):
    with pytest.raises(BuildError, match="is not an architecture"):
        runs_on(arch, "sm_90a")


def test_the_check_compiles_for_every_chip_that_runs_the_variant():
    """Of `+`, for those that are sold for training; of one that is declared exactly, for each that runs it."""
    everyone = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_103a", "sm_110a", "sm_120a", "sm_121a"]
    assert [chip.arch for chip in chips_of("sm_75+")] == everyone
    assert [chip.arch for chip in chips_of("sm_80+")] == everyone[1:]
    assert [chip.arch for chip in chips_of("sm_100f")] == ["sm_100a", "sm_103a", "sm_107a"]
    assert [chip.arch for chip in chips_of("sm_87")] == ["sm_87"]
    assert chips_of("sm_130+") == []


def test_the_check_leaves_out_chips_that_the_compiler_does_not_know(monkeypatch):
    import core.kernels.nvrtc as nvrtc

    assert {f"sm_{number}" for number in CHIPS} == set(supported()), "a chip that NVRTC knows has a row"
    monkeypatch.setattr(nvrtc, "supported", lambda: ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120"))
    assert architectures_of("sm_80+") == ("sm_80", "sm_90a", "sm_100a", "sm_120a")
    assert architectures_of("sm_110a") == ("sm_110a",), "so that compiling says what is missing"


def test_a_chip_without_a_row_is_an_error_that_says_where_rows_are():
    with pytest.raises(BuildError, match="limits of sm_130a") as error:
        chip_of("sm_130a")
    assert "core/kernels/chips.py" in error.value.hint


def test_static_and_dynamic_shared_memory_are_counted_together():
    assert launch_problems(CHIPS[86], 32, 128, (32, 8), 101_376 - 128) == []
    (said,) = launch_problems(CHIPS[86], 32, 128, (32, 8), 101_376 - 64)
    assert said.startswith("takes 101,440 bytes of shared memory a thread block, 128 static and 101,312 dynamic")


def test_a_plan_is_refused_where_the_chip_would_refuse_a_launch(tmp_path):
    """Static shared memory is known once the kernel is compiled: the error has the launch, both sizes and the limit."""
    planned = PlannedDevice("sm_86")
    kernel = Kernel(Path("both.cu"), "both", text=BOTH)
    launch = LaunchRecord(kernel, (), (1, 1, 1), (32, 1, 1), 101_376 - 124, node="h.0.fc", line="mine.py:7")
    with pytest.raises(BuildError, match="128 static and 101,252 dynamic; there are 101,376 on sm_86") as error:
        planned.prepare([launch])
    assert "node h.0.fc" in error.value.message and "(mine.py:7)" in error.value.message and error.value.hint
    assert planned.prepare([replace(launch, smem=101_376 - 128)])[kernel].shared == 128


def test_the_simulator_counts_both_too():
    y = np.zeros(32, np.float32)
    core.sim.run(BOTH, "both", 1, 32, [y], smem=232_448 - 128)
    with pytest.raises(CoreError, match="232452 bytes of shared memory, 128 static and 232324 dynamic; at most 232448"):
        core.sim.run(BOTH, "both", 1, 32, [y], smem=232_448 - 124)


def test_registers_are_given_to_whole_warps_in_units_of_256_and_to_four_partitions_alike():
    """65 registers are 72; five warps are counted as eight: cuda_occupancy.h."""
    assert block_registers(65, 32) == 72 * 32 * 4 and block_registers(64, 160) == 64 * 32 * 8
    assert launch_problems(CHIPS[80], 64, 0, (1024,), 0) == []
    assert "73,728 registers at 1024 threads" in launch_problems(CHIPS[80], 65, 0, (1024,), 0)[0]


def test_clusters_are_of_hopper_and_newer():
    assert launch_problems(CHIPS[90], 32, 0, (32,), 0, cluster=8) == []
    assert "a cluster of 2 thread blocks; sm_89 has 1" in launch_problems(CHIPS[89], 32, 0, (32,), 0, cluster=2)[0]


@pytest.mark.parametrize(
    ("chip", "registers", "static", "threads", "dynamic", "blocks"),
    [
        (80, 32, 0, 256, 0, 8),  # 2,048 threads
        (75, 16, 0, 32, 0, 16),  # thread blocks
        (86, 128, 0, 256, 0, 2),  # registers
        (86, 32, 0, 128, 49_152, 2),  # 100 KiB, with 1 KiB a thread block of the driver's
        (86, 32, 2_048, 128, 49_152, 1),
        (90, 255, 0, 256, 0, 1),
        (90, 32, 0, 128, 232_448, 1),
        (90, 32, 1, 128, 232_448, 0),  # not one
    ],
)
def test_resident_blocks_are_those_of_nvidias_occupancy_header(chip, registers, static, threads, dynamic, blocks):
    assert resident_blocks(CHIPS[chip], registers, static, threads, dynamic) == blocks


def test_nothing_else_lists_chips():
    """A list of architectures anywhere else is a second table, which the next chip makes wrong."""
    several = re.compile(r"(sm_\d+[af]?\W+){3,}sm_\d+|\{\s*\d{2,3}\s*:[^}]*\b12[01]\s*:")
    for folder in ("core", "ops", "plugins", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name != "chips.py" and "tests" not in path.parts:
                assert not several.search(path.read_text("utf-8")), path


def test_gpus_by_name_are_of_chips_in_the_table():
    assert {gpu.number for gpu in GPUS.values()} <= set(CHIPS)
    for gpu in GPUS.values():
        known = {precision for precision in ("f32", "bf16", "fp16", "f64") if gpu.peak(precision)}
        assert known == set(CHIPS[gpu.number].precisions)
