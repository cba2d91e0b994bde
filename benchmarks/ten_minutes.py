"""All measurements on a GPU that is rented for ten minutes, in one command without further decisions.

    python benchmarks/ten_minutes.py --out FOLDER           all parts, each within its time
    python benchmarks/ten_minutes.py --out FOLDER --table   the table alone, of an earlier run
    python benchmarks/ten_minutes.py --list                 the parts, their seconds and commands

FOLDER has a JSON file and a log of each part, and summary.json, which is written after each part: a machine that
disappears loses the current part, and of the longer parts only the unwritten results. A part that fails or exceeds its
time does not stop the next one, and unused time goes to the next ones. The last lines are the table: for each kernel,
the time by the model of the compiler's code (core bench --sass) and the measured one.

Requirements are the checkout and `pip install -e ".[sass]"`; benchmarks/gpu.py compares with PyTorch where that is
installed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout, installed or not

from core.files import replace_durably  # noqa: E402

CORE = ("-m", "core")
SIZE = ("--set", "dims.B={batch}", "--set", "train.tokens_per_step={tokens}")
ROUNDS = 5
WARM, STEPS = 3, 20  # of dependent_launch
GRACE = 15  # seconds between SIGINT and SIGKILL
SEQUENCE = 1024
SUMMARY = "summary.json"


@dataclass(frozen=True)
class Part:
    """A command of this Python, whose words may name {out}, {config}, {batch}, {tokens}. seconds: its part of the time.
    printed: its output is its JSON file, name.json; otherwise it writes that file itself."""

    name: str
    seconds: int
    command: tuple[str, ...]
    printed: bool = False


PARTS = (
    Part("kernels", 60, ("benchmarks/ten_minutes.py", "--kernels", "{out}/kernels.json", "--config", "{config}",
                         "--batch", "{batch}")),
    Part("bench", 40, (*CORE, "bench", "{config}", "--device", "cuda", "--json", *SIZE), True),
    Part("first_light", 160, ("benchmarks/first_light.py", "--skip", "check", "--out", "{out}/first_light.json")),
    Part("dependent_launch", 30, ("benchmarks/ten_minutes.py", "--dependent-launch", "{out}/dependent_launch.json",
                                  "--config", "{config}", "--batch", "{batch}")),
    Part("gpu", 130, ("benchmarks/gpu.py", "--batches", "{batch},64", "--rounds", "1", "--minutes", "2",
                      "--json", "{out}/gpu.json")),
    Part("check", 75, (*CORE, "check", "--config", "{config}", "--device", "cuda", "--no-time", "--limit", "45",
                       "--json", "--set", "dims.B=1", "--set", "train.tokens_per_step=1024"), True),
    Part("tune", 85, (*CORE, "tune", "{config}", "--device", "cuda", "--json", *SIZE, "--write-defaults",
                       "{out}/tuned.toml"), True),
)  # fmt: skip


# --- the run ---------------------------------------------------------------------------------------------------------


def run_all(out: Path, words: Mapping[str, Any], seconds: float, parts: tuple[Part, ...] = PARTS) -> dict[str, Any]:
    """part -> its outcome; summary.json is written after each."""
    out.mkdir(parents=True, exist_ok=True)
    began, done = time.monotonic(), {}
    share = min(seconds / sum(part.seconds for part in parts), 1)
    for place, part in enumerate(parts):
        later = share * sum(part.seconds for part in parts[place + 1 :])
        done[part.name] = run_part(part, out, words, max(seconds - (time.monotonic() - began) - later, 0))
        replace_durably(out / SUMMARY, (json.dumps(done, indent=1) + "\n").encode())
        print(f"{part.name:<12} {done[part.name]['ended']} ({done[part.name]['seconds']} s)", flush=True)
    return done


def run_part(part: Part, out: Path, words: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Run a part for at most `seconds`; its processes end with it."""
    command = [sys.executable, *(word.format(out=out, **words) for word in part.command)]
    began = time.monotonic()
    printed = out / (f"{part.name}.json" if part.printed else f"{part.name}.txt")
    with printed.open("wb") as stdout, (out / f"{part.name}.log").open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=ROOT, start_new_session=True)
        try:
            code = process.wait(seconds)
            ended = "done" if code == 0 else f"FAILED with code {code}: {part.name}.log"
        except subprocess.TimeoutExpired:
            ended = f"cut off after {seconds:.0f} s"
            stop(process)
    return {"ended": ended, "seconds": round(time.monotonic() - began, 1), "command": command[1:]}


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a part and its child processes: SIGINT first, then SIGKILL."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(GRACE)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


# --- each kernel of a micro-step -------------------------------------------------------------------------------------


def kernels(config: str, batch: int) -> Iterator[dict[str, Any]]:
    """Each kernel of a micro-step: its launches' milliseconds, the least of all rounds; then with the model's bound."""
    from core.measure.bench import random_batch

    engine = engine_for(config, batch)
    engine.initialize(0)
    engine.step([random_batch(engine, 0)], 1e-4)
    plan = engine.bound("train", (), engine.input_sizes)
    commands = plan.launches()
    took = [engine.device.elapsed([[command] for command in commands]) for _ in range(ROUNDS)]
    rows: dict[str, dict[str, Any]] = {}
    for command, seconds in zip(commands, map(min, *took), strict=True):
        row = rows.setdefault(
            key_of(command.record), {"launches": 0, "measured_ms": 0.0, "modelled_ms": None, "limit": ""}
        )
        row["launches"] += 1
        row["measured_ms"] += 1e3 * seconds
    device = {"gpu": engine.device.model, "arch": engine.device.arch, "sms": engine.device.sms}
    held = {**device, "model": engine.graph.name, "precision": engine.precision, "B": batch}
    yield {**held, "kernels": [{"kernel": key, **row} for key, row in rows.items()]}
    for command in commands:
        add_bound(rows[key_of(command.record)], command.record, engine.device.model)
    yield {**held, "kernels": [{"kernel": key, **row} for key, row in rows.items()]}


# --- dependent launch ------------------------------------------------------------------------------------------------


def dependent_launch(config: str, batch: int) -> Iterator[dict[str, Any]]:
    """Steps without [train] dependent_launch and with it: milliseconds, and losses and norms, whose bits must be the
    same."""
    done: dict[str, Any] = {}
    for allowed in (False, True):
        engine = engine_for(config, batch, f"train.dependent_launch={str(allowed).lower()}")
        done["with" if allowed else "without"] = timed_steps(engine)
        done["gpu"], done["arch"] = engine.device.model, engine.device.arch
        done["same_bits"] = done["with"]["losses"] == done["without"]["losses"] if allowed else None
        yield done


def timed_steps(engine: Any) -> dict[str, Any]:
    """WARM steps and STEPS more, on one random batch."""
    from core.measure.bench import random_batch

    engine.initialize(0)
    batch, losses, milliseconds = [random_batch(engine, 0)], [], []
    for index in range(WARM + STEPS):
        began = time.perf_counter()
        record = engine.step(batch, 1e-4)
        losses.append([float(record.loss).hex(), float(record.norm).hex()])
        if index >= WARM:
            milliseconds.append(round(1e3 * (time.perf_counter() - began), 3))
    return {"median_ms": statistics.median(milliseconds), "ms": milliseconds, "losses": losses}


def engine_for(config: str, batch: int, *overrides: str) -> Any:
    """The engine of a config with this batch, on the GPU."""
    from core.config import resolve_config
    from core.graph import load_model
    from core.train.wiring import build_engine

    sizes = (f"dims.B={batch}", f"train.tokens_per_step={SEQUENCE * batch}")
    loaded, registry = resolve_config(config, overrides=(*sizes, *overrides), device="cuda")
    return build_engine(loaded, registry, load_model(loaded.model, registry), None)


def key_of(record: Any) -> str:
    """The name of a launch's row: its kernel and macros, or the kind of a command without a kernel of corelm."""
    from core.device.launch import LaunchRecord
    from core.measure.sass_model import kernel_key

    return kernel_key(record.kernel) if isinstance(record, LaunchRecord) else type(record).__name__


def add_bound(row: dict[str, Any], record: Any, model: str) -> None:
    """Add a launch's bound to the row of its kernel. A GPU without published rates, or without nvdisasm, has none."""
    from core.device.launch import LaunchRecord
    from core.kernels.chips import gpu
    from core.measure.sass_model import bound_of

    if not isinstance(record, LaunchRecord) or (chip := gpu(model)) is None:
        return
    try:
        bound = bound_of(record, chip)
    except Exception as error:  # whatever the model cannot read, the measurement stays
        row["modelled_ms"], row["limit"] = None, f"no model: {error}"
        return
    row["modelled_ms"] = (row["modelled_ms"] or 0.0) + 1e3 * bound.seconds
    row["limit"] = bound.limit


def table(result: Mapping[str, Any]) -> Iterator[str]:
    """Markdown: the model's bound and the measured time of each kernel, the longest first."""
    run, where = f"{result['model']} in {result['precision']}, B={result['B']}", f"{result['gpu']} ({result['arch']})"
    yield f"{run}, on {where}: milliseconds of a micro-step"
    yield ""
    yield "| kernel | launches | modelled, at least | measured | measured / modelled | modelled limit |"
    yield "|---|--:|--:|--:|--:|---|"
    rows = sorted(result["kernels"], key=lambda row: -row["measured_ms"])
    for row in rows:
        name = row["kernel"].partition(" ")[0]
        yield f"| {name} | {row['launches']} | {_compared(row['modelled_ms'], row['measured_ms'])} | {row['limit']} |"
    modelled = [row for row in rows if row["modelled_ms"]]
    sums = (sum(row[name] for row in modelled) for name in ("modelled_ms", "measured_ms"))
    yield f"| those with a model | {sum(row['launches'] for row in modelled)} | {_compared(*sums)} | |"


def _compared(modelled: float | None, measured: float) -> str:
    if not modelled:
        return f"| {measured:.3f} |"
    return f"{modelled:.3f} | {measured:.3f} | {measured / modelled:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the folder of results")
    parser.add_argument("--minutes", type=float, default=9.7, help="of all parts together")
    parser.add_argument("--config", default="configs/gpt2_124m.toml")
    parser.add_argument("--batch", type=int, default=16, help="sequences of a micro-step")
    parser.add_argument("--table", action="store_true", help="print the table of an earlier run")
    parser.add_argument("--list", action="store_true", help="print the parts")
    parser.add_argument("--kernels", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--dependent-launch", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    words = {"config": args.config, "batch": args.batch, "tokens": SEQUENCE * args.batch}
    for file, measure in ((args.kernels, kernels), (args.dependent_launch, dependent_launch)):
        if file:
            for held in measure(args.config, args.batch):
                replace_durably(file, json.dumps(held, indent=1).encode())
            return 0
    if args.list:
        print("\n".join(f"{p.name:<12} {p.seconds:4} s  {' '.join(p.command)}" for p in PARTS))
        return 0
    if args.out is None:
        parser.error("--out FOLDER: where should results go?")
    out = args.out.resolve()
    done = {} if args.table else run_all(out, words, 60 * args.minutes)
    try:
        print("\n".join(table(json.loads((out / "kernels.json").read_text("utf-8")))))
    except (OSError, ValueError):
        print(f"no table: {out / 'kernels.json'} is missing or incomplete")
        return 1
    return 0 if all(part["ended"] == "done" for part in done.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
