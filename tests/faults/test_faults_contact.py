"""First contact with a chip: a run checks what it chose in child processes and trains on what passes.

The chip is the stub driver with the simulator behind it, on which kernels can be wrong, refuse to launch and never
return (simulated_driver.py). Nothing here says anything of a real GPU.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_graph
import small_run
import stored_machine
import stub as stub_driver

HERE = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the stub is a libcuda.so.1"),
    pytest.mark.skipif(stub_driver.COMPILER is None, reason="no C compiler to build the stub with"),
]

# `core` on the simulated chip; a child process of it imports this file too, and so has the chip as well
PROGRAM = f"""
import ctypes, sys
sys.path.insert(0, {str(HERE)!r})
from simulated_driver import simulate
from core.testing import model_sizes, worker
worker.LAUNCH, model_sizes.SMALLEST = 12.0, 1
simulate(ctypes.CDLL("libcuda.so.1"))

if __name__ == "__main__":
    from core.cli import run
    sys.exit(run(sys.argv[1:]))
"""
MODEL = small_graph.toml(
    'n = { op = "layernorm", in = "wte" }\n'
    'g = { op = "gelu", in = "n" }\n'
    'r = { op = "add", in = ["wte", "g"] }\n'
    'y = { op = "matmul", in = "r", features = "V" }',
    sizes={"B": 1, "T": 4, "V": 257},
)
CONFIG = small_run.unwatched(
    model="model.toml", dims=None, train={"steps": 1, "tokens_per_step": 4, "checkpoint_every": 1}
)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contact")
    stub_driver.build(folder)
    for cache in ("cache", "empty"):  # the limit of a launch is the kernel's, and no compiler's
        stored_machine.put(folder / cache)
    (folder / "program.py").write_text(PROGRAM)
    (folder / "model.toml").write_text(MODEL)
    small_run.write(folder, CONFIG, "run.toml")
    return folder


def started(here: Path, *words: str, **settings: str) -> subprocess.Popen[str]:
    env = {**os.environ, "LD_LIBRARY_PATH": str(here), "CORELM_CACHE": str(here / "cache"), **settings}
    env |= {"STUB_MEMORY": str(1 << 28), "PYTHONPATH": str(HERE.parent), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(here / "program.py"), *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, cwd=here)


def core(here: Path, *words: str, code: int = 0, **faults: str) -> str:
    done = started(here, *words, **faults)
    out, errors = done.communicate(timeout=600)
    assert done.returncode == code, out + errors
    return out + errors


FAULTS = {
    "STUB_WRONG": "onepass_backward",
    "STUB_HANGS": "vector_dx",
    "STUB_REFUSES": "vector_pass",
    "STUB_STRAYS": "sorted_sums",
}
FINDINGS = {
    "layernorm.onepass": "gradient: dx: relative error",
    "gelu.vector": "a launch did not end within 12 s: gelu.vector backward, kernel vector_dx (",
    "add.vector": "the driver refuses to launch add.vector backward, kernel vector_pass (",
    "embedding.sorted": "(CUDA_ERROR_ILLEGAL_ADDRESS) in embedding.sorted backward, kernel sorted_sums (",
}
TRAIN = ("train", "run.toml", "--device", "cuda", "--set", "train.first_contact=600")


@pytest.fixture(scope="module")
def said(here: Path) -> str:
    """What a run says that meets the chip with all its faults: in `a`, with verdicts in the cache from then on."""
    return core(here, *TRAIN, "--out", "a", **FAULTS)


def choices(here: Path, run: str) -> dict[str, tuple[str, str]]:
    table = json.loads((here / run / "variants.json").read_text())["table"]
    return {row["op"]: (row["variant"], row["check"]) for row in table}


def test_a_run_on_an_unknown_chip_trains_on_what_passes_there(here: Path, said: str) -> None:
    """A kernel that is wrong, one that never returns, one that does not launch and one that takes the context with it
    each cost a child process; the next candidate is checked and taken. The next run knows all that."""
    assert said.count("first contact with Stub GPU, sm_90a: no verdict on ") == 2
    for name, finding in FINDINGS.items():
        assert f"  {name}: FAILED: " in said and finding in said
        assert f"  passed over: {name}: its check failed on Stub GPU, sm_90a: " in said
    taken = choices(here, "a")
    assert {op: variant for op, (variant, _) in taken.items() if f"{op}.{variant}" not in FINDINGS} == {
        op: variant for op, (variant, _) in taken.items()
    }
    assert all(check.startswith("checked") and "simulator" not in check for _, check in taken.values())
    assert "done: 1 steps" in said
    by_name = core(here, *TRAIN, "--out", "b", "--set", "ops.gelu=vector", code=3, **FAULTS)
    assert '[ops] gelu = "vector" cannot run node g:' in by_name and "--set ops.gelu=naive takes one" in by_name
    assert "first contact" not in by_name and not (here / "b").exists()


@pytest.mark.usefixtures("said")
def test_a_resumed_run_is_refused_where_a_recorded_variant_fails(here: Path) -> None:
    core(here, *TRAIN, "--out", "c", "--set", "train.first_contact=false")  # on sound kernels, with the verdicts so far
    state = next((here / "c" / "checkpoints").glob("step_*/state.json"))
    taken = json.loads(state.read_text())["variants"]
    store = here / "cache" / "checks.json"
    rows = json.loads(store.read_text())
    failed = {"passed": False, "finding": "forward: y is wrong"}
    store.write_text(json.dumps([row | failed if row["op"] == "add" else row for row in rows]))
    refused = core(here, *TRAIN, "--out", "c", "--resume", "--set", "train.steps=2", code=3)
    assert f"the run that is resumed took add.{taken['r']} for node r" in refused and "y is wrong" in refused
    assert "--set ops.add=" in refused or "core check add." in refused


def children(process: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def running(process: int) -> bool:
    """Whether a process runs: one that has ended may wait for its parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][:1] != "Z"
    except OSError:
        return False


def test_ctrl_c_ends_the_child_that_hangs(here: Path) -> None:
    hung = {"STUB_HANGS": "sorted_places,naive_forward,owner_forward", "CORELM_CACHE": str(here / "empty")}
    run = started(here, *TRAIN, "--out", "d", **hung)
    assert run.stdout is not None
    assert run.stdout.readline().startswith("first contact with Stub GPU")
    while not (found := children(run.pid)):
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=60) == 130
    end = time.monotonic() + 60
    while alive := [pid for pid in found if running(pid)]:
        assert time.monotonic() < end, alive
        time.sleep(0.05)
    assert not (here / "d").exists()
