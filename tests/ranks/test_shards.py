"""Optimizer state in slices, one on each rank: their cuts, the pieces by name, the sums of chunks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from core.device.simulated import SimDevice
from core.engine.slice_pieces import NotWhole, piece_of
from core.errors import BuildError
from core.expr import Padded, unpadded
from core.loader import load_registry
from core.op import make_tensors
from core.plan import Place
from core.plan.record import control_record
from core.ranks.group import Ranks
from core.ranks.slices import Slices, cut_at_chunks, cut_between
from core.step_record import CHUNK, GROUP
from core.train.sliced_saving import state_sizes


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("elements", [GROUP * 7, CHUNK, 3 * CHUNK + GROUP, 100 * CHUNK])
def test_slices_cover_all_begin_at_chunks_and_are_about_equal(elements: int, ranks: int) -> None:
    cuts = cut_at_chunks(elements, ranks)
    sizes = np.diff(cuts)
    assert cuts[0] == 0 and cuts[-1] == elements and len(sizes) == ranks and sizes.min() > 0
    grain = CHUNK if elements >= ranks * CHUNK else GROUP
    assert all(cut % grain == 0 for cut in cuts[:-1]) and max(sizes) - min(sizes) <= max(2 * CHUNK, GROUP)


def test_slices_between_parameters_begin_at_one_and_each_rank_has_one() -> None:
    starts = [0, 64, 128, 1_000_000, 1_000_064]
    for ranks in range(1, 6):
        cuts = cut_between(starts, 1_000_128, ranks)
        assert set(cuts[:-1]) <= set(starts) and min(np.diff(cuts)) > 0 and len(cuts) == ranks + 1
    with pytest.raises(BuildError, match="5 parameters train, and there are 6 ranks"):
        cut_between(starts, 1_000_128, 6)


def test_numbers_of_chunks_lie_behind_one_another() -> None:
    ranks = Ranks()
    ranks.rank, ranks.size = 1, 3
    slices = Slices((0, CHUNK, 3 * CHUNK, 3 * CHUNK + 64), ranks)
    assert slices.cut_by(CHUNK) == [0, 1, 3, 4] and (slices.first, slices.last) == (CHUNK, 3 * CHUNK)
    assert slices.largest == 2 * CHUNK
    files = state_sizes(slices, 8)
    assert list(files) == [f"optimizer-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert sum(files.values()) == 8 * slices.cuts[-1]


@pytest.mark.parametrize("shape", [(Padded(8, 5), 6), (6, Padded(8, 5)), (Padded(8, 5), Padded(4, 3)), (48,), (5, 7)])
def test_pieces_of_a_parameter_make_up_its_values_without_padding(shape: tuple[int, ...]) -> None:
    place = Place(128, shape, True, True)
    real = tuple(map(unpadded, shape))
    values = np.arange(1.0, 1 + np.prod(real)).reshape(real)
    for cut in range(64, 128 + place.size + 64, 3):
        pieces = [p for p in (piece_of(place, 0, cut), piece_of(place, cut, 1000)) if p is not None]
        assert pieces[0].first == 0 and pieces[-1].last == values.size
        assert all(a.last == b.first for a, b in zip(pieces, pieces[1:], strict=False))
        padded = np.concatenate([piece.padded(values) for piece in pieces])
        assert padded.size == place.size and sorted(padded[padded != 0]) == sorted(values.reshape(-1))
        back = [p.unpadded(padded[p.start : p.stop]) for p in pieces]
        assert all(b.size == p.last - p.first for b, p in zip(back, pieces, strict=True))
        assert np.array_equal(np.concatenate([b.reshape(-1) for b in back]), values.reshape(-1))
        assert pieces[0].whole == (len(pieces) == 1) and (not pieces[0].whole or back[0].shape == real)


def test_an_optimizer_that_asks_for_parameters_without_saying_so_is_refused_in_words() -> None:
    p = SimpleNamespace(parameters=NotWhole("mine"))
    with pytest.raises(BuildError, match="optimizer mine uses p.parameters") as refused:
        list(p.parameters)
    assert "whole = True" in refused.value.hint and "train.shard=false" in refused.value.hint


ONE_TERM: Any = SimpleNamespace(loss={"loss": 1.0})  # of a graph


@pytest.mark.parametrize("variant", ["naive", "blocks"])
def test_a_slice_on_cuda_has_the_sums_of_its_chunks_bit_for_bit(variant: str) -> None:
    """Of the norm over all elements, whose numbers the ranks gather."""
    registry, device, n = load_registry(), SimDevice(), 3 * CHUNK + 192
    norm, gradient = registry.variant("global_norm", variant), np.random.default_rng(3).standard_normal(n)

    def sums(grad: Any, slices: Slices | None) -> Any:
        size = 8 * (slices.cut_by(CHUNK)[-1] if slices else 4)
        workspace = device.tensor(device.allocate(size), 0, (size,), "u8")
        values = {
            "grad": grad,
            "step": control_record(device, ONE_TERM),
            "clip": 1.0,
            "n": grad.shape[0],
            "slices": slices,
        }
        launches = device.record(norm, "forward", make_tensors({}, values), None, workspace)
        device.run(launches[:1])  # the verdict is on what all ranks have
        return device.download(workspace.part(0, (size // 8,), "f64"))

    whole = device.tensor(device.allocate(4 * n), 0, (n,), "f32")
    device.upload(whole, gradient.astype(np.float32))
    expected = sums(whole, None)
    assert expected.sum() == pytest.approx(np.square(gradient.astype(np.float32), dtype=np.float64).sum())
    for rank in range(2):
        ranks = Ranks()
        ranks.rank, ranks.size = rank, 2
        slices = Slices((0, 2 * CHUNK, n), ranks)
        own = sums(whole[slices.first : slices.last], slices)[2 * rank : 2 * rank + 2]
        assert np.array_equal(own, expected[2 * rank : 2 * rank + 2])
