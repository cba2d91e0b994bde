"""What `core bench --sass` reads from the compiler's code, and that the code of tensor-core kernels does not grow."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from core.cli import doctor
from core.cli import run as main
from core.cli.bench_sass import lines
from core.device.launch import LaunchRecord
from core.device.planned import launches_among
from core.errors import BuildError
from core.kernels import nvrtc_library, sass
from core.kernels.chips import CHIPS, GPUS
from core.kernels.nvrtc import Kernel, Resources
from core.kernels.sass_loops import loops_of, way_through
from core.measure.sass_bench import SassBench
from core.measure.sass_model import LATENCY, Bound, CodePart, KernelCode, KernelRow, clock_of, code_of, part_of

ROOT = Path(__file__).parents[2]
needs_nvdisasm = pytest.mark.skipif(not sass.has_nvdisasm(), reason='nvdisasm is missing: pip install "corelm[sass]"')

# A loop with a rare branch around four instructions, behind a load that the products wait for
LISTING = """
//--------------------- .text.sums --------------------------
.text.sums:
        /*0000*/                   S2R R0, SR_TID.X ;                  /* 0x0000000000007919 */
                                                                       /* 0x000e220000002100 */
.L_x_0:
        /*0010*/                   LDSM.16.M88.4 R4, [R0] ;            /* 0x000000000000783b */
                                                                       /* 0x001e280000000200 */
        /*0020*/              @!P0 BRA `(.L_x_1) ;                     /* 0x0000000000008947 */
                                                                       /* 0x000fea0003800000 */
        /*0030*/                   IADD3 R1, R1, R2, RZ ;              /* 0x0000000000007919 */
                                                                       /* 0x000fe40000002100 */
        /*0040*/                   IADD3 R1, R1, R2, RZ ;              /* 0x0000000000007919 */
                                                                       /* 0x000fe40000002100 */
.L_x_1:
        /*0050*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ; /* 0x000000060408723c */
                                                                       /* 0x001fe20000041808 */
        /*0060*/                   BRA.U UP0, `(.L_x_0) ;              /* 0x0000000000008947 */
                                                                       /* 0x000fea0003800000 */
        /*0070*/                   EXIT ;                              /* 0x000000000000794d */
                                                                       /* 0x000fea0003800000 */
.L_x_2:
        /*0080*/                   BRA `(.L_x_2);                      /* 0x0000000000007947 */
                                                                       /* 0x000fc0000383ffff */
"""


def test_a_trip_leaves_out_what_a_branch_goes_around():
    code = sass.parse(LISTING)["sums"]
    (trip,) = loops_of(code)
    assert [code[at].opcode for at in trip] == ["LDSM.16.M88.4", "BRA", "HMMA.16816.F32.BF16", "BRA.U"]
    assert [at for at in way_through(code) if at not in trip] == [0, 7]
    assert (code[1].waits, code[1].written, code[1].stall) == (1, 0, 4)


def test_the_clocks_of_a_trip_are_those_of_the_chip():
    gpu, code = GPUS["A100-SXM4-80GB"], sass.parse(LISTING)["sums"]
    part = part_of([code[at] for at in loops_of(code)[0]], gpu)
    assert round(clock_of(gpu) / 1e9, 2) == 1.41
    assert part.clocks["issue"] == 4 and part.clocks["tensor"] == pytest.approx(8, rel=0.01)  # 4,096 of 512 a clock
    assert part.clocks["shared memory"] == 4 * 512 / 128
    assert part.alone == pytest.approx(LATENCY["ldsm"] + 8, abs=0.1)  # the product waits for its operand
    code = KernelCode(part, part_of([], gpu), Resources(40, 0, 0, 0), 1)
    assert code.longest(1, 1.0)[1] == "latency" and code.longest(16, 1.0)[1] == "shared memory"


def test_a_loop_of_one_thread_block_overlaps_the_results_of_another():
    """Two warps of a scheduler: 100 clocks of tensor cores each, and 40 of float units after them."""
    loop = CodePart(Counter(), {"tensor": 10.0, "float": 0.0}, 12.0)
    code = KernelCode(loop, CodePart(Counter(), {"tensor": 0.0, "float": 40.0}, 60.0), Resources(40, 0, 0, 0), 1)
    assert code.longest(2, 10.0) == (200.0, "tensor"), "and not 280"
    assert code.longest(1, 10.0) == (180.0, "latency"), "a warp by itself has nothing to overlap"
    assert code.longest(8, 1.0) == (320.0, "float")


def test_a_missing_nvdisasm_is_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setattr(sass, "files", lambda package: [])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BuildError) as error:
        sass.nvdisasm.__wrapped__()
    assert "nvdisasm" in error.value.message and "corelm[sass]" in error.value.hint


def test_a_model_says_so_and_has_no_tokens_per_second():
    code = sass.parse(LISTING)["sums"]
    trip = part_of([code[at] for at in loops_of(code)[0]], GPUS["RTX 3090"])
    launch = LaunchRecord(Kernel(Path("sums.cu"), "sums"), (), (3, 1, 1), (128, 1, 1), smem=1024)
    bound = Bound(launch, KernelCode(trip, trip, Resources(40, 0, 16, 0), 1), 24.0, 2, 0.5, 0.002, "tensor")
    row = KernelRow("sums", "sums.cu", 7, bound, 0.014, "tensor")
    text = "\n".join(lines(SassBench("RTX 3090", [row], [row], 0.007, 2)))
    assert "lower bounds, and nothing was measured" in text and "tokens/s" not in text
    assert "micro-step: at least 14.000 ms, 2.00 times the roofline's 7.000 ms" in text
    assert "40 (16 spilt)" in text and "left out: 2 commands" in text


@needs_nvdisasm
def test_an_unknown_gpu_is_refused_with_the_nearest_name(capsys):
    assert main(["bench", "configs/tiny.toml", "--sass", "--gpu", "RTX 309"]) != 0
    assert 'did you mean "RTX 3090"' in capsys.readouterr().err


@pytest.fixture(scope="module")
def record():
    spec = importlib.util.spec_from_file_location("sass_benchmark", ROOT / "benchmarks" / "sass.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "slots", "line"),
    [
        ("mma", {"trip": 131}, "mma: 131 slots a trip, recorded 130"),
        ("mma", {"rest": 715}, "mma: 715 other slots, recorded 700"),
        ("mma", {"spills": 8}, "mma: 8 bytes spilt"),
        ("other", {}, "other: not in both"),
        ("mma", {"trip": 1, "rest": 714}, None),  # fewer, and within the margin
    ],
)
def test_slots_beyond_the_record_are_named(record, name, slots, line):
    recorded = {"mma": {"trip": 130, "rest": 700, "spills": 0}}
    lines = record.grown({"mma": recorded["mma"], name: recorded["mma"] | slots}, recorded)
    assert lines == [] if line is None else [found.partition(";")[0] for found in lines] == [line]


def test_the_page_has_the_recorded_slots_of_each_compiler(record):
    """`python benchmarks/sass.py --record` writes both."""
    held, page = json.loads(record.RECORD.read_text()), record.PAGE.read_text("utf-8")
    rows = list(record.by_compiler(held))
    assert "\n".join(rows) in page and len(rows) > 8
    assert record.replace_table(page, rows[0], rows) == page


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("13.0.88", "note"), ("13.5.37", "ok"), ("13.6.2", "ok"), ("12.9.86", "ok"), ("14.0", "ok")],
)
def test_doctor_advises_an_update_where_an_older_compiler_emits_more(record, monkeypatch, version, verdict):
    """NVRTC 12 is what a driver of CUDA 12 needs."""
    newest = max(json.loads(record.RECORD.read_text()))
    assert newest == f"NVRTC {nvrtc_library.RECORDED}"
    monkeypatch.setattr(nvrtc_library, "nvrtc_version", lambda: version)
    (found,) = doctor.compiler()
    assert (found.verdict, found.found) == (verdict, version)
    assert ("pip install -U nvidia-cuda-nvrtc" in found.advice) == (verdict == "note")


@needs_nvdisasm
def test_the_pages_ladder_is_that_of_the_compilers_code(record):
    """A sample of its rows, where the compiler is the newest recorded one."""
    if record.compiler() != max(json.loads(record.RECORD.read_text())):
        pytest.skip(f"the page has no slots of {record.compiler()}")
    page = record.PAGE.read_text("utf-8")
    stale = [row for row in record.ladder(("matmul tiled", "matmul mma")) if f"\n{row}\n" not in page]
    assert not stale, "`python benchmarks/sass.py --record` writes docs/kernels.md anew"


@needs_nvdisasm
@pytest.mark.parametrize("name", ["A100-SXM4-80GB"])
def test_tensor_core_kernels_take_no_more_slots_than_recorded(record, name):
    """It fails with `#pragma unroll 1` at the copies or at the products of matmul_mma.cu."""
    records = json.loads(record.RECORD.read_text())
    if record.compiler() not in records:
        pytest.skip(f"no record of {record.compiler()}, whose code is another")
    assert not record.grown(record.slots(name), records[record.compiler()][CHIPS[GPUS[name].number].arch])


ACCESS = re.compile(r"LD\b|LDG|LDGSTS|ST\b|STG|ATOM|RED|UBLKCP|UTMA")


@needs_nvdisasm
def test_machine_code_accesses_global_memory_only_after_the_wait_for_the_preceding_kernel(record):
    """It fails with the read of `numbers` in front of the call in adamw_update.cu. With `__restrict__`, which recording
    refuses, the compiler made that order by itself."""
    engine = record.engine_for("H100 80GB HBM3", 16, layers=1)
    update = engine._recorded_update()
    kernels = {
        one.kernel for one in launches_among([*engine.bound("train", (), engine.input_sizes).launches(), *update])
    }
    checked = set()
    for kernel in (one for one in kernels if not one.name.startswith(("mma_", "flash_"))):
        opcodes = [one.opcode for one in code_of(kernel, "sm_90a")[0]]
        (wait,) = (place for place, opcode in enumerate(opcodes) if opcode.startswith("ACQBULK"))
        assert wait < next(place for place, opcode in enumerate(opcodes) if ACCESS.match(opcode)), kernel.name
        checked.add(kernel.name)
    assert {"vector_update", "onepass_backward", "vector_embed", "block_both"} <= checked
