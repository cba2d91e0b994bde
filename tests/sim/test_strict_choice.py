"""Which launches of the op check run in strict mode: none of what any launch shows is left to fast mode alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.device.launch import LaunchRecord
from core.device.simulated import SimDevice
from core.kernels.nvrtc import Kernel
from core.loader import load_registry
from core.sim.faults import KernelError
from core.sim.launching.launch_report import Report
from core.testing.check import check_variant
from core.testing.devices import Snapshot
from core.testing.strict_choice import LONG, StrictChoice, events_of

KERNEL = Kernel(Path("k.cu"), "k", (), "op.k")
RECORD = LaunchRecord(KERNEL, (), (2, 1, 1), (64, 1, 1), 0, 1, False, "", "forward", "k.py:1")


def report(
    *, lanes: int = 64, blocks: int = 1, turns: int = 0, extra: tuple[int, ...] = (), long: bool = False
) -> Report:
    """Of a launch of two warps that runs the blocks of instructions at 0, at 5 with `lanes`, and at `extra`."""
    visits = {0: (2, 64), 5: (2, lanes)} | dict.fromkeys(extra, (2, 64))
    instructions = 2 * (LONG + 1) if long else 20
    return Report("k", (blocks, 1, 1), (64, 1, 1), instructions, visits=visits, looped={9: turns} if turns else {})


@pytest.mark.parametrize("new", [
    {"lanes": 40}, {"blocks": 2}, {"turns": 1}, {"extra": (7,)},
])  # fmt: skip
def test_a_launch_with_a_new_event_is_strict_and_the_same_again_is_not(new: dict[str, int]) -> None:
    choice = StrictChoice()
    assert choice.is_new(RECORD, report(), {})
    assert not choice.is_new(RECORD, report(), {})
    assert choice.is_new(RECORD, report(**new), {})
    assert not choice.is_new(RECORD, report(**new), {})


def test_turns_of_a_loop_count_up_to_the_fourth_jump_back() -> None:
    choice = StrictChoice()
    assert [choice.is_new(RECORD, report(turns=n), {}) for n in (1, 3, 2, 4, 900)] == [True, True, False, True, False]


def test_two_events_that_never_came_together_make_a_short_launch_strict_and_not_a_long_one() -> None:
    for long in (False, True):
        choice = StrictChoice()
        assert choice.is_new(RECORD, report(blocks=2), {}) and choice.is_new(RECORD, report(turns=1), {})
        assert choice.is_new(RECORD, report(blocks=2, turns=1, long=long), {}) is not long


def test_indices_that_repeat_or_are_negative_are_events() -> None:
    choice = StrictChoice()
    contents = [np.array(values, np.int32) for values in ([1, 2], [2, 3], [2, 2], [3, -1])]
    assert [choice.is_new(RECORD, report(), {0: one}) for one in contents] == [True, False, True, True]


def test_each_event_of_a_variants_launches_is_in_a_strict_one(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = load_registry()
    events: dict[bool, set[object]] = {True: set(), False: set()}
    counts = {True: 0, False: 0}
    is_new = StrictChoice.is_new

    def noted(self: StrictChoice, record: LaunchRecord, report: Report, integers: dict[int, np.ndarray]) -> bool:
        strict = is_new(self, record, report, integers)
        events[strict] |= {(record.kernel, *event) for event in events_of(record, report, integers)}
        counts[strict] += 1
        return strict

    monkeypatch.setattr(StrictChoice, "is_new", noted)
    variant = registry.variant("cross_entropy", "naive")
    result = check_variant(
        registry.op("cross_entropy"), variant, registry, dtypes=("f32",), archs=(), examples=[0, 1, 2]
    )
    assert result.passed and counts[False] and counts[True]
    assert events[False] <= events[True]


def test_memory_that_strict_mode_leaves_otherwise_is_an_error_that_names_the_place() -> None:
    device = SimDevice()
    tensor = device.tensor(device.allocate(16), 0, (4,), "f32")
    after = Snapshot(device.space)
    after.hold(device.space, RECORD)
    device.upload(tensor, np.array([0, 0, 1, 0], np.float32))
    with pytest.raises(KernelError, match="2 bytes differ between a run in fast mode and one in strict mode") as error:
        after.hold(device.space, RECORD)
    assert error.value.kind == "order" and "allocation 1" in error.value.message
