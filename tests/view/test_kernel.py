"""The kernel lens: a launch line by line, its sums those of `core trace`, strict mode's error at its accesses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from view_pages import faults, opened

import core.sim
from core.cli import run
from core.loader import load_registry
from core.op import Op, Variant
from core.registry import Registry
from core.testing.case import Case, make_case
from core.testing.shapes import example_of
from core.view.any_kernel import view_of_launch
from core.view.lenses.kernel import Taping
from core.view.taped_launch import digits, packed, runs, unpacked

ROOT = Path(__file__).parents[2]
FULL = 0xFFFFFFFF
FORWARD = "void naive_forward(elem* y, const elem* x, u64 n, int exact) {\n    u64 i = global_thread();\n"
RACE = """    __shared__ float box[128];
    box[threadIdx.x] = i < n ? float(x[i]) : 0.0f;
    float near = box[(threadIdx.x + 32) % 128];
    if (near > 1e30f) y[0] = near;
"""
BEYOND = "    if (threadIdx.x == 40) y[n + 3] = 1.0f;\n"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def case_of(registry: Registry, name: str, shape: str) -> tuple[Op, Variant, Case]:
    op, variant = name.split(".")
    found = registry.op(op)
    return found, registry.variant(op, variant), make_case(found, example_of(found, [shape]))


def sums(launch: dict[str, Any]) -> dict[str, int]:
    """Sums over all steps, by those keys of the launch's totals that steps have."""
    total = dict.fromkeys(
        ("instructions", "threads", "sectors", "fewest", "conflicts", "contended", "asked", "shared"), 0
    )
    for warp in launch["warps"]:
        for step in warp["steps"]:
            total["instructions"] += step["n"]
            total["threads"] += step["n"] * step.get("m", FULL).bit_count()
            for event in step.get("e", ()):
                if event["kind"] != "access":
                    continue
                space = launch["buffers"][event["b"]]["space"]
                total["sectors"] += event.get("sec", 0)
                total["fewest"] += event.get("need", 0)
                total["conflicts"] += event.get("pass", 0)
                total["contended"] += event.get("turns", 0)
                total["shared"] += space == "shared"
                total["asked"] += event["w"] * len(unpacked(event["a"])) * (space == "global")
    return total


@pytest.mark.parametrize(
    "name, shape",
    [("gelu.vector", "x=3,131"), ("layernorm.onepass", "x=2,70"), ("matmul.tiled", "x=5,17 features=33"),
     ("cross_entropy.fused", "logits=2,300 targets=2")],
)  # fmt: skip
def test_the_sums_of_the_steps_are_those_of_core_trace(
    registry: Registry, name: str, shape: str, capsys: pytest.CaptureFixture[str]
) -> None:
    op, variant, case = case_of(registry, name, shape)
    data = Taping(registry, blocks=range(1000), budget=1 << 40).kernel(op, variant, case)
    assert run(["trace", name, "--json", *(word for part in shape.split() for word in ("--shape", part))]) == 0
    traced = json.loads(capsys.readouterr().out)[0]["kernels"]
    assert [one["kernel"] for one in data["launches"]] == [one["kernel"] for one in traced]
    for launch, counted in zip(data["launches"], traced, strict=True):
        assert launch["left_out"] == "" and data["error"] is None
        found = sums(launch)
        assert found == {key: counted[key] for key in found}
        assert found == {key: launch["totals"][key] for key in found}


def test_buffers_have_the_launchers_names_and_values_the_tensors_type(registry: Registry) -> None:
    op, variant, case = case_of(registry, "gelu.vector", "x=40")
    (launch,) = Taping(registry, dtype="bf16", direction="forward").kernel(op, variant, case)["launches"]
    buffers = [(b["name"], b["dtype"], b["sizes"]) for b in launch["buffers"]]
    assert buffers == [("x", "bf16", [40]), ("y", "bf16", [40])]
    reads = next(e for step in launch["warps"][0]["steps"] for e in step.get("e", ()) if e["how"] == "read")
    shown = unpacked(reads["v"])
    assert all(isinstance(value, float) and abs(value) < 10 for value in shown) and len(set(shown)) > 3


def test_an_unrolled_loop_is_shown_turn_by_turn(registry: Registry) -> None:
    """Of 97 elements, lane 0 takes four, by a loop of four turns at once, and the others three, by a loop of one."""
    op, variant, case = case_of(registry, "layernorm.warp", "x=1,97")
    launch = Taping(registry, direction="forward").kernel(op, variant, case)["launches"][0]
    first = launch["files"][0]["first"]
    steps = [step for step in launch["warps"][0]["steps"] if step.get("e")]
    text = "auto in = load<WIDTH>(x + c);"
    loads = [step for step in steps if text in launch["files"][0]["lines"][step["l"] - first]]
    turns = [step["t"] for step in loads if step["l"] == loads[0]["l"]]
    heads = [step["t"] for step in launch["warps"][0]["steps"] if step["l"] == loads[0]["l"] - 1 and "e" not in step]
    assert heads[:5] == [1, 2, 3, 4, 5]
    assert turns == [1, 2, 3, 1, 2, 3, 4] and [step["m"].bit_count() for step in loads[:4]] == [31, 31, 31, 1]


def test_a_line_that_the_compiler_unrolled_is_a_step_a_turn(tmp_path: Path) -> None:
    source = """extern "C" __global__ void sum(float* y, const float* x) {
        float v = 0;
        #pragma unroll
        for (int k = 0; k < 4; k++) v += x[k * 32 + threadIdx.x];
        y[threadIdx.x] = v;
    }
    """
    file = tmp_path / "sum.cu"
    file.write_text(source, "utf-8")
    x, y = np.arange(128, dtype=np.float32), np.zeros(32, np.float32)
    data = view_of_launch(core.sim.load(file), file, "sum", (1,), (32,), [y, x], 0, 1, None).data
    assert data is not None
    steps = data["kernels"][0]["launches"][0]["warps"][0]["steps"]
    loads = [(s["t"], unpacked(s["e"][0]["a"])[0] // 4) for s in steps if s["l"] == 4 and "e" in s]
    assert loads == [(1, 0), (2, 32), (3, 64), (4, 96)]


def test_a_shuffle_of_floats_shows_floats_and_the_lanes_that_are_read(registry: Registry) -> None:
    op, variant, case = case_of(registry, "layernorm.warp", "x=1,97")
    launch = Taping(registry, direction="forward").kernel(op, variant, case)["launches"][0]
    events = [e for step in launch["warps"][0]["steps"] for e in step.get("e", ())]
    first = next(e for e in events if e["kind"] == "shuffle")
    assert unpacked(first["from"]) == [lane ^ 16 for lane in range(32)]
    assert all(isinstance(value, float) and abs(value) < 100 for value in unpacked(first["v"]))


def test_few_steps_are_kept_and_the_rest_is_named(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.view.lenses.kernel.MOST", 8)
    op, variant, case = case_of(registry, "gelu.vector", "x=3,131")
    (launch,) = Taping(registry, direction="forward").kernel(op, variant, case)["launches"]
    assert [len(warp["steps"]) for warp in launch["warps"]] == [8]
    assert launch["left_out"] == f"3 of 4 warps and {launch['warps'][0]['of'] - 8} steps of warp 0"


def test_packing_loses_nothing() -> None:
    for values in (
        [],
        [3],
        [1, 2],
        [0, 4, 8, 12],
        [0, 4, 9],
        [0.5, 0.5, 0.5],
        [0.5, 1.0, 1.5],
        ["nan", 1.0],
        [7, 7, 7],
    ):
        assert unpacked(json.loads(json.dumps(packed(values)))) == values
    assert packed([0, 4, 8]) == {"s": [0, 4, 3]}
    assert runs([4, 5, 6, 9, 1, 2]) == [4, 3, 9, 1, 1, 2]
    assert [digits(v) for v in (0.1234567, float("nan"), True, 1 << 60)] == [0.123457, "nan", 1, str(1 << 60)]


# --- strict mode's errors ---------------------------------------------------------------------------------------


def broken(folder: Path, text: str) -> Path:
    """A plugin of gelu.mine, whose forward kernel has these lines too."""
    for name in ("gelu.cu", "gelu.cuh"):
        shutil.copy(ROOT / "ops/cuda" / name, folder / name)
    source = (folder / "gelu.cu").read_text("utf-8")
    assert FORWARD in source
    (folder / "gelu.cu").write_text(source.replace(FORWARD, FORWARD + text), "utf-8")
    (folder / "mine.py").write_text(
        (ROOT / "ops/cuda/gelu.py").read_text("utf-8").split("class GeluVector")[0].replace('"naive"', '"mine"', 1)
        + "\n\ndef core_variants():\n    return [GeluNaive]\n",
        "utf-8",
    )
    return folder / "mine.py"


def look(plugin: Path) -> dict[str, Any]:
    registry = load_registry((str(plugin),))
    op, variant, case = case_of(registry, "gelu.mine", "x=3,131")
    return Taping(registry, direction="forward").kernel(op, variant, case)


def test_a_race_opens_at_its_two_accesses(tmp_path: Path) -> None:
    data = look(broken(tmp_path, RACE))
    assert data["error"]["kind"] == "race" and "__syncthreads()" in data["error"]["hint"]
    (launch,) = data["launches"]
    first, then = launch["faults"]
    steps = {(w["block"], w["warp"]): w["steps"] for w in launch["warps"]}
    for fault, how, text in ((first, "write", "box[threadIdx.x] ="), (then, "read", "float near")):
        step = steps[fault["block"], fault["warp"]][fault["step"]]
        file = launch["files"][step["f"]]
        assert fault["how"] == how and text in file["lines"][step["l"] - file["first"]]
        assert any(event["how"] == how for event in step["e"])


def test_an_access_out_of_bounds_is_the_last_step_that_is_taped(tmp_path: Path) -> None:
    data = look(broken(tmp_path, BEYOND))
    assert data["error"]["kind"] == "out of bounds"
    (launch,) = data["launches"]
    (fault,) = launch["faults"]
    steps = next(w["steps"] for w in launch["warps"] if (w["block"], w["warp"]) == (fault["block"], fault["warp"]))
    assert (fault["warp"], fault["lane"], fault["how"]) == (1, 8, "write") and fault["step"] == len(steps) - 1


# --- the command and the page -----------------------------------------------------------------------------------


def test_the_terminal_has_the_steps_of_one_warp(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["view", "--kernel", "gelu.naive", "--shape", "x=3,131", "--direction", "forward", "--lens", "kernel"]
    assert run([*words, "--block", "1", "--warp", "2"]) == 0
    shown = capsys.readouterr().out
    assert "block 1, warp 2" in shown and "left out: 12 of 16 warps" in shown
    assert "reads x[192, 193, ... 223], 4 sectors for 4" in shown and "float value = x[i], slope;" in shown


def test_a_page_of_two_kernels_is_stepped_by_keys_alone(tmp_path: Path) -> None:
    page_file = tmp_path / "two.html"
    words = ["--kernel", "gelu.naive", "--kernel", "gelu.vector", "--shape", "x=3,131", "--direction", "forward"]
    assert run(["view", *words, "--no-open", "--out", str(page_file)]) == 0
    with opened(page_file, dark=True) as page:
        assert page.locator(".kpane").count() == 2 and page.locator(".klane").count() == 64
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
        page.keyboard.press("n")
        assert "of x: 4 sectors" in page.locator(".ksay").nth(0).inner_text()
        assert "8 sectors for 8" in page.locator(".kwords").nth(0).inner_text()
        page.keyboard.press("x")
        for key in ("n", "ArrowRight", "ArrowLeft"):
            page.keyboard.press(key)
        assert "of x: 16 sectors" in page.locator(".ksay").nth(1).inner_text()
        page.keyboard.press("ArrowDown")
        assert "block 0, warp 1" in page.locator(".kpane select").nth(3).evaluate("s => s.selectedOptions[0].text")
        assert page.locator(".kl.now").count() == 2 and page.locator(".kl.now[aria-current=step]").count() == 2


def test_the_check_names_the_command_that_shows_a_race(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = broken(tmp_path, RACE)
    assert run(["check", "gelu.mine", "--plugin", str(plugin)]) == 1
    (command,) = [line.strip() for line in capsys.readouterr().out.splitlines() if "look: " in line]
    assert command == f"look: core view --kernel gelu.mine --shape x=1 --dtype f32 --plugin {plugin}"
    assert run([*command.split()[2:], "--lens", "kernel"]) == 0
    assert "error: write, line 16" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        (["--kernel", "gelu"], "names no variant"),
        (["--kernel", "gelu.naive", "--kernel", "add.naive", "--shape", "x=4"], "variants of one op"),
        (["--kernel", "gelu.naive"] * 3, "3 kernels; 2 fit beside each other"),
    ],
)
def test_a_kernel_that_cannot_be_shown_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["view", *words, "--lens", "kernel"]) == 2
    assert message in capsys.readouterr().err


RACY = """
extern "C" __global__ void turn(float* y, const float* x) {
    __shared__ float box[64];
    box[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = box[63 - threadIdx.x];
}
"""


def test_core_sim_writes_the_page_of_any_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("turn.cu").write_text(RACY, "utf-8")
    words = ["sim", "turn.cu", "turn", "y=zeros:64", "x=arange:64", "--block", "64"]
    assert run([*words, "--view", "-"]) == 0
    assert "reads x[0, 1, ... 31], 4 sectors for 4; writes box[0, 1, ... 31]" in capsys.readouterr().out
    assert run([*words, "--strict"]) == 4
    assert "--view PAGE.html shows it line by line" in capsys.readouterr().err
    assert run([*words, "--strict", "--view", "turn.html"]) == 4
    assert str(tmp_path) not in Path("turn.html").read_text("utf-8")
    with opened(Path("turn.html")) as page:
        assert page.locator(".kl.now code").inner_text().strip() == "y[threadIdx.x] = box[63 - threadIdx.x];"
        assert page.locator(".klane.fault small").inner_text() == "0"
        assert not faults(page)
        page.keyboard.press("g")
        assert page.locator(".kl.now code").inner_text().strip() == "box[threadIdx.x] = x[threadIdx.x];"
        assert "block 0, warp 1" in page.locator(".kpane select").nth(1).evaluate("s => s.selectedOptions[0].text")
