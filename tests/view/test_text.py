"""The Text lens: its numbers are the model's own, at each checkpoint, and its text is text."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import view_pages

import core
from core.cli import run
from core.errors import UsageError
from core.tokenizers.byte_pairs import bytes_tokenizer
from core.view.lenses.texts import LARGEST, TextLens, experts, kept_maps, looks, row_data, text_data
from core.view.looking import View
from core.view.page import page_of
from core.view.run_record import RunRecord
from core.view.sampled_text import SCALE, TextAtStep, TextSample, spread
from core.view.subject import Subject, ViewOptions

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028&quot;\n"


def lens_data(folder: Path, **options: Any) -> dict[str, Any]:
    data = TextLens().collect(Subject([RunRecord(folder / "runs/small")], None, ViewOptions(**options)))
    assert data is not None
    return data


@pytest.fixture(scope="module")
def held_out(small: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(small)
        return lens_data(small)


def test_losses_ranks_and_likeliest_tokens_are_the_models_at_each_checkpoint(
    small: Path, held_out: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small)
    assert [one["step"] for one in held_out["steps"]] == [2, 4]
    for one in held_out["steps"]:
        model = core.load(Path(f"runs/small/checkpoints/step_{one['step']:08d}"))
        assert model.tokenizer is not None
        ids = [model.tokenizer.eot, *model.tokenizer.encode((small / "val.txt").read_text())][: held_out["count"]]
        assert "".join(held_out["tokens"][1:]) == model.tokenizer.decode(ids[1:])
        np.testing.assert_allclose(one["losses"], model.losses(ids[:-1], ids[1:])[0], atol=1e-4)
        logits = model.logits(ids[:-1])[0]
        p = np.exp(logits.astype(float) - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        best = np.sort(p, -1)[:, ::-1][:, :5]
        np.testing.assert_allclose([[share for _, share in row] for row in one["likeliest"]], best, atol=1e-4)
        assert one["ranks"] == [1 + int((row > row[i]).sum()) for row, i in zip(logits, ids[1:], strict=True)]
        for map_, (node, held) in zip(one["maps"], model.maps(ids[:-1]).items(), strict=True):
            assert map_["node"] == node and map_["name"] == "weights"
            weights = np.zeros(held["weights"][0].shape)
            for h, head in enumerate(map_["heads"]):
                for i, row in enumerate(head):
                    weights[h, i, : len(row)] = row
            np.testing.assert_allclose(weights / SCALE, held["weights"][0], atol=0.51 / SCALE)


def test_a_file_is_read_as_it_is_and_cut_to_the_tokens_that_are_shown(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small)
    text = tmp_path / "mine.txt"
    text.write_text("a fox é")
    data = lens_data(small, text=text)
    assert data["tokens"] == ["a", " ", "f", "o", "x", " ", "\\xc3", "\\xa9"] and data["name"] == "mine.txt"
    assert data["notes"] == [] and str(tmp_path) not in json.dumps(data)
    text.write_text("a")
    with pytest.raises(UsageError, match="1 tokens; expected two at least"):
        lens_data(small, text=text)


def test_texts_are_left_out_where_they_are_not_wanted(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small)
    data = lens_data(small, no_text=True)
    assert data["tokens"] == [] and {text for one in data["steps"] for row in one["likeliest"] for text, _ in row} == {
        ""
    }
    assert data["steps"][0]["losses"] and "lazy" not in "\n".join(TextLens().lines(data))


def test_the_terminal_has_the_dictionarys_numbers(
    small: Path, held_out: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small)
    assert run(["view", "small", "--lens", "text"]) == 0
    lines = capsys.readouterr().out.splitlines()
    last = held_out["steps"][-1]
    row = next(line.split() for line in lines if line.startswith(" 1  "))
    assert row[2:5] == [*(f"{one['losses'][0]:.2f}" for one in held_out["steps"]), str(last["ranks"][0])]
    assert any(line.startswith("h.0.attn") and "%" in line for line in lines)


def step_of(number: int, heads: int, nodes: int, n: int) -> TextAtStep:
    maps = {(f"h.{i}.attn", "weights"): np.full((heads, n, n), 7, np.uint16) for i in range(nodes)}
    return TextAtStep(number, [0.0] * n, [1] * n, [[]] * n, maps)


def test_what_is_too_much_is_left_out_step_by_step_and_said() -> None:
    at = [step_of(1, 2, 4, 100), step_of(2, 2, 4, 100)]
    dense, few = 2 * 4 * 100 * 50, 2 * 4 * 100 * 2 * LARGEST
    assert kept_maps(at, 2 * dense) == (dict.fromkeys((1, 2), list(at[0].maps)), False, [])
    shown, sparse, said = kept_maps(at, 2 * few)
    assert sparse and len(shown[1]) == 4 and "all but the 16 largest" in said[0]
    shown, sparse, said = kept_maps(at, dense)
    assert not sparse and (len(shown[1]), len(shown[2])) == (0, 4) and "before step 2" in said[0]
    shown, sparse, said = kept_maps(at, few // 2)
    assert sparse and [node for node, _ in shown[2]] == ["h.0.attn", "h.3.attn"]
    assert said == [
        "left out: of each row of a map, all but the 16 largest weights; maps of checkpoints before step 2; "
        "maps of 2 of 4 nodes. --more shows more"
    ]


def test_rows_of_maps_are_cut_behind_their_last_weight_or_to_their_largest() -> None:
    row = np.array([0, 5, 0, 9, 0, 0], np.uint16)
    assert row_data(row, False) == [0, 5, 0, 9] and row_data(row, True) == [[1, 3], [5, 9]]
    many = np.arange(100, dtype=np.uint16)
    assert row_data(many, True)[0] == list(range(100 - LARGEST, 100))
    assert row_data(np.zeros(3, np.uint16), False) == []


def test_a_heads_line_says_where_it_looks() -> None:
    assert looks([{0: 1.0}, {0: 0.25, 1: 0.75}, {1: 1.0}]) == ["58.3%", "41.7%", "41.7%", "0.4"]
    assert experts([{0: 0.5, 2: 0.5}, {2: 1.0}], 3) == ["2: 75.0%, 0: 25.0%, 1: 0.0% of 3"]


def test_checkpoints_are_spread_from_the_first_to_the_last() -> None:
    assert spread(list(range(10)), 4) == [0, 3, 6, 9] and spread([1, 2], 4) == [1, 2] and spread([1, 2], 1) == [2]


def test_a_run_without_a_checkpoint_or_a_text_has_no_view_but_a_command(tmp_path: Path) -> None:
    record: Any = SimpleNamespace(checkpoints=[], config_name="a.toml", name="a", config=SimpleNamespace())
    subject = Subject([record])
    assert TextLens().collect(subject) is None and TextLens().collect(Subject([])) is None
    assert TextLens().command(subject) == "core train a.toml --set train.checkpoint_every=100"
    record.checkpoints, record.config.data = [3], SimpleNamespace(val=None)
    assert TextLens().command(subject) == "core view a --lens text --text FILE"


def test_a_page_of_a_hostile_text_moves_by_keys_and_stays_text(tmp_path: Path) -> None:
    tokenizer = bytes_tokenizer()
    ids = np.append(tokenizer.encode(HOSTILE), tokenizer.eot)
    n = len(ids) - 1
    weights = np.tril(np.full((2, n, n), SCALE // n)).astype(np.uint16)
    maps = {("h.0.attn", "weights"): weights, ("h.0.route", "shares"): np.full((n, 3), 333, np.uint16)}
    at = [
        TextAtStep(step, [float(i % 5) for i in range(n)], [1] * n, [[(int(i), 0.5)] for i in ids[1:]], maps)
        for step in (1, 2)
    ]
    data = text_data(at, TextSample(HOSTILE, ids, True), tokenizer, False, 10**6)
    path = tmp_path / "page.html"
    path.write_text(page_of([View(TextLens(), "core view", data, own=True)], HOSTILE), "utf-8")
    with view_pages.opened(path, "text") as page:
        assert page.evaluate("document.images.length") == 0
        assert page.locator(".token").count() == n + 1 and page.locator(".head").count() == 3
        assert "</script>" in page.inner_text(".tokens")
        assert "rank 1" in page.inner_text("#panel") and "loss 0.00" in page.inner_text("#panel")
        for key in ("ArrowRight", "ArrowUp"):
            page.keyboard.press(key)
        page.wait_for_selector("th button[aria-pressed='true'] >> text='1'")
        assert "loss 1.00" in page.inner_text("#panel") and page.evaluate("page.get('at')") == "1"
        page.locator(".head").nth(2).click()
        assert "expert 0" in page.inner_text(".strongest")


def test_checkpoints_that_are_not_read_are_said(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small)
    monkeypatch.setattr("core.view.lenses.texts.READ", 1)
    data = lens_data(small)
    assert [one["step"] for one in data["steps"]] == [4]
    assert data["notes"][0] == "1 of the run's 2 checkpoints are shown"


def test_a_checkpoint_that_the_run_removes_meanwhile_is_passed_over(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small)
    monkeypatch.setattr(RunRecord, "checkpoints", [4, 3, 1])
    assert [one["step"] for one in lens_data(small)["steps"]] == [4]


def test_a_run_in_the_simulator_is_read_on_the_cpu_and_says_so(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small)
    monkeypatch.setattr(RunRecord, "place", "sim")
    data = lens_data(small)
    assert data["notes"][0] == "computed on cpu, and the run on sim: numbers are near, not equal"
