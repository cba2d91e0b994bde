"""Signals within a process: what a run finishes, saves and says, at whatever place a signal meets it.

Signals are real; the test sends them to its own process, at the very place that they are to come at.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from signalled_runs import CODES, ROOT, at_step, last_line, send, trainer, within_step

from core import checkpoint, files
from core.cli import run as core_command
from core.kernels import nvrtc
from core.signals import Ended, check, listening
from core.tokenizers.byte_pairs import BytePairTokenizer as Tokenizer
from core.train.loop import run_job
from core.train.run import read_lines

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and terminals are POSIX's")


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
from core.tokenizers.bpe_training import train_bpe
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
