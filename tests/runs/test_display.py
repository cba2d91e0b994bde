"""What a run says: the device it takes, how long it will take, its line of a step, in a terminal and elsewhere."""

from __future__ import annotations

import doctest
import io
import math
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import small_run

from core import terminal, words
from core.devices import RESIDENT, SIM, DeviceKind, choose
from core.devices.nvidia import nvidia_device
from core.errors import DeviceError, UsageError
from core.measure.estimate import estimate_seconds, refuse_long
from core.measure.simulator_pace import simulated_pace
from core.sim.native.toolchain import compiler
from core.train.detect import Window
from core.train.display import Display, fit
from core.train.loop import Trainer
from core.train.setup import TrainArguments, prepare
from core.train.step_line import step_line
from core.words import count, duration, printable

ROOT = Path(__file__).resolve().parents[2]
CONFIG = small_run.config(
    train={"val_every": 3, "val_tokens": 100, "sample_every": 3, "sample_tokens": 5, "checkpoint_every": 2},
    schedule={"name": "cosine", "warmup": 2},
)


@pytest.fixture
def here(workdir: Path) -> Path:
    """A working directory with a config and a little text; the cache is here too."""
    small_run.write(workdir, CONFIG)
    return workdir


def trainer(stack: ExitStack, *overrides: str, **asked: Any) -> Trainer:
    return prepare(TrainArguments("small.toml", overrides, device="cpu", **asked), Display(quiet=True), stack)


def test_auto_takes_the_cpu_only_where_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert nvidia_device(tmp_path) == ""
    pci = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    pci.mkdir(parents=True)
    (pci / "vendor").write_text("0x10de\n")
    (pci / "class").write_text("0x040300\n")  # its sound, not its display
    assert nvidia_device(tmp_path) == ""
    (pci / "class").write_text("0x030200\n")
    assert "0000:01:00.0" in nvidia_device(tmp_path)
    (tmp_path / ".dockerenv").touch()
    assert nvidia_device(tmp_path) == ""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert nvidia_device(tmp_path).endswith("nvidia0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert nvidia_device(tmp_path) == ""


def test_auto_takes_hardware_that_is_detected_else_the_first_device() -> None:
    host, chip = DeviceKind("host", "cpu", ("f32",), object), DeviceKind("chip", "cuda", ("f32",), object, lambda: "")
    other = DeviceKind("other", "cuda", ("f32",), object, lambda: "PCI device 7")
    table = {kind.name: kind for kind in (host, chip, other)}
    assert choose("auto", table) is other and choose("chip", table) is chip
    assert choose("auto", {"host": host, "chip": chip}) is host
    with pytest.raises(UsageError, match='there is no device "othr"; did you mean "other"') as caught:
        choose("othr", table)
    assert "--device takes auto, host, chip, other" in caught.value.hint


def test_hardware_that_is_there_and_cannot_be_used_is_an_error_and_no_quiet_run_on_the_cpu() -> None:
    def refuse() -> None:
        raise DeviceError("the driver does not start")

    chip = DeviceKind("chip", "cuda", ("f32",), refuse, lambda: "/dev/nvidia0")
    with pytest.raises(DeviceError, match="does not start"):
        choose("auto", {**RESIDENT, "cuda": chip}).open()


def test_more_than_an_hour_on_the_cpu_is_not_started_unasked() -> None:
    seconds = estimate_seconds(124_000_000, 524_288 * 100, 100e9)
    assert seconds == pytest.approx(6 * 124e6 * 52_428_800 / 100e9)
    with pytest.raises(UsageError, match=r"configs/x.toml \[train\] steps: 100 steps would take 4d12h") as caught:
        refuse_long(seconds, "cpu", steps=100, allowed=False, where="configs/x.toml [train] steps")
    assert "--long" in caught.value.hint
    refuse_long(seconds, "cpu", steps=100, allowed=True, where="")
    refuse_long(3599, "cpu", steps=100, allowed=False, where="")


def test_the_simulator_is_estimated_by_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORELM_SIM_EXECUTOR", "interpreter")
    paces = {name: kind.measured_pace(kind.open()) for name, kind in RESIDENT.items() if kind.everywhere}
    rates = {name: pace.flops for name, pace in paces.items() if pace is not None}
    assert set(rates) == {"cpu", "sim"}
    assert rates["sim"] < rates["cpu"] / 20
    # all steps of configs/tiny.toml: hours on the interpreter, minutes on the cpu.
    tokens = 1200 * 1024
    with pytest.raises(UsageError, match="on the sim"):
        refuse_long(estimate_seconds(1_063_680, tokens, rates["sim"]), "sim", steps=1200, allowed=False, where="x")
    refuse_long(estimate_seconds(1_063_680, tokens, rates["cpu"]), "cpu", steps=1200, allowed=False, where="x")


@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_the_estimate_follows_from_the_executor_that_will_run(monkeypatch: pytest.MonkeyPatch) -> None:
    device, rates = SIM.open(), {}
    monkeypatch.setenv("CORELM_SIM_EXECUTOR", "interpreter")
    for device.executor in ("native", "interpreter", None):
        rates[device.executor] = simulated_pace(device).flops
    assert rates["native"] > 5 * rates["interpreter"] and rates["native"] > 5 * rates[None]


METRICS = {
    "step": 12, "loss": 7.12341, "norm": 1.3181, "lr": 6e-4, "ms": 1302.1, "tokens_per_s": 197.4, "memory": 3.1 * 2**30,
}  # fmt: skip


def test_the_examples_of_numbers_and_tables_hold() -> None:
    assert doctest.testmod(words) == (0, 2)


def test_the_line_is_the_one_of_the_design() -> None:
    assert step_line(METRICS, 40, 88) == (
        "step 12/40 | loss 7.1234 | norm 1.318 | lr 6.00e-04 | 1302.1 ms | 197 tok/s | mem 3.1 GiB | eta 1m28s"
    )
    gpu = {**METRICS, "step": 1200, "loss": 3.8213, "loss_z": 0.41, "norm": 0.318, "norm_z": -0.1, "ms": 302.1,
           "tokens_per_s": 1_735_123.0, "mfu": 0.452, "sol": 0.61, "memory": 61.3 * 2**30}  # fmt: skip
    assert step_line(gpu, 18865, 5280) == (
        "step 1200/18865 | loss 3.8213 (+0.4z) | norm 0.318 (-0.1z) | lr 6.00e-04 | 302.1 ms | 1,735k tok/s | "
        "mfu 45.2% | sol 61.0% | mem 61.3 GiB | eta 1h28m"
    )
    skipped = {**METRICS, "norm": float("inf"), "loss_scale": 65536.0, "next_loss_scale": 32768.0}
    assert "| norm inf | " in step_line(skipped, 40, 88)
    assert " | skipped, loss scale 65,536 -> 32,768 | mem 3.1 GiB | eta" in step_line(skipped, 40, 88)
    shown = [duration(s) for s in (0, 59.4, 59.6, 3599, 90_000, 200_000)]
    assert shown == ["0s", "59s", "1m00s", "59m59s", "1d01h", "2d07h"]
    assert [count(n) for n in (0.4, 9876, 61_234)] == ["0", "9,876", "61k"]


def test_a_score_needs_a_full_window_and_nan_cannot_poison_it() -> None:
    window = Window(4)
    for value in (1.0, math.nan, 2.0, math.inf, 3.0):
        window.add(value)
        assert window.score(2.0) is None
    window.add(4.0)
    assert window.score(2.5) == pytest.approx(0) and window.score(2.5 + math.sqrt(1.25)) == pytest.approx(1)
    assert window.score(math.nan) is None
    flat = Window(2)
    flat.add(1.0), flat.add(1.0)
    assert flat.score(2.0) is None


class Terminal(io.StringIO):
    encoding = "ascii"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_redrawn_in_its_width_without_escape_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("core.train.display.REDRAW", 0.0)
    stream, log = Terminal(), []  # type: ignore[var-annotated]
    display = Display(stream)
    display.log = log.append
    line = step_line(METRICS, 40, 88)
    display.step(line, due=True)
    display.step(line.replace("12/40", "13/40"), due=False)
    display.status("validating, batch 1")
    display.line("val loss 6.5 é")
    display.close()
    text = stream.getvalue()
    assert "\x1b" not in text
    assert all(len(part) < 40 for part in text.replace("\n", "\r").split("\r"))
    shown = [[part.rstrip() for part in row.split("\r") if part.strip()] for row in text.split("\n")]
    assert shown == [
        ["step 12/40 | loss 7.1234 | norm 1.318", "step 13/40 | loss 7.1234 | norm 1.318"],
        ["validating, batch 1", "val loss 6.5 ?"],
        [],
    ]
    assert log == [line, "val loss 6.5 é"]


@pytest.mark.parametrize("dumb", [True, False])
def test_elsewhere_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch, dumb: bool) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal() if dumb else io.StringIO()
    display = Display(stream)
    display.step("a | b", due=True)
    display.step("c", due=False)
    display.status("busy")
    display.line("d")
    display.close()
    assert stream.getvalue() == "a | b\nd\n"


def test_lines_lose_whole_parts_before_letters() -> None:
    assert fit("aa | bb | cc", 12) == "aa | bb | cc"
    assert fit("aa | bb | cc", 11) == "aa | bb"
    assert fit("aaaa | bb", 3) == "aaa"


def test_what_a_model_writes_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[2Jb\n\tc\r\x07") == "a\ufffd[2Jb\n\tc\ufffd\ufffd"


def test_a_writer_without_a_text_for_long_has_no_thread_and_starts_another_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended() -> bool:
        deadline = time.monotonic() + 30
        while writer._thread is not None and time.monotonic() < deadline:
            time.sleep(0.005)
        return writer._thread is None

    monkeypatch.setattr(terminal, "IDLE", 0.05)
    with open(tmp_path / "lines", "w", encoding="utf-8") as stream:
        writer = terminal.Writer(stream)
        for text in ("first", " second"):
            writer.write(text)
            writer.finish()
            assert ended()
    assert (tmp_path / "lines").read_text("utf-8") == "first second"
