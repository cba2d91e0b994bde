"""benchmarks/first_light.py without a GPU: one line; it goes on where it stopped, and would see a wrong bit."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tomli

import core.sim
from core.cli import VERBS
from core.device.launch import LaunchRecord
from core.device.planned import PlannedDevice
from core.device.simulated import SimDevice
from core.errors import DeviceError
from core.kernels.chips import CHIPS
from core.kernels.nvrtc import Kernel
from core.kernels.tensors import tensor_map

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/first_light.py"


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


first_light = loaded(SCRIPT)
on_chip = importlib.import_module("on_chip")  # beside the script
stub_driver = loaded(ROOT / "tests/stub.py")


def test_without_a_gpu_it_is_one_line_and_exit_4(tmp_path):
    out = tmp_path / "result.json"
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, str(SCRIPT), "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("nothing was run\n") and not done.stdout
    assert not out.exists()


def test_it_writes_after_each_item_and_runs_again_only_what_has_not_passed(tmp_path, monkeypatch, capsys):
    out, ran, broken = tmp_path / "result.json", [], {"maps"}

    def child(name):
        if name not in ("driver", "cubin"):
            assert "cubin" in json.loads(out.read_text())
        ran.append(name)
        return (1, {"passed": False, "error": "no tile"}) if name in broken else (0, {"passed": True, "found": 1})

    monkeypatch.setattr(first_light, "run_child", child)
    monkeypatch.setattr(first_light, "commit", lambda: "abc")
    assert first_light.run_all(out, None) == 1
    assert ran == list(first_light.ITEMS) and "FAILED: no tile" in capsys.readouterr().out
    ran.clear()
    broken.clear()
    assert first_light.run_all(out, None) == 0
    assert ran == ["driver", "maps"]
    ran.clear()
    monkeypatch.setattr(first_light, "commit", lambda: "abd")
    assert first_light.run_all(out, None, ["check"]) == 0
    assert ran == [name for name in first_light.ITEMS if name != "check"]
    ran.clear()
    assert first_light.run_all(out, None) == 0
    assert ran == ["driver", "check"]


def test_an_item_that_dies_is_a_failure_with_what_it_said(monkeypatch):
    monkeypatch.setattr(first_light, "__file__", str(Path(__file__).parents[1] / "nothing.py"))
    code, result = first_light.run_child("cubin")
    assert code == 1 and not result["passed"] and "nothing.py" in result["error"]


def test_a_gpu_that_is_missing_ends_an_item_with_4(monkeypatch, capsys):
    def gone():
        raise DeviceError("gone", hint="look")

    monkeypatch.setitem(first_light.ITEMS, "cubin", gone)
    assert first_light.run_item("cubin") == 4
    assert json.loads(capsys.readouterr().out.rpartition(first_light.MARK)[2])["error"] == "gone"


OPCODES = """
import numpy as np
import core.sim

def run(line):
    y = np.zeros(32, np.float32)
    core.sim.run('extern "C" __global__ void k(float* y) { %s }' % line, "k", 1, 32, [y])
    return y

def test_lane():
    assert (run("y[threadIdx.x] = threadIdx.x;") == np.arange(32)).all()

def test_three():
    assert (run("y[threadIdx.x] = 3.0f;") == 3).all()
"""
CHIP = """
import importlib.util, json, sys
from types import SimpleNamespace
spec = importlib.util.spec_from_file_location("first_light", sys.argv[1])
f = importlib.util.module_from_spec(spec)
spec.loader.exec_module(f)
simulate = f.core.sim.run

class Chip:
    device = SimpleNamespace(arch="sm_90a")
    def run(self, source, name, grid, block, args):
        simulate(source, name, grid, block, args)
        if sys.argv[3] in source:
            args[0].view(np.uint32)[7] ^= 1

import numpy as np
f.Chip, f.OPCODES = Chip, [sys.argv[2]]
f.run_item("opcodes")
"""


@pytest.mark.parametrize(("wrong", "passed"), [("nothing", True), ("3.0f", False)])
def test_one_wrong_bit_of_the_chip_is_found(tmp_path, wrong, passed):
    path = tmp_path / "test_two.py"
    path.write_text(OPCODES)
    words = [sys.executable, "-c", CHIP, str(SCRIPT), str(path), wrong]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=SCRIPT.parent.parent)
    result = json.loads(done.stdout.rpartition(first_light.MARK)[2])
    assert result["passed"] is passed, done.stdout + done.stderr
    if passed:
        assert (result["kernels"], result["same bits"]) == (2, 2)
    else:
        assert "test_three: 1 of 32 differ, first at 7: sim 0x40400000, chip 0x40400001" in result["error"]


def test_differences_count_the_floats_between():
    a = np.array([1.0, -0.0, np.nan, np.inf], np.float32)
    b = np.array([np.nextafter(np.float32(1), np.float32(2)), 0.0, np.nan, np.inf], np.float32)
    assert on_chip.places(a, b) == 1 and on_chip.places(a, a) == 0


def test_the_chip_gets_arguments_of_its_own_tensor_maps_included():
    x, n = np.arange(32, dtype=np.float32).reshape(4, 8), np.int32(3)
    given = [x, core.sim.Map(x, (8, 4), 32), n, None]
    array, mapped, number, nothing = on_chip.copied(given)
    assert array is mapped.array and array is not x and (array == x).all()
    assert (mapped.box, mapped.swizzle, number, nothing) == ((8, 4), 32, n, None)


def test_the_tensor_map_probe_does_in_the_simulator_what_it_asks_of_the_chip():
    device = SimDevice()
    held = np.arange(20 * 64, dtype=np.float32).reshape(20, 64)
    x, y = (device.tensor(device.allocate(a * b * 4), 0, (a, b), "f32") for a, b in ((20, 64), (8, 32)))
    device.upload(x, held)
    kernel = Kernel(Path("maps.cu"), "tile", text=first_light.MAPPED)
    args = (y, tensor_map(x, (32, 8), 0), np.int32(16), np.int32(16))
    device.run([LaunchRecord(kernel, args, (1, 1, 1), (128, 1, 1))])
    wanted = np.zeros((8, 32), np.float32)
    wanted[:4] = held[16:, 16:48]
    assert (device.download(y) == wanted).all()


# --- the row of docs/gpus.md -----------------------------------------------------------------------------------------

SEEN = {"card": "NVIDIA H200", "arch": "sm_90a", "driver": "580.65.06, CUDA 13.0"}


def results(commit="0123456789abcdef", failed=(), names=None):
    done = {"commit": commit, "at": "2026-12-01T10:00:00+00:00"}
    return {n: {**SEEN, **done, "passed": n not in failed} for n in names or first_light.ITEMS}


@pytest.fixture
def page(tmp_path):
    """The page as it is shipped, without the rows that were added since."""
    text = first_light.PAGE.read_text("utf-8")
    before, _, rest = text.partition("|---|---|---|---|---|---|\n")
    after = rest[rest.index("\n\n") :] if not rest.startswith("\n") else rest
    path = tmp_path / "gpus.md"
    note = "" if first_light.EMPTY in after else f"\n{first_light.EMPTY}\n"
    path.write_text(f"{before}|---|---|---|---|---|---|\n{note}{after}", "utf-8")
    return path


def test_the_page_is_empty_and_says_so_or_has_rows():
    text = first_light.PAGE.read_text("utf-8")
    rows = [line for line in text.partition("|---|---|---|---|---|---|\n")[2].split("\n\n")[0].splitlines() if line]
    assert any(row.startswith("| ") for row in rows) != (first_light.EMPTY in text)


def test_a_card_gets_a_row_and_the_page_is_empty_no_longer(page):
    line = first_light.add_row(page, results())
    assert line == "| NVIDIA H200 | sm_90a | 580.65.06, CUDA 13.0 | 0123456789ab | 2026-12-01 | 7 of 7 |"
    text = page.read_text("utf-8")
    assert f"|---|---|---|---|---|---|\n{line}\n" in text and first_light.EMPTY not in text
    assert "## Architectures" in text


def test_a_second_run_replaces_its_own_row_and_keeps_the_others(page):
    first_light.add_row(page, results(failed=("maps",)))
    assert "6 of 7: driver, cubin, opcodes, check, adamw, train; failed: maps |" in page.read_text("utf-8")
    first_light.add_row(page, results(commit="fedcba9876543210"))
    first_light.add_row(page, results())
    rows = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| NVIDIA H200")]
    assert [row.split(" | ")[3:] for row in rows] == [
        ["fedcba987654", "2026-12-01", "7 of 7 |"],
        ["0123456789ab", "2026-12-01", "7 of 7 |"],
    ]


def test_only_what_ran_at_the_commit_counts(page):
    mixed = results(commit="old") | results(names=("driver", "cubin"))
    assert first_light.add_row(page, mixed).endswith("| 2 of 7: driver, cubin |")


@pytest.mark.skipif(sys.platform != "linux" or stub_driver.COMPILER is None, reason="the stub is a libcuda.so.1")
def test_the_command_adds_the_row_of_the_card_that_the_driver_shows(page, tmp_path):
    """On the stub, which computes nothing: `cubin` fails there, and the row says so."""
    stub_driver.build(tmp_path)
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "STUB_CHIP": "75"}
    words = [
        sys.executable,
        str(SCRIPT),
        "--only",
        "cubin",
        "--row",
        "--page",
        str(page),
        "--out",
        str(tmp_path / "r.json"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 1, done.stderr
    (row,) = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| Stub GPU")]
    assert row.startswith("| Stub GPU | sm_75 | ") and "CUDA 13.0 |" in row
    assert row.endswith("| 1 of 7: driver; failed: cubin |") and done.stdout.splitlines()[-1] == row


def test_the_row_itself_does_not_make_the_checkout_another(monkeypatch):
    """Else the next call would run again what has passed."""
    said = {"out": ""}
    monkeypatch.setattr(first_light, "commit", lambda: "abc+")
    real = subprocess.run
    fake = lambda words, **how: SimpleNamespace(returncode=0, stdout=said["out"]) if words[0] == "git" else real(words)  # noqa: E731
    monkeypatch.setattr(first_light.subprocess, "run", fake)
    assert first_light.version() == "abc"
    said["out"] = " M core/op.py"
    assert first_light.version() == "abc+"


def test_a_chip_without_tensor_maps_is_not_asked_for_them(monkeypatch):
    """cuTensorMapEncodeTiled: tensor maps are of 9.0 and newer."""
    monkeypatch.setattr(first_light, "Chip", lambda: SimpleNamespace(device=SimpleNamespace(chip=CHIPS[75])))
    assert first_light.maps() == {"encoded": "not on this chip", "copied": "not on this chip"}


@pytest.mark.parametrize(
    ("arch", "gib", "chosen"),
    [("sm_75", 15, ["fp16", 16]), ("sm_75", 7, ["fp16", 8]), ("sm_90a", 79, ["bf16", 16]), ("sm_86", 7.5, ["bf16", 8])],
)
def test_the_run_of_fifty_steps_fits_the_card(monkeypatch, arch, gib, chosen):
    device = PlannedDevice(arch)
    device.memory = lambda: (int(gib * 2**30), int(gib * 2**30))
    words = first_light.sizes(device)
    assert words == ["--set", f"precision={chosen[0]}", "--set", f"dims.B={chosen[1]}"]


# --- the notebook ----------------------------------------------------------------------------------------------------

NOTEBOOK = ROOT / "docs/gpus_t4.ipynb"


def cells(kind):
    held = json.loads(NOTEBOOK.read_text("utf-8"))
    assert held["nbformat"] == 4 and held["metadata"]["accelerator"] == "GPU"
    return ["".join(cell["source"]) for cell in held["cells"] if cell["cell_type"] == kind]


def test_the_notebooks_cells_are_python_or_commands_that_exist():
    for text in cells("code"):
        python = "\n".join(line for line in text.splitlines() if not line.startswith("!"))
        compile(python, "cell", "exec")
    shown = [
        shlex.split(line[1:].partition("|")[0])
        for text in cells("code")
        for line in text.splitlines()
        if line[:1] == "!"
    ]
    assert ["python", "benchmarks/first_light.py", "--row"] in shown and ["core", "doctor"] in shown
    for words in shown:
        if words[0] == "python":
            assert (ROOT / words[1]).is_file()
            known = subprocess.run(
                [sys.executable, str(ROOT / words[1]), "--help"], capture_output=True, text=True
            ).stdout
            assert all(word in known for word in words[2:])
        if words[0] == "core":
            assert words[1] in VERBS
            verb = importlib.import_module(f"core.cli.{words[1]}").command
            verb.make_context(words[1], words[2:]).close()
    assert any('".[{extras}]"' in text and "cu12" in text for text in cells("code"))
    pyproject = tomli.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert {"test", "sass", "cu12"} <= set(pyproject["project"]["optional-dependencies"])


@pytest.mark.parametrize(
    ("driver", "repository", "extras"), [("550.54.15", "", "test,sass,cu12"), ("580.65", "x.git", "test,sass")]
)
def test_the_notebooks_python_runs_where_its_programs_are_stand_ins(tmp_path, monkeypatch, driver, repository, extras):
    """nvidia-smi says its driver, pip and git note what they are asked; tar unpacks the archive."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    for name, line in {
        "nvidia-smi": f"echo {driver}",
        "pip": f'echo "$@" >> {tmp_path}/asked',
        "git": "mkdir $3",
    }.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "tree/corelm").mkdir(parents=True)
    subprocess.run(["tar", "-czf", "corelm.tar.gz", "-C", "tree", "corelm"], check=True)
    names: dict[str, object] = {}
    for text in cells("code"):
        lines = [line for line in text.splitlines() if not line.startswith("!")]
        exec(
            compile("\n".join(lines).replace('REPOSITORY = ""', f'REPOSITORY = "{repository}"'), "cell", "exec"), names
        )
    assert Path.cwd() == tmp_path / "corelm"
    assert (tmp_path / "asked").read_text() == f"install -q -e .[{extras}]\n"


def test_the_notebook_has_run_nowhere_and_says_so():
    held = json.loads(NOTEBOOK.read_text("utf-8"))
    assert not [cell for cell in held["cells"] if cell.get("outputs")]
    assert "Not yet run on a GPU" in cells("markdown")[0]
