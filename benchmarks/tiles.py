"""Tiles to ship for chips that were never measured here: what a model of the tensor-core matmuls would take.

    python benchmarks/tiles.py            for each architecture, op and size: best guess, the model's choice, its gain
    python benchmarks/tiles.py --write    puts those that gain GAIN or more into ops/cuda/tuned.toml

It is `core tune` with a clock that is worked out. A launch takes as long as the multiprocessor with most thread blocks;
16 deep, a tile there takes the longest of three, in clocks:

- tensor cores: its mma.sync, at the chip's rate;
- shared memory: its fragments and its copies, at 128 bytes a clock;
- L2: both operands' tiles, at 24 bytes a clock and multiprocessor, and again at 64: both ends have to agree.

Where a scheduler has one warp, nothing hides that warp's wait for its fragments: ALONE clocks more. What does not fit
into registers (as the compiler counts them) and shared memory takes forever. Nothing else is modelled, so that a choice
says "not measured", and `core tune` on the chip itself, which comes first, has the last word.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout, installed or not

from core.config import load_config  # noqa: E402
from core.device.planned import PlannedDevice  # noqa: E402
from core.graph import load_model  # noqa: E402
from core.kernels.arguments import signature  # noqa: E402
from core.kernels.chips import CHIPS as LIMITS  # noqa: E402
from core.kernels.chips import GPUS, Gpu, chip_of, resident_blocks  # noqa: E402
from core.loader import load_registry  # noqa: E402
from core.measure.tune import tune, write_choices  # noqa: E402
from core.train.wiring import build_engine  # noqa: E402

CONFIG, BATCHES = "configs/gpt2_124m.toml", (1, 2, 4, 8, 16, 32, 64)  # sequences of 1,024 tokens
GAIN = 0.10  # of the op's time: less is within the model's own error
ALONE = 50
SHARED, L2 = 128, (24, 64)  # bytes a clock and multiprocessor
SOURCE = "not measured: benchmarks/tiles.py, a model of waves, shared memory and L2, for {chip}"
DEPTH = {"mma_forward": "K", "mma_gelu": "K", "mma_dx": "N", "mma_dgelu": "N", "mma_dweight": "slice"}


@dataclass(frozen=True)
class Chip:
    """clocks: of a multiprocessor for the 2,048 multiply-adds of a bf16 mma.sync; from the makers' peak rates."""

    name: str
    gpu: Gpu
    clocks: float

    @property
    def arch(self) -> str:
        return LIMITS[self.gpu.number].arch


CHIPS = (
    Chip("A100", GPUS["A100-SXM4-80GB"], 2.0),
    Chip("H100 SXM and H200", GPUS["H200"], 1.6),  # mma.sync reaches five eighths of what wgmma does there
)


class Modelled(PlannedDevice):
    """A GPU that is not there, with a clock."""

    def __init__(self, chip: Chip, l2: float) -> None:
        super().__init__(chip.arch)
        self.sms, self.modelled, self.l2 = chip.gpu.sms, chip, l2

    def elapsed(self, groups):
        return [sum(map(self.clocks, commands)) for commands in groups]

    def clocks(self, launch):
        """Of a matmul on tensor cores; any other launch takes the same whatever the tiles, which is left out."""
        if launch.kernel.name not in DEPTH:
            return 0.0
        tile = dict(launch.kernel.defines)
        given = dict(zip([p.split()[-1] for p in signature(launch.kernel)], launch.args, strict=True))
        rows, columns, warps = tile["TILE_I"], tile["TILE_J"], tile["WARPS_I"] * tile["WARPS_J"]
        each = 2 if tile["ELEM_BF16"] else 4
        at_once = self.resident_blocks(launch)
        most = math.ceil(math.prod(launch.grid) / self.sms)  # thread blocks of the busiest multiprocessor
        copied = (rows + columns) * 16 * each
        fragments = warps * (rows / tile["WARPS_I"] + columns / tile["WARPS_J"]) * 16 * each
        longest = max(
            rows * columns * 16 / 2048 * self.modelled.clocks, (copied + fragments) / SHARED, copied / self.l2
        )  # fmt: skip
        alone = ALONE if min(most, at_once) * warps <= 4 else 0
        steps = math.ceil(int(given[DEPTH[launch.kernel.name]]) / 16)
        shares = 2 * 4 * rows * columns / self.l2 if launch.grid[1] > 1 else 0  # a slice's sums, written and read
        return most * (steps * (longest + alone) + shares) if at_once else math.inf

    def resident_blocks(self, launch):
        used = self.prepare([launch])[launch.kernel]
        threads = math.prod(launch.block)
        return resident_blocks(chip_of(self.arch), used.registers, used.shared, threads, launch.smem)


def timed(chip, l2, batch, registry):
    """key -> its candidates, timed, of the variant that is taken untuned."""
    sizes = [f"dims.B={batch}", "dims.L=1", f"train.tokens_per_step={1024 * batch}"]
    config = load_config(CONFIG, overrides=sizes, device="cuda")
    model, device = load_model(config.model, registry), Modelled(chip, l2)
    found = {}
    for one in tune(lambda kept: build_engine(config, registry, model, None, device, kept), lambda text: None):
        if one.first or found[one.key][0].choice.variant == one.choice.variant:
            found.setdefault(one.key, []).append(one)
    return {key: options for key, options in found.items() if options[0].seconds > 0 and len(options) > 1}


def gains(chip, batch, registry):
    """(key, best guess, choice, the least gain) of each op on tensor cores; the choice is of the least L2 rate."""
    slow, fast = (timed(chip, l2, batch, registry) for l2 in L2)
    for key, options in slow.items():
        best = min(options, key=lambda t: t.seconds)
        at = options.index(best)
        yield key, options[0].choice, best.choice, min(1 - o[at].seconds / o[0].seconds for o in (options, fast[key]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    registry, chosen = load_registry(only=()), {}
    print("| architecture | what | best guess | the model's choice | gain, at least |\n|---|---|---|---|--:|")
    for chip in CHIPS:
        for batch in BATCHES:
            for key, first, best, gain in gains(chip, batch, registry):
                tiles = [f"{k.config['TILE_I']}x{k.config['TILE_J']}" for k in (first, best)]
                print(f"| {chip.arch} | {key} | {' | '.join(tiles)} | {gain:.0%} |", flush=True)
                if gain >= GAIN:
                    chosen[chip.arch, key] = (best, SOURCE.format(chip=chip.name))
    if args.write:
        (shipped,) = registry.tuned
        write_choices(shipped, chosen)
        print(f"\n{len(chosen)} choices in {shipped}")


if __name__ == "__main__":
    main()
