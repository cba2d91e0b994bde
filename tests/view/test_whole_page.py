"""The whole page of a run whose corpus, name and plugin are hostile: every view, by keys alone, in both themes."""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_run
import view_pages

from core.cli import run

MARK = "zyzzyva"  # a word of the corpus alone
HOSTILE = f"</script><img src=x onerror=page.problems.push(1)>\u2028\u2029\x1b[31m\x07\"'&amp;${{7*7}} {MARK} "
NAME = "<img src=x onerror=page.problems.push(2)>'&"
LENS = f'''
"""A lens with names and texts that are set to be misread."""

from core import Lens, LensMark

BAD = {HOSTILE!r}


class Hostile(Lens):
    name, title, question = "hostile", BAD[:40], BAD

    def collect(self, subject):
        return {{BAD: [BAD]}}

    def lines(self, data):
        return [BAD]

    def marks(self, data):
        return [
            LensMark.table(BAD, [BAD, "n"], [[BAD, 1]]), LensMark.matrix(BAD, [[1.0, -1.0]], [BAD], [BAD, BAD]),
            LensMark.lines(BAD, [1, 2], {{BAD: [1.0, 2.0]}}, BAD), LensMark.bars(BAD, {{BAD: 1.0}}, BAD),
            LensMark.text(BAD, [BAD]), LensMark.colours(BAD, {{BAD: 1.0, "h.0." + BAD: 2.0}}),
        ]


def core_lenses():
    return [Hostile]
'''
EVERYTHING = ["view", f"runs/{NAME}", "--plugin", "hostile.py", "--kernel", "gelu.naive", "--yes"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with such a run of four steps and its page with all views; it is the current one."""
    folder = tmp_path_factory.mktemp("hostile")
    train = {"steps": 4, "checkpoint_every": 2, "keep_last": 3, "health_every": 1}
    small_run.write(folder, small_run.config(train=train))
    for name, times in (("text.txt", 20), ("val.txt", 4)):
        (folder / name).write_text(HOSTILE * times)
    (folder / "hostile.py").write_text(LENS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["train", "small.toml", "--device", "cpu", "--out", f"runs/{NAME}"]) == 0
        assert run([*EVERYTHING, "--no-open", "--out", "page.html"]) == 0
        yield folder


def data_of(page: Path) -> dict[str, Any]:
    """Id of each data block of the page -> its JSON, decompressed."""
    held = {}
    block = r'<script type="application/(\w+)" id="([\w-]+)">(.*?)</script>'
    for kind, name, text in re.findall(block, page.read_text("utf-8")):
        held[name] = json.loads(text if kind == "json" else gzip.decompress(base64.b64decode(text)))
    return held


def views_of(page: Any) -> list[str]:
    names: list[str] = page.evaluate("page.about.views.map((view) => view.name)")
    return names


def show(page: Any, number: int, name: str) -> None:
    """The view by its key; from the tenth on by the arrows of the tabs."""
    page.keyboard.press(str((min(number, 9) + 1) % 10))
    for before in views_of(page)[9:number]:
        page.wait_for_selector(f".view-{before}", state="attached")
        page.focus(f"#tab-{before}")
        page.keyboard.press("ArrowRight")
    page.wait_for_selector(f".view-{name}", state="attached")


def test_every_view_opens_by_its_key_takes_all_others_and_runs_nothing(hostile: Path) -> None:
    with view_pages.opened(hostile / "page.html") as page:
        for number, name in enumerate(views_of(page)):
            show(page, number, name)
            assert page.get_attribute(f"#tab-{name}", "aria-selected") == "true"
            assert page.inner_text("#panel").strip() and "cannot be drawn" not in page.inner_text("#panel")
            for key in ("ArrowDown", "ArrowRight", "ArrowUp", "ArrowLeft", "b", "b", "f", "f", "Home", "End"):
                page.keyboard.press(key)
            wide, room = page.evaluate("[panel.scrollWidth, panel.clientWidth]")
            assert wide <= room, f"{name} scrolls sideways at 1280 x 800, by {wide - room} pixels"
            page.evaluate("document.querySelector('.run').textContent = 'a long title '.repeat(20)")
            assert page.evaluate("document.querySelector('header').getBoundingClientRect().right <= innerWidth")
            page.keyboard.press("j")
            assert page.locator("#twin pre").count() == 1
            page.keyboard.press("Escape")
            assert page.evaluate("document.querySelectorAll('img, iframe, object, embed, [onerror]').length") == 0, name
        assert MARK in page.inner_text("#panel") or MARK in page.content()


def test_the_list_of_keys_has_those_of_the_views_that_the_page_has(hostile: Path) -> None:
    with view_pages.opened(hostile / "page.html") as page:
        page.keyboard.press("?")
        text = page.inner_text("#keys")
        assert "in Memory: the peak" in text and "in Kernel: the other pane" in text


def test_tab_alone_reaches_everything_that_can_be_used(hostile: Path) -> None:
    reachable = """[...document.querySelectorAll('button, select, input, a[href], [tabindex="0"]')].filter((node) =>
        node.tabIndex >= 0 && !node.disabled && node.getClientRects().length && !node.closest('dialog')).length"""
    step = """(() => { const node = document.activeElement; window.seen = window.seen || new Set();
        if (node && node !== document.body) window.seen.add(node); return window.seen.size; })()"""
    with view_pages.opened(hostile / "page.html") as page:
        for number, name in enumerate(views_of(page)):
            page.evaluate("window.seen = new Set(), document.activeElement.blur()")  # a field takes digits itself
            show(page, number, name)
            count = page.evaluate(reachable)
            for _ in range(min(count + 3, 60)):
                page.keyboard.press("Tab")
                page.evaluate(step)
            assert page.evaluate("window.seen.size") >= min(count, 60), name


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_in_any_view(hostile: Path, dark: bool) -> None:
    with view_pages.opened(hostile / "page.html", dark=dark) as page:
        faults = {}
        for number, name in enumerate(views_of(page)):
            show(page, number, name)
            faults[name] = view_pages.faults(page)
        assert not {name: held for name, held in faults.items() if held}


def test_the_page_has_the_numbers_of_the_json_and_no_place_of_this_machine(
    hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = data_of(hostile / "page.html")
    capsys.readouterr()
    assert run([*EVERYTHING, "--json"]) == 0
    twin = json.loads(capsys.readouterr().out)
    assert {name.removeprefix("data-") for name in held} - {"about"} >= {"step", "text", "kernel", "hostile"}
    for name, data in held.items():
        if name != "about":
            printed = twin[name.removeprefix("data-")]
            same = data["data"].keys() == printed.keys() if name == "data-time" else data["data"] == printed
            assert same, name  # seconds are measured anew
    everything = json.dumps(held, ensure_ascii=False)
    for place in (str(hostile), str(Path.home()) + "/", str(Path.cwd()), socket.gethostname() + "."):
        assert place not in everything and place not in (hostile / "page.html").read_text()


def test_without_text_nothing_of_the_corpus_is_in_the_page(hostile: Path) -> None:
    assert MARK in json.dumps(data_of(hostile / "page.html"))
    assert run([*EVERYTHING[:2], "--kernel", "gelu.naive", "--yes", "--no-text", "--no-open", "--out", "no.html"]) == 0
    assert MARK not in json.dumps(data_of(hostile / "no.html")) and MARK not in (hostile / "no.html").read_text("utf-8")
