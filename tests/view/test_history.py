"""The lenses on a run's course: Health, Curves and Crash show what its files hold, as data, lines and a page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run
import view_pages

from core.cli import run
from core.train.health_file import HealthStep, read_health
from core.view.lenses.crashes import CrashLens, crash_data
from core.view.lenses.curves import CurvesLens, spikes_of, thinned
from core.view.lenses.health import HealthLens, health_data, named
from core.view.lenses.texts import TextLens
from core.view.run_record import RunRecord
from core.view.subject import Subject, ViewOptions
from core.words import printable

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028 "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: one with statistics and a spike at step 9, one that crashed at step 2, and one with neither."""
    where = tmp_path_factory.mktemp("history")
    tables = {"train": {"steps": 9, "health_every": 2, "checkpoint_every": 4}, "detect": {"window": 2, "loss_z": 0}}
    small_run.write(where, small_run.unwatched(**tables))
    (where / "text.txt").write_text((HOSTILE + small_run.TEXT) * 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        train = ["train", "small.toml", "--device", "cpu"]
        assert run(train) == 0
        overflow = ["--set", "optimizer.lr=1e30", "--set", "train.health_every=1", "--set", "train.checkpoint_every=1"]
        assert run([*train, *overflow, "--out", "runs/bad"]) == 5
        assert run([*train, "--set", "train.steps=1", "--set", "train.health_every=0", "--out", "runs/other"]) == 0
    lines = [json.loads(line) for line in (where / "runs/small/metrics.jsonl").read_text().splitlines()]
    lines = [line | {"norm_z": 0.5} for line in lines[:8]] + [lines[8] | {"norm_z": 9.5, "skipped": True}]
    (where / "runs/small/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return where


def subject(*names: str, **options: Any) -> Subject:
    return Subject([RunRecord(Path("runs") / name) for name in names], None, ViewOptions(**options))


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


# --- Health --------------------------------------------------------------------------------------------------------


def test_health_shows_the_recorded_rows_over_steps() -> None:
    data = HealthLens().collect(subject("small"))
    assert data is not None
    records = read_health(Path("runs/small"))
    assert data["steps"] == [2, 4, 6, 8] and data["recorded"] == 4 and data["left_out"] == []
    for i, row in enumerate(data["rows"]):
        assert row["tensor"] == records[0].rows[i]["tensor"]
        np.testing.assert_allclose(data["rms"][i], [r.values["rms"][i] for r in records], rtol=1e-3)
        assert (data["ratio"][i] is not None) == (row["kind"] == "update")
    layers = {named(row): row["layer"] for row in data["rows"]}
    assert layers["h.0.fc.y"] == layers["h.0.fc.weight"] == "h.0" and layers["wte.weight"] == "outside"
    lines = "\n".join(HealthLens().lines(data))
    assert "small: 4 steps recorded, 2 to 8" in lines and "h.0.fc.y" in lines
    json.dumps(data, allow_nan=False)


def test_without_statistics_health_names_the_command_that_records_them() -> None:
    lens, other = HealthLens(), subject("other")
    assert lens.collect(other) is None
    assert lens.command(other).startswith("core train ") and "train.health_every=10" in lens.command(other)
    assert lens.command(subject("small")) == "core view small --lens health"


def made(rows: dict[str, list[tuple[float, float, int]]], size: int = 1000) -> list[HealthStep]:
    """Steps of rows: kind -> (rms, ratio, zeros) by step."""
    of = [{"kind": kind, "node": "", "op": "", "tensor": kind, "size": size} for kind in rows]
    steps = []
    for at in range(len(next(iter(rows.values())))):
        rms, ratio, zeros = (np.array([values[at][i] for values in rows.values()], float) for i in range(3))
        none = np.zeros(len(rows))
        values = {"rms": rms, "ratio": ratio, "zeros": zeros, "mean": none, "least": -rms, "largest": rms}
        values |= {"nonfinite": none, "underflows": none, "overflows": none}
        steps.append(HealthStep(at + 1, of, values))
    return steps


@pytest.mark.parametrize(
    "kind, course, state",
    [
        ("gradient", [(1, math.nan, 0), (11, math.nan, 0)], "grows"),
        ("gradient", [(1, math.nan, 0), (9, math.nan, 0)], None),
        ("gradient", [(1, math.nan, 0), (1e-4, math.nan, 0)], "dies"),
        ("forward", [(1, math.nan, 500), (1, math.nan, 995)], "dies"),
        ("forward", [(1, math.nan, 995), (1, math.nan, 995)], None),
        ("update", [(1, 1e-3, 0), (1e-7, 1e-7, 0)], "stops"),
        ("update", [(1, 1e-3, 0), (1e-3, 1e-3, 0)], None),
    ],
)
def test_what_grows_dies_or_stops_is_named(kind: str, course: list[Any], state: str | None) -> None:
    data = health_data("run", made({kind: course}), 8)
    assert data is not None
    assert [one["state"] for one in data["findings"]] == ([state] if state else [])


def test_of_many_steps_the_first_the_last_and_the_ones_that_stray_are_kept() -> None:
    course = [(1.0 + (50 if at == 77 else 0), math.nan, 0) for at in range(200)]
    data = health_data("run", made({"gradient": course}), 20)
    assert data is not None
    steps = data["steps"]
    assert len(steps) == 20 and steps[0] == 1 and steps[-1] == 200 and 78 in steps
    assert steps == sorted(set(steps)) and data["left_out"] == ["left out: 180 of 200 steps; --more shows 512"]


# --- Curves --------------------------------------------------------------------------------------------------------


def test_curves_are_the_metrics_and_a_spike_has_the_text_of_its_batch() -> None:
    data = CurvesLens().collect(subject("small", "other", step=3))
    assert data is not None
    ours, other = data["runs"]
    record = RunRecord(Path("runs/small"))
    assert ours["curves"]["loss"] == [list(range(1, 10)), [line["loss"] for line in record.metrics]]
    assert other["run"] == "other" and other["spikes"] == []
    assert [(s["step"], s["skipped"]) for s in ours["spikes"]] == [(9, True), (3, False)] and ours["spike_count"] == 1
    tokenizer = subject("small", step=9).replay.tokenizer
    assert tokenizer is not None
    for spike in ours["spikes"]:
        replayed = subject("small", step=spike["step"]).replay
        rows = [row for batch in replayed.batches for row in next(iter(batch.values()))]
        wanted = [printable(tokenizer.decode([int(i) for i in row])) for row in rows]
        assert spike["batch"] == {"rows": wanted, "count": len(rows)}
    lines = "\n".join(CurvesLens().lines(data))
    assert "small: 1 spike" in lines and "skipped" in lines


def test_texts_stay_out_where_they_are_to() -> None:
    data = CurvesLens().collect(subject("small", no_text=True))
    assert data is not None and data["runs"][0]["spikes"][0]["batch"] == {"why": "left out by --no-text"}
    crash = CrashLens().collect(subject("bad", no_text=True))
    assert crash is not None and crash["crashes"][0]["batch"] == ["left out by --no-text"]


def test_data_that_are_gone_leave_the_curves() -> None:
    Path("text.txt").rename("gone")
    try:
        data = CurvesLens().collect(subject("small"))
    finally:
        Path("gone").rename("text.txt")
    assert data is not None and "text.txt" in data["runs"][0]["spikes"][0]["batch"]["why"]


def test_spikes_are_those_of_the_limits_in_detect() -> None:
    lines = [{"step": i, "loss_z": z, "norm_z": None} for i, z in enumerate((None, 3.0, 7.5, "nan"), 1)]
    assert [s["step"] for s in spikes_of(lines, {"loss_z": 7.0, "norm_z": 7.0})] == [3]
    assert spikes_of(lines, {"loss_z": 0, "norm_z": 7.0}) == []


def test_of_many_points_extremes_first_and_last_are_kept() -> None:
    points = [(i, math.sin(i)) for i in range(50_000)]
    points[31_234] = (31_234, 9.0)
    kept = thinned(points, 2000)
    assert len(kept) <= 2000 and kept[0] == points[0] and kept[-1] == points[-1] and (31_234, 9.0) in kept
    assert kept == sorted(kept) and thinned(points[:2000], 2000) == points[:2000]


# --- Crash ---------------------------------------------------------------------------------------------------------


def test_crash_shows_the_way_from_the_first_tensor_to_the_cause() -> None:
    data = CrashLens().collect(subject("bad"))
    assert data is not None
    (crash,) = data["crashes"]
    report = json.loads(Path("runs/bad/crash-step_00000002/crash.json").read_text())
    assert (crash["step"], crash["loss"], crash["cause"]["node"]) == (2, "nan", report["cause"]["node"])
    last = crash["tensors"][-1]
    assert last["node"] == report["cause"]["node"] and (last["nan"] or last["inf"])
    lines = "\n".join(CrashLens().lines(data))
    assert report["cause"]["what"] in lines and "micro-batch 0" in lines
    kinds = [mark.kind for mark in CrashLens().marks(data)]
    assert kinds == ["text", "lines", "table", "text"]
    few = crash_data(Path("runs/bad/crash-step_00000002"), 3, 2, False)
    assert few["tensors"] == crash["tensors"][-3:] and few["left_out"] and not crash["left_out"]


def test_a_damaged_crash_folder_is_shown_as_far_as_it_reads(tmp_path: Path) -> None:
    folder = tmp_path / "crash-step_00000007"
    folder.mkdir()
    (folder / "crash.json").write_text("{")
    (folder / "tensors.jsonl").write_text(f'{{"kind": "forward", "rms": "nan", "max": 1{"0" * 400}}}\n[\n')
    data = crash_data(folder, 9, 9, False)
    assert data["step"] == "7" and len(data["tensors"]) == 1 and data["cause"] == {}
    assert data["batch"] == ["the data had no tokenizer; the ids are in crash-step_00000007/batch.safetensors"]


def test_without_a_crash_the_view_says_what_leaves_one() -> None:
    assert CrashLens().collect(subject("small")) is None
    assert "crash-step_N/" in CrashLens().command(subject("small"))


def test_a_command_names_the_config_without_its_folders(tmp_path: Path) -> None:
    """Folders may name a user."""
    (tmp_path / "config.resolved.toml").touch()
    (tmp_path / "env.json").write_text('{"argv": ["train", "/home/ada/runs.d/small.toml"]}')
    record = RunRecord(tmp_path)
    for lens in (TextLens(), HealthLens(), CurvesLens(), CrashLens()):
        assert lens.command(Subject([record])).startswith("core train small.toml"), lens.name


# --- in a browser --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_the_text_of_a_checkpoint_that_overflowed_is_drawn(tmp_path: Path) -> None:
    file = tmp_path / "text.html"
    assert run(["view", "bad", "--text", "text.txt", "--lens", "text", "--out", str(file), "--no-open"]) == 0
    with view_pages.opened(file) as page:
        page.locator(".tokens").focus()
        page.keyboard.press("ArrowRight")
        assert "loss NaN, probability NaN%" in page.inner_text("#panel")


def test_the_page_draws_the_three_views_and_keeps_texts_as_text(tmp_path: Path) -> None:
    for lens, name in (("health", "small"), ("curves", "small"), ("crash", "bad")):
        assert run(["view", name, "--lens", lens, "--out", str(tmp_path / f"{lens}.html"), "--no-open"]) == 0
    with view_pages.opened(tmp_path / "health.html") as page:
        page.get_by_role("button", name="update : parameter").click()
        page.locator("details .pointed").first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert "update : parameter" in page.locator("#panel").inner_text().split("tensors")[0]
    with view_pages.opened(tmp_path / "curves.html", dark=True) as page:
        page.get_by_role("button", name="step 9").click()
        assert "its batch" in page.locator("#panel").inner_text() and page.locator("img").count() == 0
        page.locator(".pointed").focus()
        page.keyboard.press("ArrowLeft")
        assert "step" in page.locator("output").inner_text()
    with view_pages.opened(tmp_path / "crash.html") as page:
        assert "is the first to write non-finite values" in page.locator("#panel").inner_text()
