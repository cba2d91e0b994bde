"""A folder belongs to one history: two starts, one of them ended or killed at any moment, never mix."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import small_run

from core import checkpoint
from core.errors import UsageError
from core.signals import Stop
from core.train import setup
from core.train.display import Display
from core.train.loop import Trainer
from core.train.run import Run, read_lines, take_lock
from core.train.setup import TrainArguments, prepare


@pytest.fixture(autouse=True)
def here(workdir: Path) -> Path:
    small_run.write(workdir, small_run.unwatched(train={"steps": 4, "checkpoint_every": 2}))
    return workdir


NAMED = Path("runs/small")


class Killed(BaseException):
    """A kill, as far as the files see it."""


def train(*overrides: str, killed_after: int = 0, **asked: Any) -> Trainer:
    with ExitStack() as stack:
        made = prepare(TrainArguments("small.toml", overrides, device="cpu", **asked), Display(quiet=True), stack)

        def kill(run: Run, step: int, metrics: dict[str, Any]) -> None:
            if step == killed_after:
                raise Killed

        made.job.hooks = [kill] if killed_after else []
        monkey = pytest.MonkeyPatch()
        with monkey.context() as patch:
            patch.setattr("core.train.hook_calls.PASSES", (Killed,))
            made.train(Stop())
    return made


def snapshot(folder: Path) -> dict[str, str]:
    found = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "LOCK"}
    return {str(p.relative_to(folder)): hashlib.sha256(data).hexdigest() for p, data in found.items()}


def finished() -> None:
    train(out=Path("runs/small"))


def killed() -> None:
    with pytest.raises(Killed):
        train(out=Path("runs/small"), killed_after=3)


def begun(monkeypatch: pytest.MonkeyPatch, other: Callable[[], None]) -> None:
    """Have another start come and go while ours reads its data: after it chose its folder, before it locks it."""
    find, done = setup.find_data, []

    def slowly(*arguments: Any) -> Any:
        if not done:
            done.append(True)
            other()
        return find(*arguments)

    monkeypatch.setattr(setup, "find_data", slowly)


@pytest.mark.parametrize("other", [finished, killed])
def test_a_start_that_was_overtaken_takes_the_next_folder(
    monkeypatch: pytest.MonkeyPatch, other: Callable[[], None]
) -> None:
    begun(monkeypatch, other)
    made = train("optimizer.lr=2e-2")
    assert made.job.run.path == Path("runs/small-2") and len(read_lines(Path("runs/small-2/metrics.jsonl"))) == 4
    assert {m["lr"] for m in read_lines(Path("runs/small/metrics.jsonl"))} == {1e-2}


@pytest.mark.parametrize("other", [finished, killed])
@pytest.mark.parametrize("asked", [{"out": NAMED}, {"out": NAMED, "resume": True}, {"resume": True}])
def test_a_start_that_names_its_folder_is_refused_when_it_was_overtaken(
    monkeypatch: pytest.MonkeyPatch, other: Callable[[], None], asked: dict[str, Any]
) -> None:
    before: dict[str, str] = {}

    def then_look() -> None:
        other()
        before.update(snapshot(Path("runs/small")))

    begun(monkeypatch, then_look)
    with pytest.raises(UsageError, match=r"runs.small exists already; nothing was changed"):
        train("optimizer.lr=2e-2", **asked)
    assert snapshot(Path("runs/small")) == before


def test_two_starts_at_once_get_two_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []

    def lock_it() -> None:
        Path("runs/small").mkdir(parents=True)
        held.append(take_lock(Path("runs/small/LOCK")))

    begun(monkeypatch, lock_it)
    assert train().job.run.path == Path("runs/small-2")
    held[0].close()
    assert train().job.run.path == Path("runs/small"), "no step was done in it"


def test_a_start_that_failed_before_its_first_step_leaves_its_name_free() -> None:
    with pytest.raises(UsageError), pytest.MonkeyPatch().context() as patch:
        patch.setattr(setup, "fill", lambda *_: (_ for _ in ()).throw(UsageError("no weights")))
        train(out=Path("a"))
    assert (Path("a") / "config.resolved.toml").exists()
    assert train(out=Path("a")).step == 4


def test_a_checkpoint_of_another_history_gives_way_to_ours() -> None:
    """A fallback passes a checkpoint over that can be read again later, and another learning rate goes on."""
    train(out=Path("a"))
    step = Path("a/checkpoints/step_00000004")
    before = snapshot(step)
    damaged = step / checkpoint.MANIFEST
    whole = damaged.read_bytes()
    damaged.write_bytes(b"{}")
    with pytest.MonkeyPatch().context() as patch:
        begun(patch, lambda: None if damaged.write_bytes(whole) else None)  # the disk has recovered meanwhile
        train("optimizer.lr=1e-4", out=Path("a"), resume=True)
    assert snapshot(step)["model.safetensors"] != before["model.safetensors"]
    train("optimizer.lr=1e-4", "train.steps=4", out=Path("b"), origin=Path("a/checkpoints/step_00000002"))
    assert snapshot(step)["model.safetensors"] == snapshot(Path("b/checkpoints/step_00000004"))["model.safetensors"]


def test_the_same_checkpoint_again_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = train(out=Path("a"))
    step = Path("a/checkpoints/step_00000004")
    before = step.stat().st_ino
    made.job.display.log = print
    monkeypatch.setattr(Run, "sync", lambda self: None)
    made.save()
    assert step.stat().st_ino == before and sorted(p.name for p in step.parent.iterdir())[-1] == step.name


def test_keep_last_holds_after_a_kill_between_a_save_and_what_it_makes_superfluous() -> None:
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(checkpoint, "retain", lambda *_: [])
        train("train.keep_last=1", out=Path("a"))
    assert checkpoint.steps(Path("a/checkpoints")) == [4, 2]
    train("train.keep_last=1", out=Path("a"), resume=True)
    assert checkpoint.steps(Path("a/checkpoints")) == [4]


@pytest.mark.parametrize("name", ["train.log", "metrics.jsonl", "samples.jsonl", "LOCK"])
def test_links_in_a_folder_from_elsewhere_are_not_followed(name: str) -> None:
    train(out=Path("a"))
    Path("mine").write_text("mine")
    (Path("a") / name).unlink()
    (Path("a") / name).symlink_to(Path("mine").absolute())
    with pytest.raises(UsageError, match="cannot be written"):
        train(out=Path("a"), resume=True)
    assert Path("mine").read_text() == "mine"
