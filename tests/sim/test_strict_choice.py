"""Which launches of the op check run in strict mode: none of what any launch shows is left to fast mode alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core import Variant, i32
from core.device.launch import LaunchRecord
from core.device.simulated import SimDevice
from core.kernels.nvrtc import Kernel
from core.loader import load_registry
from core.sim.faults import KernelError
from core.sim.launching.launch_report import Report
from core.testing.check import check_variant
from core.testing.late_launches import Snapshot
from core.testing.log import Failure
from core.testing.strict_choice import LONG, Shown, StrictChoice

KERNEL = Kernel(Path("k.cu"), "k", (), "op.k")
RECORD = LaunchRecord(KERNEL, (), (2, 1, 1), (64, 1, 1), 0, 1, "", "forward", "k.py:1")


def report(
    *, lanes: int = 64, blocks: int = 1, turns: int = 0, extra: tuple[int, ...] = (), long: bool = False
) -> Report:
    """Of a launch of two warps that runs the blocks of instructions at 0, at 5 with `lanes`, and at `extra`."""
    visits = {0: (2, 64), 5: (2, lanes)} | dict.fromkeys(extra, (2, 64))
    instructions = 2 * (LONG + 1) if long else 20
    return Report("k", (blocks, 1, 1), (64, 1, 1), instructions, visits=visits, looped={9: turns} if turns else {})


def is_strict(choice: StrictChoice, record: LaunchRecord, report: Report, integers: dict[int, np.ndarray]) -> bool:
    return choice.is_new(choice.shown(record, report, integers))


@pytest.mark.parametrize("new", [
    {"lanes": 40}, {"blocks": 2}, {"turns": 1}, {"extra": (7,)},
])  # fmt: skip
def test_a_launch_with_a_new_event_is_strict_and_the_same_again_is_not(new: dict[str, int]) -> None:
    choice = StrictChoice()
    assert is_strict(choice, RECORD, report(), {})
    assert not is_strict(choice, RECORD, report(), {})
    assert is_strict(choice, RECORD, report(**new), {})
    assert not is_strict(choice, RECORD, report(**new), {})


def test_turns_of_a_loop_count_up_to_the_fourth_jump_back() -> None:
    choice = StrictChoice()
    assert [is_strict(choice, RECORD, report(turns=n), {}) for n in (1, 3, 2, 4, 900)] == [
        True,
        True,
        False,
        True,
        False,
    ]


def test_two_events_that_never_came_together_make_a_short_launch_strict_and_not_a_long_one() -> None:
    for long in (False, True):
        choice = StrictChoice()
        assert is_strict(choice, RECORD, report(blocks=2), {}) and is_strict(choice, RECORD, report(turns=1), {})
        assert is_strict(choice, RECORD, report(blocks=2, turns=1, long=long), {}) is not long


def test_indices_that_repeat_or_are_negative_are_events() -> None:
    choice = StrictChoice()
    contents = [np.array(values, np.int32) for values in ([1, 2], [2, 3], [2, 2], [3, -1])]
    assert [is_strict(choice, RECORD, report(), {0: one}) for one in contents] == [True, False, True, True]


def test_another_alignment_of_an_integer_argument_makes_a_short_launch_strict() -> None:
    for long in (False, True):
        choice = StrictChoice()
        records = [replace(RECORD, args=(np.int32(n), np.float32(n))) for n in (8, 16, 12, 7, 5)]
        strict = [is_strict(choice, one, report(long=long), {}) for one in records]
        assert strict == ([True] + [False] * 4 if long else [True, False, True, True, False])


ODD = """extern "C" __global__ void forward(elem* y, const elem* x, int n) {
    int half = (n + 1) / 2, far = (threadIdx.x + half) % n;
    if (threadIdx.x >= half) return;
    y[threadIdx.x] = gelu(x[threadIdx.x]);
    y[far] = gelu(x[far]);
}
"""
GELU = """inline __device__ elem gelu(float x) {
    return elem(x / 2 * (1 + tanhf(0.7978845608f * (x + 0.044715f * x * x * x))));
}
"""


def failures_of(kernel: str, folder: Path) -> list[Failure]:
    """The first failures of a GELU at an even and an odd size."""

    class Mine(Variant):
        op, name, backward = "gelu", "mine", None
        examples = ({"x": (1, 80)}, {"x": (1, 79)})

        def forward(self, t, launch):  # type: ignore[no-untyped-def]
            launch("forward", t.y, t.x, i32(t.y.size), grid=1, block=64)

    (folder / "gelu.cu").write_text(GELU + kernel)
    Mine.sources = {"forward": (folder / "gelu.cu",)}
    registry = load_registry(only=())
    found = check_variant(registry.op("gelu"), Mine(), registry, dtypes=("f32",), archs=(), examples=[-2, -1])
    assert found.failed_checks()[0] == "forward"
    return found.failures


def test_a_race_that_odd_sizes_alone_have_is_seen_though_even_ones_went_before(tmp_path: Path) -> None:
    failure = failures_of(ODD, tmp_path)[0]
    assert "x=(1, 79)" in failure.case and "not ordered" in failure.message


def test_a_race_is_named_before_the_wrong_values_that_it_explains(tmp_path: Path) -> None:
    messages = [one.message for one in failures_of(ODD.replace("gelu(x[far])", "gelu(x[far] + 1)"), tmp_path)]
    assert "not ordered" in messages[0] and "relative error" in messages[-1]


def test_the_launch_with_the_most_news_for_its_cost_goes_first_and_what_shows_no_more_is_left_out() -> None:
    choice = StrictChoice()
    reports = [report(blocks=2), report(turns=1, long=True), report(blocks=2, turns=1), report(turns=1)]
    assert list(choice.chosen([choice.shown(RECORD, one, {}) for one in reports])) == [2]


def test_a_further_order_is_for_the_first_strict_launch_and_for_new_turns_and_axes() -> None:
    choice = StrictChoice()
    many = [
        choice.shown(RECORD, report(**one), {})
        for one in ({}, {"lanes": 40}, {"blocks": 2}, {"turns": 2}, {"turns": 1})
    ]
    assert [choice.seeds(one) for one in many] == [(1,), (), (2,), (1,), ()]


def test_each_event_of_a_variants_launches_is_in_a_strict_one(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = load_registry()
    events: dict[Kernel, set[int]] = {}
    seen: list[Shown] = []
    shown, have = StrictChoice.shown, StrictChoice.have

    def noted(self: StrictChoice, record: LaunchRecord, report: Report, integers: dict[int, np.ndarray]) -> Shown:
        seen.append(shown(self, record, report, integers))
        return seen[-1]

    def strict(self: StrictChoice, one: Shown) -> None:
        events.setdefault(one.kernel, set()).update(one.events)
        have(self, one)

    monkeypatch.setattr(StrictChoice, "shown", noted)
    monkeypatch.setattr(StrictChoice, "have", strict)
    variant = registry.variant("cross_entropy", "naive")
    result = check_variant(
        registry.op("cross_entropy"), variant, registry, dtypes=("f32",), archs=(), examples=[0, 1, 2]
    )
    assert result.passed and seen
    assert all(set(one.events) <= events[one.kernel] for one in seen)


def test_memory_that_strict_mode_leaves_otherwise_is_an_error_that_names_the_place() -> None:
    device = SimDevice()
    tensor = device.tensor(device.allocate(16), 0, (4,), "f32")
    after = Snapshot(device.space)
    after.hold(device.space, RECORD)
    device.upload(tensor, np.array([0, 0, 1, 0], np.float32))
    with pytest.raises(KernelError, match="2 bytes differ between a run in fast mode and one in strict mode") as error:
        after.hold(device.space, RECORD)
    assert error.value.kind == "order" and "allocation 1" in error.value.message
