"""A run's folder under kills, links and readers: keep_last after any kill, symbolic links that lead out of the folder,
and commands that read a checkpoint which a run's retention removes meanwhile."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small_run
from checkpoint_runs import started_quickly

from core import checkpoint, files
from core.checkpoint import pointers
from core.checkpoint.tensor_file import TensorFile
from core.cli import run as core_command
from core.errors import CheckpointError, UsageError
from core.interop.opened import open_path
from core.loader import load_registry
from core.signals import Stop
from core.train.crash import Cause, Replay, leave
from core.train.display import Display
from core.train.run import Run
from core.train.runs import summaries
from core.train.setup import TrainArguments, prepare

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are forked, links made and files removed as POSIX")

CONFIG = small_run.config(
    dims={"C": 8, "S": 8, "T": 8},
    data={"train": "train.txt"},
    train={
        "steps": 7,
        "tokens_per_step": 16,
        "val_every": 1,
        "val_tokens": 16,
        "sample_every": 0,
        "checkpoint_every": 1,
        "keep_last": 2,
        "keep_every": 4,
    },
)


@pytest.fixture(scope="module", autouse=True)
def prepared_quickly() -> Iterator[None]:
    with started_quickly():
        yield


@pytest.fixture(autouse=True)
def here(workdir: Path) -> Path:
    Path("small.toml").write_text(CONFIG)
    Path("train.txt").write_text("a quick fox and a lazy dog, again and again. " * 20)
    Path("val.txt").write_text("nothing of the other text: 0123456789 " * 4)
    return workdir


def train(*overrides: str, stop_after: int = 0, out: str = "run", **asked: Any) -> int:
    with ExitStack() as stack:
        arguments = TrainArguments("small.toml", overrides, device="cpu", out=Path(out), **asked)
        made = prepare(arguments, Display(quiet=True), stack)
        stop = Stop()

        def ask(run: Run, step: int, metrics: dict[str, Any]) -> None:
            if step == stop_after:
                stop.signal = signal.SIGTERM

        made.job.hooks = [ask]
        return made.train(stop)


def snapshot(folder: Path) -> dict[str, str]:
    """Every path below a folder, links as what they are, and the hash of each file."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path) if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }  # fmt: skip


# --- keep_last -----------------------------------------------------------------------------------------------------


def assert_bounded(run: Path, keep_last: int, keep_every: int) -> None:
    """No more than keep_last checkpoints, those of keep_every and the best; nothing else; pointers name whole ones."""
    checkpoints = run / "checkpoints"
    kept, best = checkpoint.steps(checkpoints), checkpoint.best(checkpoints)
    rest = [s for s in kept if s != best and not (keep_every and s % keep_every == 0)]
    assert set(rest) <= set(kept[:keep_last]), (kept, best)
    assert sorted(p.name for p in checkpoints.iterdir()) == sorted(map(checkpoint.folder_name, kept))
    assert pointers.said(run, pointers.LATEST) == checkpoint.folder_name(kept[0])
    assert pointers.said(run, pointers.BEST) == checkpoint.folder_name(best if best is not None else -1)
    for pointer in pointers.POINTERS:
        checkpoint.load(checkpoints / pointers.said(run, pointer))


def killed_at(number: int, do: Callable[[], object]) -> int:
    """The exit code of a child that does it and is gone, without a word, at the nth file-system call of `files`."""
    child = os.fork()
    if not child:
        seen = iter(range(1, 10**6))

        def point(call: str, path: Path) -> None:
            if next(seen) == number:
                os._exit(99)

        try:
            files.POINT = point
            do()
            os._exit(0)
        except BaseException:
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_keep_last_holds_after_a_kill_at_any_call_of_a_resume_its_saves_and_their_retention() -> None:
    """A resume with a smaller keep_last has retention of its own; then two saves, each with retention. A spread of the
    calls, since each child costs a start; all calls of a save and its retention: test_faults_kills.py."""
    assert train(stop_after=4) == 143
    assert checkpoint.steps(Path("run/checkpoints")) == [4, 3]
    shutil.copytree("run", "before")
    less = ("train.keep_last=1", "train.steps=6")
    number, codes = 1, []
    while not codes or codes[-1] == 99:
        shutil.rmtree("run")
        shutil.copytree("before", "run")
        codes.append(killed_at(number, lambda: train(*less, resume=True)))
        assert codes[-1] in (99, 0)
        done = checkpoint.newest(Path("run/checkpoints"))[0]
        assert done is not None
        train("train.keep_last=1", f"train.steps={done.step}", resume=True)  # the next start, and no step
        assert_bounded(Path("run"), 1, 4)
        train("train.keep_last=1", f"train.steps={done.step + 1}", resume=True)  # the next save
        assert_bounded(Path("run"), 1, 4)
        number += 53
    assert len(codes) > 3


def test_a_crash_folder_that_a_kill_left_half_written_is_swept_at_the_next_start() -> None:
    train(stop_after=2)
    (Path("run") / ".crash-step_00000003.tmp").mkdir()
    (Path("run") / ".crash-step_00000003.tmp/batch.txt").write_text("half")
    train("train.steps=2", resume=True)
    assert not list(Path("run").glob(".crash*"))


# --- links -----------------------------------------------------------------------------------------------------------

FILES = (
    *("LOCK", "metrics.jsonl", "samples.jsonl", "train.log", "LATEST", "BEST"),
    *("config.source.toml", "config.resolved.toml", "variants.json", "env.json"),
)
STEP = "checkpoints/step_00000002"
INSIDE = [f"{STEP}/{name}" for name in (*checkpoint.REQUIRED, checkpoint.TOKENIZER, checkpoint.MANIFEST)]
LEFT = (".LATEST.tmp", ".metrics.jsonl.tmp", "checkpoints/.staged-step_00000003-1", "checkpoints/.doomed-a", STEP)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("CORELM_CACHE", str(folder / "cache"))
        Path("small.toml").write_text(CONFIG)
        Path("train.txt").write_text("a quick fox and a lazy dog, again and again. " * 20)
        Path("val.txt").write_text("nothing of the other text: 0123456789 " * 4)
        assert train(stop_after=2) == 143
    return folder / "run"


@pytest.mark.parametrize("name", INSIDE)
def test_a_link_in_a_checkpoint_is_not_followed(name: str, trained: Path) -> None:
    shutil.copytree(trained, "run")
    shutil.move(f"run/{name}", "outside")
    (Path("run") / name).symlink_to(Path("outside").absolute())
    with pytest.raises(CheckpointError, match=f"{name}: .*a symbolic link"):
        checkpoint.load(Path("run") / STEP)
    assert checkpoint.find(Path("run")).step == 1


@pytest.mark.parametrize("name", [*FILES, INSIDE[0], *LEFT, "checkpoints"])
def test_a_link_that_leads_out_of_a_runs_folder_is_not_followed(name: str, trained: Path) -> None:
    """The outside holds what the link's place held, so that what followed the link would find it in order, and use it,
    append to it, or remove it. A resume refuses, or puts a file of its own in the link's place."""
    shutil.copytree(trained, "run")
    outside, link = Path("outside").absolute(), Path("run") / name
    if not link.exists():
        outside.mkdir() if "." not in link.name[1:] else outside.write_text("mine")
    else:
        shutil.move(link, outside)
    if outside.is_dir():
        (outside / "mine").write_text("mine")
    link.symlink_to(outside)
    before = snapshot(outside.parent / "outside") if outside.is_dir() else {"": outside.read_text("latin1")}
    try:
        assert train("train.keep_last=1", "train.keep_every=0", "train.steps=3", resume=True) == 0
    except UsageError as error:
        assert "symbolic link" in error.message and name.partition("/")[0] in str(error)
        assert link.is_symlink(), "nothing was changed"
    except CheckpointError as error:
        assert "symbolic link" in error.message
    else:
        assert not link.is_symlink(), "a run that goes on owns what it writes"
        assert not any(path.is_symlink() for path in Path("run").rglob("*"))
        log = Path("run/train.log").read_text()
        assert "resumed from run/checkpoints/step_00000001" in log if name.startswith(STEP) else True
    assert before == (snapshot(outside) if outside.is_dir() else {"": outside.read_text("latin1")})


@pytest.mark.parametrize("name", ["LATEST", "BEST", "config.resolved.toml"])
def test_no_word_of_a_linked_file_is_printed_or_logged(name: str, trained: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(trained, "run")
    Path("secret").write_text('secret = "hunter2"\n')
    (Path("run") / name).unlink()
    (Path("run") / name).symlink_to(Path("secret").absolute())
    code = core_command(["train", "small.toml", "--device", "cpu", "--out", "run", "--resume"])
    said = capsys.readouterr()
    assert code == 0
    assert "hunter2" not in said.out + said.err + Path("run/train.log").read_text()


def test_a_list_of_runs_reads_no_links(trained: Path) -> None:
    shutil.copytree(trained, "runs/a")
    shutil.move("runs/a/metrics.jsonl", "outside")
    Path("runs/a/metrics.jsonl").symlink_to(Path("outside").absolute())
    (found,) = summaries(Path("runs"))
    assert (found.step, found.loss, found.saved) == (0, None, 2)


@pytest.mark.parametrize("name", ["crash-step_00000003", ".crash-step_00000003.tmp"])
@pytest.mark.parametrize("there", [True, False], ids=["folder", "dangling"])
def test_a_crash_folder_takes_the_place_of_a_link(name: str, there: bool) -> None:
    class Engine:
        graph = SimpleNamespace(roles={})

        def parameters(self) -> dict[str, Any]:
            return {}

    Path("run").mkdir()
    if there:
        Path("outside").mkdir()
        Path("outside/mine").write_text("mine")
    (Path("run") / name).symlink_to(Path("outside").absolute())
    replay = Replay(Engine(), [{"tokens": np.zeros((1, 4), np.int32)}], 1e-3)  # type: ignore[arg-type]
    said = leave(Path("run/crash-step_00000003"), {"step": 3}, Cause("unknown", "x"), replay, None)
    assert said == "the step is in run/crash-step_00000003"
    assert not Path("run/crash-step_00000003").is_symlink() and Path("run/crash-step_00000003/crash.json").is_file()
    assert [p.name for p in Path("outside").glob("*")] == ["mine"] * there


def test_an_export_follows_no_link_in_its_place(trained: Path) -> None:
    Path("outside").mkdir()
    Path("out").symlink_to(Path("outside").absolute())
    Path("dangling").symlink_to(Path("nowhere").absolute())
    for out in ("out", "dangling"):
        assert core_command(["export", str(trained), "--out", out, "--to", "hf"]) == 2
    assert not list(Path("outside").iterdir()) and not Path("nowhere").exists()


# --- readers beside a run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["after it was opened", "while the newest was looked for"])
def test_a_checkpoint_that_retention_removes_is_read_to_its_end(
    when: str, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `core sample`, `core eval` and `core export` meet it beside a run."""
    shutil.copytree(trained, "run")
    want = {name: array.copy() for name, array in checkpoint.load(trained / STEP).parameters.items()}

    def remove() -> None:
        shutil.rmtree(f"run/{STEP}")

    if when == "while the newest was looked for":
        whole = checkpoint.load

        def gone(path: Path) -> Any:
            if path.name == "step_00000002" and path.exists():
                shutil.copytree(path, path.with_name("step_00000003"))  # the run's next save, and its retention
                remove()
            return whole(path)

        monkeypatch.setattr("core.checkpoint.opening.load", gone)
    found = open_path("run", load_registry())
    if when == "after it was opened":
        remove()
    assert found.source.document["dims"]["C"] == 8 and found.weights is not None
    for name, array in want.items():
        np.testing.assert_array_equal(found.weights[name], array)
    assert found.path.name == ("step_00000003" if when != "after it was opened" else "step_00000002")


@pytest.mark.parametrize(
    "command",
    ["sample run --tokens 2 --device cpu", "eval run --data val.txt --device cpu", "export run --out out --to hf"],
    ids=lambda command: command.split()[0],
)
def test_a_command_beside_a_run_whose_retention_removes_its_checkpoint_succeeds(
    command: str, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint goes when the first of its tensors is read."""
    shutil.copytree(trained, "run")
    read = TensorFile.__getitem__

    def removed(self: TensorFile, name: str) -> Any:
        shutil.rmtree(f"run/{STEP}", ignore_errors=True)
        return read(self, name)

    monkeypatch.setattr(TensorFile, "__getitem__", removed)
    assert core_command(command.split()) == 0
    assert not Path(f"run/{STEP}").exists()


def test_a_run_holds_no_checkpoint_open_that_it_resumed_from(trained: Path) -> None:
    """A removed checkpoint that is held open takes its room for as long."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    shutil.copytree(trained, "run")
    with ExitStack() as stack:
        arguments = TrainArguments("small.toml", device="cpu", out=Path("run"), resume=True)
        prepare(arguments, Display(quiet=True), stack)
        held = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if _there(n)]
    assert not [path for path in held if path.endswith(".safetensors") and str(Path("run").absolute()) in path]


def _there(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")
