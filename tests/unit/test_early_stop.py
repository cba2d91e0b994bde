"""[train] early_stop: the run ends after some validations without a new best, resumed between them or not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from core.resident_rows import core_step_end, core_train_start


def ended(losses, patience, best="", state=None):
    """After how many validations a run stops; None if it does not."""
    stops = []
    training = SimpleNamespace(early_stop=patience, best=best, state={} if state is None else state, stop=stops.append)
    core_train_start(training)
    for number, loss in enumerate(losses, 1):
        core_step_end({"loss": 1.0}, training)
        core_step_end({"val_loss": loss, "val_losses": {"a": -loss, "b": loss}}, training)
        if stops:
            assert f"{patience} validations without a new best (early_stop = {patience})" in stops[0]
            return number
    return 0 if stops else None


@pytest.mark.parametrize(
    ("losses", "patience", "number"),
    [
        ([3, 2, 2, 2.5], 2, 4),
        ([3, 2, 2.5, 1, 2, 2], 2, 6),
        ([3, 2, 1], 1, None),
        ([1, 2, 3], 0, None),
        ([1, float("nan")], 1, 2),
    ],
)
def test_a_run_ends_when_the_best_is_old(losses, patience, number):
    assert ended(losses, patience) == number


def test_a_resumed_run_counts_on_and_one_that_has_ended_ends_again():
    state = {}
    assert ended([2, 3], 2, state=state) is None
    assert ended([2.5], 2, state=state) == 1
    assert ended([], 2, state=state) == 0
    assert ended([9, 9.5], 2, best="b", state=state) is None, "another loss begins anew"


def test_the_best_may_be_one_terms():
    assert ended([1, 2, 3], 1, best="a") is None
