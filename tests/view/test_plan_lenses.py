"""The lenses Memory, Time and Trust: the plan's own figures, floors that are known or not, records of the op check."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
import view_pages

from core.cli import run
from core.lens import Lens
from core.measure.bench import Launched
from core.plan.step_tensors import nbytes_of
from core.verdicts import Verdict
from core.view.lenses import time as time_lens
from core.view.lenses.memory import MemoryLens
from core.view.lenses.time import TimeLens, time_data
from core.view.lenses.trust import TrustLens, record_of, state_of, trust_row
from core.view.looking import View
from core.view.page import page_of
from core.view.run_record import RunRecord
from core.view.subject import Subject, ViewOptions

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def subject(small: Path) -> Subject:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(small)
        looked_at = Subject([RunRecord(small / "runs/small")])
        assert looked_at.plan.steps
        return looked_at


@pytest.fixture(scope="module")
def collected(subject: Subject) -> dict[str, dict[str, Any]]:
    """The data of the three lenses, as JSON has them."""
    data = {lens.name: lens.collect(subject) for lens in (MemoryLens(), TimeLens(), TrustLens())}
    return dict(json.loads(json.dumps(data)))


def test_memory_has_the_plans_buffers_and_names_the_peaks_owners(
    subject: Subject, collected: dict[str, dict[str, Any]]
) -> None:
    data, plan = collected["memory"], subject.plan
    assert {(b["name"], b["offset"], b["bytes"]) for b in data["buffers"]} == {
        (b.name, b.offset, b.nbytes) for b in plan.in_arena
    }
    assert sum(b["bytes"] for b in data["buffers"] if b["role"] == "saved") == plan.saved_bytes
    alive = [b for b in data["buffers"] if b["first"] <= data["peak"] <= b["last"]]
    assert sum(b["bytes"] for b in alive) == sum(o["bytes"] for o in data["owners"]) == max(data["levels"])
    assert data["parts"]["activations"] == data["arena"] == plan.arena_bytes
    lines = MemoryLens().lines(data)
    first = data["owners"][0]
    assert any(line.split()[:2] == [first["name"], first["role"]] for line in lines)
    assert any(line.startswith(f"fullest at step {data['peak']} of {len(plan.steps)}") for line in lines)


def test_time_has_every_entry_of_the_micro_step_and_no_floor_on_the_cpu(
    subject: Subject, collected: dict[str, dict[str, Any]]
) -> None:
    data = collected["time"]
    planned = [(s.kind, s.node.name if s.node else "", nbytes_of(s)) for s in subject.plan.steps]
    assert [(r["kind"] or r["op"], r["node"], r["bytes"]) for r in data["rows"]][:-1] == planned
    assert not data["why_not_timed"] and all(r["seconds"] > 0 and r["floor"] is None for r in data["rows"])
    assert not data["known"] and sum(g["count"] for g in data["groups"]) == len(data["rows"])
    assert sum(g["seconds"] for g in data["groups"]) == pytest.approx(sum(r["seconds"] for r in data["rows"]))
    lines = TimeLens().lines(data)
    assert "the chip's rates: unknown" in lines and lines[-1].split()[-1] == "unknown"


def test_a_floor_is_the_longer_of_bytes_and_products() -> None:
    launched = [
        Launched("h.0.a", "matmul", "v", "forward", 4e-3, 10**6, 2e9),  # 2 ms by arithmetic
        Launched("h.1.a", "matmul", "v", "forward", 5e-3, 3 * 10**6, 1e8),  # 3 ms by memory
    ]
    data = time_data(launched, True, 1e12, 1e9)
    (group,) = data["groups"]
    assert [row["floor"] for row in data["rows"]] == pytest.approx([2e-3, 3e-3])
    assert (group["group"], group["count"]) == ("h.*.a", 2)
    assert (group["seconds"], group["floor"]) == pytest.approx((9e-3, 5e-3))
    assert time_lens.cells(group)[-2:] == ["5.000", "1.8"]
    untimed = time_data(launched, False, 1e12, None)
    assert untimed["groups"][0]["seconds"] is None and time_lens.cells(untimed["groups"][0])[-2:] == ["unknown", "-"]


def test_what_takes_long_is_timed_only_when_it_is_asked_for(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small)
    record = RunRecord(small / "runs/small")
    monkeypatch.setattr(time_lens, "recorded_seconds", lambda subject: 60.0)
    data = TimeLens().collect(Subject([record]))
    assert data is not None and data["why_not_timed"].startswith("it takes about")
    assert all(row["seconds"] is None for row in data["rows"])
    lines = TimeLens().lines(data)
    assert any("core view small --lens time --measure" in line for line in lines)
    assert time_lens.why_not_timed(Subject([record], None, ViewOptions(measure=True))) == ""
    simulated = TimeLens().collect(Subject([RunRecord(small / "runs/small", device="sim")]))
    assert simulated is not None and simulated["why_not_timed"] and not simulated["measure"], "which is never timed"


def test_a_state_follows_from_the_record_alone() -> None:
    here = Verdict("cpu", "", "f32", True, {"forward": 1e-7}, {"C": 70, "rows": 300}, smallest={"C": 5, "rows": 1})
    assert state_of(here, {"C": 64, "rows": 300}, "cpu") == ("good", "checked at these sizes")
    assert state_of(here, {"C": 71}, "cpu") == ("part", "checked at smaller sizes only, not at C=71")
    assert state_of(here, {"C": 4}, "cpu") == ("part", "checked at larger sizes only, not at C=4")
    assert state_of(here, {"C": 64, "K": 1}, "cpu") == ("part", "checked at smaller sizes only, not at K=1")
    assert state_of(here, {"C": 64}, "NVIDIA H200, sm_90a")[0] == "part", "the check of another place"
    assert state_of(None, {"C": 64}, "cpu") == ("none", "not checked")
    assert state_of(Verdict("cpu", "", "f32", False), {}, "cpu") == ("bad", "failed on the cpu")
    older = Verdict("cpu", "", "f32", True, {"forward": 1e-7}, {"C": 70})
    assert state_of(older, {"C": 64}, "cpu") == ("good", "checked up to these sizes")
    assert state_of(Verdict("cpu", "", "f32", True), {"C": 64}, "cpu") == ("part", "checked; sizes not recorded")
    need: Any = SimpleNamespace(
        nodes=("h.0.a",), op=SimpleNamespace(name="a"), variant=SimpleNamespace(name="v"), dtype="f32", sizes={},
        why=f"{Path.home()}/run.toml:7",
    )  # fmt: skip
    assert trust_row(need, None, "cpu")["why"] == "run.toml:7", "a page names no folder of this machine"
    assert record_of(here)["covered"] == {"C": [5, 70], "rows": [1, 300]}
    assert record_of(older)["covered"] == {"C": [None, 70]} and record_of(older)["worst"] == 1e-7


def test_trust_has_each_node_once_with_its_sizes_and_its_record(
    subject: Subject, collected: dict[str, dict[str, Any]]
) -> None:
    data, plan = collected["trust"], subject.plan
    nodes = [name for row in data["rows"] for name in row["nodes"]]
    assert {node.name for node in plan.nodes} <= set(nodes) and len(nodes) == len(set(nodes))
    for row in data["rows"]:
        if row["nodes"][0] in plan.choices:
            assert row["variant"] == plan.choices[row["nodes"][0]].variant.name
    record = next(row["record"] for row in data["rows"] if row["op"] == "layernorm")
    assert record["passed"] and "gradient" in record["checks"] and record["date"] and record["covered"]["C"][1] > 1000
    assert {"adamw_update"} <= {row["op"] for row in data["rows"]}, "the update is there too"
    assert sum(count for _, _, count in data["states"].values()) == len(data["rows"])
    text = "\n".join(TrustLens().lines(data))
    assert "layernorm." in text and record["date"] in text and str(Path.home()) not in json.dumps(data)


def test_without_a_run_there_is_nothing_to_show() -> None:
    assert [lens.collect(Subject([])) for lens in (MemoryLens(), TimeLens(), TrustLens())] == [None] * 3


def test_core_plan_has_the_buffers_of_the_lens_and_the_terminal_its_lines(
    small: Path,
    collected: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(small)
    assert run(["plan", "small.toml", "--device", "cpu", "--json"]) == 0
    plan, data = json.loads(capsys.readouterr().out), collected["memory"]
    assert plan["fullest_step"] == data["peak"] and plan["bytes"]["saved"] == data["parts"]["saved"]
    assert [row | {"group": seen["group"]} for row, seen in zip(plan["buffers"], data["buffers"], strict=True)] == data[
        "buffers"
    ]
    assert run(["view", "small", "--lens", "memory"]) == 0
    assert "fullest at step" in capsys.readouterr().out


def page_with(collected: dict[str, dict[str, Any]], path: Path) -> Path:
    """The three views of names that are hostile, with records of every state and floors for a chip."""
    data = json.loads(json.dumps(collected))
    data["memory"]["buffers"][0]["name"] = HOSTILE
    known = [Launched(HOSTILE, "gelu", "v", "forward", 4e-3, 10**6, 2e9), Launched("b", "x", "v", "backward", 1, 1, 1)]
    data["time"] |= time_data(known, True, 1e12, 1e9)
    first, second, third = data["trust"]["rows"][:3]
    first |= {"state": "bad", "words": HOSTILE, "record": {**second["record"], "finding": HOSTILE}}
    third |= {"state": "none", "words": "not checked", "record": None}
    data["trust"]["states"]["none"][2] = 1
    lenses: list[Lens] = [MemoryLens(), TimeLens(), TrustLens()]
    views = [View(lens, f"core view --lens {lens.name}", data[lens.name], own=True) for lens in lenses]
    path.write_text(page_of(views, HOSTILE), "utf-8")
    return path


def test_the_pages_are_drawn_move_by_keys_and_stay_text(collected: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    path, data = page_with(collected, tmp_path / "page.html"), collected["memory"]
    with view_pages.opened(path, "memory", dark=True) as page:
        assert f"Step {data['peak']} of" in page.inner_text(".side h2")
        page.keyboard.press("ArrowLeft")
        assert f"Step {data['peak'] - 1} of" in page.inner_text(".side h2")
        page.keyboard.press("ArrowUp")
        assert page.locator("svg .chosen").count() == 1 and "made by" in page.inner_text(".read")
        page.keyboard.press("p")
        assert f"Step {data['peak']} of" in page.inner_text(".side h2") and page.locator("svg rect").count() > 20
        page.keyboard.press("2")
        assert "2.0 x its floor" in page.inner_text(".nodes")
        assert HOSTILE in page.inner_text(".nodes")
        page.keyboard.press("ArrowDown")
        assert HOSTILE in page.inner_text("tr.chosen")
        page.keyboard.press("3")
        assert HOSTILE in page.inner_text(".side .finding") and "✕" in page.inner_text("tr.chosen")
        page.keyboard.press("ArrowDown")
        assert "covered" in page.inner_text(".side")
        page.keyboard.press("ArrowDown")
        assert "No check recorded this variant" in page.inner_text(".side")
        page.click("button.state.none")
        assert page.get_attribute("button.state.none", "aria-pressed") == "true"
        assert page.locator(".glyph").count() == 1 and page.locator("img").count() == 0


def test_a_view_opens_at_the_node_that_its_address_names(collected: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    path, buffers = page_with(collected, tmp_path / "page.html"), collected["memory"]["buffers"]
    node = [one["node"] for one in buffers if one["node"]][-1]
    first = next(one["first"] for one in buffers if one["node"] == node)
    with view_pages.opened(path, f"memory&node={quote(node)}") as page:
        assert f"Step {first} of" in page.inner_text(".side h2") and page.locator("svg .chosen").count() == 1
    with view_pages.opened(path, f"time&node={quote(HOSTILE)}") as page:
        assert HOSTILE in page.inner_text("tr.chosen")
    with view_pages.opened(path, f"trust&node={quote(collected['trust']['rows'][-1]['nodes'][0])}") as page:
        assert page.evaluate("document.querySelector('.card tbody tr:last-child').classList.contains('chosen')")
