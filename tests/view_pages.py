"""A page of `core view` in a real browser: playwright drives Debian's chromium, or another that it has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def browser_path() -> str:
    """The browser of CORELM_BROWSER, else the first one on the path; "" for none."""
    named = os.environ.get("CORELM_BROWSER", "")
    return named or next((path for name in BROWSERS if (path := shutil.which(name))), "")


_STARTED: list[Any] = []  # playwright and its browser, of this process


def browser() -> Any:
    """The browser, started where it was not yet: `close` ends it. Skips, with a reason, without playwright or one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is opened")
    program = browser_path()
    if not program:
        pytest.skip("no browser: apt install chromium, or name one in CORELM_BROWSER")
    if not _STARTED:
        _STARTED.append(playwright.sync_playwright().start())
        _STARTED.append(_STARTED[0].chromium.launch(executable_path=program, args=["--no-sandbox"]))
    return _STARTED[1]


def close() -> None:
    """End the browser, where there is one."""
    if _STARTED:
        started, *browsers = _STARTED
        _STARTED.clear()
        for one in browsers:
            one.close()
        started.stop()


@pytest.fixture(scope="module", autouse=True)
def one_browser() -> Iterator[None]:
    """One browser for the pages of a file: its start takes longer than most of them."""
    yield
    close()


@contextmanager
def opened(path: Path, place: str = "", dark: bool = False) -> Iterator[Any]:
    """Open the page at `path`, at `#place`, without what other pages stored. AssertionError for any request, error or
    problem by the end of the block. Skips, with a reason, without playwright or a browser."""
    size = {"width": 1280, "height": 800}
    context = browser().new_context(viewport=size, color_scheme="dark" if dark else "light")
    try:
        page = context.new_page()
        errors: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.resolve().as_uri() + (f"#{place}" if place else ""))
        page.wait_for_selector("html[data-ready]")
        yield page
        errors += page.evaluate("page.problems")
    finally:
        context.close()
    assert not errors
    assert len(requests) == 1, requests


def faults(page: Any) -> list[str]:
    """Violations of WCAG 2, levels A and AA, that axe finds in an open page. Skips, with a reason, without axe."""
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed: no page is examined")
    page.evaluate((Path(str(axe.__file__)).parent / "axe.min.js").read_text("utf-8"))
    report = page.evaluate("axe.run(document, { runOnly: ['wcag2a', 'wcag2aa'] })")
    return [f"{fault['id']}: {node['html'][:200]}" for fault in report["violations"] for node in fault["nodes"]]
