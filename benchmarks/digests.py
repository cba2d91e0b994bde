"""The cost of comparing each MiB of a shard with its sha256 at the first read: with and without digests.

    python benchmarks/digests.py                          three rounds on a shard of 128 MiB
    python benchmarks/digests.py --mib 512 --rounds 5 --json result.json

`reading` draws every sequence of the shard once, in the order of training, from a file in the page cache: only reads,
copies and digests are timed, an upper bound of the cost. `training` runs the same number of steps of GPT-2 with
--layers layers of --width channels on the cpu, batches included, from an unread shard: nearly every sequence is in
another MiB. `without` is the same code without the comparison. Rounds alternate, and each opens the shard again. Times
are CPU seconds of all threads: other programs on the machine change them little.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from core.data.digests import Blocks  # noqa: E402
from core.data.shard_writer import write_shards  # noqa: E402
from core.data.shards import format_for, open_shard  # noqa: E402
from core.data.token_source import TokenSource  # noqa: E402
from core.engine import Engine, Settings  # noqa: E402
from core.graph import load_model  # noqa: E402
from core.loader import load_registry  # noqa: E402
from core.tokenizers.byte_pairs import bytes_tokenizer  # noqa: E402

PEERS = ("with", "without")
BATCH, SEQUENCE = 4, 1024
MIB = 1 << 20


@contextlib.contextmanager
def peer(name: str) -> Iterator[None]:
    """The code with or without the comparison."""
    left_out = mock.patch.object(Blocks, "check", lambda self, read, start, stop: None)
    with left_out if name == "without" else contextlib.nullcontext():
        yield


def write_shard(folder: Path, mib: int) -> Path:
    """A shard of `mib` MiB of random ids, with its sidecars."""
    rng, chunk = np.random.default_rng(0), MIB // 2
    chunks = (rng.integers(0, 257, chunk, dtype=np.uint16) for _ in range(mib))
    record = {"tokenizer": bytes_tokenizer().record()}
    (path,) = write_shards(chunks, folder, "train", format_for(257), record, shard_tokens=mib * chunk)
    return path


def source_of(path: Path, T: int, B: int) -> TokenSource:
    return TokenSource([open_shard(path)], B, T)


def reading(path: Path) -> Callable[[], float]:
    """CPU seconds to draw all sequences of the shard once."""

    def once() -> float:
        source = source_of(path, SEQUENCE, BATCH)
        begun = time.process_time()
        for step in range(source.sequences // BATCH):
            source.batch(step)
        return time.process_time() - begun

    return once


def training(path: Path, layers: int, width: int, steps: int) -> Callable[[], float]:
    """CPU seconds for `steps` steps of B = 4, T = 64, data included."""
    registry, T = load_registry(), 64
    dims = {"V": 257, "C": width, "H": max(1, width // 64), "L": layers, "S": T, "B": BATCH, "T": T}
    settings = Settings(device="cpu", dims=dims, optimizer="adamw", options={"clip": 1.0})
    engine = Engine(load_model("gpt2_124m", registry), registry, settings)
    engine.initialize(0)

    def once() -> float:
        source = source_of(path, T, BATCH)
        begun = time.process_time()
        for step in range(steps):
            tokens, targets = source.batch(step).values()
            engine.step([{"tokens": tokens, "targets": targets}], 1e-3)
        return time.process_time() - begun

    once()
    return once


def compare(once: Callable[[], float], rounds: int) -> dict[str, list[float]]:
    """CPU seconds by peer, a figure a round; who is first alternates. The first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in PEERS}
    for number in range(rounds + 1):
        for name in PEERS if number % 2 else PEERS[::-1]:
            with peer(name):
                seconds = once()
            if number:
                times[name].append(seconds)
    return times


def row(label: str, seconds: dict[str, list[float]], mib: float) -> str:
    median = {name: statistics.median(times) for name, times in seconds.items()}
    least = {name: min(times) for name, times in seconds.items()}
    cells = [label, f"{mib:,.0f}", *(f"{median[n]:.3f}" for n in PEERS), *(f"{least[n]:.3f}" for n in PEERS)]
    ratios = (median["with"] / median["without"], least["with"] / least["without"])
    return "| " + " | ".join([*cells, *(f"{ratio:.3f}" for ratio in ratios)]) + " |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mib", type=int, default=128)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=20, help="of training, in a round")
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--width", type=int, default=128)
    options.add_argument("--json", type=Path, metavar="FILE")
    args = options.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = write_shard(Path(folder), args.mib)
        result["reading"] = compare(reading(path), args.rounds)
        steps = training(path, args.layers, args.width, args.steps)
        result["training"] = compare(steps, args.rounds)
    touched = min(args.mib, args.steps * BATCH)
    print("| part | MiB, at most | with, CPU s (median) | without | with, minimum | without | ratio | of the minimum |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    print(row("reading", result["reading"], args.mib))
    print(row("training", result["training"], touched))
    if args.json:
        args.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
