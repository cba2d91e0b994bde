"""Tuning: the fastest variant and tiles on this chip, timed in a training step's own plan.

Every distinct (op, sizes, dtype) of a plan has candidates: the variants that `auto` could choose, each with
all its tiles. Round i binds the plan with the i-th candidate of each and times it launch by launch; the fastest is
kept. The winners are in the cache folder by chip; a run without a recorded choice and without one in its config takes
them. For sizes that were never tuned here a run looks among the shipped choices, by architecture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

import core
from core import atomic_files
from core.cache import read_json
from core.engine import Engine
from core.measure.choices_file import SMS, read_choices
from core.measure.tuned import FORMAT, chip_of, tuned_path
from core.plan import TRAIN, TunedChoice, tuning_key
from core.plan.choose import specs

if TYPE_CHECKING:
    from core.device.protocol import Device

# (architecture, multiprocessors, tuning key) -> (choice, where it is from)
Placed = Mapping[tuple[str, int, str], tuple[TunedChoice, str]]
ROUNDS = 3  # of each candidate; the least counts


@dataclass(frozen=True)
class Timed:
    """A candidate of a key: seconds a micro-step, forward and backward, over all nodes that have the key."""

    key: str
    nodes: int
    choice: TunedChoice
    seconds: float
    first: bool  # whether it is the untuned default


def candidates(engine: Engine) -> dict[str, list[TunedChoice]]:
    """key -> its candidates: automatic variants that can run it, best first, each with its tiles."""
    plan, chooser = engine.plan(TRAIN), engine.chooser
    configs: dict[str, list[TunedChoice]] = {}
    for node in plan.nodes:
        key = tuning_key(node, engine.precision)
        if key in configs or plan.choices[node.name].why not in ("auto", "tuned", "shipped"):
            continue
        t, taken = specs(node, plan.graph, engine.precision), plan.choices[node.name]
        able = [v for v in chooser.candidates(node.op) if v is taken.variant or v.name not in taken.rejected]
        configs[key] = [TunedChoice(v.name, config) for v in able for config in (v.configs(t) or [{}])]
    return {key: options for key, options in configs.items() if len(options) > 1}


def tune(
    make: Callable[[Mapping[str, TunedChoice]], Engine],
    progress: Callable[[str], None],
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Timed]:
    """Time every candidate. `make(tuned)` gives an engine whose plan takes these choices. stopped: whether to leave out
    the rounds to come."""
    options = candidates(make({}))
    most = max((len(choices) for choices in options.values()), default=0)
    for number in range(most):
        if stopped():
            return
        now = {key: choices[number] for key, choices in options.items() if number < len(choices)}
        progress(f"round {number + 1} of {most}: {len(now)} candidates")
        engine = make(now)
        engine.initialize(0)
        for key, (seconds, nodes) in _seconds(engine).items():
            if key in now:
                yield Timed(key, nodes, now[key], seconds, number == 0)


def _seconds(engine: Engine) -> dict[str, tuple[float, int]]:
    """key -> (seconds a micro-step, nodes)."""
    from core.measure.bench import random_batch  # a run only reads tuned choices

    batch = random_batch(engine, 0)
    engine.timed(batch)  # compiles, and touches the memory
    rounds = [engine.timed(batch)[0] for _ in range(ROUNDS)]
    times: dict[str, tuple[float, int]] = {}
    for index, (step, _) in enumerate(rounds[0]):
        if step.node is None:
            continue
        key = tuning_key(step.node, engine.precision)
        seconds, nodes = times.get(key, (0.0, 0))
        forward = step.kind in ("forward", "forward_backward")
        times[key] = seconds + min(r[index][1] for r in rounds), nodes + forward
    return times


# --- the file ----------------------------------------------------------------------------------------------------


def save_tuned(device: Device, winners: Mapping[str, TunedChoice]) -> Path:
    """Add winners to the file; those of other chips and sizes stay. OSError passes."""
    held = read_json(tuned_path())
    held = held if isinstance(held, dict) and held.get("format") == FORMAT else {"format": FORMAT, "chips": {}}
    ours = held["chips"].setdefault(chip_of(device), {})
    ours |= {key: {"variant": choice.variant, "config": choice.config} for key, choice in winners.items()}
    atomic_files.replace(tuned_path(), (json.dumps(held, indent=1, sort_keys=True) + "\n").encode())
    return tuned_path()


def write_choices(path: Path, chosen: Placed) -> None:
    """Put choices among those of a file. OSError passes."""
    held = {(choice["arch"], choice.get(SMS, 0), choice["what"]): choice for choice in read_choices(path)}
    for (arch, sms, key), (better, source) in chosen.items():
        row = {"what": key, "variant": better.variant, "config": dict(better.config or {}), "source": source}
        held[arch, sms, key] = {"arch": arch, SMS: sms, **row}
    text = tomli_w.dumps({"choice": [held[place] for place in sorted(held)]})
    atomic_files.replace(path, (HEADER + text).encode())


def measured(device: Device, timings: Mapping[str, list[Timed]]) -> Placed:
    """The rows for `write_choices` from candidates that were timed on a GPU: the winners that beat the default
    choice."""
    chosen = {}
    for key, options in timings.items():
        best, first = min(options, key=lambda t: t.seconds), next(t for t in options if t.first)
        times = f"{1e3 * best.seconds:.3f} ms, the best guess {1e3 * first.seconds:.3f}"
        if best is not first:
            source = f"measured on {device.model}, corelm {core.__version__}: {times}"
            chosen[device.arch, device.tuned_sms, key] = best.choice, source
    return chosen


HEADER = """\
# Variants and tiles for sizes that were not tuned on the machine itself, by architecture and, among those of one, by
# the nearest number of multiprocessors (sms). A choice of `core tune` precedes them, and one of the config precedes
# both. Each has its origin; a measured one takes the place of a model's for the same chip. To add those of a GPU:
#     core tune CONFIG --write-defaults ops/cuda/tuned.toml

"""
