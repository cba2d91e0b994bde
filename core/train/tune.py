"""Which variant and which tiles are fastest on this chip: timed where they will run, in a training step's own plan.

Every distinct (op, sizes, dtype) of a plan has candidates: the variants that would be taken by themselves, each with
all its tiles. Round i binds the plan with the i-th candidate of each and times it launch by launch; the fastest is
kept. The winners lie in the cache folder by chip; a run with nothing recorded and nothing in its config takes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.cache import cache_folder, read_json, write_atomically
from core.device.planned import PlannedDevice
from core.engine import Engine
from core.errors import DeviceError
from core.plan import TRAIN, Kept, tuning_key
from core.plan.choose import specs
from core.testing.verdicts import place_of
from core.train.bench import random_batch

FILE, FORMAT = "tuned.json", 1
ROUNDS = 3  # of each candidate; the least counts


@dataclass(frozen=True)
class Timed:
    """A candidate of a key: seconds a micro-step, forward and backward, over all nodes that have the key."""

    key: str
    nodes: int
    kept: Kept
    seconds: float
    first: bool  # whether it is what would have been taken untuned


def chip_of(device: Any) -> str:
    """What the winners are kept for: the GPU by its name and architecture, or the cpu with its cores."""
    if device.name == "sim":
        raise DeviceError("the simulator's time says nothing of a GPU's", hint="tune where the run will be")
    return place_of(device) if device.name == "cuda" else str(device.describe())


def candidates(engine: Engine) -> dict[str, list[Kept]]:
    """key -> what may run it: automatic variants that can, best first, each with its tiles."""
    plan, chooser = engine.plan(TRAIN), engine.chooser
    found: dict[str, list[Kept]] = {}
    for node in plan.nodes:
        key = tuning_key(node, engine.precision)
        if key in found or plan.choices[node.name].why not in ("auto", "tuned"):
            continue
        t, taken = specs(node, plan.graph, engine.precision), plan.choices[node.name]
        able = [v for v in chooser.candidates(node.op) if v is taken.variant or v.name not in taken.rejected]
        found[key] = [Kept(v.name, config) for v in able for config in (v.configs(t) or [{}])]
    return {key: kept for key, kept in found.items() if len(kept) > 1}


def tune(make: Callable[[Mapping[str, Kept]], Engine], progress: Callable[[str], None]) -> Iterator[Timed]:
    """Time every candidate. `make(tuned)` gives an engine whose plan takes these choices."""
    options = candidates(make({}))
    most = max((len(kept) for kept in options.values()), default=0)
    for number in range(most):
        now = {key: kept[number] for key, kept in options.items() if number < len(kept)}
        progress(f"round {number + 1} of {most}: {len(now)} candidates")
        engine = make(now)
        engine.initialize(0)
        for key, (seconds, nodes) in _seconds(engine).items():
            if key in now:
                yield Timed(key, nodes, now[key], seconds, number == 0)


def _seconds(engine: Engine) -> dict[str, tuple[float, int]]:
    """key -> (seconds a micro-step, nodes)."""
    batch = random_batch(engine, 0)
    engine.timed(batch)  # compiles, and touches the memory
    rounds = [engine.timed(batch)[0] for _ in range(ROUNDS)]
    found: dict[str, tuple[float, int]] = {}
    for index, (step, _) in enumerate(rounds[0]):
        if step.node is None:
            continue
        key = tuning_key(step.node, engine.precision)
        seconds, nodes = found.get(key, (0.0, 0))
        forward = step.kind in ("forward", "forward_backward")
        found[key] = seconds + min(r[index][1] for r in rounds), nodes + forward
    return found


# --- the file ----------------------------------------------------------------------------------------------------


def tuned_path() -> Path:
    return cache_folder() / FILE


def load_tuned(device: Any) -> dict[str, Kept]:
    """What `core tune` found for this chip; nothing where it never ran."""
    if device.name == "sim" or isinstance(device, PlannedDevice):
        return {}
    held = read_json(tuned_path())
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        return {}
    entries = held.get("chips", {}).get(chip_of(device), {})
    return {key: Kept(entry["variant"], entry["config"]) for key, entry in entries.items()}


def save_tuned(device: Any, winners: Mapping[str, Kept]) -> Path:
    """Add winners to the file; those of other chips and sizes stay. OSError as it comes."""
    held = read_json(tuned_path())
    held = held if isinstance(held, dict) and held.get("format") == FORMAT else {"format": FORMAT, "chips": {}}
    ours = held["chips"].setdefault(chip_of(device), {})
    ours |= {key: {"variant": kept.variant, "config": kept.config} for key, kept in winners.items()}
    write_atomically(tuned_path(), (json.dumps(held, indent=1, sort_keys=True) + "\n").encode())
    return tuned_path()
