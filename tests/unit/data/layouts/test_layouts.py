"""Layouts, conversations, arrays and mixes: what a batch holds, its order, and the errors of what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from batch_layouts import ALL, CHATS, Config, T, documents_of, feeds, opened, rows_of

from core.data.packed_source import packed
from core.errors import DataError, UsageError
from core.tokenizers.folder import read_folder

# --- text ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_a_layout_of_whole_documents_has_each_once_and_cuts_none(texts, layout):
    source = opened(Config(texts, layout=layout)).train
    found = [d for row in rows_of(source) for d in documents_of(row)]
    eot = 256
    want = sorted(bytes(f"{n} " + "word " * (n % 4), "ascii").strip() for n in range(12))
    ids = [[*d["tokens"], d["targets"][-1]] for d in found]  # the last document of the data has no end of text
    assert sorted(bytes(i for i in own if i != eot) for own in ids) == want
    for d in found:
        assert d["tokens"][0] == eot and d["positions"].tolist() == list(range(len(d["tokens"])))
        assert d["targets"][:-1].tolist() == d["tokens"][1:].tolist() and d["targets"][-1] in (eot, ord("d"))
    assert (source.sequences == 12) == (layout == "rows")
    for row in rows_of(source):
        assert set(row["documents"][row["targets"] < 0]) <= {row["documents"].max()}


def test_a_stream_numbers_its_documents_and_restarts_their_positions(texts):
    plain, marked = (opened(Config(texts), inputs).train for inputs in (None, ALL))
    for step in range(5):
        batch = marked.batch(step)
        assert all(np.array_equal(values, batch[key]) for key, values in plain.batch(step).items())
        for tokens, documents, positions in zip(*(batch[k] for k in ("tokens", "documents", "positions")), strict=True):
            begins = np.flatnonzero((tokens == 256) | (np.arange(T) == 0))
            assert documents.tolist() == (np.searchsorted(begins, np.arange(T), "right") - 1).tolist()
            assert positions.tolist() == (np.arange(T) - begins[documents]).tolist()


def test_documents_are_packed_by_best_fit():
    order, ends = packed(np.array([3, 7, 5, 5, 10, 2, 8]), 10)
    rows = [order[a:b].tolist() for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    assert rows == [[4], [6, 5], [1, 0], [2, 3]]
    lengths = np.random.default_rng(0).integers(1, 33, 500)
    order, ends = packed(lengths, 64)
    assert sorted(order.tolist()) == list(range(500))
    sums = np.diff(np.cumsum(np.concatenate([[0], lengths[order]]))[np.concatenate([[0], ends])])
    assert sums.max() <= 64 and len(ends) <= 1.03 * lengths.sum() / 64 + 1


def test_packing_into_a_model_without_documents_is_refused(texts):
    with pytest.raises(UsageError, match='"packed" puts several documents into a row, and no input .* role documents'):
        opened(Config(texts, layout="packed"), feeds("tokens", "targets"))


def test_tokens_of_no_known_tokenizer_have_no_documents(tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(100).reshape(4, 25))
    with pytest.raises(DataError, match="reads the input documents, positions; this data gives tokens, targets"):
        ids = str(tmp_path / "ids.npy")
        opened(
            Config({"tokens": ids, "targets": ids}), feeds("tokens", "targets", "documents", "positions", T=25), T=25
        )


# --- Parquet -------------------------------------------------------------------------------------------------------


def test_parquet_without_its_library_is_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + bytes(20))
    with pytest.raises(UsageError, match="Parquet files need the library pyarrow") as error:
        opened(Config(str(tmp_path / "x.parquet")))
    assert "corelm[parquet]" in error.value.hint


def test_parquet_gives_texts_and_conversations(tmp_path, folder):
    arrow = pytest.importorskip("pyarrow")
    write = pytest.importorskip("pyarrow.parquet").write_table
    chat = [[{"role": role, "content": content} for role, content in c] for c in CHATS]
    write(arrow.table({"text": ["one", "two", "three"]}), tmp_path / "t.parquet")
    write(arrow.table({"messages": chat}), tmp_path / "c.parquet")
    rows = rows_of(opened(Config(str(tmp_path / "t.parquet"), layout="rows")).train)
    assert [bytes(row["tokens"][1:4].tolist()) for row in rows] == [b"one", b"two", b"thr"]
    source = opened(
        Config(str(tmp_path / "c.parquet"), messages="messages", layout="rows"), tokenizer=read_folder(folder), T=60
    ).train
    assert source.sequences == len(CHATS)
    with pytest.raises(DataError, match='no column "txt"; did you mean "text"'):
        opened(Config(str(tmp_path / "t.parquet"), field="txt"))
    write(arrow.table({"text": ["one", None]}), tmp_path / "n.parquet")
    with pytest.raises(DataError, match='n.parquet, row 1: expected a text in "text", got no value'):
        opened(Config(str(tmp_path / "n.parquet")))
    (tmp_path / "d.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match="d.parquet: damaged, or no Parquet file"):
        opened(Config(str(tmp_path / "d.parquet")))
