"""The compile check says which kernel breaks which limit on which architecture, and lets sound ones pass."""

from __future__ import annotations

import pytest

from core import Variant, i32
from core.device.planned import PlannedDevice
from core.engine import Engine, Settings
from core.graph import load_model
from core.kernels.nvrtc import Resources, compile_all
from core.loader import load_registry
from core.testing.case import cases_of
from core.testing.check import check_variant, kernels_of
from core.testing.compiles import check_compile, compiler, limits, widest
from core.testing.records import keep, verdicts_of
from core.testing.trials import trials_of
from core.verdicts import Verdicts

REGISTRY = load_registry()
GELU = REGISTRY.op("gelu")

SOUND = """extern "C" __global__ void forward(elem* y, const elem* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = elem(0.5f * float(x[i]) * (1 + tanhf(0.7978845608f * (x[i] + 0.044715f * x[i] * x[i] * x[i]))));
}
"""
HEAVY = """extern "C" __global__ void __launch_bounds__(1024, 2) forward(elem* y, const elem* x, int n) {
    float a[80];
    for (int i = 0; i < 80; i++) a[i] = x[(i * 32 + threadIdx.x) % n];
    for (int k = 0; k < 9; k++)
        for (int i = 0; i < 80; i++) a[i] = a[i] * a[(i * 7 + 1) % 80] + a[(i + 3) % 80];
    for (int i = 0; i < 80; i++) y[(i * 32 + threadIdx.x) % n] = elem(a[i]);
}
"""


class Findings:
    """In place of the op check's log. record: of the compilations that passed."""

    def __init__(self):
        self.count, self.failed, self.record = 0, [], ""

    def verdict(self, check, ok, message=""):
        assert check == "compile"
        self.count += ok
        self.failed += [] if ok else [message]

    def passed(self, check):
        self.verdict(check, ok=True)


@pytest.fixture
def variant(tmp_path):
    """variant(source, arch, **how): a forward of gelu with those kernels, launched so."""

    def make(source, arch="sm_80+", **how):
        class Mine(Variant):
            op, name, backward = "gelu", "mine", None

            def why_not(self, t):
                return None if t.approx == "tanh" else "it has the tanh form only"

            def forward(self, t, launch):
                launch("forward", t.y, t.x, i32(t.y.size), **{"grid": -(-t.y.size // 128), "block": 128, **how})

        (tmp_path / "gelu.cu").write_text(source)
        made = Mine()
        type(made).arch = arch
        made.sources = {"forward": (tmp_path / "gelu.cu",)}
        return made

    return make


def findings_on(made, *passed):
    trials, _ = trials_of(GELU, made, REGISTRY, cases=cases_of(GELU, made)[:1])
    log = Findings()
    log.record = check_compile(log, made, trials, passed=passed)
    return log


def test_a_sound_kernel_passes_on_every_architecture_in_every_dtype_that_it_has(variant):
    log = findings_on(variant(SOUND, "sm_75+"))
    assert log.count == 10 * 3 - 1 and not log.failed


@pytest.fixture
def compiled(monkeypatch):
    """The number of compilations of each call of `compile_all`, from the cache too."""
    counts = []

    def counting(jobs):
        counts.append(len(jobs))
        return compile_all(jobs)

    monkeypatch.setattr("core.testing.compiles.compile_all", counting)
    return counts


def test_compilations_that_are_recorded_are_not_repeated(variant, compiled):
    first = findings_on(variant(SOUND, "sm_86+"))
    again = findings_on(variant(SOUND, "sm_86+"), "another", first.record)
    assert compiled == [first.count] and (again.count, again.record) == (first.count, first.record)
    assert first.record.startswith(f"{compiler()}: ")


def test_another_text_launch_architecture_or_compiler_is_no_recorded_one(variant, compiled, monkeypatch):
    record = findings_on(variant(SOUND, "sm_86+")).record
    more = SOUND.replace("0.044715f", "0.044716f")
    for source, arch, how in ((more, "sm_86+", {}), (SOUND, "sm_80+", {}), (SOUND, "sm_86+", {"smem": 1024})):
        assert findings_on(variant(source, arch, **how), record).record not in ("", record)
    monkeypatch.setattr("core.testing.compiles.nvrtc_version", lambda: "13.9.1")
    assert findings_on(variant(SOUND, "sm_86+"), record).record != record
    assert 0 not in compiled and len(compiled) == 5


def test_compilations_with_a_fault_leave_no_record(variant, compiled):
    record = findings_on(variant(SOUND, "sm_89")).record
    assert findings_on(variant(SOUND, "sm_89", smem=150_000), record).record == "" and compiled == [3, 3]


def test_a_verdict_on_this_machine_records_them_and_the_check_uses_it(variant, compiled, monkeypatch, tmp_path):
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    how = {"checks": ()}
    report = check_variant(GELU, variant(SOUND, "sm_90a"), REGISTRY, **how)
    for verdict in verdicts_of(report, ""):
        keep(Verdicts(REGISTRY), variant(SOUND, "sm_90a"), verdict, whole=True)
    again = check_variant(GELU, variant(SOUND, "sm_90a"), REGISTRY, **how)
    assert compiled == [3] and again.checks["compile"] == report.checks["compile"] == (3, 0.0)
    assert again.notes[-1] == f"passed compilations are recorded, with {compiler()}; --recompile repeats them"
    check_variant(GELU, variant(SOUND, "sm_90a"), REGISTRY, recorded=False, **how)
    assert compiled == [3, 3]


def test_only_what_is_declared_is_compiled(variant):
    assert findings_on(variant(SOUND, "sm_90a")).count == 3


def test_spills_are_told_with_kernel_and_architecture(variant):
    (first, *_) = findings_on(variant(HEAVY, "sm_80")).failed
    assert "forward for sm_80 spills " in first and "at 32 registers" in first and "hint:" in first


def test_more_shared_memory_than_an_architecture_has_is_told_for_that_one_alone(variant):
    failed = findings_on(variant(SOUND, "sm_86+", smem=150_000)).failed
    assert {m.partition(" for ")[2].split()[0] for m in failed} == {"sm_86", "sm_89", "sm_120a", "sm_121a"}
    assert all(
        "150,000 bytes of shared memory a thread block, 0 static and 150,000 dynamic; there are 101,376" in m
        for m in failed
    )


def test_a_kernel_that_is_not_there_is_told(variant):
    (message,) = findings_on(variant(SOUND.replace("forward", "foreward"))).failed
    assert 'no kernel "forward"' in message and 'did you mean "foreward"' in message


def test_the_op_check_runs_it_and_fails_by_it(variant):
    sound = check_variant(GELU, variant(SOUND, "sm_80+"), REGISTRY)
    assert "compile" in sound.checks and sound.passed
    assert check_variant(GELU, variant(SOUND, "sm_86+", smem=150_000), REGISTRY).failed_checks() == ["compile"]


STATIC = SOUND.replace("int n) {", "int n) {\n    __shared__ float s[32];\n    s[threadIdx.x % 32] = x[0];").replace(
    "y[i] =", "y[i] = s[0] *"
)


def test_static_shared_memory_counts_too(variant):
    """A chip's whole thread block: 101,376 bytes on sm_86 and sm_120, of which 128 are static."""
    assert not findings_on(variant(STATIC, "sm_86", smem=101_376 - 128)).failed
    (first, *_) = findings_on(variant(STATIC, "sm_86", smem=101_376 - 64)).failed
    assert "128 static and 101,312 dynamic; there are 101,376" in first


def test_an_architecture_of_no_chip_is_told_instead_of_passing_unchecked(variant):
    (message,) = findings_on(variant(SOUND, "sm_130+")).failed
    assert 'arch "sm_130+": there is no such chip' in message


def test_registers_of_a_whole_thread_block_are_held_against_the_file():
    assert limits(Resources(64, 0, 0, 0), "sm_80", 1024, 0) == []
    (told,) = limits(Resources(65, 0, 0, 0), "sm_80", 1024, 0)
    assert "73,728 registers at 1024 threads" in told
    assert limits(Resources(40, 64 * 1024, 0, 0), "sm_75", 64, 0) == []
    assert limits(Resources(40, 64 * 1024, 0, 0), "sm_75", 64, 1) != []


def test_what_the_listing_shows_is_the_most_of_all_instances(variant):
    made = variant(SOUND)
    arch, kernels = kernels_of(GELU, made, REGISTRY)
    assert arch == "sm_90a" and 0 < kernels["forward"].registers < 64
    assert widest([]) == {}


def test_a_planned_step_compiles_for_its_architecture():
    device = PlannedDevice("sm_80")
    dims = {"B": 2, "T": 5, "S": 8, "V": 21, "P": 64, "C": 24, "H": 2, "L": 1}
    settings = Settings(dims=dims, optimizer="adamw", device="cuda", precision="f32")
    engine = Engine(load_model("gpt2_124m", REGISTRY), REGISTRY, settings, device)
    engine.bound("train", (), {"B": 2, "T": 5}).run()
    kernels = device.prepare([r for r in device.records if r.node in ("ln_f", "wte", "")])
    assert kernels and all(0 < used.registers <= 255 for used in kernels.values())
