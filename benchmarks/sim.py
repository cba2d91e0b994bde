"""The simulator's two executors and the cpu device, interleaved in one run: kernels at GPT-2 124M's sizes, and a step.

    python benchmarks/sim.py                   # the kernels of a training step, both executors
    python benchmarks/sim.py --step            # a whole step of B=4, T=64: native and cpu, f32 and bf16
    python benchmarks/sim.py --compile         # the machine and GPT-2's kernels from an empty cache, then from it

A kernel is timed with the step's launch arguments and tensors. Each round runs every peer, one after the other, and
repeats short launches for --spend seconds, from the same contents (changed tensors are restored). Wall and cpu seconds
are the minimum of all repeats, since other programs on the machine only add time. With --spend 0 each peer runs once in
a round, mostly with cold caches.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core.config import load_config
from core.device.simulated import SimDevice
from core.engine import Engine
from core.graph import load_model
from core.kernels.tensors import DeviceTensor
from core.loader import load_registry
from core.measure.bench import random_batch
from core.train.wiring import build_engine

CONFIG = "configs/gpt2_124m.toml"
MOST_REPEATS = 200
PAGE = 1 << 16  # bytes
SIZES = ("dims={B=4,T=64}", "train.tokens_per_step=256")


def engine_on(device: str, precision: str) -> Engine:
    config = load_config(CONFIG, overrides=[*SIZES, f"precision={precision}"], device=device)
    registry = load_registry([])
    return build_engine(
        config, registry, load_model(config.model, registry), None, device=SimDevice() if device == "sim" else None
    )


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """(wall seconds, cpu seconds of all threads)"""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


# --- kernels -----------------------------------------------------------------------------------------------------


class FirstLaunches:
    """Keeps the first launch of each kernel of a step, and the memory as it was before it."""

    def __init__(self, device: SimDevice) -> None:
        self.device = device
        self.largest: dict[str, Any] = {}
        self.run = device._run
        device._run = self.saw  # type: ignore[method-assign]

    def saw(self, record: Any) -> Any:
        sizes = math.prod(record.grid) * math.prod(record.block)
        largest = self.largest.get(record.kernel.name)
        if largest is None or sizes > largest[0]:
            self.largest[record.kernel.name] = sizes, record
        return self.run(record)


class Contents:
    """The tensors of a launch as they were before it. Only the pages that it changes are written back: a copy of all of
    GPT-2's embedding before each repetition would leave both executors with empty caches."""

    def __init__(self, device: Any, record: Any) -> None:
        self.device = device
        self.before = {pointer: now.copy() for pointer, now in self._now(record)}
        self.changed: dict[int, list[int]] = {}  # where the pages begin that the launch changes
        self.record = record

    def _now(self, record: Any) -> Iterator[tuple[int, Any]]:
        """(address, view of its bytes) of each tensor."""
        for pointer, size in {a.pointer: a.nbytes for a in record.args if isinstance(a, DeviceTensor)}.items():
            yield pointer, self.device.space.bytes[pointer : pointer + size]

    def digest(self) -> int:
        return hash(tuple(now.tobytes() for _, now in self._now(self.record)))

    def see(self) -> None:
        """Find the pages that the launch has changed."""
        for pointer, now in self._now(self.record):
            places = range(0, len(now), PAGE)
            was = self.before[pointer]
            self.changed[pointer] = [p for p in places if (now[p : p + PAGE] != was[p : p + PAGE]).any()]

    def restore(self) -> None:
        for pointer, now in self._now(self.record):
            was = self.before[pointer]
            for p in self.changed[pointer]:
                now[p : p + PAGE] = was[p : p + PAGE]


def repeated(run: Callable[[], Any], before: Callable[[], None], spend: float) -> tuple[float, float]:
    """The least wall and cpu seconds of a launch that is run for `spend` seconds, and once at least."""
    best, spent = (math.inf, math.inf), 0.0
    for _ in range(MOST_REPEATS):
        before()
        one = timed(run)
        best, spent = (min(best[0], one[0]), min(best[1], one[1])), spent + one[0]
        if spent >= spend:
            break
    return best


def kernels(rounds: int, precision: str, most: float, spend: float, only: list[str]) -> Iterator[dict[str, Any]]:
    """One row a kernel, of all or those of some names: its largest launch of the step. Over `most` seconds, the
    interpreter runs once."""
    engine = engine_on("sim", precision)
    device: Any = engine.device
    launches = FirstLaunches(device)
    engine.step([random_batch(engine, 0)], 1e-4)
    for name, (_, record) in sorted(launches.largest.items()):
        if only and name not in only:
            continue
        best = {"interpreter": (math.inf, math.inf), "native": (math.inf, math.inf)}
        before, bits = Contents(device, record), {}
        device._simulators[record.kernel].program(record.kernel.name)  # the interpreter's, parsed and linked
        device.executor = "native"
        launches.run(record)
        before.see()
        for _ in range(rounds):
            for executor in best:
                if executor == "interpreter" and best[executor][0] > most and best[executor][0] < math.inf:
                    continue
                device.executor = executor
                least = repeated(lambda: launches.run(record), before.restore, spend)  # noqa: B023
                best[executor] = (min(best[executor][0], least[0]), min(best[executor][1], least[1]))
                bits[executor] = before.digest()
        slow, fast = best["interpreter"], best["native"]
        yield {"kernel": name, "grid": record.grid, "interpreter": slow, "native": fast,
               "faster": slow[1] / fast[1], "equal": len(set(bits.values())) == 1}  # fmt: skip


# --- a step ------------------------------------------------------------------------------------------------------


def steps(rounds: int) -> Iterator[dict[str, Any]]:
    """Seconds of a step: the cpu device in f32, the machine in f32 and bf16."""
    peers = {
        "cpu f32": engine_on("cpu", "f32"),
        "native f32": engine_on("sim", "f32"),
        "native bf16": engine_on("sim", "bf16"),
    }
    best = dict.fromkeys(peers, (math.inf, math.inf))
    for number in range(rounds + 1):
        for name, engine in peers.items():
            batch = [random_batch(engine, 0)]
            spent = timed(lambda: engine.step(batch, 1e-4))  # noqa: B023
            print(f"{name}: {spent[0]:.1f} s, {spent[1]:.1f} s of cpu", file=sys.stderr, flush=True)
            if number:  # the first step compiles and touches the memory
                best[name] = (min(best[name][0], spent[0]), min(best[name][1], spent[1]))
    cpu = best["cpu f32"]
    for name, spent in best.items():
        yield {"peer": name, "wall": spent[0], "cpu": spent[1], "wall over cpu's": spent[0] / cpu[0],
               "cpu over cpu's": spent[1] / cpu[1]}  # fmt: skip


# --- compiling ---------------------------------------------------------------------------------------------------


def compiling() -> Iterator[dict[str, Any]]:
    """Seconds until GPT-2's kernels are ready, with an empty cache and then with a full one: NVRTC, the machine,
    translation. Imports and the model's memory are not counted."""
    code = "import benchmarks.sim as s; s.ready()"
    with tempfile.TemporaryDirectory() as folder:
        for name in ("empty cache", "full cache"):
            done = subprocess.run(
                [sys.executable, "-c", code], check=True, env={**os.environ, "CORELM_CACHE": folder},
                stdout=subprocess.PIPE,
            )  # fmt: skip
            wall, cpu = json.loads(done.stdout)
            yield {"from": name, "wall": wall, "cpu": cpu}


def ready() -> None:
    """Make every kernel of a step ready for the machine; prints the seconds that this took, wall and cpu."""
    spent = [0.0, 0.0]

    def of(make: Callable[[Any], Any]) -> Callable[[Any], None]:
        def run(sample: Any) -> None:
            spent[:] = (a + b for a, b in zip(spent, timed(lambda: make(sample)), strict=True))

        return run

    engine = engine_on("sim", "f32")
    device: Any = engine.device
    device.prepare = of(device.prepare)
    device._run = of(lambda record: device._simulators[record.kernel].native(record.kernel.name))
    engine.step([random_batch(engine, 0)], 1e-4)
    print(json.dumps(spent))


def shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(shown, value)) + ")"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["f32", "bf16", "fp16"], default="f32")
    parser.add_argument("--most", type=float, default=2.0, help="seconds from which the interpreter runs a kernel once")
    parser.add_argument("--spend", type=float, default=0.1, help="seconds for which a round repeats a short launch")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="names of kernels, by commas")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    made = (
        compiling()
        if args.compile
        else steps(args.rounds)
        if args.step
        else kernels(args.rounds, args.precision, args.most, args.spend, args.only)
    )
    rows = []
    for row in made:
        rows.append(row)
        print(
            "  ".join(f"{key} {shown(value)}" for key, value in row.items()),
            flush=True,
        )
    if not args.step and not args.compile:
        ratios = [row["faster"] for row in rows]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        equal = sum(row["equal"] for row in rows)
        print(f"native over interpreter: {mean:.1f} times (geometric mean), {min(ratios):.1f} the least")
        print(f"equal bits: {equal} of {len(rows)}")
    if args.json:
        args.json.write_text(json.dumps(rows, default=float))


if __name__ == "__main__":
    main()
