"""GPT-2 124M's micro-step by the model of `core bench --sass`, without the GPUs; recorded issue slots, for tests.

    python benchmarks/sass.py              the table of benchmarks/README.md
    python benchmarks/sass.py --record     ops/cuda/slots.json: issue slots of the tensor-core kernels' code; and the
                                           tables of docs/kernels.md, which tests compare with it
    python benchmarks/sass.py --kernels "A100-SXM4-80GB" --batches 16     each kernel's part

Needs nvdisasm: pip install "corelm[sass]".
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout, installed or not

from core.config import load_config  # noqa: E402
from core.device.planned import PlannedDevice, launches_among  # noqa: E402
from core.graph import load_model  # noqa: E402
from core.kernels.chips import CHIPS, GPUS  # noqa: E402
from core.kernels.nvrtc import Kernel  # noqa: E402
from core.kernels.nvrtc_library import nvrtc_version  # noqa: E402
from core.kernels.sass_loops import loops_of  # noqa: E402
from core.loader import load_registry  # noqa: E402
from core.measure.sass_bench import sass_bench  # noqa: E402
from core.measure.sass_model import code_of, kernel_code, kernel_key  # noqa: E402
from core.train.wiring import build_engine  # noqa: E402

CONFIG, RECORD = "configs/gpt2_124m.toml", ROOT / "ops" / "cuda" / "slots.json"
PAGE = ROOT / "docs" / "kernels.md"
MARGIN = 1.02  # of slots outside of the main loop: a register's name may cost a move
TABLE = ("Tesla T4", "A100-SXM4-80GB", "H100 80GB HBM3", "RTX 3090", "RTX 4090", "RTX 5090", "L40S")
# The variants of docs/kernels.md whose work is products, from naive ones to those on tensor cores, and their GPU
LADDER, LADDER_GPU = ("matmul naive", "matmul tiled", "matmul register", "matmul mma",
                      "attention naive", "attention online", "attention flash"), "A100-SXM4-80GB"  # fmt: skip
NO_PRODUCTS = ("naive_softmax", "naive_dbias", "tiled_dbias", "tiled_sums")  # kernels of these variants without any
RECORDED = (
    "Tesla T4",
    "A100-SXM4-80GB",
    "RTX 3090",
    "RTX 4090",
    "H100 80GB HBM3",
    "B200",
    "RTX 5090",
)  # one of an architecture


def engine_for(name: str, batch: int, layers: int = 12, *overrides: str, tuned: dict | None = None):
    """GPT-2 124M's engine on a planned GPU, in the best precision that the GPU has. tuned: choices of tiles in place
    of the shipped ones."""
    chip = CHIPS[GPUS[name].number]
    sizes = [f"dims.B={batch}", f"dims.L={layers}", f"train.tokens_per_step={1024 * batch}"]
    precision = ("precision=auto", *overrides)
    registry = load_registry(only=())
    config = load_config(CONFIG, overrides=[*sizes, *precision], device="cuda")
    device = PlannedDevice(chip.arch, GPUS[name].sms)
    device.model = name
    return build_engine(config, registry, load_model(config.model, registry), None, device, tuned)


def compiler() -> str:
    """Such as "NVRTC 13.5": another one makes other code, and has a record of its own."""
    return "NVRTC " + ".".join(nvrtc_version().split(".")[:2])


def slots(name: str) -> dict[str, dict[str, int]]:
    """kernel -> {trip, rest, spills} of the tensor-core kernels of a micro-step at B = 16: with the best guesses'
    tiles, and with those that are shipped."""
    engines = [engine_for(name, 16, layers=1, tuned=tuned) for tuned in ({}, None)]
    rows: dict[str, dict[str, int]] = {}
    for launch in launches_among(launch for e in engines for launch in e.bound("train", (), e.input_sizes).launches()):
        key = kernel_key(launch.kernel)
        if key in rows or not launch.kernel.name.startswith(("mma_", "flash_")):
            continue
        code = kernel_code(launch.kernel, GPUS[name])
        if code.trip.kinds["tensor"]:
            rows[key] = {
                "trip": code.trip.kinds.total(), "rest": code.rest.kinds.total(), "spills": code.resources.spills
            }  # fmt: skip
    return rows


def grown(now: dict[str, dict[str, int]], recorded: dict[str, dict[str, int]]) -> list[str]:
    """Sentences about slots that exceed the recorded ones: a spill, a longer loop iteration, more than 2% outside of
    the loop; and about kernels that only one of the two has."""
    record = "`python benchmarks/sass.py --record` writes the kernels that there are"
    lines = [f"{key}: not in both; {record}" for key in sorted(set(now) ^ set(recorded))]
    for key in sorted(set(now) & set(recorded)):
        row, before = now[key], recorded[key]
        if row["spills"]:
            lines.append(f"{key}: {row['spills']} bytes spilt")
        if row["trip"] > before["trip"]:
            lines.append(f"{key}: {row['trip']} slots a trip, recorded {before['trip']}")
        if row["rest"] > MARGIN * before["rest"]:
            lines.append(f"{key}: {row['rest']} other slots, recorded {before['rest']}")
    return lines


# --- docs/kernels.md -------------------------------------------------------------------------------------------------


def ladder(rungs: tuple[str, ...] = LADDER) -> Iterator[str]:
    """A row of each kernel of these variants: its trip through the main loop, for 1,024 multiply-adds, registers."""
    for rung in rungs:
        op, variant = rung.split()
        engine = engine_for(LADDER_GPU, 16, 1, f"ops.{op}={variant}", tuned={})
        kernels = dict.fromkeys(
            launch.kernel
            for launch in launches_among(engine.bound("train", (), engine.input_sizes).launches())
            if launch.kernel.source.stem.startswith(op) and launch.kernel.name not in NO_PRODUCTS
        )
        for kernel in kernels:
            code = kernel_code(kernel, GPUS[LADDER_GPU])
            if products := multiply_adds(kernel):
                slots = code.trip.kinds.total()
                each = f"{code.slots_per_tensor:.2f}" if code.slots_per_tensor else ""
                cells = f"{slots} | {products:,} | {1024 * slots / products:.1f} | {each} | {code.resources.registers}"
                yield f"| `{op}.{variant}` | `{kernel.name}` | {cells} |"


def multiply_adds(kernel: Kernel) -> int:
    """Multiply-adds of a warp in an iteration of the main loop: those of tensor cores (HMMA.16816 has m, n and k), else
    those of f32 instructions."""
    code, _ = code_of(kernel, CHIPS[GPUS[LADDER_GPU].number].arch)
    trip = [code[at] for at in next(iter(loops_of(code)), [])]
    tensor = [16 * 8 * int(i.opcode.split(".")[1][3:]) for i in trip if i.kind == "tensor"]
    return sum(tensor) or 32 * sum(i.opcode.startswith("FFMA") for i in trip)


def by_compiler(held: dict[str, dict[str, dict[str, dict[str, int]]]]) -> Iterator[str]:
    """Header and rows of the tensor-core kernels' slots a trip by architecture: the newest compiler's (the others')."""
    newest, *older = sorted(held, reverse=True)
    archs = sorted(held[newest], key=lambda arch: int(re.sub(r"\D", "", arch)))
    yield f"| {newest} ({', '.join(older)}) | {' | '.join(archs)} |"
    yield "|---|" + "--:|" * len(archs)
    slots = {
        of: {
            (arch, key.split()[0]): shown(rows[key])
            for arch, rows in held[of].items()
            for key in sorted(rows, key=size)  # the last of a kernel's has the cell
        }
        for of in held
    }
    for kernel in sorted({name for _, name in slots[newest]}):
        cells = []
        for arch in archs:
            now, *before = (slots[of].get((arch, kernel)) for of in (newest, *older))
            others = ", ".join(text for text in before if text)
            cells.append(f"{now} ({others})" if now and others else now or "")
        yield f"| `{kernel}` | {' | '.join(cells)} |"


def size(key: str) -> int:
    """The size of a kernel's tile: the largest, which is the best guess, has the row of the page."""
    macros = dict(macro.split("=") for macro in key.split()[1:])
    return math.prod(int(macros.get(name, 1)) for name in ("TILE_I", "TILE_J", "BLOCKS", "TILE"))


def shown(row: dict[str, int]) -> str:
    """Slots a trip, and the bytes that the kernel spills."""
    return f"{row['trip']}, {row['spills']} B spilt" if row["spills"] else str(row["trip"])


def replace_table(text: str, header: str, rows: list[str]) -> str:
    """A page with other rows in the table whose first line begins with `header`; `rows` has the header's lines too."""
    lines = text.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith(header))
    last = next(at for at in range(first, len(lines)) if not lines[at].startswith("|"))
    return "\n".join([*lines[:first], *rows, *lines[last:]]) + "\n"


def write_page(held: dict[str, dict[str, dict[str, dict[str, int]]]]) -> None:
    """Rewrite the tables of docs/kernels.md; the ladder of the newest compiler only with that compiler."""
    text = replace_table(PAGE.read_text("utf-8"), "| NVRTC", list(by_compiler(held)))
    if compiler() == max(held):
        first = text.index(LADDER_HEADER)
        header = text[first:].splitlines()[:2]
        text = replace_table(text, LADDER_HEADER, [*header, *ladder()])
    PAGE.write_text(text, "utf-8")


LADDER_HEADER = "| variant | kernel | slots a trip |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--kernels", metavar="GPU", help="the rows of one GPU")
    parser.add_argument("--batches", default="16,64")
    args = parser.parse_args()
    batches = [int(b) for b in args.batches.split(",")]
    if args.record:
        held = json.loads(RECORD.read_text())
        held[compiler()] = made = {CHIPS[GPUS[name].number].arch: slots(name) for name in RECORDED}
        RECORD.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
        write_page(held)
        print(f"{sum(map(len, made.values()))} kernels of {compiler()} in {RECORD}")
        return
    names = [args.kernels] if args.kernels else TABLE
    if not args.kernels:
        print("| GPU | dtype | " + " | ".join(f"B={b}: times the floor | largest parts" for b in batches) + " |")
        print("|---|---|" + "--:|---|" * len(batches))
    for name in names:
        cells = []
        for batch in batches:
            engine = engine_for(name, batch)
            made = sass_bench(engine)
            if args.kernels:
                print(f"B={batch}: at least {1e3 * made.seconds:.1f} ms, {made.over_floor:.2f} times the floor")
                for row in made.micro[:12]:
                    print(f"  {row.kernel:20s} {1e3 * row.seconds:8.2f} ms  {row.limit}")
                continue
            parts = {}
            for row in made.micro:
                parts[row.limit] = parts.get(row.limit, 0.0) + row.seconds / made.seconds
            largest = sorted(parts.items(), key=lambda item: -item[1])[:2]
            cells += [f"{made.over_floor:.2f}", ", ".join(f"{limit} {share:.0%}" for limit, share in largest)]
        if cells:
            print(f"| {name} | {engine.precision} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
