"""Statistics of tensors: each device's one pass equals NumPy in f64, for all kinds of numbers."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from core.device.cpu import CpuDevice
from core.device.measured import TOO_LARGE, TOO_SMALL, VALUES, MeasuredTensor
from core.device.simulated import SimDevice
from core.device.statistics import ENTRY, SOURCE, THREADS
from core.errors import BuildError
from core.expr import Padded
from core.plan import trimmed

HARD = [0.0, -0.0, math.nan, math.inf, -math.inf, TOO_SMALL, -TOO_SMALL, 1.5 * TOO_SMALL, TOO_LARGE, -3.4e38, 1e-30]
SHAPES = [(), (1,), (7, 11), (1, 130_001), (3, Padded(8, 5)), (Padded(6, 4), 10), (2, Padded(6, 5), 3, Padded(8, 7))]


def expected(array):
    """The eight values, by NumPy in f64."""
    x = array.astype(np.float64).reshape(-1)
    y = x[np.isfinite(x)]
    size = np.abs(y)
    lost = np.count_nonzero((size > 0) & (size <= TOO_SMALL)), np.count_nonzero(size >= TOO_LARGE)
    extremes = y.min(initial=math.inf), y.max(initial=-math.inf)
    return [y.sum(), y @ y, *extremes, np.count_nonzero(y == 0), x.size - y.size, *lost]


def placed(device, values, dtype):
    tensor = device.tensor(device.allocate(8 * max(values.size, 1)), 0, values.shape, dtype)
    device.upload(tensor, values)
    return tensor


def rows(device, arrays, shapes, dtype="f32", before=None):
    """The device's statistics of arrays, and the arrays as it holds them."""
    tensors = [placed(device, a, dtype) for a in arrays]
    befores = [placed(device, a, dtype) for a in before] if before else [None] * len(arrays)
    measured = [MeasuredTensor(t, s, b) for t, s, b in zip(tensors, shapes, befores, strict=True)]
    nbytes = device.statistics_bytes(shapes)
    workspace = device.tensor(device.allocate(nbytes), 0, (nbytes,), "u8")
    out = device.tensor(device.allocate(64 * len(arrays)), 0, (len(arrays), 8), "f64")
    commands = device.statistics(measured, out, workspace)
    device.run(commands)
    first = device.download(out)
    device.run(commands)
    assert first.tobytes() == device.download(out).tobytes(), "bits repeat"
    return first, [device.download(t) for t in tensors]


def close(found, wanted, arrays, shapes):
    for row, numbers, array, shape in zip(found, wanted, arrays, shapes, strict=True):
        size = float(np.abs(trimmed(array, shape)[np.isfinite(trimmed(array, shape))]).astype(np.float64).sum())
        assert row[0] == pytest.approx(numbers[0], rel=1e-5, abs=1e-6 * size), "sum"
        assert row[1] == pytest.approx(numbers[1], rel=1e-5), "squares"
        assert list(row[2:]) == numbers[2:], "extremes and counts"


PLACES = [(CpuDevice, "f32"), (CpuDevice, "f64"), (SimDevice, "f32"), (SimDevice, "bf16")]


@pytest.mark.parametrize("device, dtype", PLACES)
@pytest.mark.parametrize("hard", [False, True], ids=["plain", "hard"])
def test_one_pass_gives_numpys_statistics_of_every_shape(device, dtype, hard):
    rng, arrays = np.random.default_rng(3), []
    for shape in SHAPES:
        array = rng.normal(0.5, 2, tuple(map(int, shape))).astype(np.float32)
        some = array.reshape(-1)[:: max(1, array.size // 40)]
        some[:] = rng.choice(HARD, some.size) if hard else some
        arrays.append(array)
    found, held = rows(device(), arrays, SHAPES, dtype)
    wanted = [expected(trimmed(a, s)) for a, s in zip(held, SHAPES, strict=True)]
    close(found, wanted, held, SHAPES)
    assert found[:, 4:6].any() == hard and found[:, 6:].any() == (hard and dtype != "bf16"), "bf16 loses nothing again"


@pytest.mark.parametrize("device", [CpuDevice, SimDevice])
def test_what_is_subtracted_is_subtracted_in_the_tensors_type(device):
    rng = np.random.default_rng(4)
    shapes = [(3, Padded(8, 5)), (9, 1000)]
    now, then = ([rng.normal(size=tuple(map(int, s))).astype(np.float32) for s in shapes] for _ in range(2))
    found, _ = rows(device(), now, shapes, before=then)
    change = [a - b for a, b in zip(now, then, strict=True)]
    close(found, [expected(trimmed(a, s)) for a, s in zip(change, shapes, strict=True)], change, shapes)


def test_small_numbers_have_an_rms():
    """Squares of 1e-25 are no f32."""
    found, _ = rows(CpuDevice(), [np.full(1000, 1e-25, np.float32)], [(1000,)])
    assert math.sqrt(found[0, 1] / 1000) == pytest.approx(1e-25)


def test_three_padded_sizes_are_refused_in_words():
    with pytest.raises(BuildError, match="at most two padded sizes"):
        CpuDevice().statistics_bytes([(Padded(4, 3), Padded(4, 3), Padded(4, 3))])


def test_strict_mode_has_nothing_to_say_of_the_pass():
    rows(SimDevice(strict=True), [np.ones((3, 9000), np.float32), np.ones(5, np.float32)], [(3, 9000), (5,)])


def test_the_kernel_has_the_sizes_and_the_record_that_python_packs():
    source = SOURCE.read_text("utf-8")
    sizes = dict(re.findall(r"^constexpr int (\w+) = (\d+);", source, re.MULTILINE))
    assert {name: int(size) for name, size in sizes.items()} == {"THREADS": THREADS, "VALUES": len(VALUES)}
    fields = re.search(r"struct Entry \{(.*?)\};", source, re.DOTALL)[1]
    declared = re.sub(r"const void\*", "u64", fields).replace("\n", " ").split(";")
    flat = [(name.partition("[")[0], f"<{kind[0]}{int(kind[1:]) // 8}", int(name.partition("[")[2][:-1] or 1))
            for kind, _, names in (line.strip().partition(" ") for line in declared if line.strip())
            for name in names.split(", ")]  # fmt: skip
    packed = [(n, d.base.str, d.shape[0] if d.shape else 1) for n, d in ((n, ENTRY[n]) for n in ENTRY.names)]
    assert flat == packed
