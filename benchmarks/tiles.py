"""Shipped tiles for GPUs without measurements, by the model of `core bench --sass`.

    python benchmarks/tiles.py            for each GPU, op and size: best guess, the model's choice, its gain
    python benchmarks/tiles.py --write    writes choices with a gain of GAIN or more into ops/cuda/tuned.toml

The program is `core tune` with times by a model of the compiler's code, core/measure/sass_model.py. The model has no L2
cache, which prefers large tiles: here a product takes at least the time of its operands' tiles at L2's rate. The sums
of a weight gradient's slices add their bytes at memory's rate, more than L2 would take. A modelled choice is marked
"not measured". A choice that was measured on the GPU stays unchanged, and one by `core tune` on the machine precedes
both.

The program needs nvdisasm: pip install "corelm[sass]".
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import tomli_w

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout, installed or not

from core.config import load_config  # noqa: E402
from core.device.planned import PlannedDevice, launches_among  # noqa: E402
from core.graph import load_model  # noqa: E402
from core.kernels.chips import CHIPS, GPUS  # noqa: E402
from core.loader import load_registry  # noqa: E402
from core.measure.choices_file import read_choices  # noqa: E402
from core.measure.sass_model import bound_of, clock_of  # noqa: E402
from core.measure.tune import candidates, write_choices  # noqa: E402
from core.plan import TRAIN, tuning_key  # noqa: E402
from core.train.wiring import build_engine  # noqa: E402

CONFIG, BATCHES = "configs/gpt2_124m.toml", (2, 16, 64)  # sequences of 1,024 tokens
GAIN = 0.01  # of the op's time
MODELLED = ("Tesla T4", "A100-SXM4-80GB", "H100 80GB HBM3", "RTX 3090", "RTX 4090", "RTX 5090", "L40S")
# Bytes a clock and multiprocessor: NVIDIA's A100 white paper has 5,120 for 108, and an H100 has no less. No figure is
# published for the others; a low one lets tiles with more reads win only where reads hardly matter
L2, L2_OTHERS = {80: 47, 90: 47}, 12
SHOWN = ("TILE_I", "TILE_J", "slices", "BLOCKS", "halved")  # of a config, on a line
SOURCE = "not measured: benchmarks/tiles.py, by the model of `core bench --sass` for {gpu}"


class Modelled(PlannedDevice):
    """A GPU that is not there, with a clock."""

    def __init__(self, name: str) -> None:
        super().__init__(CHIPS[GPUS[name].number].arch, GPUS[name].sms)
        self.model, self.gpu = name, GPUS[name]

    def elapsed(self, groups):
        self.prepare([launch for commands in groups for launch in commands])
        return [sum(map(self.seconds, launches_among(commands))) for commands in groups]

    def seconds(self, launch):
        """The bound of a launch or L2's, and a weight gradient's sums by slice, written and read."""
        bound, macros, blocks = bound_of(launch, self.gpu), dict(launch.kernel.defines), math.prod(launch.grid)
        if "TILE_K" not in macros:
            return bound.seconds
        each = 4 if macros["ELEM"] == "float" else 2
        copied = bound.trips * (macros["TILE_I"] + macros["TILE_J"]) * macros["TILE_K"] * each  # by a thread block
        clocks = math.ceil(blocks / self.gpu.sms) * copied / L2.get(self.gpu.number, L2_OTHERS)
        sums = 4 * blocks * macros["TILE_I"] * macros["TILE_J"] if launch.grid[1] > 1 else 0
        return max(bound.seconds, clocks / clock_of(self.gpu)) + 2 * sums / self.gpu.memory


def timed(name, batch, registry):
    """key -> [(choice, seconds)] of the candidates of the default variant, best guess first."""
    sizes = [f"dims.B={batch}", "dims.L=1", f"train.tokens_per_step={1024 * batch}"]
    config = load_config(CONFIG, overrides=sizes, device="cuda")
    model, device = load_model(config.model, registry), Modelled(name)

    def engine_of(configs):
        return build_engine(config, registry, model, None, device, configs)

    options = {
        key: [choice for choice in held if choice.variant == held[0].variant]
        for key, held in candidates(engine_of({})).items()
    }  # fmt: skip
    times = {}
    for number in range(max(map(len, options.values()))):
        engine = engine_of({key: held[number] for key, held in options.items() if number < len(held)})
        taken = {}
        for step, seconds in engine.bound(TRAIN, (), engine.input_sizes).timed():
            key = tuning_key(step.node, engine.precision) if step.node is not None else ""
            taken[key] = taken.get(key, 0.0) + seconds
        for key, held in options.items():
            if number < len(held):
                times.setdefault(key, []).append((held[number], taken[key]))
    return {key: held for key, held in times.items() if len(held) > 1}


def gains(name, batch, registry):
    """(key, best guess, choice, its gain) of each op that has candidates."""
    for key, held in timed(name, batch, registry).items():
        best, least = min(held, key=lambda row: row[1])
        yield key, held[0][0], best, 1 - least / held[0][1]


def written(path, chosen):
    """Puts the model's choices into the file in place of its earlier ones; those that were measured stay."""
    measured = [choice for choice in read_choices(path) if not choice["source"].startswith("not ")]
    path.write_text(tomli_w.dumps({"choice": measured}))
    held = {(choice["arch"], choice.get("sms", 0), choice["what"]) for choice in measured}
    write_choices(path, {place: made for place, made in chosen.items() if place not in held})


def text(config):
    return " ".join(f"{name.lower()} {size}" for name, size in config.items() if name in SHOWN)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    registry, chosen = load_registry(only=()), {}
    print("| GPU | op and size | best guess | the model's choice | gain |\n|---|---|---|---|--:|")
    for name in MODELLED:
        for batch in BATCHES:
            for key, first, best, gain in gains(name, batch, registry):
                print(f"| {name} | {key} | {text(first.config)} | {text(best.config)} | {gain:.1%} |", flush=True)
                if gain >= GAIN:
                    arch, sms = CHIPS[GPUS[name].number].arch, GPUS[name].sms
                    chosen[arch, sms, key] = (best, SOURCE.format(gpu=name))
    if args.write:
        (shipped,) = registry.tuned
        written(shipped, chosen)
        print(f"\n{len(chosen)} choices in {shipped}")


if __name__ == "__main__":
    main()
