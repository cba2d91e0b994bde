"""The tour of a page: sentences by keys alone, each with a state of a view that the page has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import view_pages

from core.cli import run


def walked(page: Any) -> list[tuple[str, str]]:
    """(view, sentence) of a tour from its start, by Enter alone; each sentence is spoken, and Done leaves."""
    stops = []
    page.focus("#tour-start")
    for _ in range(9):
        page.keyboard.press("Enter")
        if not page.is_visible("#tour"):
            break
        start = f"{len(stops) + 1} of "
        page.wait_for_function("(s) => document.getElementById('tour-text').textContent.startsWith(s)", arg=start)
        number, _, sentence = page.inner_text("#tour-text").partition(". ")
        assert number == f"{len(stops) + 1} of {page.evaluate('tour.sentences.length')}"
        assert page.inner_text("#say") == sentence
        stops.append((page.evaluate("page.name"), sentence))
        if "Point at" in sentence:
            assert "made of" in page.inner_text(".read.made")
            assert page.evaluate("VIEWS.step.lit('x')") > 0
        if "Backward" in sentence:
            assert page.inner_text(".detail [aria-pressed=true]") == "backward"
    return stops


def test_five_sentences_walk_a_page_by_enter_alone(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small)
    assert run(["view", "small", "--kernel", "gelu.naive", "--no-open", "--out", "tour.html"]) == 0
    with view_pages.opened(Path("tour.html")) as page:
        stops = walked(page)
        assert [name for name, _ in stops] == ["step", "step", "step", "text", "kernel"]
        assert all(len(sentence) < 140 for _, sentence in stops)
        assert page.evaluate("document.activeElement.id") == "tour-start"
        page.keyboard.press("Enter")
        page.wait_for_selector("#tour")
        assert view_pages.faults(page) == []
        page.keyboard.press("3")
        page.keyboard.press("Escape")
        assert not page.is_visible("#tour") and page.evaluate("document.activeElement.id") == "tour-start"
        assert page.evaluate("page.name") == page.evaluate("page.about.views[2].name"), "the view stays"


def test_a_page_has_the_sentences_of_its_own_views_alone(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small)
    for lens, views in (("memory", ["memory"]), ("about", [])):
        assert run(["view", "small", "--lens", lens, "--no-open", "--out", "tour.html"]) == 0
        with view_pages.opened(Path("tour.html")) as page:
            assert page.locator("#tour-start").count() == bool(views)
            assert [name for name, _ in walked(page)] == views if views else True
