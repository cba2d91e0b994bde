"""Checkpoints and resume under faults: each test injects one, and holds what docs/reliability.md says of it.

Runs are of a model of 5,000 parameters. A save is killed for real, in a child that is forked at the call; disk errors
are raised at `files.POINT`, where every file-system call of a save passes.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run

from core import blas, files, processor
from core.cli import run as core_command
from core.data.shards import format_for, write_shards
from core.data.tokenizer import bytes_tokenizer
from core.engine import Engine, Settings
from core.errors import CheckpointError, UsageError
from core.graph import load_model
from core.interop import checkpoint, pointers
from core.interop.checkpoint import Contents
from core.interop.tensors import write_tensors
from core.loader import load_registry
from core.outside import WAYS_OUT
from core.pool import Pool, using
from core.signals import Stop
from core.train import setup
from core.train.display import Display
from core.train.loop import Trainer
from core.train.run import Run, read_lines, take_lock
from core.train.setup import TrainArguments, prepare

ROOT = Path(__file__).resolve().parents[2]
CONFIG = small_run.config(
    dims={"L": 2, "S": 16},
    data={"train": "train_*.bin", "val": "val_*.bin"},
    train={
        "steps": 12,
        "val_every": 3,
        "val_tokens": 40,
        "sample_every": 5,
        "sample_tokens": 3,
        "checkpoint_every": 4,
        "keep_last": 3,
        "recompute": ["gelu", "layernorm"],
    },
    schedule={"name": "cosine", "warmup": 2},
)
SEQUENCES = 18  # of the training shards: an epoch is four and a half steps of four sequences
posix_only = pytest.mark.skipif(os.name == "nt", reason="processes are forked and killed as POSIX has it")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of six sequences to train on, and one to validate on."""
    folder = tmp_path_factory.mktemp("shards")
    tokens = np.random.default_rng(0).integers(0, 57, 6 * 16 * 3 + 3).astype(np.uint16)
    record = {"tokenizer": bytes_tokenizer().record()}
    write_shards([tokens], folder, "train", format_for(257), record, shard_tokens=6 * 16 + 1)
    write_shards([tokens[:50] + np.uint16(200)], folder, "val", format_for(257), record)  # worse with every step
    assert len(list(folder.glob("train_*.bin"))) == 3
    return folder


@pytest.fixture(scope="module", autouse=True)
def prepared_quickly() -> Iterator[None]:
    """Of what each start does, two things that are slow and nothing to a checkpoint: one registry does for all runs
    without a plugin, and nobody asks how fast this machine is."""
    registry = load_registry()

    def again(plugins: Any, disable: Any) -> Any:
        return load_registry(plugins, disable=disable) if plugins else registry

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(setup, "load_registry", again)
        patched.setattr(setup, "check_estimate", lambda *arguments: None)
        yield


@pytest.fixture
def here(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a config and shards; the cache is here too."""
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    settle(tmp_path, shards)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settle(folder: Path, shards: Path) -> None:
    (folder / "small.toml").write_text(CONFIG)
    for path in shards.iterdir():
        shutil.copy(path, folder / path.name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A run of 12 steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    settle(folder, shards)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CORELM_CACHE", str(folder / "cache"))
        patched.chdir(folder)
        assert train(out=Path("run")) == 0
    losses = [line["val_loss"] for line in read_lines(folder / "run/metrics.jsonl") if "val_loss" in line]
    assert min(losses) < losses[-1], "a resume that forgets the best validation would not be seen"
    return folder / "run"


def trainer(stack: ExitStack, *overrides: str, **asked: Any) -> Trainer:
    return prepare(TrainArguments("small.toml", overrides, device="cpu", **asked), Display(quiet=True), stack)


def train(*overrides: str, stop_after: int = 0, by: int = signal.SIGTERM, **asked: Any) -> int:
    """Train in this process; `stop_after` asks it to end after that step, as the signal `by` does."""
    with ExitStack() as stack:
        made = trainer(stack, *overrides, **asked)
        stop = Stop()

        def ask(run: Run, step: int, metrics: dict[str, Any]) -> None:
            if step == stop_after:
                stop.signal = by

        made.job.hooks = [ask]
        return made.train(stop)


def curve(run: Path) -> list[tuple[Any, ...]]:
    """What a step computed, of every step."""
    names = ("step", "loss", "norm", "lr", "loss_z", "norm_z", "tokens", "val_loss", "val_tokens")
    return [tuple(line.get(name) for name in names) for line in read_lines(run / "metrics.jsonl")]


def tensors_of(path: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in path.glob("*.safetensors")}


def assert_same(run: Path, whole: Path) -> None:
    """Every loss and norm, the parameters, the optimizer, what a resume would go on from, and the samples."""
    assert curve(run) == curve(whole) and len(curve(run)) == 12
    ours, theirs = checkpoint.find(run), checkpoint.find(whole)
    assert tensors_of(ours.path) == tensors_of(theirs.path) and len(tensors_of(ours.path)) == 2
    changing = {"made_with": None}  # it names the checkout's commit, which the tests do not hold still
    assert ours.state | changing == theirs.state | changing
    assert (run / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()


def log(run: Path) -> str:
    return (run / "train.log").read_text()


# --- a run that is cut and resumed ------------------------------------------------------------------------------


def shard_end(run: Path) -> int:
    """A step that is followed by another one, with whose last sequence a shard was drawn to its end."""
    with ExitStack() as stack:
        source = trainer(stack, out=run).job.batches.__closure__
        drawn = next(c.cell_contents for c in source or () if hasattr(c.cell_contents, "order"))
    order = drawn.order(0, SEQUENCES) // 6  # the shard of each sequence
    ends = [int(np.flatnonzero(order == shard)[-1]) + 1 for shard in range(3)]
    return next(-(-end // 4) for end in sorted(ends) if end % 4 in (0, 1))


CUTS = {
    "mid-epoch": 1,
    "after validation": 3,
    "at a checkpoint": 4,
    "within a step that two epochs share": 5,
    "at an epoch's end": 9,
    "at a shard's end": 0,
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_run_that_is_cut_and_resumed_is_the_unbroken_one_bit_for_bit(here: Path, whole: Path, cut: str) -> None:
    step = CUTS[cut] or shard_end(here / "probe")
    assert train(out=Path("run"), stop_after=step) == 143
    assert checkpoint.find(here / "run").step == step
    assert train(out=Path("run"), resume=True) == 0
    assert_same(here / "run", whole)


def test_a_run_that_is_ended_after_every_step_is_the_unbroken_one_bit_for_bit(here: Path, whole: Path) -> None:
    for step in range(1, 12):
        assert train(out=Path("run"), stop_after=step, resume=True, by=signal.SIGINT) == 130
    assert train(out=Path("run"), resume=True) == 0
    assert_same(here / "run", whole)


def test_a_bf16_run_goes_on_bit_for_bit(folder: Path) -> None:
    """In the simulator: its checkpoint holds the f32 that the updates are made to; the bf16 weights, what is frozen
    and has no f32 copy included, are made of it again."""
    dims = {"V": 64, "C": 32, "H": 2, "L": 1, "S": 16, "B": 1, "T": 16}
    registry, rng = load_registry(), np.random.default_rng(0)
    settings = Settings(
        "sim", "bf16", dims=dims, optimizer="adamw", options={"clip": 1.0}, freeze=["x0.*"]
    )  # fmt: skip
    before, after = (Engine(load_model("gpt2_124m", registry), registry, settings) for _ in range(2))
    batches = [{n: rng.integers(0, 64, (1, 16)).astype(np.int32) for n in ("tokens", "targets")} for _ in range(2)]
    before.initialize(1)
    before.step(batches[:1], 1e-2)
    toml = before.model.to_toml(dims)
    checkpoint.save(folder, 2, Contents(before.parameters(), before.optimizer_state(), toml, None, {"step": 2}))
    found = checkpoint.find(folder)
    assert {array.dtype for array in found.parameters.values()} == {np.dtype("f4")}
    after.load_parameters(found.parameters)
    after.load_optimizer_state(found.optimizer)
    after.set_step(1)
    for batch in (None, batches[1]):
        if batch is not None:
            assert before.step([batch], 1e-2) == after.step([batch], 1e-2)
        for flat in (before.store.weights, before.store.master):
            theirs = after.store.weights if flat is before.store.weights else after.store.master
            np.testing.assert_array_equal(before.device.download(flat), after.device.download(theirs))


KILLER = """
import os, signal
from core import files

def core_step_end(run, step, metrics):
    calls = []
    def point(call, path):
        calls.append(call)
        if step == 8 and len(calls) == AT:
            os.kill(os.getpid(), signal.SIGKILL)
    files.POINT = point
"""


@posix_only
def test_a_process_killed_within_a_save_resumes_bit_for_bit(here: Path, whole: Path) -> None:
    (here / "killer.py").write_text(KILLER.replace("AT", "9"))
    command = [sys.executable, "-m", "core.cli", "train", "small.toml", "--device", "cpu", "--plugin", "killer.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--out", "run"], cwd=here, env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert any((here / "run/checkpoints").glob(".staged-*")) and checkpoint.steps(here / "run/checkpoints") == [4, 3]
    assert train(out=Path("run"), resume=True) == 0
    assert_same(here / "run", whole)
    assert not any((here / "run/checkpoints").glob(".*"))


def test_a_torn_line_of_metrics_and_steps_after_the_checkpoint_are_dropped(here: Path, whole: Path) -> None:
    shutil.copytree(whole, here / "run")
    shutil.rmtree(here / "run/checkpoints/step_00000012")  # as if it had been killed at step 11, within a line
    lines = (here / "run/metrics.jsonl").read_bytes().splitlines(keepends=True)
    (here / "run/metrics.jsonl").write_bytes(b"".join(lines[:10]) + lines[10][:37])
    assert train(out=Path("run"), resume=True) == 0
    assert_same(here / "run", whole)


def test_steps_of_another_size_go_on_behind_what_was_drawn(here: Path) -> None:
    """Four steps of four sequences, then one of two: together, an epoch without a gap and without a repetition."""
    train("train.steps=4", out=Path("run"))
    with ExitStack() as stack:
        made = trainer(stack, "train.steps=6", "train.tokens_per_step=32", out=Path("run"), resume=True)
        after = [made.job.batches(4)[0]["tokens"], made.job.batches(5)[0]["tokens"]]
        assert made.train(Stop()) == 0
    with ExitStack() as stack:
        unbroken = trainer(stack, out=Path("other")).job.batches(4)
    np.testing.assert_array_equal(np.concatenate(after), np.concatenate([b["tokens"] for b in unbroken]))
    assert [line["tokens"] for line in read_lines(here / "run/metrics.jsonl")] == [64, 128, 192, 256, 288, 320]


# --- a save that does not come to its end -------------------------------------------------------------------------


def contents(step: int) -> Contents:
    """Something else at every step."""
    weights = {"a.weight": np.full((40, 3), step, np.float32), "b": np.arange(step + 1, dtype=np.float32)}
    moments = {"m": {n: w + 1 for n, w in weights.items()}, "v": {n: w + 2 for n, w in weights.items()}}
    state = {"step": step, "best_step": step}
    return Contents(weights, moments, "name = 'tiny'\n", '{"kind": "bytes"}', state)


def assert_is(found: checkpoint.Checkpoint, step: int) -> None:
    want = contents(step)
    assert found.step == step and (found.model_toml, found.tokenizer_json) == (want.model_toml, want.tokenizer_json)
    for name, array in want.parameters.items():
        np.testing.assert_array_equal(found.parameters[name], array)
        for state, tensors in want.optimizer.items():
            np.testing.assert_array_equal(found.optimizer[state][name], tensors[name])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The checkpoints of a run that has one."""
    path = tmp_path / "run" / "checkpoints"
    path.mkdir(parents=True)
    checkpoint.save(path, 1, contents(1))
    return path


@pytest.fixture
def at_call(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, Callable[[], None]], None]]:
    """at_call(n, do): `do` happens instead of the nth file-system call from now, n = 0 the first."""

    def settled(number: int, do: Callable[[], None]) -> None:
        seen = iter(range(10**6))

        def point(call: str, path: Path) -> None:
            if next(seen) == number:
                do()

        monkeypatch.setattr(files, "POINT", point)

    yield settled


def count_calls(do: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    seen: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(files, "POINT", lambda call, path: seen.append(call))
        do()
    return len(seen)


def save_and_retain(folder: Path) -> None:
    checkpoint.save(folder, 2, contents(2))
    checkpoint.retain(folder, 2, keep_last=1, keep_every=0, best=2)


def in_child(do: Callable[[], None]) -> int:
    """What `os.waitpid` says of a child that does it: negative, the signal that ended it."""
    child = os.fork()
    if not child:
        try:
            do()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@posix_only
def test_kill_9_at_any_call_of_a_save_leaves_a_valid_checkpoint(
    folder: Path, at_call: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folder.parent.parent / "before"
    shutil.copytree(folder.parent, before)
    calls = count_calls(lambda: save_and_retain(folder), monkeypatch)
    assert calls > 40
    newest = set()
    for number in range(calls):
        shutil.rmtree(folder.parent)
        shutil.copytree(before, folder.parent)

        def killed(number: int = number) -> None:
            at_call(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
            save_and_retain(folder)

        assert in_child(killed) == -signal.SIGKILL
        with Run(folder.parent):  # takes the lock of the dead, and sweeps what it left
            found, problems = checkpoint.newest(folder)
            assert found is not None and not problems
            assert_is(found, found.step)
            newest.add(found.step)
            for pointer in pointers.POINTERS:  # a save behind, perhaps, and never at what is gone
                assert (folder / pointers.said(folder.parent, pointer) / checkpoint.MANIFEST).is_file()
            assert checkpoint.find(folder.parent / "BEST").step == found.step
            pointers.repair(folder.parent, pointers.LATEST, found.path.name)
            assert (folder.parent / "LATEST").read_text() == f"{found.path.name}\n"
            assert not [p for p in (*folder.iterdir(), *folder.parent.iterdir()) if p.name.startswith(".")]
            checkpoint.retain(folder, found.step, keep_last=1, keep_every=0, best=checkpoint.best(folder))  # a start's
            assert checkpoint.steps(folder) == [found.step]
            save_and_retain(folder)
        assert_is(checkpoint.find(folder), 2)
        assert checkpoint.steps(folder) == [2]
    assert newest == {1, 2}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=lambda n: errno.errorcode[n])
def test_a_disk_error_at_any_call_of_a_save_is_said_and_leaves_what_was(
    folder: Path, at_call: Callable[..., None], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    probe = folder.parent.parent / "probe" / "checkpoints"
    probe.mkdir(parents=True)
    for call in range(count_calls(lambda: checkpoint.save(probe, 2, contents(2)), monkeypatch)):
        at_call(call, fail)
        with pytest.raises(CheckpointError, match=os.strerror(number)) as caught:
            checkpoint.save(folder, 2, contents(2))
        assert "earlier checkpoints are as they were" in caught.value.hint
        assert WAYS_OUT[number] in caught.value.hint
        assert not list(folder.glob(".*"))
        assert_is(checkpoint.load(folder / "step_00000001"), 1)
        shutil.rmtree(folder / "step_00000002", ignore_errors=True)  # only its announcement in LATEST had failed
    at_call(10**6, fail)
    checkpoint.save(folder, 2, contents(2))
    assert_is(checkpoint.find(folder), 2)


@posix_only
def test_a_limit_on_the_size_of_files_is_found_before_step_1_and_survived_later(here: Path) -> None:
    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        with pytest.raises(CheckpointError, match=r"optimizer.safetensors will have 8\d.\dK, and this process may"):
            train(out=Path("run"))
        assert not Path("run").exists()
        Path("run/checkpoints").mkdir(parents=True)
        large = replace(contents(2), parameters={"a": np.ones((200, 100), np.float32)})
        checkpoint.save(Path("run/checkpoints"), 1, contents(1))
        with pytest.raises(CheckpointError, match="File too large") as caught:
            checkpoint.save(Path("run/checkpoints"), 2, large)
        assert "ulimit -f" in caught.value.hint
        assert_is(checkpoint.find(Path("run")), 1)

    assert in_child(limited) == 0


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_full_disk_ends_the_run_or_is_tried_again_as_the_config_says(
    here: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(call: str, path: Path) -> None:
        if call == "write" and "step_00000004" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "POINT", full)
    arguments = ["train", "small.toml", "--device", "cpu", "--set", f"train.save_errors={policy}"]
    arguments += ["--set", "train.checkpoint_every=2", "--set", "train.steps=6", "--out", "run", "--quiet"]
    assert core_command(arguments) == (7 if policy == "stop" else 0)
    assert checkpoint.steps(here / "run/checkpoints") == ([3, 2] if policy == "stop" else [6, 3, 2])
    assert "step_00000004: cannot be saved: No space left on device" in log(here / "run")
    if policy == "continue":
        assert "the newest checkpoint is that of step 3, and training continues" in log(here / "run")


def test_too_little_room_for_the_checkpoints_is_said_before_step_1_and_nothing_is_made(
    here: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(p.stat().st_size for p in checkpoint.find(whole).path.glob("*.safetensors"))
    monkeypatch.setattr(files, "free_bytes", lambda path: int(4.5 * size))  # keep_last = 3, the best, a new one
    with pytest.raises(CheckpointError, match=r"are free, and 5 checkpoints of .* need") as caught:
        train(out=Path("run"))
    assert "lower train.keep_last" in caught.value.hint
    assert not (here / "run").exists()
    shutil.copytree(whole, here / "run")
    monkeypatch.setattr(files, "free_bytes", lambda path: int(1.1 * size))  # four lie there: one more is enough
    assert train("train.steps=20", out=Path("run"), resume=True, stop_after=13) == 143


@pytest.mark.parametrize("call", ["make_folder", "create", "write", "sync", "rename", "sync_folder", "unlink"])
def test_a_disk_that_refuses_what_a_save_does_is_found_before_training(
    here: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not writable, mounted read-only, or a network's file system that cannot rename."""

    def refuse(asked: str, path: Path) -> None:
        if asked == call:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files, "POINT", refuse)
    with pytest.raises(UsageError, match="run: cannot be written: Read-only file system"):
        train(out=Path("run"))
    assert not (here / "run/metrics.jsonl").exists()


# --- checkpoints that are not what they were ----------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    raw = bytearray(path.read_bytes())
    if how == "flipped bit":
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    elif how == "cut short":
        path.write_bytes(raw[:-2])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["flipped bit", "cut short", "missing"])
@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.STATE])
def test_a_damaged_checkpoint_is_passed_over_loudly_and_fatal_when_it_was_named(
    here: Path, whole: Path, name: str, how: str
) -> None:
    shutil.copytree(whole, here / "run")
    newest = here / "run/checkpoints/step_00000012"
    damage(newest / name, how)
    with pytest.raises(CheckpointError, match=rf"step_00000012/{name}: (sha256|missing|\d)"):
        trainer(ExitStack(), origin=newest, out=Path("other"))
    assert not (here / "other").exists()
    with pytest.warns(checkpoint.CheckpointWarning, match=f"{name}.*step_00000008 is taken instead"):
        assert checkpoint.find(here / "run").step == 8
    assert train(out=Path("run"), resume=True) == 0
    text = log(here / "run")
    assert f"warning: a checkpoint is passed over: run/checkpoints/step_00000012/{name}" in text
    assert "resumed from run/checkpoints/step_00000008 (step 8)" in text
    assert_same(here / "run", whole)


@pytest.mark.parametrize("said", [None, "step_00000099\n", "step_00000004\n"], ids=["missing", "dangling", "stale"])
def test_latest_is_repaired_and_the_folders_decide(here: Path, whole: Path, said: str | None) -> None:
    shutil.copytree(whole, here / "run")
    pointer = here / "run/LATEST"
    pointer.unlink() if said is None else pointer.write_text(said)
    assert train("train.steps=13", out=Path("run"), resume=True, stop_after=13) == 143
    text = log(here / "run")
    assert f"LATEST named {(said or 'nothing').strip()}; now it names step_00000012" in text
    assert "resumed from run/checkpoints/step_00000012" in text
    assert pointer.read_text() == "step_00000013\n"


def seal(path: Path) -> None:
    """Make the manifest say what is there: a checkpoint whose hashes are right, whatever it holds."""
    names = (*checkpoint.REQUIRED, checkpoint.TOKENIZER)
    listed = {n: (path / n).read_bytes() for n in names if (path / n).exists()}
    entries = {n: {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)} for n, raw in listed.items()}
    (path / checkpoint.MANIFEST).write_text(json.dumps({"format": 1, "files": entries}))


class Evil:
    """Unpickling one leaves a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def pickled(kind: str, path: Path) -> None:
    """What `pickle.dump`, `numpy.savez` of objects and `torch.save` leave."""
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"a": Evil()}))
    elif kind == "npz":
        np.savez(path.with_suffix(""), a=np.array([Evil()], dtype=object))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"a": Evil()}))
            archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize(("kind", "suffix"), [("pickle", ".pkl"), ("npz", ".npz"), ("torch", ".pt")])
def test_a_pickle_given_as_a_checkpoint_is_refused_and_never_run(
    here: Path, whole: Path, kind: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = here / f"evil{suffix}"
    pickled(kind, evil)
    shutil.copytree(checkpoint.find(whole).path, here / "step_00000012")
    shutil.copy(evil, here / "step_00000012/model.safetensors")
    seal(here / "step_00000012")
    train_it = ["train", "small.toml", "--device", "cpu", "--out", "run"]
    for arguments in (
        [*train_it, "--from", evil.name],
        [*train_it, "--from", "step_00000012"],
        [*train_it, "--set", f"weights={evil.name}"],
        ["sample", evil.name],
    ):
        assert core_command(arguments) == 7
        assert "never read" in capsys.readouterr().err
    assert not (here / "executed").exists() and not (here / "run").exists()


# What runs code that a file holds. Names of modules, functions and keywords, as they stand in the source.
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "copyreg"}
LOADS = {"torch.load", "yaml.load", "yaml.unsafe_load", "np.load", "numpy.load"}
EXECUTES = {"eval", "exec", "compile", "__import__"}


def runs_files(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what) of everything in a module that could run what a file says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, f"import {name}") for name in names if name.split(".")[0] in UNPICKLING)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            yield node.lineno, "allow_pickle"
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in EXECUTES:
                yield node.lineno, called.id
            elif isinstance(called, ast.Attribute) and ast.unparse(called) in LOADS:
                yield node.lineno, ast.unparse(called)


# The only places that run code that they read, and why that is not a file's from outside.
OWN_SOURCE = "compiles the source of a variant that is loaded, with one change, for the op check's own test"
RUNS_CODE = {
    ("plugins/mutants/launchers.py", "compile"): OWN_SOURCE,
    ("plugins/mutants/launchers.py", "exec"): OWN_SOURCE,
    ("core/testing/graph_faults.py", "compile"): OWN_SOURCE,
    ("core/testing/graph_faults.py", "exec"): OWN_SOURCE,
}


def test_nothing_in_the_project_unpickles_or_runs_what_a_file_holds() -> None:
    evil = "import pickle\nnp.load(f, allow_pickle=True)\ntorch.load(f)\neval(text)\nfrom marshal import loads\n"
    assert {what for _, what in runs_files(ast.parse(evil))} == {
        "import pickle", "allow_pickle", "np.load", "torch.load", "eval", "import marshal",
    }  # fmt: skip
    paths = [p for name in ("core", "ops", "plugins") for p in (ROOT / name).rglob("*.py") if "tests" not in p.parts]
    assert len(paths) > 100
    found = {
        (path.relative_to(ROOT).as_posix(), what)
        for path in paths
        for _, what in runs_files(ast.parse(path.read_text("utf-8")))
    }
    assert found == set(RUNS_CODE)


@pytest.mark.parametrize("name", [checkpoint.MANIFEST, checkpoint.STATE])
def test_a_newer_format_is_refused_with_its_number(folder: Path, name: str) -> None:
    path = folder / "step_00000001"
    (path / name).write_text(json.dumps({**json.loads((path / name).read_text()), "format": 99}))
    if name != checkpoint.MANIFEST:
        seal(path)
    with pytest.raises(CheckpointError, match=rf"{name}: format 99; this version reads up to {checkpoint.FORMAT}"):
        checkpoint.load(path)


STATES: dict[str, Any] = {
    "no step": {"step": None},
    "a negative step": {"step": -1},
    "a step that is true": {"step": True},
    "tokens that are text": {"tokens": "64"},
    "a list of variants": {"variants": ["reference"]},
    "a window of text": {"windows": {"loss": ["3.0"]}},
    "data without files": {"data": {"train": {"name": "train"}}},
    "a best loss that is a list": {"best_val": []},
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES.keys())
def test_a_state_of_other_types_is_refused_with_its_place(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "step_00000001"
    (path / checkpoint.STATE).write_text(json.dumps({"format": 1, "step": 1} | change))
    seal(path)
    with pytest.raises(CheckpointError, match=rf"state.json: damaged: .*\$\.{next(iter(change))}"):
        checkpoint.load(path)


WRONG_TENSORS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "a missing parameter": (checkpoint.MODEL, lambda t: t.pop("ln_f.bias")),
    "a parameter too many": (checkpoint.MODEL, lambda t: t.update(evil=t["ln_f.bias"])),
    "a parameter of another shape": (checkpoint.MODEL, lambda t: t.update({"ln_f.bias": np.zeros(17, np.float32)})),
    "a missing state": (checkpoint.OPTIMIZER, lambda t: t.pop("m.ln_f.bias")),
    "a state of another optimizer": (checkpoint.OPTIMIZER, lambda t: t.update({"x.ln_f.bias": t["m.ln_f.bias"]})),
}


@pytest.mark.parametrize(("name", "change"), WRONG_TENSORS.values(), ids=WRONG_TENSORS.keys())
def test_tensors_that_are_not_the_models_are_refused_by_name(
    here: Path, whole: Path, name: str, change: Callable[[dict[str, Any]], object]
) -> None:
    path = here / "step_00000012"
    shutil.copytree(checkpoint.find(whole).path, path)
    found = checkpoint.load(path)
    tensors = {n: np.array(a) for n, a in found.parameters.items()} if name == checkpoint.MODEL else {
        f"{state}.{n}": np.array(a) for state, each in found.optimizer.items() for n, a in each.items()
    }  # fmt: skip
    change(tensors)
    write_tensors(path / name, tensors, checkpoint.METADATA)
    seal(path)
    with pytest.raises(CheckpointError, match=r"step_00000012: does not fit the model: .*(ln_f\.bias|evil|'x')"):
        trainer(ExitStack(), origin=path, out=Path("run"))


def test_retention_never_removes_the_only_valid_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (2, 3, 4, 5):
        checkpoint.save(folder, step, contents(step))
    damage(folder / "step_00000004" / checkpoint.OPTIMIZER, "cut short")
    assert checkpoint.retain(folder, 5, keep_last=2, keep_every=0) == []
    assert checkpoint.steps(folder) == [5, 3]  # a damaged one is none of the two
    damage(folder / "step_00000005" / checkpoint.MODEL, "missing")
    assert checkpoint.retain(folder, 5, keep_last=1, keep_every=0) == []
    assert checkpoint.steps(folder) == [5, 3]
    with pytest.warns(checkpoint.CheckpointWarning):
        assert_is(checkpoint.find(folder), 3)

    def refuse(call: str, path: Path) -> None:
        if call == "unlink":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    checkpoint.save(folder, 6, contents(6))
    monkeypatch.setattr(files, "POINT", refuse)  # an old one that cannot be removed is said, and ends nothing
    (problem, *_) = checkpoint.retain(folder, 6, keep_last=1, keep_every=0)
    assert problem.endswith("cannot be removed: Permission denied")
    assert_is(checkpoint.find(folder), 6)


# --- two processes, links, another machine -------------------------------------------------------------------------


@posix_only
def test_a_second_process_is_refused_and_a_dead_ones_lock_is_taken(
    here: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, here / "run")
    (here / "held.py").write_text(
        "import sys, time, pathlib\nfrom core.train.run import take_lock\n"
        "lock = take_lock(pathlib.Path('run/LOCK'))\nprint('held', flush=True)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen([sys.executable, "held.py"], cwd=here, env=environment, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    before = {p: p.read_bytes() for p in (here / "run").rglob("*") if p.is_file()}
    again = ["train", "small.toml", "--device", "cpu", "--out", "run", "--resume"]
    assert core_command(again) == 2
    assert f"run is in use by process {holder.pid} on " in capsys.readouterr().err
    assert {p: p.read_bytes() for p in (here / "run").rglob("*") if p.is_file()} == before
    holder.kill()
    holder.wait()
    assert (here / "run/LOCK").read_text().startswith(f"process {holder.pid} on ")
    assert core_command([*again, "--quiet"]) == 0
    take_lock(here / "run/LOCK").close()


@posix_only
def test_a_runs_folder_may_be_a_link_and_what_a_checkpoints_link_leads_to_is_never_removed(
    here: Path, whole: Path
) -> None:
    """A run on another disk: the link stands for its folder, which the command line named. In the folder, none does."""
    other_disk = here / "other_disk"
    with Run(other_disk / "run"):
        pass
    (here / "run").symlink_to(other_disk / "run")
    assert train(out=Path("run"), stop_after=4, resume=True) == 143
    shutil.move(other_disk / "run/checkpoints/step_00000004", other_disk / "moved")
    (other_disk / "run/checkpoints/step_00000004").symlink_to(other_disk / "moved")
    assert train("train.keep_last=1", out=Path("run"), resume=True) == 0
    assert "resumed from run/checkpoints/step_00000003" in log(here / "run")
    assert_same(here / "run", whole)
    assert checkpoint.steps(other_disk / "run/checkpoints") == [12, 3]  # the last and the best
    assert checkpoint.load(other_disk / "moved").step == 4
    assert not list((other_disk / "run/checkpoints").glob(".*"))


def test_a_run_goes_on_elsewhere_with_another_cache(
    here: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "text.txt").write_text("a quick fox and a lazy dog, again and again. " * 20)
    text = ("data.train=text.txt", "data.val=[]", "train.val_every=0")
    train(*text, out=Path("whole"))
    train(*text, out=Path("run"), stop_after=5)
    state = checkpoint.find(here / "run").state
    assert str(here) not in json.dumps({k: v for k, v in state.items() if k != "made_with"})
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(here / "run", elsewhere / "run")
    for name in ("small.toml", "text.txt"):
        shutil.copy(here / name, elsewhere / name)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("CORELM_CACHE", str(elsewhere / "cache"))
    assert train(*text, out=Path("run"), resume=True) == 0
    assert curve(elsewhere / "run") == curve(here / "whole")
    ours, theirs = checkpoint.find(elsewhere / "run"), checkpoint.find(here / "whole")
    assert tensors_of(ours.path) == tensors_of(theirs.path)


# --- what is not as it was when a run goes on ----------------------------------------------------------------------


def test_another_architecture_is_refused_with_the_difference(
    here: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, here / "run")
    again = ["train", "small.toml", "--device", "cpu", "--out", "run", "--resume", "--set", "dims.L=3"]
    assert core_command([*again, "--set", "dims.C=32"]) == 7
    error = capsys.readouterr().err
    assert "dims.L: 2 -> 3" in error and "dims.C: 16 -> 32" in error
    assert checkpoint.find(here / "run").step == 12


def test_another_learning_rate_and_number_of_steps_are_shown_logged_and_taken(here: Path, whole: Path) -> None:
    shutil.copytree(whole, here / "run")
    train("optimizer.lr=0.02", "train.steps=13", out=Path("run"), resume=True)
    text = log(here / "run")
    assert "config change: optimizer.lr: 0.01 -> 0.02" in text and "config change: train.steps: 12 -> 13" in text
    assert curve(here / "run")[:12] == curve(whole) and len(curve(here / "run")) == 13
    train("optimizer.lr=0.02", "train.steps=14", out=Path("other"), origin=here / "run")
    assert "config change: train.steps: 13 -> 14" in log(here / "other")


PLUGIN = """
import numpy as np
from core import Variant

class Mine(Variant):
    op, name, device, base, priority = "gelu", "mine", "cpu", "reference", 1000
    dtypes = ("f32", "f64")

    def forward(self, t, launch):
        launch.call(lambda: np.multiply(np.maximum(t.x, 0), FACTOR, out=t.y))

def core_variants():
    return [Mine]
"""


def test_a_changed_kernel_source_or_version_is_shown_when_a_run_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "mine").mkdir()
    plugin = here / "mine" / "__init__.py"
    asked = {"out": Path("run"), "resume": True, "plugins": ["mine"]}
    plugin.write_text(PLUGIN.replace("FACTOR", "1.0"))
    assert train("train.recompute=[]", "train.check=false", stop_after=2, **asked) == 143
    record = json.loads((here / "run/variants.json").read_text())
    assert record["nodes"]["h.0.act"] == "mine"
    made = checkpoint.find(here / "run").state["made_with"]
    assert made == record["made_with"]
    assert {"source mine/__init__.py", "source ops/gelu.py", "plugin mine", "numpy", "device"} <= set(made)
    assert train("train.recompute=[]", "train.check=false", stop_after=3, **asked) == 143
    assert "change since the checkpoint: source" not in log(here / "run")
    plugin.write_text(PLUGIN.replace("FACTOR", "2.0"))
    monkeypatch.setattr(np, "__version__", "0.1")
    monkeypatch.setattr("core.train.provenance._version", lambda package: "0.1")
    assert train("train.recompute=[]", "train.check=false", stop_after=4, **asked) == 143
    text = log(here / "run")
    assert "the resumed run stays close to the uninterrupted one, not bit-exact: different numpy" in text
    assert f"change since the checkpoint: source mine/__init__.py: {made['source mine/__init__.py']} -> " in text
    assert f"change since the checkpoint: numpy: {made['numpy']} -> 0.1" in text
    assert "source ops/gelu.py" not in text


@contextmanager
def library_threads(count: int) -> Iterator[None]:
    """BLAS with so many threads of its own, as an environment may have it."""
    before = [lib.get_num_threads() for lib in blas.libraries()]
    for lib in blas.libraries():
        lib.set_num_threads(count)
    try:
        yield
    finally:
        for lib, threads in zip(blas.libraries(), before, strict=True):
            lib.set_num_threads(threads)


# products large enough to be cut; sums of 656, which OpenBLAS's threads cut in other places than one thread does
WIDE = ("dims.C=164", "dims.H=4", "dims.B=4", "dims.T=64", "dims.S=64", "train.tokens_per_step=256", "train.steps=6")


def test_a_run_goes_on_with_other_threads_of_ours_and_of_blas_bit_for_bit(here: Path) -> None:
    def part(threads: int, own: int, stop_after: int, folder: str) -> None:
        with using(Pool(threads)), library_threads(own):
            assert train(*WIDE, out=Path(folder), resume=True, stop_after=stop_after) == (143 if stop_after else 0)

    part(1, 1, 0, "whole")
    for threads, own, stop_after in ((8, 1, 2), (2, 2, 4), (3, 1, 0)):
        part(threads, own, stop_after, "run")
    assert curve(here / "run") == curve(here / "whole")
    ours, theirs = checkpoint.find(here / "run"), checkpoint.find(here / "whole")
    assert tensors_of(ours.path) == tensors_of(theirs.path)
    assert ours.state["made_with"]["device"] == "cpu" and "change since" not in log(here / "run")


@pytest.mark.parametrize(("what", "now"), [("processor", "AMD K6"), ("blas", "openblas 0.3.31 Sandybridge")])
def test_another_kind_of_cpu_or_blas_is_said_when_a_run_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, what: str, now: str
) -> None:
    asked = {"out": Path("run"), "resume": True}
    assert train(stop_after=1, **asked) == 143
    made = checkpoint.find(here / "run").state["made_with"]
    assert made["cpu"] == processor.describe() and made["blas"] == blas.describe()
    monkeypatch.setattr(f"core.device.cpu.{what}.describe", lambda: now)
    assert train(stop_after=2, **asked) == 143
    name = {"processor": "cpu"}.get(what, what)
    text = log(here / "run")
    assert f"change since the checkpoint: {name}: {made[name]} -> {now}\n" in text
    assert f"the resumed run stays close to the uninterrupted one, not bit-exact: different {name}\n" in text
