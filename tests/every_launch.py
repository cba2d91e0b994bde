"""Every launch of the shipped models, held against the limits of chips that are not here: on the stub of the driver.

    python tests/every_launch.py                                   every model and chip, at B = 1 and 16
    python tests/every_launch.py --models gpt2_124m --chips 75,90 --batches 1,2,4,16,64 --precisions f32,bf16
    python tests/every_launch.py --variants --models ""            every variant and tile at its examples, on every chip

A model is trained for a step of two micro-batches, evaluated, and decoded with (a prompt, then a token), each list of
launches as a CUDA graph and launch by launch, with the variants that a run would choose. NVRTC compiles the kernels for
each chip; nothing is computed, so that no memory is touched and the largest models fit. A launch that a driver would
refuse is an error that names it. Exit code: 0, 1 when a case failed. A C compiler is needed, and no GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the checkout, installed or not

import numpy as np  # noqa: E402
import stub  # noqa: E402

from core.config import load_config  # noqa: E402
from core.device.cuda import CudaDevice  # noqa: E402
from core.device.packed import Captured, CudaLaunch  # noqa: E402
from core.engine import Engine  # noqa: E402
from core.errors import CoreError  # noqa: E402
from core.graph import load_model  # noqa: E402
from core.kernels.chips import CHIPS, runs_on  # noqa: E402
from core.loader import load_registry  # noqa: E402
from core.registry import Registry  # noqa: E402
from core.testing.compiles import launches_of  # noqa: E402
from core.testing.trials import all_trials  # noqa: E402
from core.train.wiring import build_engine  # noqa: E402

CONFIG = "configs/gpt2_124m.toml"  # whose optimizer and settings every other model is run with
CONFIGS = {"tiny": "configs/tiny.toml"}  # names of --models that are configs
PROMPT = 33  # tokens: a bucket and one more
MEMORY = 1 << 42  # bytes of the stub's GPU


@dataclass(frozen=True)
class Case:
    """A model on a chip. tokens: of a sequence, at most; 0 for as many as its config says."""

    model: str
    chip: int
    precision: str
    batch: int
    tokens: int = 0

    def __str__(self) -> str:
        return f"{self.model} on {CHIPS[self.chip].arch}, {self.precision}, B = {self.batch}"


class Twice(CudaDevice):
    """A device that replays each list both ways: as a CUDA graph, and launch by launch."""

    def run(self, commands: Sequence[CudaLaunch]) -> None:
        super().run(commands)
        if isinstance(commands, Captured):
            super().run(list(commands))


def load_stub(folder: str) -> Any:
    """The stub as this process's driver."""
    driver = ctypes.CDLL(str(stub.build(Path(folder))), ctypes.RTLD_GLOBAL)
    driver.stub_launches.restype = ctypes.c_uint64
    os.environ["STUB_MEMORY"] = str(MEMORY)
    return driver


def device_of(chip: int) -> CudaDevice:
    os.environ["STUB_CHIP"] = str(chip)
    return Twice()


def engine_of(case: Case, registry: Registry) -> Engine:
    """As `core train` makes it, but for the sizes and without parameters, which no launch depends on."""
    path = CONFIGS.get(case.model, CONFIG)
    chosen = [] if case.model in CONFIGS else [f"model={case.model}"]
    whole = load_config(path, overrides=chosen, device="cuda")
    model = load_model(whole.model, registry)
    length = int(whole.dims.get("T") or model.build(registry, {}).dims["T"])
    length = min(length, case.tokens or length)
    sizes = [f"dims.B={case.batch}", f"dims.T={length}", f"train.tokens_per_step={case.batch * length}"]
    config = load_config(path, overrides=[*chosen, *sizes, f"precision={case.precision}"], device="cuda")
    return build_engine(config, registry, model, None, device_of(case.chip))


def launch_model(case: Case, registry: Registry) -> None:
    """Train, evaluate and decode. Raises CoreError for a launch that cannot be."""
    engine = engine_of(case, registry)
    dims = {name: int(engine.graph.dims[name]) for name in ("B", "T")}
    batch = {name: np.zeros([dims[d] for d in tokens], np.int32) for name, tokens in engine.input_dims.items()}
    engine.step([batch, batch], 1e-4)
    engine.step([batch], 1e-4, health=True)
    engine.evaluate(batch)
    session = engine.session(dims["B"], min(dims["T"], int(engine.graph.dims.get("S", dims["T"]))))
    session.feed(np.zeros((dims["B"], min(PROMPT, session.capacity - 1)), np.int32))
    session.feed(np.zeros((dims["B"], 1), np.int32))


def launch_variants(chip: int, registry: Registry) -> Iterator[tuple[str, str]]:
    """(variant, what is wrong with it, or "") of every CUDA variant that runs on the chip, at its examples: in every
    dtype, configuration and mode that the op check has."""
    device = device_of(chip)
    for held in registry.variants.values():
        for variant in held.values():
            if (
                variant.device != "cuda"
                or not variant.sources
                or variant.library
                or not runs_on(variant.arch, device.arch)
            ):
                continue
            trials = all_trials(registry.op(variant.op), variant, registry)
            able = [trial for trial in trials if trial.dtype in device.precisions]
            try:
                device.run([CudaLaunch(record) for record in launches_of(able)])
                device.synchronize()
                yield f"{variant.op}.{variant.name}", ""
            except CoreError as error:
                yield f"{variant.op}.{variant.name}", error.message


def cases_of(models: Sequence[str], chips: Sequence[int], precisions: Sequence[str], batches: Sequence[int],
             tokens: int) -> Iterator[Case]:  # fmt: skip
    for model in models:
        for chip in chips:
            for precision in precisions:
                if CHIPS[chip].multiplies(precision):
                    for batch in batches:
                        yield Case(model, chip, precision, batch, tokens)


def run(cases: Sequence[Case], registry: Registry, driver: Any) -> list[str]:
    """What failed, a line a case."""
    failed, begun = [], time.perf_counter()
    for number, case in enumerate(cases, 1):
        try:
            launch_model(case, registry)
        except Exception as error:  # a bug of ours is a failure of its case, and not the end
            words = error.message if isinstance(error, CoreError) else f"{type(error).__name__}: {error}"
            failed.append(f"{case}: {words}")
            print(f"FAILED {failed[-1]}", flush=True)
            driver.stub_forget()  # the context that a kernel may have lost
            driver.cuInit(0)
        launched, seconds = driver.stub_launches(), time.perf_counter() - begun
        print(f"{number}/{len(cases)} {case}: {launched:,} launches so far, {seconds:.0f} s", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    registry = load_registry()
    every = [*CONFIGS, *sorted(registry.models)]
    parser.add_argument("--models", default=",".join(every), help="names of `core models`, and tiny")
    parser.add_argument("--chips", default=",".join(map(str, CHIPS)), help="numbers such as 75,90")
    parser.add_argument("--precisions", default="f32,bf16")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--tokens", type=int, default=0, help="the longest sequence; the model's own without it")
    parser.add_argument("--variants", action="store_true", help="every variant at its examples, too")
    options = parser.parse_args()
    models, chips = [m for m in options.models.split(",") if m], [int(c) for c in options.chips.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        driver = load_stub(folder)
        batches = [int(b) for b in options.batches.split(",")]
        cases = list(cases_of(models, chips, options.precisions.split(","), batches, options.tokens))
        failed = run(cases, registry, driver)
        checked = 0
        for chip in chips if options.variants else ():
            for name, wrong in launch_variants(chip, registry):
                checked += 1
                if wrong:
                    failed.append(f"{name} on {CHIPS[chip].arch}: {wrong}")
                    print(f"FAILED {failed[-1]}", flush=True)
            print(f"variants on {CHIPS[chip].arch}: {checked} so far", flush=True)
        print(f"{len(cases)} cases and {checked} variants, {driver.stub_launches():,} launches, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
