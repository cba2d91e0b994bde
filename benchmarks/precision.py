"""The cost of 16 bits: does training in bf16 or fp16 follow training in f32, and is it as exact as PyTorch's?

    python benchmarks/precision.py                    on the GPU, or in the simulator without one
    python benchmarks/precision.py --device sim --steps 300 --seeds 8 --follow 3 --jobs 3 --json result.json
    python benchmarks/precision.py --precision fp16

A GPT-2 of 112,000 parameters learns the characters of the text that ships with Python. Two questions, a table for each:

1. Curves. Each seed draws other weights and sees the same batches, in f32. The distance between losses of different
   seeds is the effect of chance on a run; the 16-bit run, from the first seeds' weights, may be no farther from f32
   than that, in every window of 25 steps.
2. Distances. On the same weights (those of the start, and those of the first f32 run's end) and the same batch: how
   far are logits and each parameter's gradient from f64, corelm's in 16 bits and PyTorch's? Both get weights that are
   exact in 16 bits, so that only arithmetic counts. PyTorch's model is .bfloat16() or .half() as a whole, not autocast;
   its logits become f32 before the loss, to its advantage. In fp16 its loss is multiplied by SCALE, corelm's by the
   initial loss scale of a run.

With --device sim, f32 runs on the cpu: the op check compares both devices with the same reference. The exit code is 1
if the 16-bit runs stray from f32, or are farther from f64 than PyTorch's by more than --slack.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from torch_gpt2 import gpt2_logits  # noqa: E402
from worker import THREADS  # noqa: E402

from core.data.builtin import builtin_documents  # noqa: E402
from core.engine import Engine, Settings  # noqa: E402
from core.graph import load_model  # noqa: E402
from core.loader import load_registry  # noqa: E402
from core.testing.compare import round_to  # noqa: E402

DIMS = {"B": 4, "T": 32, "S": 32, "V": 128, "P": 128, "C": 64, "H": 2, "L": 2}  # V: ASCII
OPTIONS = {"betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0}
PEAK, WARMUP = 2e-3, 20  # the learning rate, and the steps in which it gets there
TORCH = {"bf16": "bfloat16", "fp16": "float16"}
SCALE = {"float16": 1024.0}  # of PyTorch's loss
WINDOW = 25  # steps whose losses are averaged before they are compared


def engine(device, precision, **settings):
    registry = load_registry()
    return Engine(
        load_model("gpt2_124m", registry), registry, Settings(device=device, precision=precision, dims=DIMS, **settings)
    )


def batch(step):
    """Batch `step`: {"tokens", "targets"}, (B, T) i32; the same for all runs."""
    shape = DIMS["B"], DIMS["T"] + 1
    stream = np.random.Generator(np.random.PCG64([2024, step]))
    text = characters()
    starts = stream.integers(0, len(text) - shape[1], shape[0])
    rows = np.stack([text[start : start + shape[1]] for start in starts]).astype(np.int32)
    return {"tokens": rows[:, :-1].copy(), "targets": rows[:, 1:].copy()}


@cache
def characters():
    """(n,) u8: the builtin training text, its ASCII characters."""
    return np.frombuffer(
        "\n".join("".join(d.blocks()) for d in builtin_documents("train")).encode("ascii", "ignore"), "u1"
    )


# --- 1. curves -------------------------------------------------------------------------------------------------------


def run(device, precision, seed, steps):
    """(losses of a run, its weights at the end by name, seconds)."""
    began = time.monotonic()
    built = engine(device, precision, optimizer="adamw", options=OPTIONS, seed=seed)
    built.initialize(seed)
    losses = []
    for step in range(steps):
        losses.append(built.step([batch(step)], PEAK * min(1, (step + 1) / WARMUP)).loss)
        if precision in TORCH and (step + 1) % WINDOW == 0:
            recent = np.mean(losses[-WINDOW:])
            spent = time.monotonic() - began
            print(f"{precision} on {device}, seed {seed}: step {step + 1} of {steps}, loss {recent:.4f}, {spent:.0f} s",
                  file=sys.stderr, flush=True)  # fmt: skip
    return losses, {name: np.array(w) for name, w in built.parameters().items()}, time.monotonic() - began


def windows(losses):
    """Means of WINDOW steps: (..., steps) -> (..., windows); steps after the last whole window do not count."""
    losses = np.asarray(losses)
    whole = losses.shape[-1] // WINDOW * WINDOW
    return losses[..., :whole].reshape(*losses.shape[:-1], -1, WINDOW).mean(-1)


def curves(f32, half):
    """One row a window: f32's mean loss and its standard deviation between seeds; the root mean square of the distance
    between the 16-bit run and f32 of the same seed; and the mean of that, which a bias would show in."""
    plain, half = windows(f32), windows(half)
    apart = half - plain[: len(half)]
    return [
        {"to": WINDOW * (i + 1), "f32": plain[:, i].mean(), "spread": plain[:, i].std(ddof=1),
         "half": half[:, i].mean(), "away": np.sqrt((apart[:, i] ** 2).mean()), "bias": apart[:, i].mean()}
        for i in range(plain.shape[1])
    ]  # fmt: skip


def straying(rows):
    """The windows in which 16 bits are farther from f32 than the seeds are from each other."""
    return [row for row in rows if row["away"] > row["spread"]]


# --- 2. distances ----------------------------------------------------------------------------------------------------


def ours(device, precision, weights, one):
    """{"logits", parameter: gradient} of a batch."""
    dtype = np.float64 if precision == "f64" else np.float32
    built = engine(device, precision)
    built.load_parameters({name: w.astype(dtype) for name, w in weights.items()})
    return {"logits": built.logits(one["tokens"]), **built.gradients(one)[1]}


def torchs(device, weights, one, dtype="bfloat16"):
    """The same in PyTorch, all of it in `dtype` but the loss, which is f32 at least."""
    import torch

    where = "cuda" if device == "cuda" else "cpu"
    p = {n: torch.from_numpy(w).to(where, getattr(torch, dtype)).requires_grad_() for n, w in weights.items()}
    tokens, targets = (torch.from_numpy(one[n].astype(np.int64)).to(where) for n in ("tokens", "targets"))
    logits = gpt2_logits(p, tokens, DIMS["H"])
    exact = logits.double() if dtype == "float64" else logits.float()
    scale = SCALE.get(dtype, 1.0)
    (scale * torch.nn.functional.cross_entropy(exact.flatten(0, 1), targets.flatten())).backward()
    tensors = {"logits": logits.detach(), **{name: w.grad.double() / scale for name, w in p.items()}}
    return {name: w.double().cpu().numpy() for name, w in tensors.items()}


def distances(device, weights, one, precision="bf16"):
    """One row a tensor: its relative 2-norm from f64, ours in 16 bits and PyTorch's, and their ratio."""
    weights = {name: round_to(w, precision).astype(np.float32) for name, w in weights.items()}
    exact = ours("cpu", "f64", weights, one)
    computed = {"ours": ours(device, precision, weights, one), "torch": torchs(device, weights, one, TORCH[precision])}
    rows = []
    for name, true in exact.items():
        far = {who: float(np.linalg.norm(got[name] - true) / np.linalg.norm(true)) for who, got in computed.items()}
        rows.append({"tensor": name, **far, "ratio": far["ours"] / far["torch"]})
    return rows


# --- the run ---------------------------------------------------------------------------------------------------------


def show(header, rows):
    print("\n| " + " | ".join(header) + " |\n|" + "--:|" * len(header))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print(flush=True)


def show_curves(rows, precision):
    show(
        ("steps", "f32", "between seeds", precision, f"{precision} from f32", "mean of it"),
        [(f"{r['to'] - WINDOW}..{r['to']}", *(f"{r[k]:.4f}" for k in ("f32", "spread", "half", "away")),
          f"{r['bias']:+.4f}") for r in rows],
    )  # fmt: skip


def show_distances(where, rows):
    print(f"\nRelative distance from f64, {where}:")
    table = [(r["tensor"], f"{r['ours']:.2e}", f"{r['torch']:.2e}", f"{r['ratio']:.2f}") for r in rows]
    show(("tensor", "ours", "PyTorch", "ours / PyTorch"), table)
    worst = max(rows, key=lambda r: r["ratio"])
    print(f"worst ratio {worst['ratio']:.2f} ({worst['tensor']}); of the logits {rows[0]['ratio']:.2f}", flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "sim"))
    parser.add_argument("--precision", default="bf16", choices=tuple(TORCH))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=8, help="runs in f32")
    parser.add_argument("--follow", type=int, default=3, help="runs in 16 bits, from the first seeds")
    parser.add_argument("--jobs", type=int, help="runs at a time; on a GPU, 1")
    parser.add_argument("--slack", type=float, default=1.05, help="the largest accepted ratio of distances from f64")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    if not (args.steps >= WINDOW and args.seeds >= 2 and 1 <= args.follow <= args.seeds):
        parser.error(f"expected --steps of at least {WINDOW}, --seeds of at least 2, and --follow from 1 to --seeds")
    if args.device == "auto":
        from core.devices.nvidia import nvidia_device

        args.device = "cuda" if nvidia_device() else "sim"
    args.jobs = args.jobs or (1 if args.device == "cuda" else min(args.follow, os.cpu_count() or 1))
    return args


def main():
    args = parse()
    plain = "cpu" if args.device == "sim" else args.device
    os.environ.update(dict.fromkeys(THREADS, "1"))  # of the runs: for tensors this small, threads wait for each other
    print(
        f"{args.precision} on {args.device}, f32 on {plain}; "
        f"{args.steps} steps of {DIMS['B']} x {DIMS['T']} characters",
        flush=True,
    )
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        half = [pool.submit(run, args.device, args.precision, seed, args.steps) for seed in range(args.follow)]
        f32 = [pool.submit(run, plain, "f32", seed, args.steps) for seed in range(args.seeds)]
        f32, half = ([future.result() for future in futures] for futures in (f32, half))
    rows = curves([losses for losses, *_ in f32], [losses for losses, *_ in half])
    show_curves(rows, args.precision)
    strays = straying(rows)
    print(f"{args.precision} diverges from f32 in {len(strays)} of {len(rows)} windows", flush=True)

    start = engine("cpu", "f32")
    start.initialize(0)
    at_weights = {"at the start": start.parameters(), f"after {args.steps} steps of f32": f32[0][1]}
    at_weights = {
        where: distances(args.device, weights, batch(args.steps), args.precision)
        for where, weights in at_weights.items()
    }
    for where, tensors in at_weights.items():
        show_distances(where, tensors)
    farther = [r for tensors in at_weights.values() for r in tensors if r["ratio"] > args.slack]
    if args.json:
        runs = {"f32": [r[0] for r in f32], args.precision: [r[0] for r in half]}
        Path(args.json).write_text(json.dumps({"curves": rows, "distances": at_weights, "losses": runs}, indent=1))
    raise SystemExit(1 if strays or farther else 0)


if __name__ == "__main__":
    main()
