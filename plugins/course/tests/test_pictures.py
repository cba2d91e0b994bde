"""Pictures are true: drawn again they are the files, their measurements confirm their statements, and a page shows each
with its description as the alternative text."""

from __future__ import annotations

import re
from collections import Counter
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from core.plugins.course.pictures import PICTURES
from core.plugins.course.pictures import measured as remeasured
from core.plugins.course.pictures.source import measured

from core.cli import run

HERE = Path(__file__).parents[1]
FOLDER = HERE / "pages/pictures"
PICTURE = re.compile(r"!\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((pictures/\w+\.svg)\)")
MOST = 50_000  # bytes of a picture
SHOWN = [
    (page.stem, " ".join(text.split()), target)
    for page in sorted((HERE / "pages").glob("*.md"))
    for text, target in PICTURE.findall(page.read_text("utf-8"))
]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_drawn_again_is_the_file(name: str) -> None:
    drawn = PICTURES[name]()
    assert drawn == (FOLDER / f"{name}.svg").read_text("utf-8"), f"core learn pictures {name}"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_readable_in_light_and_dark_and_has_words_for_those_who_do_not_see_it(name: str) -> None:
    text = (FOLDER / f"{name}.svg").read_text("utf-8")
    tree = ElementTree.fromstring(text)
    kinds = [part.tag.rpartition("}")[2] for part in tree]
    assert kinds[:3] == ["title", "desc", "style"] and tree.get("role") == "img" and tree.get("width") == "700"
    assert "prefers-color-scheme:dark" in text and len(text.encode("utf-8")) < MOST
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    sizes = [float(part.get("font-size", 0)) for part in tree if part.tag.endswith("}text")]
    assert sizes and min(sizes) >= 9


def test_each_picture_is_on_one_page_with_its_description() -> None:
    assert Counter(target for _, _, target in SHOWN) == Counter(f"pictures/{name}.svg" for name in PICTURES)
    assert {f"{path.stem}" for path in FOLDER.iterdir()} == set(PICTURES)
    for _, alternative, target in SHOWN:
        described = re.search(r"<desc[^>]*>(.*?)</desc>", (HERE / "pages" / target).read_text("utf-8"), re.S)
        assert described is not None and unescape(described[1]) == alternative, f"the alternative text of {target}"


def test_the_measured_head_finds_the_letter_of_each_question() -> None:
    tokens, shares = (measured("attention")[key] for key in ("tokens", "shares"))
    half = len(tokens) // 2
    assert all(len(row) == i + 1 and abs(sum(row) - 100) < 1 for i, row in enumerate(shares)), "causal shares"
    for query, row in list(zip(tokens, shares, strict=True))[half:]:
        assert row[[token[0] for token in tokens[:half]].index(query[0])] > 90


def test_the_measured_curves_are_those_of_a_run_today() -> None:
    before = measured("curves")
    assert set(before) == set(remeasured.RUNS) and {len(rows) for rows in before.values()} == {30}
    for was, now in zip(before["a"], remeasured.curves("a")["a"], strict=True):
        assert now == pytest.approx(was, rel=0.02)


def test_the_table_of_ops_and_findings_is_that_of_today(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["learn", "table", "--course", "course"]) == 0
    assert capsys.readouterr().out == (HERE / "table.md").read_text("utf-8"), (
        "core learn table > plugins/course/table.md"
    )
