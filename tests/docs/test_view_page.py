"""docs/view.md: its pictures exist and are small, its questions are the lenses' own, its limits those of the code; and
docs/view/small.html, the page of a small run: links to it name views and nodes that it has, its scripts are today's.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import re
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest

from core.view import sampled_text
from core.view.lenses import core_lenses, crashes, health, step, texts
from core.view.page import hash_of, script_of, style_of
from core.view.private import ABSOLUTE

ROOT = Path(__file__).parents[2]
PAGE, FOLDER = ROOT / "docs/view.md", ROOT / "docs/view"
TEXT = PAGE.read_text("utf-8")
MOST = 150_000  # bytes of a picture
SMALL, MOST_SMALL = FOLDER / "small.html", 400_000  # bytes
REMAKE = "python benchmarks/view.py --small docs/view"


def test_the_page_shows_each_picture_that_its_command_makes() -> None:
    assert "`python benchmarks/view.py --pictures docs/view`" in TEXT
    spec = importlib.util.spec_from_file_location("benchmarks_view", ROOT / "benchmarks/view.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shown = re.findall(r"!\[[^\]]{20,}\]\(view/(\w+)\.png\)", TEXT)
    assert sorted(shown) == sorted(module.PICTURES) == sorted(path.stem for path in FOLDER.glob("*.png"))
    for name in shown:
        picture = (FOLDER / f"{name}.png").read_bytes()
        assert len(picture) < MOST and struct.unpack(">II", picture[16:24]) == (1280, 800), name


def test_the_table_of_views_has_each_lens_with_its_key_and_question() -> None:
    rows = re.findall(r"^\| (\d) \| (\w+) \| ([^|]*) \|", TEXT, re.M)
    lenses = core_lenses()
    assert rows == [(str(n % 10), lens.title, lens.question) for n, lens in enumerate(lenses, 1)]


def test_the_limits_of_a_page_are_those_of_the_lenses() -> None:
    for row in (
        f"| Step | small pictures of inner layers, from {step.FEW + 1} layers on | all layers in full |",
        f"| Text | {texts.STEPS} checkpoints of {sampled_text.TOKENS} tokens | "
        f"{texts.MORE_STEPS} checkpoints of {sampled_text.MORE_TOKENS} tokens |",
        f"| Health | {health.COLUMNS} steps | {health.MORE_COLUMNS} steps |",
        f"| Crash | the last {crashes.ROWS} tensors before the bad one | the last {crashes.MORE_ROWS:,} |",
    ):
        assert row in TEXT


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """Block of small.html -> its data: `about`, and `data-VIEW` of each view that has data."""
    blocks = re.findall(r'<script type="application/(\w+)" id="([\w-]+)">([^<]*)</script>', SMALL.read_text("utf-8"))
    return {
        name: json.loads(text if kind == "json" else gzip.decompress(base64.b64decode(text)))
        for kind, name, text in blocks
    }


def links() -> list[tuple[str, str]]:
    """(page, address) of each link of the docs to small.html; the address is behind its "#"."""
    pages = sorted((ROOT / "docs").glob("*.md"))
    pattern = r"\]\(view/small\.html(?:#([^)\s]*))?\)"
    return [(page.name, address) for page in pages for address in re.findall(pattern, page.read_text("utf-8"))]


def problem_of(address: str, small: dict[str, Any]) -> str:
    """The part of a page address (core/view/page/base.js) that small.html lacks, or nothing."""
    view, *parts = address.split("&")
    data = small.get(f"data-{view}", {}).get("data")
    if data is None:
        return f"no data for the view {view!r}"
    state = {key: unquote(value) for key, _, value in (part.partition("=") for part in parts)}
    nodes = [node["name"] for node in small["data-step"]["data"]["nodes"]]
    maps = small["data-text"]["data"]["steps"][-1]["maps"]
    heads = [f"{one['node']} {head}" for one in maps for head in range(len(one["heads"]))]
    values = {"node": nodes, "head": heads, "way": ["forward", "backward"]}
    return ", ".join(f"no {key} {value!r}" for key, value in state.items() if value not in values.get(key, []))


def test_links_of_the_docs_name_views_and_nodes_of_the_small_page(small: dict[str, Any]) -> None:
    addresses = links()
    assert {"step.md", "kernels.md", "view.md"} <= {page for page, _ in addresses}
    assert {"step", "text", "memory", "kernel"} <= {re.split("&", address)[0] for _, address in addresses}
    problems = [(page, address, problem_of(address, small)) for page, address in addresses if address]
    assert not [one for one in problems if one[2]]
    assert small["data-kernel"]["data"]["kernels"][0]["name"] == "gelu.vector"
    for bad in ("crash", "nowhere", "step&node=h.7.fc", "text&head=h.1.attn%209", "memory&colour=red"):
        assert problem_of(bad, small), bad


def without(value: Any, keys: set[str]) -> Any:
    """Plain data without the dictionaries' entries of these keys."""
    if isinstance(value, dict):
        return {key: without(held, keys) for key, held in value.items() if key not in keys}
    return [without(held, keys) for held in value] if isinstance(value, list) else value


def test_the_small_page_is_small_and_names_no_folder(small: dict[str, Any]) -> None:
    assert SMALL.stat().st_size < MOST_SMALL
    text = json.dumps(without(small, {"cells", "batch"}))  # base64 has slashes, and the corpus a /bin/sh
    assert not ABSOLUTE.findall(text) and not re.search(r"[A-Z]:\\\\|file:", text)


def test_the_small_page_has_the_scripts_and_the_style_of_today() -> None:
    views: list[Any] = [SimpleNamespace(lens=lens, own=True) for lens in core_lenses()]
    text = SMALL.read_text("utf-8")
    stale = [
        name for name, own in (("script", script_of(views)), ("style", style_of(views))) if hash_of(own) not in text
    ]
    assert not stale, f"docs/view/small.html has an older {' and '.join(stale)}: make it anew by `{REMAKE}`"
    assert f"`{REMAKE}`" in TEXT
