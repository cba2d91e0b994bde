"""A run that is ended and resumed is the unbroken run, bit for bit; a change in between is shown or refused."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from checkpoint_runs import assert_same, curve, log, tensors_of, train, trainer

from core import blas, checkpoint, processor
from core.checkpoint import Contents
from core.cli import run as core_command
from core.engine import Engine, Settings
from core.graph import load_model
from core.loader import load_registry
from core.pool import Pool, using
from core.signals import Stop
from core.train.run import read_lines

SEQUENCES = 18  # of the training shards: an epoch is four and a half steps of four sequences


def shard_end(run: Path) -> int:
    """A step that is followed by another one, with whose last sequence a shard was drawn to its end."""
    with ExitStack() as stack:
        source = trainer(stack, out=run).job.batches.__closure__
        drawn = next(c.cell_contents for c in source or () if hasattr(c.cell_contents, "order"))
    order = drawn.order(np.arange(SEQUENCES)) // 6  # the shard of each sequence
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
