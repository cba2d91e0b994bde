"""Arrays as inputs of a batch: aligned by row, by name, and the errors of an array that does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from batch_layouts import ROWS, B, Config, T, V, feeds, opened, saved

from core import DataReader
from core.data import HeldRows, Inputs
from core.data.readers import own_readers
from core.errors import DataError


def test_arrays_feed_any_input_by_name_and_stay_aligned(tmp_path):
    from core.checkpoint.safetensors_file import write_tensors

    image = np.random.default_rng(0).standard_normal((ROWS, 3, 4)).astype(np.float32)
    ids = np.arange(ROWS)[:, None] * 10 + np.arange(T)
    write_tensors(tmp_path / "x.safetensors", {"tokens": ids.astype(np.int32), "image": image}, {})
    inputs = feeds("tokens", "targets", image=(B, 3, 4))
    tables = {
        "a table": {"image": saved(tmp_path, "i.npy", image), "tokens": saved(tmp_path, "t.npy", ids)},
        "one file": {"image": str(tmp_path / "x.safetensors"), "tokens": str(tmp_path / "x.safetensors")},
        "parts": {
            "image": [saved(tmp_path, "a.npy", image[:2]), saved(tmp_path, "b.npy", image[2:])],
            "tokens": str(tmp_path / "x.safetensors"),
        },
    }
    for train in tables.values():
        source = opened(Config({**train, "targets": saved(tmp_path, "y.npy", ids - 20)}), inputs).train
        drawn = [source.batch(step) for step in range(3)]
        numbers = np.concatenate([b["tokens"][:, 0] for b in drawn]) // 10
        assert sorted(numbers.tolist()) == list(range(ROWS))
        for n, b in zip(np.split(numbers, 3), drawn, strict=True):
            assert b["image"].dtype == np.float32 and np.array_equal(b["image"], image[n])
            assert np.array_equal(b["targets"], ids[n] - 20) and b["tokens"].dtype == np.int32


def test_text_with_an_array_a_row(texts, tmp_path):
    labels = saved(tmp_path, "l.npy", np.arange(12, dtype=np.float64)[:, None])
    inputs = feeds("tokens", "targets", label=(B, 1))
    source = opened(Config({"tokens": texts, "label": labels}, layout="rows"), inputs).train
    for batch in map(source.batch, range(6)):
        for tokens, label in zip(batch["tokens"], batch["label"], strict=True):
            assert bytes(tokens[1:].tolist()).split()[0].strip(b"\0") == str(int(label[0])).encode()


BAD_ARRAYS = {
    "shape": (np.zeros((ROWS, 3, 5)), r"expected \(rows, 3, 4\) for input image, got \(6, 3, 5\)"),
    "dtype": (np.zeros((ROWS, 3, 4), complex), "input image takes numbers, got complex128"),
    "nan": (np.where(np.arange(72).reshape(6, 3, 4) == 31, np.nan, 0.0), r"i.npy\[2, 1, 3\] is nan; input image takes"),
    "rows": (np.zeros((ROWS - 1, 3, 4)), r"aligned by row, and have 6 \(tokens\), 5 \(image\), 6 \(targets\)"),
    "objects": (np.array([None] * 3), "not a .npy file of numbers: .*Python objects"),
    "order": (np.asfortranarray(np.random.default_rng(0).random((ROWS, 3, 4))), "Fortran order"),
    "none": (np.zeros((0, 3, 4)), "the array has no rows"),
}


@pytest.mark.parametrize("image, says", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_an_array_that_does_not_fit_its_input_is_refused(tmp_path, image, says):
    ids = saved(tmp_path, "t.npy", np.zeros((ROWS, T), int))
    train = {"image": saved(tmp_path, "i.npy", image), "tokens": ids, "targets": ids}
    with pytest.raises(DataError, match=says):
        opened(Config(train), feeds("tokens", "targets", image=(B, 3, 4)))


BAD_IDS = {
    "an id of no vocabulary": ("tokens", V, r"t.npy\[3, 7\] is 600; input tokens takes 0 to 599"),
    "a negative id": ("tokens", -1, r"t.npy\[3, 7\] is -1; input tokens takes 0 to 599"),
    "a target": ("targets", V, r"t.npy\[3, 7\] is 600; input targets takes -2,147,483,648 to 599"),
}


@pytest.mark.parametrize("key, value, says", BAD_IDS.values(), ids=BAD_IDS)
def test_an_id_out_of_the_vocabulary_is_refused_with_its_place(tmp_path, key, value, says):
    ids = np.zeros((ROWS, T), int)
    good = saved(tmp_path, "good.npy", ids)
    ids[3, 7] = value
    with pytest.raises(DataError, match=says):
        train = {"tokens": good, "targets": good, key: saved(tmp_path, "t.npy", ids)}
        opened(Config(train), feeds("tokens", "targets"))


BAD_TABLES = {
    "an input that there is not": ({"tokens": "t", "imag": "i"}, 'no input "imag"; did you mean "image"'),
    "an input without data": ({"tokens": "t"}, "reads the input image; this data gives tokens, targets"),
    "a list of unnamed arrays": (["i"], "i.npy: the array has no input"),
    "text for an input of numbers": ({"tokens": "t", "image": "t"}, "image: expected arrays"),
    "text beside arrays": (["t", "i"], "is text and i.npy an array"),
}


@pytest.mark.parametrize("train, says", BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_table_that_feeds_not_exactly_the_inputs_is_refused(texts, tmp_path, train, says):
    paths = {"t": texts, "i": saved(tmp_path, "i.npy", np.zeros((12, 3)))}
    names = {k: paths[v] for k, v in train.items()} if isinstance(train, dict) else [paths[n] for n in train]
    with pytest.raises(DataError, match=says):
        opened(Config(names, layout="rows"), feeds("tokens", "targets", image=(B, 3)))


def test_an_array_that_changes_during_the_run_is_seen_in_the_next_epoch(tmp_path):
    ids = saved(tmp_path, "t.npy", np.zeros((ROWS, T), int))
    source = opened(Config({"tokens": ids, "targets": ids}), feeds("tokens", "targets")).train
    source.batch(0)
    saved(tmp_path, "t.npy", np.ones((ROWS, T), int))
    with pytest.raises(DataError, match="changed during the run"):
        source.batch(3)


class Sensor(DataReader):
    """A plugin's reader: rows of an input that no file holds."""

    name, files = "sensor", False

    def read(self, source, part, reading, notes):
        rows = np.arange(int(source) * 3, dtype=np.float64).reshape(-1, 3)
        return Inputs(arrays={"image": [HeldRows(f"sensor {part}", rows)]})


def test_a_plugins_reader_feeds_an_input_of_floats(tmp_path):
    ids = saved(tmp_path, "t.npy", np.arange(ROWS)[:, None] + np.zeros(T, int))
    readers = {**own_readers(), "sensor": Sensor()}
    inputs = feeds("tokens", "targets", image=(B, 3))
    config = Config({"tokens": ids, "targets": ids, "image": f"sensor:{ROWS}"})
    batch = opened(config, inputs, readers=readers).train.batch(0)
    assert np.array_equal(batch["image"], batch["tokens"][:, :1] * 3 + np.arange(3.0))
    with pytest.raises(DataError, match=r"aligned by row, and have 6 \(tokens\), 6 \(targets\), 4 \(image\)"):
        opened(Config({**config.train, "image": "sensor:4"}), inputs, readers=readers)
