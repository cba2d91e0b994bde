"""All checks that need a GPU, in one command: the first command to run on a machine with one.

    python benchmarks/first_light.py                     all items; those that passed are not run again
    python benchmarks/first_light.py --only opcodes      one item, again; --list names them
    python benchmarks/first_light.py --skip check        all but one, such as the op check, which takes an hour
    python benchmarks/first_light.py --out result.json   the file of results, written after each item
    python benchmarks/first_light.py --row               then this GPU's row in docs/gpus.md, whatever passed

An item that fails does not stop the next ones. Each runs in a process of its own, since an error on a GPU ends its
process. Exit code: 0; 1 when an item failed; 4 without a usable GPU, with the reason in one line.

The items compare with the simulator, the ops' references, and PyTorch's values in tests/golden. Nothing is downloaded.
Requirements are the checkout and `pip install -e ".[test]"`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # the checkout, installed or not

from on_chip import Chip, Compared, agree, copied  # noqa: E402

import core.sim  # noqa: E402
from core.config import load_config  # noqa: E402
from core.device.cuda import CudaDevice  # noqa: E402
from core.device.driver import encode_map  # noqa: E402
from core.devices import AUTO  # noqa: E402
from core.engine import Engine, Settings  # noqa: E402
from core.engine.settings import precision_on  # noqa: E402
from core.errors import CoreError, DeviceError  # noqa: E402
from core.files import replace_durably  # noqa: E402
from core.graph import load_model  # noqa: E402
from core.kernels.nvrtc import Kernel  # noqa: E402
from core.kernels.nvrtc_library import nvrtc_version  # noqa: E402
from core.kernels.tensors import tensor_map  # noqa: E402
from core.loader import load_registry  # noqa: E402
from core.plan import figures  # noqa: E402
from core.plan.fit import RESERVE, needed  # noqa: E402
from core.train.run import commit  # noqa: E402
from core.train.wiring import build_engine  # noqa: E402

OPCODES = [f"tests/sim/test_sim_{name}.py" for name in ("integers", "floats", "control", "modifiers", "tensor")]
LIMIT = 3600  # seconds of an item
PAGE = ROOT / "docs/gpus.md"
EMPTY = "No rows yet: corelm has not run on a GPU."  # the page's line without rows
COLUMNS = ("card", "chip", "driver", "commit", "date", "passed")
MARK = "first light: "  # before an item's result, on its last line
SHOWN = 20  # differences in the result

# --- items: each returns its result, or raises -----------------------------------------------------------------------


def driver() -> dict[str, Any]:
    """The driver, the GPU and its memory, as the device sees them."""
    device = CudaDevice()
    free, total = device.memory()
    facts = {"device": device.describe(), "card": device.model, "arch": device.arch, "driver": driver_number(device)}
    return {**facts, "free": free, "total": total, "nvrtc": nvrtc_version()}


def driver_number(device: CudaDevice) -> str:
    """The driver's version, if the system has it in a file, and the driver's CUDA version."""
    version = int(device.driver.call("cuDriverGetVersion"))
    version_file = Path("/proc/driver/nvidia/version")
    number = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", version_file.read_text("utf-8")) if version_file.exists() else None
    cuda = f"CUDA {version // 1000}.{version % 1000 // 10}"
    return f"{number[0]}, {cuda}" if number else cuda


SHIFT = """
extern "C" __global__ void shift(float* y, const float* x, int by, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] + by;
}
"""


def cubin() -> dict[str, Any]:
    """A kernel from NVRTC to cubin to result."""
    x, n = np.arange(1000, dtype=np.float32), 1000
    y = np.zeros_like(x)
    chip = Chip()
    chip.run(SHIFT, "shift", 8, 128, [y, x, np.int32(3), np.int32(n)])
    agree(np.array_equal(y, x + 3), f"a kernel that adds 3 to 0, 1, 2, ... gave {y[:4]}...")
    return {"arch": chip.device.arch}


MAPPED = """
struct alignas(64) Map { unsigned long long word[16]; };
extern "C" __global__ void tile(float* y, const __grid_constant__ Map map, int column, int row) {
    __shared__ alignas(128) float box[8 * 32];
    __shared__ alignas(8) unsigned long long full;
    unsigned bar = (unsigned)__cvta_generic_to_shared(&full), to = (unsigned)__cvta_generic_to_shared(box);
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(bar) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 1024;" :: "r"(bar) : "memory");
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                     " [%0], [%1, {%2, %3}], [%4];"
                     :: "r"(to), "l"(&map), "r"(column), "r"(row), "r"(bar) : "memory");
    }
    __syncthreads();
    asm volatile("{ .reg .pred p; again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], 0; @!p bra again; }"
                 :: "r"(bar) : "memory");
    for (int i = threadIdx.x; i < 256; i += blockDim.x) y[i] = box[i];
}
"""


def maps() -> dict[str, Any]:
    """Tensor maps, on sm_90 and later: swizzles that the driver accepts, and a tile that crosses the tensor's edge,
    with zeros beyond it."""
    chip = Chip()
    device = chip.device
    if not device.chip.hopper:
        return {"encoded": "not on this chip", "copied": "not on this chip"}
    held = np.arange(20 * 64, dtype=np.float32).reshape(20, 64)
    x = chip.tensor(held)
    taken = {swizzle: len(encode_map(device.driver, tensor_map(x, (8, 8), swizzle))) for swizzle in (0, 32, 64, 128)}
    column, row = 16, 16
    y = chip.tensor(np.zeros((8, 32), np.float32))
    args = (y, tensor_map(x, (32, 8), 0), np.int32(column), np.int32(row))
    kernel = Kernel(Path("maps.cu"), "tile", text=MAPPED)
    chip.launch(kernel, args, (1, 1, 1), (128, 1, 1))
    wanted = np.zeros((8, 32), np.float32)
    wanted[:4] = held[row:, column : column + 32]
    agree(np.array_equal(device.download(y), wanted), "the tile of a bulk copy differs from the tensor's")
    return {"encoded": taken, "copied": True}


def opcodes() -> dict[str, Any]:
    """The simulator's tests of opcodes: each kernel also runs on the chip, on the same bytes, and must give equal
    results."""
    import pytest

    chip, both = Chip(), Compared()
    simulate = core.sim.run

    def run(source: Any, kernel: str, grid: Any, block: Any, args: Any, *more: Any, **named: Any) -> Any:
        copies = copied(args)
        report = simulate(source, kernel, grid, block, args, *more, **named)
        if named.get("strict") is False:  # refused by strict mode: its result depends on the order of threads
            return report
        how = {**dict(zip(("smem", "cluster"), more, strict=False)), **named}
        how = {"grid": grid, "block": block, **{k: v for k, v in how.items() if k in ("smem", "cluster", "defines")}}
        both.compare(chip, source, kernel, args, copies, **how)
        return report

    core.sim.run = run
    files = [str(ROOT / name) for name in OPCODES]
    code = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *files], plugins=[both])
    agree(int(code) == 0, "the simulator's own tests do not pass")
    agree(both.kernels > 0, "no test ran a kernel")
    agree(not both.different, f"{len(both.different)} of {both.kernels} kernels differ: {both.different[:SHOWN]}")
    others = {"approximate, in units of the last place": both.approximate, "not on this chip": both.absent[:SHOWN]}
    return {"kernels": both.kernels, "same bits": both.same, **others}


def check() -> dict[str, Any]:
    """The op check of every CUDA variant, on the GPU."""
    done = command("check", "--all", "--device", "cuda", "--json")
    reports = json.loads(done.stdout or "[]")
    failed = [f"{r['op']}.{r['variant']}" for r in reports if not r["passed"]]
    agree(reports and not failed and done.returncode == 0, f"{failed or 'nothing was checked'}; {done.stderr[-2000:]}")
    return {"variants": len(reports), "reports": reports}


LOSSES = {
    "f32": 1e-5,
    "bf16": 2e-2,
    "fp16": 2e-3,
}  # relative; f32 as tests/peers/test_against_torch.py has it on the cpu


def adamw(device: str = "cuda", precisions: tuple[str, ...] = ()) -> dict[str, Any]:
    """Ten AdamW steps on PyTorch's weights and batches: its losses, in f64, are in tests/golden."""
    spec = importlib.util.spec_from_file_location("golden_make", ROOT / "tests/golden/make.py")
    assert spec is not None and spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    from safetensors.numpy import load_file

    case, registry = make.CASES["gpt2"], load_registry()
    golden = load_file(ROOT / "tests/golden/gpt2.safetensors")["losses"]
    options = {name: value for name, value in make.OPTIMIZER.items() if name != "lr"}
    weights = {name: value.astype(np.float32) for name, value in make.weights(case["dims"]).items()}
    losses, far = {}, {}
    for precision in precisions or CudaDevice().precisions:
        settings = Settings(device, precision, dims=case["dims"], optimizer="adamw", options=options)
        engine = Engine(load_model(case["model"], registry), registry, settings)
        engine.load_parameters(weights)
        batches = make.batches(case["dims"])
        losses[precision] = [engine.step(batches, make.OPTIMIZER["lr"]).loss for _ in range(make.STEPS)]
        far[precision] = float(np.max(np.abs(np.array(losses[precision]) / golden - 1)))
    agree(all(far[p] < LOSSES[p] for p in far), f"losses are {far} from PyTorch's, relative; at most {LOSSES}")
    return {"losses": losses, "PyTorch": golden.tolist(), "farthest": far}


def train() -> dict[str, Any]:
    """Fifty steps of configs/gpt2_124m.toml, with losses and times, in the chip's "auto" precision and with the largest
    micro-batch that fits."""
    chosen = sizes(CudaDevice())
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        config = str(ROOT / "configs/gpt2_124m.toml")
        done = command("train", config, "--device", "cuda", *chosen, "--set", "train.steps=50", "--out", str(out))
        agree(done.returncode == 0, f"exit code {done.returncode}; {(done.stdout + done.stderr)[-2000:]}")
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses, milliseconds = [line["loss"] for line in lines], [line["ms"] for line in lines]
    agree(len(lines) == 50 and losses[-1] < losses[0] - 2, f"losses {losses[:1]} ... {losses[-1:]}")
    times = {"ms": milliseconds, "tokens_per_s": [line["tokens_per_s"] for line in lines]}
    return {"settings": chosen, "losses": losses, **times}


def sizes(device: CudaDevice) -> list[str]:
    """`--set` of precision and B for `train` on this GPU: the config's B, halved until it fits."""
    precision = precision_on(device, AUTO)
    free, _ = device.memory()
    registry, unbacked = load_registry(), device.unbacked()
    for batch in (16, 8, 4, 2, 1):
        words = [f"precision={precision}", f"dims.B={batch}"]
        config = load_config(str(ROOT / "configs/gpt2_124m.toml"), overrides=words, device="cuda")
        engine = build_engine(config, registry, load_model(config.model, registry), None, unbacked)
        plan = engine.plan("train")
        if needed(engine.report(plan).memory() | figures.scratch(engine.report(plan))) + RESERVE <= free:
            break
    return [word for pair in words for word in ("--set", pair)]


ITEMS: dict[str, Callable[[], dict[str, Any]]] = {
    f.__name__: f for f in (driver, cubin, maps, opcodes, check, adamw, train)
}


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """`core WORDS` in a process of its own."""
    return subprocess.run([sys.executable, "-m", "core.cli", *words], cwd=ROOT, capture_output=True, text=True)


# --- the run --------------------------------------------------------------------------------------------------------


def run_item(name: str) -> int:
    """Run one item in this process; the last printed line is its result. Returns the exit code."""
    try:
        result, code = {"passed": True, **ITEMS[name]()}, 0
    except CoreError as error:
        result = {"passed": False, "error": error.message, "hint": error.hint}
        code = error.exit_code if isinstance(error, DeviceError) else 1
    print(f"\n{MARK}{json.dumps(result)}", flush=True)
    return code


def run_child(name: str) -> tuple[int, dict[str, Any]]:
    """Run one item in a process of its own: (its exit code, its result)."""
    words = [sys.executable, str(Path(__file__).resolve()), "--here", name]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return 1, {"passed": False, "error": f"not done after {LIMIT} s"}
    _, mark, line = done.stdout.rpartition(MARK)
    if not mark:
        return 1, {"passed": False, "error": (done.stdout + done.stderr)[-2000:]}
    result = json.loads(line)
    return done.returncode, result if result["passed"] else {**result, "output": done.stdout[-4000:]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/first_light.json", help="the file of results")
    parser.add_argument("--only", choices=ITEMS, help="run this item, even if it has passed")
    parser.add_argument("--skip", choices=ITEMS, action="append", default=[], help="skip this item")
    parser.add_argument("--list", action="store_true", help="list the items")
    parser.add_argument("--row", action="store_true", help="write this GPU's row into --page, and print it")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page of --row (default: docs/gpus.md)")
    parser.add_argument("--here", choices=ITEMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:<8} {' '.join(str(f.__doc__).split())}" for name, f in ITEMS.items()))
        return 0
    if args.here:
        return run_item(args.here)
    code = run_all(args.out, args.only, args.skip)
    if args.row and args.out.exists() and code != DeviceError.exit_code:
        print(add_row(args.page, json.loads(args.out.read_text("utf-8"))))
    return code


def run_all(out: Path, only: str | None, skip: Sequence[str] = ()) -> int:
    """Run the items that have not passed at this commit, and write the results after each."""
    code, machine = run_child("driver")
    if code == DeviceError.exit_code:
        print(f"first light: {machine['error']}; nothing was run", file=sys.stderr)
        return code
    results = json.loads(out.read_text("utf-8")) if out.exists() else {}
    now = version()
    wanted = dict.fromkeys(["driver", only]) if only else [name for name in ITEMS if name not in skip]
    for name in wanted:
        before = results.get(name, {})
        if not only and before.get("passed") and before.get("commit") == now and name != "driver":
            print(f"{name:<8} passed before")
            continue
        begun = time.perf_counter()
        _, result = run_child(name) if name != "driver" else (code, machine)
        seconds = round(time.perf_counter() - begun, 1)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        results[name] = {**result, "seconds": seconds, "at": when, "commit": now, "platform": platform.platform()}
        replace_durably(out, (json.dumps(results, indent=1) + "\n").encode())
        print(f"{name:<8} {'passed' if result['passed'] else 'FAILED: ' + result['error']} ({seconds} s)", flush=True)
    return 0 if all(results[name]["passed"] for name in ITEMS if name in results) else 1


# --- the page of chips -----------------------------------------------------------------------------------------------


def version() -> str | None:
    """The commit, with "+" when files other than docs/gpus.md differ from it."""
    head = commit()
    if head is None or not head.endswith("+"):
        return head
    words = [
        "git",
        "-C",
        str(ROOT),
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ".",
        f":!{PAGE.relative_to(ROOT)}",
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    return head if done.returncode or done.stdout.strip() else head.removesuffix("+")


def row_of(results: dict[str, Any]) -> dict[str, str]:
    """A GPU's row of docs/gpus.md: COLUMNS -> text, of the results at the commit of `driver`."""
    seen = results["driver"]
    here = {name: result for name, result in results.items() if result["commit"] == seen["commit"]}
    failed = [name for name in ITEMS if name in here and not here[name]["passed"]]
    passed = [name for name in ITEMS if name in here and here[name]["passed"]]
    said = f"{len(passed)} of {len(ITEMS)}" + (f": {', '.join(passed)}" if len(passed) < len(ITEMS) else "")
    return {
        "card": seen["card"],
        "chip": seen["arch"],
        "driver": seen["driver"],
        "commit": (seen["commit"] or "not in git")[:12] + ("+" if (seen["commit"] or "").endswith("+") else ""),
        "date": seen["at"][:10],
        "passed": said + (f"; failed: {', '.join(failed)}" if failed else ""),
    }


def add_row(page: Path, results: dict[str, Any]) -> str:
    """Write the row into the page's table; it replaces one of the same card, driver and commit. Returns the row."""
    row = row_of(results)
    line = f"| {' | '.join(row[name] for name in COLUMNS)} |"
    lines = page.read_text("utf-8").splitlines()
    head = lines.index(f"| {' | '.join(COLUMNS)} |") + 2
    end = next(i for i in range(head, len(lines) + 1) if i == len(lines) or not lines[i].startswith("|"))
    same = f"| {' | '.join(row[name] for name in COLUMNS[:4])} |"
    others = [held for held in lines[head:end] if not held.startswith(same)]
    after = [held for held in lines[end:] if held != EMPTY]
    replace_durably(page, ("\n".join([*lines[:head], *others, line, *after]) + "\n").encode())
    return line


if __name__ == "__main__":
    sys.exit(main())
