"""Mixes of sources: exact weights in every period, and one global batch for ranks and micro-steps."""

from __future__ import annotations

import numpy as np
import pytest
from batch_layouts import ROWS, Config, T, feeds, opened, saved

from core.errors import DataError, UsageError
from core.tokenizers.folder import read_folder

# --- mixes, order, ranks -------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path):
    """Three texts of letters of their own."""
    for letter in "abc":
        (tmp_path / f"{letter}.txt").write_text(letter * 24 * (30 + ord(letter)) + letter)
    return {str(tmp_path / f"{letter}.txt"): weight for letter, weight in zip("abc", (5, 2, 1), strict=True)}


def letters(batch):
    return "".join(chr(tokens[5]) for tokens in batch["tokens"])


def test_a_mix_has_its_weights_exactly_in_every_period(mixed):
    source = opened(Config(list(mixed), mix=mixed), None).train
    source.B = 64
    drawn = "".join(letters(source.batch(step)) for step in range(32))
    for period in (drawn[:1024], drawn[1024:]):
        assert [period.count(letter) for letter in "abc"] == [640, 256, 128]
    assert drawn[:1024] != drawn[1024:] and max(map(len, drawn.split("a"))) < 24
    other = opened(Config(list(mixed), mix=mixed), None, seed=1).train
    other.B = 64
    assert letters(other.batch(0)) != drawn[:64]


BAD_WEIGHTS = {
    "another name": ({"a.txt": 1.0}, '"a.txt" is not a name of .data. train'),
    "one without": (None, '"[^"]*c.txt" has no weight'),
    "too little": (1e-5, '"[^"]*c.txt" has less than one of 1,024 rows by its weight 1e-05'),
}


@pytest.mark.parametrize("change, says", BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_of_a_mix_are_those_of_its_names(mixed, change, says):
    last = list(mixed)[-1]
    weights = change if isinstance(change, dict) else {k: v if k != last else change for k, v in mixed.items()}
    with pytest.raises((UsageError, DataError), match=says):
        opened(Config(list(mixed), mix={k: v for k, v in weights.items() if v}), None)


def kinds(texts, chats, folder, mixed, tmp_path):
    """Every kind of source, small."""
    ids = saved(tmp_path, "t.npy", np.arange(ROWS * T).reshape(ROWS, T))
    tokenizer = read_folder(folder)
    yield opened(Config(texts, texts, layout="packed"))
    yield opened(Config(texts, texts))
    yield opened(Config([texts, chats], chats, messages="messages", layout="rows"), tokenizer=tokenizer)
    yield opened(Config({"tokens": ids, "targets": ids}, {"tokens": ids, "targets": ids}), feeds("tokens", "targets"))
    yield opened(Config(list(mixed), list(mixed)[0], mix=mixed), None)
    weighted = Config([texts, chats], [texts], messages="messages", layout="packed", mix={texts: 1, chats: 3})
    yield opened(weighted, tokenizer=tokenizer)


def test_ranks_and_micro_steps_partition_one_global_batch_of_every_kind(texts, chats, folder, mixed, tmp_path):
    for data in kinds(texts, chats, folder, mixed, tmp_path):
        source = data.train
        source.B = 4
        whole = {step: source.batch(step) for step in (0, 3, 9, 40)}
        for rows, micro_steps, ranks in ((2, 2, 1), (1, 1, 4), (1, 2, 2)):
            source.B = rows
            for step, want in whole.items():
                parts = [source.batch(step, m, micro_steps, r, ranks) for m in range(micro_steps) for r in range(ranks)]
                for key, values in want.items():
                    assert np.array_equal(np.concatenate([part[key] for part in parts]), values)
        assert all(np.array_equal(v, source.batch(9 * 4, first=0)[k][:1]) for k, v in source.batch(36).items())
        ones = [list(data.val.val_batches(10**6, 1, rank=rank, ranks=3)) for rank in range(3)]
        assert len({len(batches) for batches in ones}) == 1
        targets = np.concatenate([b["targets"] for together in zip(*ones, strict=True) for b in together])
        alone = np.concatenate([b["targets"] for b in data.val.val_batches(10**6, 2)])
        least = min(len(alone), len(targets))
        assert np.array_equal(targets[:least], alone[:least])
        assert (targets[least:] == -1).all() and (alone[least:] == -1).all()
