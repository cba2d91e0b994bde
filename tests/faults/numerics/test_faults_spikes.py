"""Spikes of the loss or the norm: a warning, a step without a changed bit, or the end of the run; gradients of zero."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numeric_faults import Hook, crashed, curve, fault, log, same, tensors, tensors_of, train, trainer

from core import checkpoint, files
from core.errors import NumericsError
from core.signals import Stop
from core.train.detect import MOST_SKIPS, Detector

# --- spikes --------------------------------------------------------------------------------------------------------

SPIKE = 'harm = "spike", first = 10, last = 10'  # the 11th step
LONG = ("train.steps=14", "train.checkpoint_every=1", "train.keep_last=20")


def bits(kept: dict[int, dict[str, Any]]) -> Hook:
    """A hook that keeps the bits of everything after every step."""

    def keep(made: Any, step: int, metrics: dict[str, Any]) -> None:
        kept[step] = tensors(made)

    return keep


def test_a_spike_is_warned_of_and_its_update_is_made(here: Path) -> None:
    fault(spike=SPIKE)
    kept: dict[int, dict[str, Any]] = {}
    made = train("a", *LONG, "train.checkpoint_every=14", hook=bits(kept))
    assert log().count("warning: step 11: loss ") == 1 and log().count(" is a spike (+") == 1
    assert not same(kept[10], kept[11]) and made.job.engine.updates == 14
    assert curve("a")[10][1] in made.job.detector.losses.values()


def test_a_skipped_spike_changes_no_bit_stays_out_of_the_window_and_resumes_exactly(here: Path) -> None:
    fault(spike=SPIKE)
    kept: dict[int, dict[str, Any]] = {}
    made = train("a", *LONG, "detect.action=skip", hook=bits(kept))
    assert same(kept[10], kept[11]) and not same(kept[11], kept[12])
    assert [line[0] for line in curve("a") if line[-1]] == [11] and made.job.engine.updates == 13
    assert "warning: step 11: loss" in log() and "its update is left out" in log()
    spike = curve("a")[10][1]
    for step in (11, 14):
        state = checkpoint.load(here / f"a/checkpoints/step_{step:08d}").state
        assert state["updates"] == step - 1 and spike not in state["windows"]["loss"]
        assert len(state["windows"]["loss"]) == 8 and state["skipped"] == (step == 11)
    for cut in (7, 10, 11, 12):  # before the window is full, just before, just after, and later
        train("b", *LONG, "detect.action=skip", origin=here / f"a/checkpoints/step_{cut:08d}")
        assert curve("b") == curve("a")[cut:]
        assert same(tensors_of("b"), tensors_of("a"))
        files.remove_tree(here / "b")


def test_a_spike_that_is_to_end_the_run_does_so_before_its_update(here: Path) -> None:
    fault(spike=SPIKE)
    kept: dict[int, dict[str, Any]] = {}
    with ExitStack() as stack:
        made = trainer(stack, "a", *LONG, "detect.action=abort")
        made.job.hooks = [lambda run, step, metrics: kept.update({step: tensors(made)})]
        with pytest.raises(
            NumericsError, match=r"step 11/14: loss \S+ is a spike .* above .*nothing was updated.*step 10"
        ):
            made.train(Stop())
        assert same(tensors(made), kept[10])
    cause = crashed(step=11)["cause"]
    assert cause["kind"] == "spike" and checkpoint.find(here / "a").step == 10
    rows = [json.loads(line) for line in Path("a/crash-step_00000011/tensors.jsonl").read_text().splitlines()]
    assert {"forward", "backward", "parameter"} <= {r["kind"] for r in rows}, "all of the step is there to look at"


def test_a_level_that_is_here_to_stay_ends_the_run_instead_of_being_skipped_for_good(here: Path) -> None:
    fault(spike=SPIKE.replace("last = 10", "last = 99"))
    with pytest.raises(NumericsError, match=rf'action = "skip", {MOST_SKIPS} in a row'):
        train("a", "train.steps=60", "train.checkpoint_every=0", "detect.action=skip")
    assert [line[0] for line in curve("a") if line[-1]] == list(range(11, 11 + MOST_SKIPS - 1))


def test_a_norm_is_watched_as_the_loss_is(here: Path) -> None:
    fault(spike=SPIKE + ", backward = true")
    made = train("a", *LONG, "detect.action=skip", "detect.norm_z=50", "detect.loss_z=0", "train.checkpoint_every=14")
    assert "warning: step 11: norm " in log() and made.job.engine.updates == 13


def test_nothing_is_a_spike_before_the_window_is_full_nor_without_a_threshold() -> None:
    rng = np.random.default_rng(0)
    for loss_z, steps in ((5.0, 7), (0.0, 30)):
        detector = Detector(window=8, loss_z=loss_z, norm_z=0.0)
        for value in rng.standard_normal(steps):
            assert detector.see(float(value), 1.0).spikes == [] and detector.limits() == (math.inf, math.inf)
    assert detector.see(1e9, 1.0).spikes == []
    level = Detector(window=4)
    for _ in range(9):
        assert level.see(1.0, 1.0).spikes == [], "a loss that never changes has no deviation to measure by"


# --- gradients of zero ---------------------------------------------------------------------------------------------


def test_a_parameter_whose_gradient_stays_zero_is_named_once(here: Path) -> None:
    fault('harm = "nothing", backward = true, first = 0, last = 99')
    train("a", "train.steps=20", "detect.zero_steps=8", "train.checkpoint_every=20")
    warnings = [line for line in log().splitlines() if "exactly zero" in line]
    assert len(warnings) == 1 and "for 8 steps the gradient of " in warnings[0]
    assert all(name in warnings[0] for name in ("h.0.ln_2.weight", "h.0.fc.weight", "h.0.fc.bias"))
    assert not any(name in warnings[0] for name in ("qkv", "down", "wte"))


def test_gradients_of_zero_are_counted_across_a_resume_and_reset_by_one_that_is_not(here: Path) -> None:
    fault('harm = "nothing", backward = true, first = 0, last = 5')
    quick = ("train.steps=12", "detect.zero_steps=8")
    train("a", *quick)
    assert "exactly zero" not in log("a")
    fault('harm = "nothing", backward = true, first = 0, last = 99')
    train("b", *quick, stop_after=5)
    assert checkpoint.find(here / "b").state["zeros"]["h.0.fc.weight"] == 5
    train("b", *quick, resume=True)
    assert log("b").count("exactly zero") == 1
    detector = Detector(zero_steps=8)
    assert not any(detector.look(names) for names in [*[["a"]] * 7, [], *[["a"]] * 7])
    assert "for 8 steps the gradient of a was" in detector.look(["a"])
