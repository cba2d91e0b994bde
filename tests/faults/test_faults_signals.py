"""Signals, closed pipes, full disks and odd terminals: what a run does when the world around it ends or misbehaves.

Signals are real. Most are sent by the test to its own process, at the very place that they are to come at; the runs
in processes of their own are those that a second signal, a terminal or a pipe needs.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import small_run

import core.loader
from core import files
from core.cli import run as core_command
from core.data.tokenizer import Tokenizer
from core.interop import checkpoint
from core.kernels import nvrtc
from core.signals import Ended, check, listening
from core.train.display import Display
from core.train.loop import Trainer, run_job
from core.train.run import read_lines
from core.train.setup import TrainArguments, prepare

ROOT = Path(__file__).resolve().parents[2]
CONFIG = small_run.config(
    data={"val": "text.txt"},
    train={
        "val_every": 3,
        "keep_best": False,
        "val_tokens": 320,
        "sample_every": 3,
        "sample_tokens": 16,
        "sample_prompt": "naïve ",
        "checkpoint_every": 2,
    },
)
SLOW = """
import time
from pathlib import Path

def core_step_end(run, step):
    Path("at").write_text(str(step))
    if step == 3 and Path("hang").exists():
        Path("hanging").touch()
        time.sleep(60)
    time.sleep(0.02)
"""
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and terminals are POSIX's")


@pytest.fixture(autouse=True)
def not_under_nohup() -> Iterator[None]:
    """A signal that is ignored where the tests are started would be ignored by a run, and rightly so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def here(workdir: Path) -> Path:
    small_run.write(workdir, CONFIG)
    return workdir


def trainer(stack: ExitStack, out: str = "a", *overrides: str, **asked: Any) -> Trainer:
    request = TrainArguments("small.toml", overrides, device="cpu", out=Path(out), **asked)
    return prepare(request, Display(quiet=True), stack)


def send(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


def at_step(step: int, action: Callable[[], None]) -> Callable[..., None]:
    """A `core_step_end` that does something once."""

    def hook(run: Any, now: int, metrics: dict[str, Any]) -> None:
        if now == step:
            action()

    return hook


def within_step(made: Trainer, step: int, action: Callable[[], None]) -> None:
    """Do something between the first and the second micro-step of a step."""
    engine = made.job.engine
    run = engine._micro_steps  # type: ignore[attr-defined]

    def each(batches: Any) -> Iterator[Any]:
        for index, plan in run(batches):
            if index == 1 and made.step == step - 1:
                action()
            yield index, plan

    engine._micro_steps = each  # type: ignore[attr-defined]


def last_line(out: str = "a") -> str:
    return Path(out, "train.log").read_text("utf-8").splitlines()[-1]


def curve(out: str) -> list[tuple[Any, ...]]:
    return [(m["step"], m["loss"], m["norm"]) for m in read_lines(Path(out, "metrics.jsonl"))]


# --- a signal while it trains --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODES)
def test_a_signal_ends_after_the_step_saves_and_tells_the_truth(here: Path, stack: ExitStack, name: str) -> None:
    made = trainer(stack)
    made.job.hooks = [at_step(3, lambda: send(name))]
    before = signal.getsignal(getattr(signal, name))
    assert run_job(made) == CODES[name]
    assert checkpoint.find(here / "a").step == 3 == read_lines(here / "a/metrics.jsonl")[-1]["step"]
    assert (
        last_line() == f"ended by {name} after step 3/6: the checkpoint of step 3 is saved; --resume continues from it"
    )
    assert signal.getsignal(getattr(signal, name)) is before


def test_what_is_not_saved_is_not_said_to_be(here: Path, stack: ExitStack) -> None:
    made = trainer(stack, "a", "train.checkpoint_every=0")
    made.job.hooks = [at_step(3, lambda: send("SIGTERM"))]
    assert run_job(made) == 143
    assert last_line() == "ended by SIGTERM after step 3/6: nothing is saved (checkpoint_every = 0)"
    assert checkpoint.steps(here / "a/checkpoints") == []


def test_a_signal_in_the_midst_of_a_step_finishes_that_step(here: Path, stack: ExitStack) -> None:
    made = trainer(stack)
    within_step(made, 3, lambda: send("SIGTERM"))
    assert run_job(made) == 143 and made.step == 3 == checkpoint.find(here / "a").step


def test_a_signal_in_validation_waits_for_one_batch(here: Path, stack: ExitStack) -> None:
    made = trainer(stack)
    batches, drawn = made.job.val_batches, []
    assert batches is not None

    def draw() -> Iterator[Any]:
        for batch in batches():
            drawn.append(1)
            if len(drawn) == 2:
                send("SIGTERM")
            yield batch

    made.job.val_batches = draw
    assert run_job(made) == 143
    assert len(drawn) == 2 and checkpoint.find(here / "a").step == 3
    assert "val_loss" not in read_lines(here / "a/metrics.jsonl")[-1], "half a validation is none"


def test_a_signal_in_sampling_waits_for_one_token(here: Path, stack: ExitStack) -> None:
    made = trainer(stack)
    session, fed = made.job.engine.session, []

    def opened(rows: int, capacity: int = 0) -> Any:
        found = session(rows, capacity)
        feed = found.feed

        def counted(*arguments: Any) -> Any:
            fed.append(1)
            if len(fed) == 3:
                send("SIGTERM")
            return feed(*arguments)

        found.feed = counted
        return found

    made.job.engine.session = opened  # type: ignore[method-assign]
    assert run_job(made) == 143
    assert len(fed) == 3 and checkpoint.find(here / "a").step == 3


def test_a_signal_in_a_save_lets_the_save_end(here: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(stack)
    sent: list[str] = []

    def during(call: str, path: Path) -> None:
        if call == "write" and "step_00000002" in str(path) and not sent:
            sent.append(call)
            send("SIGTERM")

    monkeypatch.setattr(files, "POINT", during)
    assert run_job(made) == 143 and sent
    assert checkpoint.find(here / "a").step == 2 == made.step
    assert last_line().startswith("ended by SIGTERM after step 2/6: the checkpoint of step 2 is saved")


# --- a signal before the first step --------------------------------------------------------------------------------


def test_a_signal_while_text_is_tokenised_ends_in_order(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, sent = Tokenizer.encode, []

    def signalled(self: Tokenizer, text: str) -> Any:
        if not sent:
            sent.append(send("SIGTERM"))
        time.sleep(0.05)
        return encode(self, text)

    monkeypatch.setattr(Tokenizer, "encode", signalled)
    assert core_command(["train", "small.toml", "--device", "cpu", "--out", "a", "--quiet"]) == 143
    assert not (here / "a").exists() and not list((here / "cache/tokens").iterdir()), "nothing half done is left"


def test_a_signal_while_kernels_compile_waits_for_those_under_way(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def compile_slowly(unit: Any, kernel: Any) -> tuple[bytes, str]:
        begun.append(kernel.name)
        if len(begun) == 4:
            send("SIGTERM")
        time.sleep(0.05)
        return b"", ""

    monkeypatch.setattr(nvrtc, "_run_nvrtc", compile_slowly)
    source = ROOT / "ops/cuda/gelu.cu"
    jobs = [(nvrtc.Kernel(source, "any", (("N", n),)), "compute_90a") for n in range(40)]
    with pytest.raises(Ended) as caught, listening():
        nvrtc.compile_all(jobs, workers=2)
    assert caught.value.exit_code == 143 and len(begun) <= 10, "those that waited were given up"


BPE = """
import random, sys
from core.data.tokenizer import train_bpe
from core.signals import listening

def text():
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(100_000)]
    yield " ".join(words)
    print("all is drawn", flush=True)

with listening():
    print("begins", flush=True)
    train_bpe(text(), 20_000)
    print("is done", flush=True)
"""


def test_a_signal_while_a_tokenizer_is_trained_ends_at_once(here: Path) -> None:
    """The library holds the interpreter, so that no handler of ours would run until it is done."""
    process = subprocess.Popen([sys.executable, "-c", BPE], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["begins\n", "all is drawn\n"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM and process.stdout.read() == ""


def test_a_signal_before_the_first_step_says_that_nothing_is_saved(capfd: pytest.CaptureFixture[str]) -> None:
    for name, code in CODES.items():
        with (
            pytest.raises(Ended) as caught,
            listening(" before the first step: no step was trained, no checkpoint was saved"),
        ):
            send(name)
            check()
        assert caught.value.exit_code == code
        assert (
            f"ended by {name} before the first step: no step was trained, no checkpoint was saved"
            in capfd.readouterr().err
        )


# --- processes of their own ----------------------------------------------------------------------------------------


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(here: Path) -> Iterator[Start]:
    """Starts a run that takes its time; one that a test leaves behind is killed."""
    (here / "slow.py").write_text(SLOW)
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **kwargs: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **kwargs.pop("env", {})}
        command = ["-m", "core.cli", "train", "small.toml", "--device", "cpu", "--plugin", "slow.py", "--out", "a"]
        kwargs = {"stdout": subprocess.PIPE, **kwargs}
        started.append(subprocess.Popen([sys.executable, *command, *arguments], cwd=here, env=environment, **kwargs))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def at(here: Path) -> int:
    return int((here / "at").read_text() or 0) if (here / "at").exists() else 0


def test_a_second_signal_leaves_at_once_and_the_checkpoint_before_is_whole(here: Path, start: Start) -> None:
    (here / "hang").touch()
    process = start(stderr=subprocess.PIPE)
    wait_for(lambda: (here / "hanging").exists())
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert b"once more leaves at once" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert checkpoint.find(here / "a").step == 2


def test_a_terminal_that_goes_away_ends_the_run_with_a_checkpoint(here: Path, start: Start) -> None:
    ours, theirs = os.openpty()
    long = ("--set", "train.steps=100000", "--set", "train.checkpoint_every=100000")
    process = start(*long, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=own)
    os.close(theirs)
    drained(ours, lambda: at(here) >= 2)
    os.close(ours)  # the kernel sends SIGHUP, and every write to the terminal fails from now on
    assert process.wait(60) == 129
    assert last_line().startswith(
        f"ended by SIGHUP after step {checkpoint.find(here / 'a').step}/100000: the checkpoint"
    )


def own() -> None:
    """In the child: stdin becomes the terminal of the new session."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def drained(terminal: int, until: Callable[[], bool]) -> bytes:
    """What is written to a terminal until something is true, or its other side is closed."""
    os.set_blocking(terminal, False)
    found, end = b"", time.monotonic() + 60
    while not until():
        assert time.monotonic() < end, "it did not come"
        try:
            found += os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:  # Linux: nobody is there any more
            break
    return found


def test_a_signal_that_nobody_can_be_told_of_is_honoured(here: Path, stack: ExitStack) -> None:
    made = trainer(stack)
    (reader, writer), kept = os.pipe(), os.dup(2)
    os.close(reader)
    within_step(made, 3, lambda: send("SIGTERM"))
    os.dup2(writer, 2)  # a stderr that refuses every write
    try:
        assert run_job(made) == 143 and checkpoint.find(here / "a").step == 3
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(writer)


def test_nohup_is_respected(here: Path, start: Start) -> None:
    process = start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for(lambda: at(here) >= 1)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0 and last_line().startswith("done: 6 steps")


def test_a_reader_that_leaves_does_not_stop_the_run(here: Path, start: Start) -> None:
    process = start(stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr is not None and process.stderr.read() == b""
    lines = (here / "a/train.log").read_text("utf-8").splitlines()
    assert lines[-1].startswith("done: 6 steps") and sum(line.startswith("step ") for line in lines) == 6


@pytest.mark.parametrize("terminal", ["xterm", "dumb"])
def test_a_small_terminal_of_the_c_locale_that_is_resized_is_no_problem(
    here: Path, start: Start, terminal: str
) -> None:
    import fcntl
    import struct
    import termios

    def size(columns: int) -> None:
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", 10, columns, 0, 0))

    ours, theirs = os.openpty()
    size(40)
    odd = {"TERM": terminal, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1"}
    process = start(stdin=theirs, stdout=theirs, stderr=theirs, env=odd, start_new_session=True, preexec_fn=own)
    os.close(theirs)
    shown = drained(ours, lambda: at(here) >= 2)
    for columns in (1, 0, 7, 40):
        size(columns)
    shown += drained(ours, lambda: process.poll() is not None)
    with contextlib.suppress(OSError):
        shown += os.read(ours, 65536)
    os.close(ours)
    assert process.wait(60) == 0, shown.decode("utf-8", "replace")
    assert b"\x1b" not in shown and b"Traceback" not in shown and b"done: 6 steps" in shown
    assert "naïve" in (here / "a/train.log").read_text("utf-8")


def test_other_verbs_end_quietly_when_nobody_reads(here: Path) -> None:
    command = f'"{sys.executable}" -m core.cli'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for line, code in (
        (f"set -o pipefail; {command} models | true", 0),
        (f"{command} models >&-", 0),
        (f"{command} models > /dev/full", 2),
    ):
        if "/dev/full" in line and not Path("/dev/full").exists():
            continue
        done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
        said = "core: error: the output cannot be written: No space left on device" if code else ""
        assert (done.returncode, done.stderr.partition("\n")[0]) == (code, said), line


# --- disks and hooks -----------------------------------------------------------------------------------------------


def test_a_full_disk_costs_no_line_of_metrics_or_log_once_there_is_room(here: Path, stack: ExitStack) -> None:
    import resource

    train_whole(stack, "whole")
    made = trainer(stack, "a", "train.checkpoint_every=0")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full() -> None:  # a file may grow no more; Python ignores the signal, and writes fail with EFBIG
        size = (here / "a/metrics.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))

    def room() -> None:
        assert len(read_lines(here / "a/metrics.jsonl")) < 5
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    made.job.hooks = [at_step(2, full), at_step(5, room)]
    try:
        assert run_job(made) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert curve("a") == curve("whole") and len(curve("a")) == 6
    log = (here / "a/train.log").read_text("utf-8")
    assert log.count("warning: metrics.jsonl: File too large; its lines are kept until there is room") == 1
    assert log.count("metrics.jsonl: all lines are written") == 1
    assert [line for line in log.splitlines() if line.startswith("step ")][-1].startswith("step 6/6")


def train_whole(stack: ExitStack, out: str) -> None:
    made = trainer(stack, out, "train.checkpoint_every=0")
    made.job.hooks = []
    assert run_job(made) == 0


def test_a_disk_that_stays_full_is_told_and_ends_nothing(
    here: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(stack)

    def full(call: str, path: Path) -> None:
        if call == "append" and path.name == "metrics.jsonl" and made.step >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "POINT", full)
    assert run_job(made) == 0
    log = (here / "a/train.log").read_text("utf-8").splitlines()
    assert "warning: the last 3 lines of metrics.jsonl could not be written: No space left on device" in log
    assert [step for step, _, _ in curve("a")] == [1, 2, 3] and checkpoint.find(here / "a").step == 6


def test_a_disk_that_cannot_keep_the_metrics_stops_a_save_with_7(
    here: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(stack)
    sync = os.fsync

    def failing(handle: int) -> None:
        if os.path.realpath(f"/proc/self/fd/{handle}").endswith("metrics.jsonl"):
            raise OSError(errno.EIO, "Input/output error")
        sync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(core.errors.CheckpointError, match="metrics.jsonl: cannot be brought to the disk: Input/output"):
        run_job(made)
    assert last_line().startswith("  hint: ") and "error: " in (here / "a/train.log").read_text()


def test_hooks_that_raise_are_told_once_and_change_no_bit(here: Path, stack: ExitStack) -> None:
    train_whole(stack, "whole")
    made = trainer(stack, "a", "train.checkpoint_every=0")
    seen: list[tuple[str, int, float]] = []

    def broken(run: Any, step: int, record: dict[str, Any]) -> None:
        record["loss"] = math.nan  # its own copy
        raise ValueError("mine")

    def fine(run: Any, step: int, record: dict[str, Any]) -> None:
        seen.append((run.name, step, record["loss"]))

    made.job.hooks = [broken, fine]
    assert run_job(made) == 0
    assert seen == [("a", step, loss) for step, loss, _ in curve("whole")] and curve("a") == curve("whole")
    assert (here / "a/train.log").read_text().count("raised ValueError: mine (reported once; training continues)") == 1


RAISING = """
from core import Op, Reference

brittle = Op("brittle", inputs={"x": "..."}, outputs={"y": "..."}, uses=("random",), examples=[{"x": (2, 3)}])

class Brittle(Reference):
    op = "brittle"

    def forward(self, t):
        t.y[...] = t.x
        if t.key is not None and t.key[2] == 3:
            t.x["no such"]

    def backward(self, t):
        t.add("dx", t.dy)

def core_ops(): return [brittle]
def core_variants(): return [Brittle]
"""
BRITTLE = """
extends = "gpt2_124m"
[block.layer]
weak = { op = "brittle", in = "act" }
down = { op = "matmul", in = "weak", features = "C" }
"""


def test_an_exception_of_a_plugins_op_is_the_plugins_and_not_a_bug_of_ours(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(here))
    Path("brittle.py").write_text(RAISING)
    Path("model.toml").write_text(BRITTLE)
    command = ["train", "small.toml", "--device", "cpu", "--out", "a", "--plugin", "brittle.py"]
    assert core_command([*command, "--set", "model=model.toml", "--set", "train.check=false"]) == 3
    err = capsys.readouterr().err
    assert err.startswith("core: error: brittle.py (") and ") raised IndexError: " in err and "bug of ours" not in err
    assert "brittle.py:12 in forward" in err and "Traceback" not in err
    assert last_line().startswith("error: IndexError: ") and checkpoint.find(here / "a").step == 2
    assert core.loader.blamed(ValueError()) == ""
