"""Times of a checkpoint of GPT-2 124M with its optimizer, compared with a plain write and fsync of the same bytes.

    python benchmarks/checkpoint.py                            five rounds, in a temporary folder
    python benchmarks/checkpoint.py --folder /mnt/disk --rounds 9 --json result.json

`ours` is `core.checkpoint.save`: staged, hashed (sha256 of every byte), synced, with a manifest, renamed, and
LATEST replaced. `plain` writes the same tensors' bytes into two files, one after the other, and syncs each; its files
cannot be verified. Each peer is a process of its own with the same arrays. Rounds alternate, and so does the first peer
of a round, since a disk may be faster after a pause. Each save starts with an empty folder and an idle disk, after an
uncounted plain write: it brings back page cache that the host of a virtual machine has reclaimed, which costs the first
writer two seconds. The first round is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from worker import Worker, answer, orders

ROOT = Path(__file__).resolve().parent.parent
CONFIG = {"B": 4, "T": 64}
MIB = 2**20


def resident(field):
    """VmRSS (current) or VmHWM (peak) of this process, in bytes."""
    line = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line[1]) * 1024


def make_engine():
    """A run's engine, with all weights and optimizer state drawn, so that every page is in memory."""
    import numpy as np

    from core.engine import Engine, Settings
    from core.graph import load_model
    from core.loader import load_registry

    registry = load_registry()
    engine = Engine(load_model("gpt2_124m", registry), registry, Settings(dims=CONFIG, optimizer="adamw"))
    stream = np.random.Generator(np.random.PCG64(1337))
    for arrays in (engine.parameters(), *engine.optimizer_state().values()):
        for array in arrays.values():
            array[...] = stream.standard_normal(array.shape, np.float32)
    return engine


def save_ours(engine, folder):
    from core import checkpoint
    from core.checkpoint import Contents

    contents = Contents(engine.parameters(), engine.optimizer_state(), "", None, {"step": 1})
    checkpoint.save(folder / "checkpoints", 1, contents)


def save_plain(engine, folder):
    both = {
        "model": [engine.parameters()],
        "optimizer": list(engine.optimizer_state().values()),
    }
    for name, states in both.items():
        with (folder / name).open("wb", buffering=0) as file:
            for state in states:
                for array in state.values():
                    rest = memoryview(array.reshape(-1)).cast("B")
                    while rest.nbytes:
                        rest = rest[file.write(rest) :]
            os.fsync(file.fileno())


PEERS = {"ours": save_ours, "plain": save_plain}


def serve(name, folder):
    """The worker: one save for each order."""
    sys.path.insert(0, str(ROOT))
    engine = make_engine()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = resident("VmRSS")
    for _ in orders():
        cpu, start = os.times(), time.perf_counter()
        PEERS[name](engine, folder)
        seconds, after = time.perf_counter() - start, os.times()
        spent = after.user + after.system - cpu.user - cpu.system
        answer(seconds=seconds, cpu=spent, added=resident("VmHWM") - before)


def ask(peer, folder):
    """One save of a peer into an empty folder, on an idle disk."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "checkpoints").mkdir(parents=True)
    os.sync()
    result = peer.ask(save=True)
    result["bytes"] = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return result


def measure(folder, rounds):
    peers = {name: Worker(__file__, name, "--folder", folder) for name in PEERS}
    results = {name: [] for name in PEERS}
    for turn in range(rounds + 1):
        for name in list(peers)[:: 1 if turn % 2 else -1]:
            ask(peers["plain"], folder)
            one = ask(peers[name], folder)
            if turn:
                results[name].append(one)
    for peer in peers.values():
        peer.close()
    return results


def report(results):
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(
        "| peer | MiB | seconds, median | minimum | MiB/s | CPU seconds | memory added, MiB "
        "| median over plain | minimum |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    base = [r["seconds"] for r in results["plain"]]
    for name, rounds in results.items():
        seconds = [r["seconds"] for r in rounds]
        median, size = statistics.median(seconds), rounds[0]["bytes"] / MIB
        print(
            f"| {name} | {size:.0f} | {median:.2f} | {min(seconds):.2f} | {size / median:.0f} "
            f"| {statistics.median(r['cpu'] for r in rounds):.2f} | {max(r['added'] for r in rounds) / MIB:.0f} "
            f"| {median / statistics.median(base):.2f} | {min(seconds) / min(base):.2f} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="folder on the measured disk, with 3 GB free")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        serve(args.worker, args.folder)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        results = measure(Path(folder) / "saved", args.rounds)
    report(results)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
