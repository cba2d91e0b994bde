"""The order of batches: every sequence once an epoch, the same for every number of ranks and micro-steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_files import pieces, write_shard

from core.data import TokenSource, diff_description, source


def test_an_epoch_draws_every_sequence_once_and_the_next_in_another_order():
    drawn = TokenSource(pieces(101, 57, 5, 80), B=1, T=10, seed=3)
    assert drawn.sequences == 10 + 5 + 0 + 7
    starts = [int(drawn.batch(step)["tokens"][0, 0]) for step in range(44)]
    want = [*range(0, 100, 10), *range(101, 151, 10), *range(163, 233, 10)]
    assert sorted(starts[:22]) == sorted(starts[22:]) == want
    assert starts[:22] != starts[22:] and starts[:22] != sorted(starts[:22])
    other = TokenSource(pieces(101, 57, 5, 80), B=1, T=10, seed=4)
    assert [int(other.batch(step)["tokens"][0, 0]) for step in range(22)] != starts[:22]


def test_targets_are_the_tokens_that_follow_and_never_cross_a_piece():
    drawn = TokenSource(pieces(101, 57), B=3, T=10)
    for step in range(5):
        tokens, targets = drawn.batch(step).values()
        assert np.array_equal(targets, tokens + 1)
        assert ((tokens[:, 0] < 101) == (targets[:, -1] < 101)).all()


def test_ranks_and_micro_steps_of_every_number_draw_the_same_sequences():
    def step_of(B: int, micro_steps: int, ranks: int, step: int) -> list[int]:
        drawn = TokenSource(pieces(1001), B=B, T=10, seed=1)
        batches = [drawn.batch(step, m, micro_steps, r, ranks) for m in range(micro_steps) for r in range(ranks)]
        return np.concatenate([tokens[:, 0] for tokens, _ in map(dict.values, batches)]).tolist()

    for step in (0, 7, 12, 500):  # 12: across the end of an epoch
        want = step_of(8, 1, 1, step)
        assert len(want) == 8
        for B, micro_steps, ranks in ((4, 2, 1), (2, 4, 1), (2, 1, 4), (1, 2, 4), (2, 2, 2)):
            assert step_of(B, micro_steps, ranks, step) == want


def test_a_batch_depends_on_nothing_but_its_number():
    a, b = (TokenSource(pieces(1001), B=2, T=10, seed=1) for _ in range(2))
    for step in range(30):
        a.batch(step)
    assert all(np.array_equal(x, y) for x, y in zip(a.batch(31).values(), b.batch(31).values(), strict=True))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097])
def test_the_order_is_a_permutation_for_every_size(n):
    for epoch in range(3):
        order = source.permute(np.arange(n), n, 11, epoch)
        assert sorted(order.tolist()) == list(range(n))


def test_the_order_shows_no_preference_and_is_instant_for_ten_billion_tokens():
    n, trials = 8, 1500
    seen = np.zeros((n, n))
    for epoch in range(trials):
        seen[np.arange(n), source.permute(np.arange(n), n, 5, epoch)] += 1
    chi2 = ((seen - trials / n) ** 2 / (trials / n)).sum()
    assert chi2 < 100  # 49 degrees of freedom: 99.99% lie below 95
    big = source.permute(np.arange(1000), 10**7, 0, 0)
    assert len(set(big.tolist())) == 1000 and abs(big.mean() / 10**7 - 0.5) < 0.05
    assert abs(np.corrcoef(np.arange(1000), big)[0, 1]) < 0.15


def test_the_order_is_the_one_that_older_runs_had():
    """A change here would make every resumed run draw other data: it needs a new version of `describe`."""
    assert source.permute(np.arange(10), 10, 1337, 0).tolist() == GOLDEN_ORDER


def test_validation_reads_a_number_of_tokens_in_order_whatever_the_batch():
    drawn = TokenSource(pieces(26, 14), B=2, T=10, least=2)

    def targets(tokens: int, B: int) -> list[int]:
        batches = [tuple(batch.values()) for batch in drawn.val_batches(tokens, B)]
        assert all(x.shape == y.shape == (B, 10) for x, y in batches)
        for x, y in batches:
            assert np.array_equal(y[y >= 0], x[y >= 0] + 1) and (x[y < 0] == 0).all()
        return np.concatenate([y[y >= 0] for _, y in batches]).tolist() if batches else []

    everything = [*range(1, 26), *range(27, 40)]
    for B in (1, 2, 3, 7):
        assert targets(10**9, B) == everything
        assert targets(33, B) == everything[:33]
        assert targets(20, B) == everything[:20]
    assert len(list(drawn.val_batches(20, 2))) == 1


def test_describe_finds_every_change_that_matters_and_none_that_does_not(tmp_path):
    def describe(folder: Path, seed=1) -> dict:
        return json.loads(json.dumps(TokenSource(sorted(folder.glob("*.bin")), B=2, T=8, seed=seed).describe()))

    first, moved = tmp_path / "a", tmp_path / "b"
    for folder in (first, moved):
        folder.mkdir()
        write_shard(folder / "0.bin", np.arange(100))
        write_shard(folder / "1.bin", np.arange(50))
    before = describe(first)
    assert diff_description(before, describe(moved)) == []
    assert "seed was 1, is 2" in diff_description(before, describe(first, seed=2))[0]
    write_shard(first / "0.bin", np.arange(1, 101))
    assert "0.bin (100 tokens) changed" in diff_description(before, describe(first))[0]
    (moved / "1.bin").unlink()
    lines = diff_description(before, describe(moved))
    assert any(line.startswith("train: - ") and "1.bin" in line for line in lines)


GOLDEN_ORDER = [3, 0, 5, 6, 8, 2, 9, 4, 1, 7]
