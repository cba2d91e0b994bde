"""docs/view.md: its pictures exist and are small, its questions are the lenses' own, its limits those of the code."""

from __future__ import annotations

import importlib.util
import re
import struct
from pathlib import Path

from core.view import sampled_text
from core.view.lenses import core_lenses, crashes, health, step, texts

ROOT = Path(__file__).parents[2]
PAGE, FOLDER = ROOT / "docs/view.md", ROOT / "docs/view"
TEXT = PAGE.read_text("utf-8")
MOST = 150_000  # bytes of a picture


def test_the_page_shows_each_picture_that_its_command_makes() -> None:
    assert "`python benchmarks/view.py --pictures docs/view`" in TEXT
    spec = importlib.util.spec_from_file_location("benchmarks_view", ROOT / "benchmarks/view.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shown = re.findall(r"!\[[^\]]{20,}\]\(view/(\w+)\.png\)", TEXT)
    assert sorted(shown) == sorted(module.PICTURES) == sorted(path.stem for path in FOLDER.iterdir())
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
