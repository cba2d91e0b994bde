"""The cost of `[train] health_every`: one step of a model with and without statistics, and the bytes that they read.

python benchmarks/health.py                                  GPT-2 124M on the cpu, B = 4, T = 64
python benchmarks/health.py --batch 16 --length 1024 --plan  the bytes of a bf16 plan for sm_90a; nothing runs
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from core.device.planned import PlannedDevice  # noqa: E402
from core.dtypes import itemsize, resolve  # noqa: E402
from core.engine import Engine, Settings  # noqa: E402
from core.graph import load_model  # noqa: E402
from core.loader import load_registry  # noqa: E402
from core.plan.health_rows import health_bytes, health_rows, written  # noqa: E402
from core.plan.step_tensors import nbytes_of  # noqa: E402


def engine_of(args):
    registry = load_registry()
    where = {"device": "cuda", "precision": "bf16"} if args.plan else {"device": "cpu"}
    dims = {"B": args.batch, "T": args.length}
    settings = Settings(dims=dims, optimizer="adamw", health=1, **where)
    return Engine(load_model(args.model, registry), registry, settings, PlannedDevice("sm_90a") if args.plan else None)


def sizes(engine):
    """Bytes that a recorded step reads in addition, and bytes that it keeps."""
    plan, layout = engine.plan("train"), engine.layout
    acc = itemsize(resolve("acc", plan.precision))
    tensors = [buffer for _, pairs in written(plan) for _, buffer in pairs]
    of_plan = sum(buffer.nbytes for buffer in tensors)
    of_parameters = acc * (layout.trainable * 4 + layout.size)  # gradients, before twice, updates, parameters
    rows = health_rows(plan, layout)
    memory = health_bytes(plan, layout, engine.device, 1)
    print(f"{len(rows)} rows, {len(tensors)} of them of the plan's tensors")
    share = 100 * of_plan / sum(map(nbytes_of, plan.steps))
    print(f"reads {of_plan / 1e6:,.0f} MB of tensors, {share:.0f}% of the micro-step's traffic,")
    print(f"and {of_parameters / 1e6:,.0f} MB of gradients, parameters and updates, once a step")
    print(f"takes {memory / 1e6:.1f} MB, {64 * len(rows) / 1e3:.0f} KB of it for each step in the ring")


def times(engine, steps):
    """CPU seconds and seconds of steps with and without, in turns; the first of each is not counted."""
    rng, vocabulary = np.random.default_rng(0), int(engine.graph.inputs[engine.token_input].bound)
    tokens = rng.integers(0, vocabulary, (int(engine.graph.dims["B"]), int(engine.graph.dims["T"]) + 1))
    batch = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}
    spent = {False: [], True: []}
    engine.initialize(0)
    for _ in range(steps + 1):
        for health in spent:
            begun, cpu = time.perf_counter(), time.process_time()
            engine.step([batch], 1e-4, health=health)
            spent[health].append((time.process_time() - cpu, time.perf_counter() - begun))
    plain, watched = ([statistics.median(t) for t in zip(*spent[h][1:], strict=True)] for h in (False, True))
    more = [100 * (b - a) / a for a, b in zip(plain, watched, strict=True)]
    print(f"a step takes {plain[0]:.2f} CPU seconds, {watched[0]:.2f} with statistics: {more[0]:.0f}% more")
    print(f"by the clock {plain[1]:.2f} s, {watched[1]:.2f} s: {more[1]:.0f}% more")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt2_124m")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--plan", action="store_true", help="plan for a GPU and run nothing")
    args = parser.parse_args()
    engine = engine_of(args)
    sizes(engine)
    if not args.plan:
        times(engine, args.steps)


if __name__ == "__main__":
    main()
