"""The page of `core view`: one file that runs its own script alone, draws every view, and takes any text as text."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import view_pages

from core.cli import run
from core.errors import BuildError, UsageError
from core.lens import Lens, LensMark
from core.registry import Registry
from core.view.looking import View, lenses_of, look
from core.view.page import SMALL, block, escaped, hash_of, page_of
from core.view.subject import Subject

HOSTILE = '</script><script>page.problems.push("ran")</script><img src=x onerror=alert(1)>\u2028"&amp;'


class EveryMark(Lens):
    """A plugin's lens, with names and texts that are set to be misread."""

    name, title, question, origin = "every_mark", HOSTILE, "Is all of it text?", "a test"

    def collect(self, subject: Any) -> dict[str, Any]:
        return {"name": HOSTILE, "numbers": [[0.0, -1.5], [None, 2.0]]}

    def lines(self, data: Mapping[str, Any]) -> list[str]:
        return [data["name"]]

    def marks(self, data: Mapping[str, Any]) -> list[LensMark]:
        return [
            LensMark.table(HOSTILE, [HOSTILE, "n"], [[HOSTILE, i] for i in range(300)]),
            LensMark.matrix(HOSTILE, data["numbers"], [HOSTILE, "b"]),
            LensMark.lines(HOSTILE, [1, 2, 3], {HOSTILE: [1.0, None, 3.0]}),
            LensMark.bars(HOSTILE, {HOSTILE: 2.5, "b": -1.0}, "ms"),
            LensMark.text(HOSTILE, [HOSTILE] * 3),
            LensMark.colours(HOSTILE, {"h.0.fc": 1.0, "h.1.fc": -2.0, "wte": 0.5}),
        ]


class Broken(EveryMark):
    name, title = "broken", "Broken"

    def collect(self, subject: Any) -> dict[str, Any]:
        raise SystemExit(3)


class Absent(EveryMark):
    name, title = "absent", "Absent"

    def collect(self, subject: Any) -> None:
        return None


def subject_with(*lenses: Lens) -> Subject:
    return Subject((), Registry(lenses={lens.name: lens for lens in lenses}))


def test_a_page_is_made_of_a_run_and_the_run_is_unchanged(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in Path("runs").rglob("*")}
    assert run(["view", "small", "--no-open", "--lens", "about", "--out", "page.html"]) == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in Path("runs").rglob("*")} == before
    text = Path("page.html").read_text("utf-8")
    assert str(small) not in text
    with view_pages.opened(Path("page.html")) as page:
        assert "gpt2_124m" in page.inner_text("#panel")
        assert page.inner_text("footer code") == "core view small --lens about"


def test_the_json_and_the_lines_are_the_pages_dictionary(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small)
    assert run(["view", "small", "--json", "--lens", "about"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["about"]["runs"][0]["step"] == "4 of 4"
    assert run(["view", "small", "--lens", "about"]) == 0
    assert "4 of 4" in capsys.readouterr().out


def test_every_mark_is_drawn_and_hostile_text_stays_text(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(page_of(look(subject_with(EveryMark(), Broken(), Absent())), HOSTILE), "utf-8")
    with view_pages.opened(page, "every_mark") as opened:
        assert opened.evaluate("page.problems") == []
        assert opened.evaluate("document.images.length") == 0
        assert opened.locator("#panel h2").first.inner_text().startswith("</script>")
        assert opened.locator("#panel tbody tr").count() > 200
        opened.keyboard.press("j")
        assert "numbers" in opened.inner_text("#twin")
        opened.keyboard.press("Escape")
        opened.locator("#tab-broken").click()
        assert "a test raised SystemExit" in opened.inner_text("#panel")
        opened.keyboard.press("2")
        assert opened.locator("[role=tab]").nth(1).get_attribute("aria-selected") == "true"
        opened.locator("#tab-absent").click()
        assert "core view" in opened.inner_text("#panel pre")


def test_a_broken_lens_is_a_view_that_says_so_and_an_absent_one_names_its_command() -> None:
    views = {view.lens.name: view for view in look(subject_with(EveryMark(), Broken(), Absent()))}
    assert views["broken"].lines() == ["Broken: a test raised SystemExit: 3"]
    assert views["absent"].lines() == ["Absent: no data", "  hint: core view --lens absent"]
    assert views["absent"].as_json()["command"] == views["absent"].command
    assert views["every_mark"].as_json()["name"] == HOSTILE


def test_a_plugins_lens_may_not_take_the_name_of_the_cores() -> None:
    class Taken(EveryMark):
        name = "about"

    with pytest.raises(UsageError, match="has the name of one of the core's"):
        lenses_of(subject_with(Taken()))
    with pytest.raises(UsageError, match='no lens "abuot"; did you mean "about"'):
        lenses_of(subject_with(), "abuot")


def test_a_plugins_script_is_never_taken() -> None:
    class Scripted(EveryMark):
        name, scripts = "scripted", ("../../../etc/passwd",)

    views = [view for view in look(subject_with(Scripted())) if view.lens.name == "scripted"]
    assert '"drawn":false' in page_of(views, "page")
    assert views[0].marks, "its marks are drawn all the same"


def test_the_policy_names_the_pages_own_script_and_style_and_nothing_else() -> None:
    text = page_of([], "page")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy and policy[1].startswith("default-src 'none'; ")
    style, script = re.search(r"<style>(.*?)</style>", text, re.S), re.search(r"<script>(.*?)</script>", text, re.S)
    assert style and script
    assert f"script-src {hash_of(script[1])}" in policy[1] and f"style-src {hash_of(style[1])}" in policy[1]
    assert "unsafe" not in policy[1] and "http" not in policy[1] and "innerHTML" not in script[1]


def test_data_are_escaped_or_packed() -> None:
    assert json.loads(escaped(json.dumps({"a": HOSTILE}, ensure_ascii=False))) == {"a": HOSTILE}
    assert not set("<>&\u2028") & set(escaped(HOSTILE))
    assert block("x", {"a": [float("nan"), -float("inf"), 1.5]}, plain=True).endswith(
        '{"a":["nan","-inf",1.5]}</script>'
    )
    large = {"a": ["</script>"] * SMALL}
    packed = re.fullmatch(r'<script type="application/gzip" id="x">([\w+/=]*)</script>', block("x", large, plain=False))
    assert packed and json.loads(gzip.decompress(base64.b64decode(packed[1]))) == large
    assert "application/json" in block("x", large, plain=True)


def test_marks_of_sizes_that_do_not_fit_are_refused() -> None:
    for made in (
        lambda: LensMark.table("t", ["a"], [[1, 2]]),
        lambda: LensMark.matrix("t", [[1.0], [1.0, 2.0]]),
        lambda: LensMark.matrix("t", [[1.0]], ["a", "b"]),
        lambda: LensMark.lines("t", [1, 2], {"a": [1.0]}),
    ):
        with pytest.raises(BuildError, match='"t"'):
            made()


def test_a_view_alone_needs_no_page() -> None:
    assert View(EveryMark(), "core view", {"name": "x"}).lines() == ["x"]


DOCS = Path(__file__).parents[2] / "docs"


def test_a_plugins_lens_is_listed_and_drawn(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small)
    (plugin,) = re.findall(
        r"^```python\n(# weights\.py\n.*?)^```", (DOCS / "plugins.md").read_text("utf-8"), re.M | re.S
    )
    Path("weights.py").write_text(plugin)
    words = ["small", "--plugin", "./weights.py", "--lens", "weights"]
    assert run(["plugins", "--plugin", "./weights.py", "--json", "weights"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["brings"] == {"lenses": ["weights"]}
    assert run(["plugins", "--plugin", "./weights.py"]) == 0
    assert re.search(r"^weights .* 1 lens$", capsys.readouterr().out, re.M)
    assert run(["view", *words]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert {"wte", "h.0.fc", "ln_f"} <= printed.keys() and float(printed["ln_f"]) == pytest.approx(1, abs=0.1)
    assert run(["view", *words, "--out", "weights.html", "--no-open"]) == 0
    with view_pages.opened(Path("weights.html")) as page:
        assert page.locator("#panel canvas").count() and "wte" in page.inner_text("#panel .bars")


@pytest.mark.parametrize(("screen", "opened"), [("", []), (":0", ["page.html"])])
def test_the_page_is_opened_where_there_is_a_screen(
    screen: str, opened: list[str], small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small)
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    calls: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda place: calls.append(place) or True)
    assert run(["view", "small", "--lens", "about", "--out", "page.html"]) == 0
    assert [Path(place).name for place in calls] == opened
    assert ("no browser was opened" in capsys.readouterr().err) is not bool(opened)


def test_a_page_goes_to_a_file_and_json_to_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["view", "--out", "-"]) == 2
    assert "--out -: expected a file's name" in capsys.readouterr().err
    assert run(["view", "--json", "--out", "page.html"]) == 2
    assert "--json prints the data, and --out page.html is for the page" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_computed(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small)
    assert run(["view", "small", "--out", "absent/page.html", "--no-open"]) == 2
    said = capsys.readouterr().err
    assert "absent is not a folder" in said and "step 4:" not in said
