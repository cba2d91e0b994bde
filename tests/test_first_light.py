"""benchmarks/first_light.py without a GPU: one line; it goes on where it stopped, and would see a wrong bit."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import core.sim
from core.device.launch import LaunchRecord
from core.device.nvrtc import Kernel
from core.device.sim.device import SimDevice
from core.device.tensors import tensor_map
from core.errors import DeviceError

SCRIPT = Path(__file__).parent.parent / "benchmarks/first_light.py"
spec = importlib.util.spec_from_file_location("first_light", SCRIPT)
first_light = importlib.util.module_from_spec(spec)
spec.loader.exec_module(first_light)


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
    assert first_light.run_all(out, None) == 0
    assert ran == list(first_light.ITEMS)


def test_an_item_that_dies_is_a_failure_with_what_it_said(monkeypatch):
    monkeypatch.setattr(first_light, "__file__", str(Path(__file__).parent / "nothing.py"))
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
    assert first_light.places(a, b) == 1 and first_light.places(a, a) == 0


def test_the_chip_gets_arguments_of_its_own_tensor_maps_included():
    x, n = np.arange(32, dtype=np.float32).reshape(4, 8), np.int32(3)
    given = [x, core.sim.Map(x, (8, 4), 32), n, None]
    array, mapped, number, nothing = first_light.copied(given)
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
