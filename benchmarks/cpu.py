"""Times of one GPT-2 124M training step on the cpu: corelm's and its peers', in alternating rounds of one run.

    python benchmarks/cpu.py                                   corelm, PyTorch, torch.compile and JAX, if installed
    python benchmarks/cpu.py --neighbours 1                    then the same with a busy process on the same machine
    python benchmarks/cpu.py --quick --before ../old           two sizes, idle and with a neighbour, in three minutes
    python benchmarks/cpu.py --llmc /tmp/llm.c/train_gpt2      llm.c's program too (README.md has its build)
    python benchmarks/cpu.py --peers ours --profile            corelm's launches by op and direction

Each peer runs in a process of its own (worker.py, cpu_peers.py, llmc_cpu.py). All start from the same weights and
tokens, and equal first losses in the table show equal work. Rounds alternate between the peers, since the speed of a
shared machine varies: compare times within a run only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path

from cpu_peers import NEEDS, WORKERS, work
from llmc_cpu import LlmC
from worker import Worker, machine, usable_cores, version

QUICK = ((4, 64, 2), (2, 512, 1))  # batch, seq, steps a round


class Steps(Worker):
    """A peer of WORKERS; "before" is corelm of another checkout."""

    def __init__(self, name, args):
        sizes = ("--batch", args.batch, "--seq", args.seq, "--threads", args.threads)
        script = args.before / "benchmarks" / "cpu.py" if name == "before" else __file__
        super().__init__(script, "ours" if name == "before" else name, *sizes, threads=args.threads)

    def round(self, steps):
        return self.ask(steps=steps)


# --- the run ---------------------------------------------------------------------------------------------------------


def measure(args):
    """({neighbours: {peer: {"ms": [[per step] per round], "loss": of the first step, "memory"}}}, corelm's profile or
    None).

    The rounds without neighbours come first; the same processes run both.
    """
    runners, results, first = {}, {}, {}
    try:
        for name in args.peers:
            runners[name] = LlmC(args) if name == "llmc" else Steps(name, args)
        for neighbours in (0, args.neighbours) if args.neighbours else (0,):
            results[neighbours] = peers = {name: {"ms": [], "memory": 0} for name in runners}
            with busy(neighbours):
                for number, (name, runner) in product(range(args.rounds), runners.items()):
                    fresh = name == "llmc" or number + neighbours == 0  # a first step allocates: not counted
                    answer = runner.round(args.steps + fresh)
                    one = peers[name]
                    one["loss"] = first.setdefault(name, answer["losses"][0])
                    one["ms"].append(answer["ms"][fresh:])
                    one["memory"] = max(one["memory"], answer["memory"])
                    times = " ".join(f"{t:.0f}" for t in one["ms"][-1])
                    print(f"{beside(neighbours)}round {number + 1} {name:>7}: {times} ms", flush=True)
        profile = runners["ours"].ask(profile=args.steps) if args.profile and "ours" in runners else None
    finally:
        for runner in runners.values():
            runner.close()
    return results, profile


def beside(neighbours):
    return f"beside {neighbours} busy process{'es' * (neighbours > 1)}, " if neighbours else ""


@contextlib.contextmanager
def busy(count):
    """`count` processes that compute without a pause."""
    command = [sys.executable, "-c", "while True: sum(range(10_000))"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def summary(peers, args):
    """One row a peer: median and least ms a step, tokens/s, peak bytes, first loss, and its time over corelm's."""
    rows = []
    for name, peer in peers.items():
        every = [t for one in peer["ms"] for t in one]
        median = statistics.median(every)
        rows.append({
            "peer": name, "median_ms": median, "least_ms": min(every),
            "tokens_per_s": 1e3 * args.batch * args.seq / median, "peak_bytes": peer["memory"],
            "first_loss": peer["loss"],
        })  # fmt: skip
    ours = next((row for row in rows if row["peer"] == "ours"), None)
    for row in rows:
        row["times_ours"] = row["median_ms"] / ours["median_ms"] if ours else None
        row["times_ours_least"] = row["least_ms"] / ours["least_ms"] if ours else None
    return rows


def print_summary(rows):
    print("\n| peer | ms a step, median | minimum | tokens/s | peak memory | first loss | median over ours | minimum |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        ratios = [f"{row[key]:.2f}" if row[key] else "" for key in ("times_ours", "times_ours_least")]
        print(
            f"| {row['peer']} | {row['median_ms']:.0f} | {row['least_ms']:.0f} | {row['tokens_per_s']:.0f} "
            f"| {row['peak_bytes'] / 2**20:.0f} MiB | {row['first_loss']:.4f} | {ratios[0]} | {ratios[1]} |"
        )


def print_profile(profile):
    total = sum(seconds for _, seconds in profile["launches"].values())
    print(f"\ncorelm, launch by launch: {1e3 * total:.0f} ms; its products alone: {1e3 * profile['floor']:.0f} ms")
    print("\n| launches | number | ms | share |\n|---|--:|--:|--:|")
    for name, (count, seconds) in sorted(profile["launches"].items(), key=lambda item: -item[1][1]):
        print(f"| {name} | {count} | {1e3 * seconds:.1f} | {100 * seconds / total:.1f}% |")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers", help="comma-separated: ours, torch, compile, jax, before, llmc (default: all installed)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="steps a round, without warm-up")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=64)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--neighbours", type=int, default=0, metavar="N", help="then repeat with N busy processes")
    parser.add_argument("--quick", action="store_true", help="B=4, T=64 and B=2, T=512, 2 rounds, 1 neighbour")
    parser.add_argument("--before", metavar="FOLDER", type=Path, help="another checkout of corelm, as a peer")
    parser.add_argument("--llmc", metavar="BINARY", help="llm.c's train_gpt2, built by README.md's commands")
    parser.add_argument("--llmc-dir", metavar="FOLDER", help="llm.c's working folder, with its own files")
    parser.add_argument("--profile", action="store_true", help="time each launch of corelm's step, by op and direction")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.neighbours = 2, args.neighbours or 1
    if not args.worker:
        args.peers = peers(args, parser)
    return args


def peers(args, parser):
    """The peers of --peers, or all installed ones; a message names a missing one."""
    others = {"before": args.before, "llmc": args.llmc}
    usual = ["ours", "torch"] if args.quick else list(WORKERS)
    names = args.peers.split(",") if args.peers else [*usual, *(name for name, place in others.items() if place)]
    for name in names:
        if name not in (*WORKERS, *others) or (name in others and not others[name]):
            parser.error(f"--peers {name}: expected {', '.join(WORKERS)}, before (with --before) or llmc (with --llmc)")
    missing = [name for name in names if name in NEEDS and version(NEEDS[name]) is None]
    for name in missing:
        print(f"{name} is left out: {NEEDS[name]} is not installed")
    return [name for name in names if name not in missing]


def compare(args):
    """Measure one size and print its tables; the result is its part of --json."""
    print(f"\nGPT-2 124M, B={args.batch}, T={args.seq}, f32, AdamW")
    results, profile = measure(args)
    size = {"batch": args.batch, "seq": args.seq, "profile": profile, "runs": []}
    for neighbours, peers in results.items():
        rows = summary(peers, args)
        print(f"\n{beside(neighbours) or 'without a busy process, '}B={args.batch}, T={args.seq}:")
        print_summary(rows)
        size["runs"].append({"neighbours": neighbours, "peers": rows, "rounds": peers})
    if profile:
        print_profile(profile)
    return size


def main():
    args = arguments()
    if args.worker:
        work(args.worker, args.batch, args.seq, args.threads)
        return
    about = machine(args.threads, "numpy", "torch", "jax")
    print(", ".join(f"{key} {value}" for key, value in about.items() if value is not None))
    sizes = []
    for batch, seq, steps in QUICK if args.quick else [(args.batch, args.seq, args.steps)]:
        args.batch, args.seq, args.steps = batch, seq, steps
        sizes.append(compare(args))
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "sizes": sizes}, indent=2) + "\n")


if __name__ == "__main__":
    main()
