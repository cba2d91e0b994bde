"""One GPT-2 124M training step on the cpu: ours and others', in alternating rounds of one run.

    python benchmarks/cpu.py                                   ours, PyTorch, torch.compile and JAX, if installed
    python benchmarks/cpu.py --neighbours 1                    the same again beside a process that is busy
    python benchmarks/cpu.py --quick --before ../old           two sizes, idle and beside a neighbour, in three minutes
    python benchmarks/cpu.py --llmc /tmp/llm.c/train_gpt2      llm.c's program too (README.md says how to build it)
    python benchmarks/cpu.py --peers ours --profile            where our step spends its time

Each peer runs in a process of its own (worker.py); all have the same weights and the same tokens, and the table shows
each one's first loss, so that one sees that the work is the same. Rounds alternate between the peers, since a shared
machine is never equally fast for long: compare within a run only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from jax_gpt2 import train_step
from torch_gpt2 import gpt2_logits
from worker import THREADS, Worker, answer, machine, orders, usable_cores, version

ROOT = Path(__file__).resolve().parent.parent
V, P, S, C, H, L = 50257, 50304, 1024, 768, 12, 12  # vocabulary, with padding, positions, width, heads, layers
LR, BETAS, EPS, DECAY, CLIP = 1e-4, (0.9, 0.95), 1e-8, 0.1, 1.0

BLOCK = {  # parameter -> shape, in llm.c's order
    "ln_1.weight": (C,), "ln_1.bias": (C,), "qkv.weight": (3 * C, C), "qkv.bias": (3 * C,),
    "proj.weight": (C, C), "proj.bias": (C,), "ln_2.weight": (C,), "ln_2.bias": (C,),
    "fc.weight": (4 * C, C), "fc.bias": (4 * C,), "down.weight": (C, 4 * C), "down.bias": (C,),
}  # fmt: skip
SHAPES = {
    "wte.weight": (V, C), "x0.weight": (S, C), **{f"h.{i}.{n}": s for n, s in BLOCK.items() for i in range(L)},
    "ln_f.weight": (C,), "ln_f.bias": (C,),
}  # fmt: skip


def draw(name):
    """A parameter's first value, f32: the same for all peers."""
    shape = SHAPES[name]
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    scale = 0.02 / (2 * L) ** 0.5 if ".proj." in name or ".down." in name else 0.02
    stream = np.random.Generator(np.random.PCG64(list(SHAPES).index(name)))
    return stream.standard_normal(shape, np.float32) * np.float32(scale)


def draw_tokens(batch, seq):
    """batch*seq + 1 tokens: inputs are all but the last, targets all but the first."""
    return np.random.Generator(np.random.PCG64(1337)).integers(0, V, batch * seq + 1)


def peak_memory(pid="self"):
    """Peak resident bytes of a process so far; of this one where there is no /proc."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) * 1024
    if pid == "self":
        with contextlib.suppress(ImportError):
            import resource

            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 0


# --- the peers, each in its own process ------------------------------------------------------------------------------


class Ours:
    """core.engine on the shipped gpt2_124m."""

    def __init__(self, batch, seq, threads):
        sys.path.insert(0, str(ROOT))
        from core.engine import Engine, Settings
        from core.graph import load_model
        from core.loader import load_registry

        registry = load_registry()
        settings = Settings(
            dims={"B": batch, "T": seq}, optimizer="adamw",
            options={"betas": list(BETAS), "eps": EPS, "weight_decay": DECAY, "clip": CLIP},
        )  # fmt: skip
        self.engine = Engine(load_model("gpt2_124m", registry), registry, settings)
        for name, array in self.engine.parameters().items():
            array[...] = draw(name)
        tokens = draw_tokens(batch, seq).astype(np.int32)
        self.batch = {"tokens": tokens[:-1].reshape(batch, seq), "targets": tokens[1:].reshape(batch, seq)}

    def step(self):
        return self.engine.step([self.batch], LR).loss

    def profile(self, steps):
        """{"op.variant direction": (launches, seconds)} a step, the least over `steps`."""
        runs = []
        for _ in range(steps):
            spent, before = {}, time.perf_counter()
            for event in self.engine.trace(self.batch):
                now = time.perf_counter()
                op = event.node and self.ops[event.node] + "." + event.variant + " "
                count, seconds = spent.get(op + event.kind, (0, 0.0))
                spent[op + event.kind] = count + 1, seconds + now - before
                before = time.perf_counter()
            self.engine.device.run(self.engine._recorded_update())
            spent["update"] = 1, time.perf_counter() - before
            runs.append(spent)
        return {name: (runs[0][name][0], min(run[name][1] for run in runs)) for name in runs[0]}

    @property
    def ops(self):
        return {node.name: node.op.name for node in self.engine.plan("train").nodes}

    def floor(self, steps):
        """Seconds that the products of one step take by themselves in NumPy: forward, dgrad and wgrad; the least."""
        rows, total = self.batch["tokens"].size, 0.0
        for times, outputs, inputs in [*((L, *shape) for shape in BLOCK.values() if len(shape) == 2), (1, P, C)]:
            x, y, w = (np.ones(shape, np.float32) for shape in ((rows, inputs), (rows, outputs), (outputs, inputs)))
            spent = []
            for _ in range(steps + 1):
                start = time.perf_counter()
                np.matmul(x, w.T, out=y)
                np.matmul(y, w, out=x)
                np.matmul(y.T, x, out=w)
                spent.append(time.perf_counter() - start)
                x.fill(1), y.fill(1), w.fill(1)
            total += times * min(spent)
        return total


class Torch:
    """The same model and optimizer as one writes them in eager PyTorch."""

    def __init__(self, batch, seq, threads):
        import torch

        self.torch = torch
        torch.set_num_threads(threads)
        self.p = {name: torch.from_numpy(draw(name)).requires_grad_() for name in SHAPES}
        groups = [
            {"params": [w for w in self.p.values() if w.ndim == 2], "weight_decay": DECAY},
            {"params": [w for w in self.p.values() if w.ndim == 1], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
        tokens = torch.from_numpy(draw_tokens(batch, seq))
        self.tokens, self.targets = tokens[:-1].view(batch, seq), tokens[1:].view(batch, seq)

    def loss(self):
        logits = gpt2_logits(self.p, self.tokens, H)
        return self.torch.nn.functional.cross_entropy(logits.flatten(0, 1), self.targets.flatten())

    def step(self):
        self.adamw.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(list(self.p.values()), CLIP)
        self.adamw.step()
        return loss.item()


class Compiled(Torch):
    """The same under torch.compile; the optimizer is eager PyTorch's."""

    def __init__(self, batch, seq, threads):
        super().__init__(batch, seq, threads)
        self.loss = self.torch.compile(self.loss)


class Jax:
    """The same model and optimizer in JAX, a step compiled whole by XLA."""

    def __init__(self, batch, seq, threads):
        if hasattr(os, "sched_setaffinity"):  # XLA takes a thread for each core that it may use
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        import jax

        self.run = train_step(H, LR, BETAS, EPS, DECAY, CLIP)
        self.p = {name: jax.numpy.asarray(draw(name)) for name in SHAPES}
        self.m, self.v = ({name: jax.numpy.zeros_like(w) for name, w in self.p.items()} for _ in range(2))
        tokens = draw_tokens(batch, seq).astype(np.int32)
        self.k, self.tokens, self.targets = 0, tokens[:-1].reshape(batch, seq), tokens[1:].reshape(batch, seq)

    def step(self):
        self.k += 1
        loss, self.p, self.m, self.v = self.run(self.p, self.m, self.v, float(self.k), self.tokens, self.targets)
        self.p["wte.weight"].block_until_ready()
        return float(loss)


WORKERS = {"ours": Ours, "torch": Torch, "compile": Compiled, "jax": Jax}
NEEDS = {"torch": "torch", "compile": "torch", "jax": "jax"}  # peer -> distribution
QUICK = ((4, 64, 2), (2, 512, 1))  # batch, seq, steps a round


def work(name, batch, seq, threads):
    """The worker's side: build, then run as many steps as each order says."""
    peer = WORKERS[name](batch, seq, threads)
    for order in orders():
        if "profile" in order:
            answer(launches=peer.profile(order["profile"]), floor=peer.floor(order["profile"]))
            continue
        ms, losses = [], []
        for _ in range(order["steps"]):
            start = time.perf_counter()
            losses.append(peer.step())
            ms.append(1e3 * (time.perf_counter() - start))
        answer(ms=ms, losses=losses, memory=peak_memory())


class Steps(Worker):
    """A peer of WORKERS; "before" is ours of another checkout."""

    def __init__(self, name, args):
        sizes = ("--batch", args.batch, "--seq", args.seq, "--threads", args.threads)
        script = args.before / "benchmarks" / "cpu.py" if name == "before" else __file__
        super().__init__(script, "ours" if name == "before" else name, *sizes, threads=args.threads)

    def round(self, steps):
        return self.ask(steps=steps)


class LlmC:
    """llm.c's train_gpt2, which reads fixed file names in its folder and knows B=4, T=64 alone. POSIX only.

    Each round starts it afresh and stops it after the steps that are wanted; it times its steps itself.
    """

    def __init__(self, args):
        if (args.batch, args.seq) != (4, 64):
            raise SystemExit("llm.c's train_gpt2.c is written for --batch 4 --seq 64")
        self.binary, self.threads = Path(args.llmc).resolve(), args.threads
        if not self.binary.is_file():
            raise SystemExit(f"--llmc {args.llmc}: no such file; benchmarks/README.md says how to build it")
        self._temporary = None
        if args.llmc_dir:
            self.folder = Path(args.llmc_dir)
        else:
            self._temporary = tempfile.TemporaryDirectory()
            self.folder = Path(self._temporary.name)
            write_llmc_files(self.folder, args.batch, args.seq)

    def round(self, steps):
        import pty  # its output is a terminal's, so that lines come as they are printed

        ours, its = pty.openpty()
        process = subprocess.Popen(
            [str(self.binary)], cwd=self.folder, stdout=its, stderr=its,
            env=os.environ | dict.fromkeys(THREADS, str(self.threads)),
        )  # fmt: skip
        os.close(its)
        ms, losses, memory, text = [], [], 0, ""
        try:
            while len(ms) < steps:
                text += os.read(ours, 65536).decode()  # raises OSError when the program ends
                found = re.findall(r"step \d+: train loss (\S+) \(took (\S+) ms\)", text)
                losses, ms = [float(loss) for loss, _ in found], [float(took) for _, took in found]
                memory = max(memory, peak_memory(process.pid))
        except OSError:
            raise SystemExit(f"{self.binary} ended with code {process.wait()}:\n{text}") from None
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        return {"ms": ms[:steps], "losses": losses[:steps], "memory": memory}

    def close(self):
        if self._temporary:
            self._temporary.cleanup()


def write_llmc_files(folder, batch, seq):
    """What train_gpt2 wants to find: a checkpoint of version 3 (f32), and token shards that hold our one batch."""
    header = np.zeros(256, "<i4")
    header[:8] = 20240326, 3, S, V, L, H, C, P
    with (folder / "gpt2_124M.bin").open("wb") as file:
        file.write(header.tobytes())
        for name in SHAPES:
            file.write(draw(name).astype("<f4").tobytes())
            if name == "wte.weight":
                file.write(bytes(4 * C * (P - V)))
    tokens = draw_tokens(batch, seq).astype("<u2")
    header[:] = 0
    header[:3] = 20240520, 1, tokens.size
    shards = folder / "dev" / "data" / "tinyshakespeare"
    shards.mkdir(parents=True)
    for split in ("train", "val"):
        (shards / f"tiny_shakespeare_{split}.bin").write_bytes(header.tobytes() + tokens.tobytes())


# --- the run ---------------------------------------------------------------------------------------------------------


def measure(args):
    """({neighbours: {peer: {"ms": [[per step] per round], "loss": of the first step, "memory"}}}, our profile or None).

    Rounds beside neighbours come after those without, by the same processes.
    """
    runners, results, first = {}, {}, {}
    try:
        for name in args.peers:
            runners[name] = LlmC(args) if name == "llmc" else Steps(name, args)
        for neighbours in (0, args.neighbours) if args.neighbours else (0,):
            results[neighbours] = found = {}
            with busy(neighbours):
                for number in range(args.rounds):
                    for name, runner in runners.items():
                        fresh = name == "llmc" or (
                            number == 0 and neighbours == 0
                        )  # a first step allocates: not counted
                        answer = runner.round(args.steps + fresh)
                        loss = first.setdefault(name, answer["losses"][0])
                        one = found.setdefault(name, {"ms": [], "loss": loss, "memory": 0})
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
    """So many processes that compute without a pause."""
    command = [sys.executable, "-c", "while True: sum(range(10_000))"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def summary(results, args):
    """One row a peer: median and least ms a step, tokens/s, peak bytes, first loss, and its time over ours."""
    rows = []
    for name, found in results.items():
        every = [t for one in found["ms"] for t in one]
        median = statistics.median(every)
        rows.append({
            "peer": name, "median_ms": median, "least_ms": min(every),
            "tokens_per_s": 1e3 * args.batch * args.seq / median, "peak_bytes": found["memory"],
            "first_loss": found["loss"],
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
    print(f"\nours, launch by launch: {1e3 * total:.0f} ms; its products alone: {1e3 * profile['floor']:.0f} ms")
    print("\n| launches | how many | ms | share |\n|---|--:|--:|--:|")
    for name, (count, seconds) in sorted(profile["launches"].items(), key=lambda item: -item[1][1]):
        print(f"| {name} | {count} | {1e3 * seconds:.1f} | {100 * seconds / total:.1f}% |")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers", help="comma-separated: ours, torch, compile, jax, before, llmc (default: those there)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="steps a round, besides those that warm up")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=64)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--neighbours", type=int, default=0, metavar="N", help="measure beside N busy processes too")
    parser.add_argument("--quick", action="store_true", help="B=4, T=64 and B=2, T=512, 2 rounds, 1 neighbour")
    parser.add_argument("--before", metavar="FOLDER", type=Path, help="another checkout of corelm, as a peer")
    parser.add_argument("--llmc", metavar="BINARY", help="llm.c's train_gpt2, built as README.md says")
    parser.add_argument("--llmc-dir", metavar="FOLDER", help="run it there, on that folder's files, not on ours")
    parser.add_argument("--profile", action="store_true", help="time each launch of our step, by op and direction")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.neighbours = 2, args.neighbours or 1
    if not args.worker:
        args.peers = peers(args, parser)
    return args


def peers(args, parser):
    """The peers that were asked for, or all installed ones; a missing one is named."""
    given = {"before": args.before, "llmc": args.llmc}
    usual = ["ours", "torch"] if args.quick else list(WORKERS)
    asked = args.peers.split(",") if args.peers else [*usual, *(name for name, there in given.items() if there)]
    for name in asked:
        if name not in (*WORKERS, *given) or (name in given and not given[name]):
            parser.error(f"--peers {name}: expected {', '.join(WORKERS)}, before (with --before) or llmc (with --llmc)")
    missing = [name for name in asked if name in NEEDS and version(NEEDS[name]) is None]
    for name in missing:
        print(f"{name} is left out: {NEEDS[name]} is not installed")
    return [name for name in asked if name not in missing]


def compare(args):
    """Measure one size and print its tables; what --json keeps of it."""
    print(f"\nGPT-2 124M, B={args.batch}, T={args.seq}, f32, AdamW")
    results, profile = measure(args)
    kept = {"batch": args.batch, "seq": args.seq, "profile": profile, "runs": []}
    for neighbours, found in results.items():
        rows = summary(found, args)
        print(f"\n{beside(neighbours) or 'nothing else started, '}B={args.batch}, T={args.seq}:")
        print_summary(rows)
        kept["runs"].append({"neighbours": neighbours, "peers": rows, "rounds": found})
    if profile:
        print_profile(profile)
    return kept


def main():
    args = arguments()
    if args.worker:
        work(args.worker, args.batch, args.seq, args.threads)
        return
    about = machine(args.threads, "numpy", "torch", "jax")
    print(", ".join(f"{key} {value}" for key, value in about.items() if value is not None))
    kept = []
    for batch, seq, steps in QUICK if args.quick else [(args.batch, args.seq, args.steps)]:
        args.batch, args.seq, args.steps = batch, seq, steps
        kept.append(compare(args))
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "sizes": kept}, indent=2) + "\n")


if __name__ == "__main__":
    main()
