"""GPT-2 124M training steps on one GPU: corelm's and PyTorch's, eager and compiled, in alternating rounds of one run.

    python benchmarks/gpu.py                                  B = 4, 16, 32, 64 at T = 1024, in bf16 (T4: fp16)
    python benchmarks/gpu.py --llmc /tmp/llm.c/train_gpt2cu   llm.c's CUDA program too
    python benchmarks/gpu.py --batches 16 --peers ours,eager --rounds 3 --json result.json

Every round of every peer is a process of its own, alone on the GPU, with the same weights and tokens, one micro-step a
step, clipping and AdamW. For a peer that is not installed or runs out of memory, and for rounds beyond --minutes, the
table has a line with the reason. Compare times within a run only.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from gpt2_start import BETAS, CLIP, DECAY, EPS, LR, SHAPES, H, P, V, draw, draw_tokens
from torch_gpt2 import gpt2_logits

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout, installed or not

from core.files import replace_durably  # noqa: E402

WARM = 3  # steps that do not count: compilation, graphs, first touch of memory
SECONDS = {"ours": 60, "eager": 45, "compile": 110, "llmc": 60}  # of a round, until one has been measured
MISSING, MEMORY = 3, 4  # exit codes of a worker: its library is not installed; out of memory


# --- the peers, each in a process of its own -------------------------------------------------------------------------


class Ours:
    """core.engine on the shipped gpt2_124m, with its default variants."""

    def __init__(self, args):
        from core.engine import Engine, Settings
        from core.graph import load_model
        from core.loader import load_registry

        registry = load_registry()
        settings = Settings(
            device=args.device, precision="auto",
            dims={"B": args.batch, "T": args.seq}, optimizer="adamw",
            options={"betas": list(BETAS), "eps": EPS, "weight_decay": DECAY, "clip": CLIP},
        )  # fmt: skip
        self.engine = Engine(load_model("gpt2_124m", registry), registry, settings)
        self.engine.load_parameters({name: draw(name) for name in SHAPES})
        tokens = draw_tokens(args.batch, args.seq).astype(np.int32)
        shape = (args.batch, args.seq)
        self.batch = {"tokens": tokens[:-1].reshape(shape), "targets": tokens[1:].reshape(shape)}

    def step(self):
        return self.engine.step([self.batch], LR).loss

    def memory(self):
        free, total = self.engine.device.memory() or (0, 0)  # None: the device has none of its own
        return total - free


class Eager:
    """The same model in idiomatic PyTorch: autocast to bf16 (without bf16 in its tensor cores to fp16, with a
    GradScaler), fused AdamW, its own fused attention, padded head."""

    compiled = False

    def __init__(self, args):
        import torch

        self.torch, self.device = torch, args.device
        torch.set_float32_matmul_precision("high")
        half = args.device != "cpu" and torch.cuda.get_device_capability()[0] < 8
        self.dtype, self.scaler = (torch.float16 if half else torch.bfloat16), torch.amp.GradScaler(enabled=half)
        start = {name: draw(name) for name in SHAPES}
        start["wte.weight"] = np.pad(start["wte.weight"], ((0, P - V), (0, 0)))  # rows of a multiple of 128, as in ours
        self.p = {n: torch.from_numpy(a).to(args.device).requires_grad_() for n, a in start.items()}
        groups = [
            {"params": [w for w in self.p.values() if w.ndim == 2], "weight_decay": DECAY},
            {"params": [w for w in self.p.values() if w.ndim == 1], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS, fused=True)
        tokens = torch.from_numpy(draw_tokens(args.batch, args.seq)).to(args.device)
        self.tokens, self.targets = (t.reshape(args.batch, args.seq) for t in (tokens[:-1], tokens[1:]))
        self.forward = torch.compile(self.loss) if self.compiled else self.loss

    def loss(self):
        logits = gpt2_logits(self.p, self.tokens, H)
        return self.torch.nn.functional.cross_entropy(logits.flatten(0, 1), self.targets.flatten())

    def step(self):
        self.adamw.zero_grad(set_to_none=True)
        with self.torch.autocast(self.device, self.dtype, enabled=self.device != "cpu"):
            loss = self.forward()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.adamw)
        self.torch.nn.utils.clip_grad_norm_(list(self.p.values()), CLIP)
        self.scaler.step(self.adamw)
        self.scaler.update()
        return loss.item()  # waits, as corelm does to learn whether the step was finite

    def memory(self):
        if self.device == "cpu":
            return 0
        free, total = self.torch.cuda.mem_get_info()
        return total - free


class Compiled(Eager):
    compiled = True


PEERS = {"ours": Ours, "eager": Eager, "compile": Compiled}


def work(args):
    """A worker: WARM steps and `steps` timed ones, printed as one line of JSON."""
    try:
        peer = PEERS[args.worker](args)
        ms, losses = [], []
        for _ in range(WARM + args.steps):
            begun = time.perf_counter()
            losses.append(peer.step())
            ms.append(1e3 * (time.perf_counter() - begun))
    except ImportError as error:
        print(error, file=sys.stderr)
        return MISSING
    except Exception as error:
        if "out of memory" not in str(error).lower():
            raise
        print(str(error).splitlines()[0], file=sys.stderr)
        return MEMORY
    print("@@" + json.dumps({"ms": ms[WARM:], "loss": losses[0], "memory": peer.memory()}))
    return 0


def round_of(peer, batch, args):
    """A round's result, or {"why": ...} when there is none."""
    if peer == "llmc":
        return llmc(batch, args)
    command = [sys.executable, __file__, "--worker", peer, "--batch", batch, "--seq", args.seq, "--steps", args.steps,
               "--device", args.device]  # fmt: skip
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("  hint:")]
    last = said[-1] if said else ""
    if done.returncode == MISSING:
        return {"why": f"not installed: {last}"}
    if done.returncode == MEMORY:
        return {"why": "out of memory"}
    if done.returncode or "@@" not in done.stdout:
        return {"why": f"ended with code {done.returncode}: {last}"}
    return json.loads(done.stdout.rpartition("@@")[2])


def llmc(batch, args):
    """llm.c's train_gpt2cu from its own random weights, on a shard of random tokens; it times its steps itself."""
    tokens = draw_tokens(batch * (WARM + args.steps), args.seq).astype("<u2")
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, tokens.size
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "val"):
            (Path(folder) / f"{split}.bin").write_bytes(header.tobytes() + tokens.tobytes())
        flags = {"-i": "train.bin", "-j": "val.bin", "-e": "d12", "-b": batch, "-t": args.seq, "-d": batch * args.seq,
                 "-x": WARM + args.steps, "-v": 0, "-s": 0, "-h": 0, "-l": LR, "-c": DECAY, "-q": 1.0}  # fmt: skip
        command = [str(Path(args.llmc).resolve()), *(str(part) for pair in flags.items() for part in pair)]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        except OSError as error:
            return {"why": f"cannot be run: {error.strerror}"}
    steps = re.findall(r"^step\s+\d+/\d+ \| loss ([\d.]+).*?\| ([\d.]+) ms", done.stdout, re.MULTILINE)
    if len(steps) <= WARM:
        return {"why": f"ended with code {done.returncode}: {(done.stdout + done.stderr).strip().splitlines()[-1:]}"}
    return {"ms": [float(t) for _, t in steps[WARM:]], "loss": float(steps[0][0]), "memory": 0}


# --- the run ---------------------------------------------------------------------------------------------------------


def measure(args):
    """{batch: {peer: {"ms": [[per step] per round], "loss", "memory", "why"}}}; prints as it goes."""
    began, seconds, results = time.monotonic(), dict(SECONDS), {}
    for batch in args.batches:
        results[batch] = {peer: {"ms": [], "loss": None, "memory": 0, "why": ""} for peer in args.peers}
        for number in range(args.rounds):
            for peer, row in results[batch].items():
                if row["why"]:
                    continue
                if time.monotonic() - began + seconds[peer] > 60 * args.minutes:
                    row["why"] = row["why"] or f"left out: --minutes {args.minutes:g} are over"
                    continue
                start = time.monotonic()
                answer = round_of(peer, batch, args)
                seconds[peer] = 1.2 * (time.monotonic() - start)
                row["why"] = answer.get("why", "")
                if "ms" in answer:
                    row["ms"].append(answer["ms"])
                    row["loss"] = row["loss"] or answer["loss"]
                    row["memory"] = max(row["memory"], answer["memory"])
                save(results, args)
                outcome = f"{statistics.median(answer['ms']):.1f} ms" if "ms" in answer else answer["why"]
                print(f"B={batch} round {number + 1} {peer}: {outcome}", flush=True)
    return results


def save(results, args):
    """Write the results so far to --json, after each round: a machine that disappears loses one round."""
    if args.json:
        replace_durably(
            Path(args.json), json.dumps({"rows": rows_of(results, args), "rounds": results}, indent=1).encode()
        )


def rows_of(results, args):
    """One row a batch and peer: median and least ms, tokens/s, bytes in use, first loss, its time over ours."""
    rows = []
    for batch, peers in results.items():
        medians = {p: statistics.median(t for one in f["ms"] for t in one) for p, f in peers.items() if f["ms"]}
        for peer, result in peers.items():
            row = {"B": batch, "peer": peer, "why": result["why"], "loss": result["loss"], "memory": result["memory"]}
            if peer in medians:
                row["ms"], row["least"] = medians[peer], min(t for one in result["ms"] for t in one)
                row["tokens_per_s"] = 1e3 * batch * args.seq / medians[peer]
                row["over_ours"] = medians[peer] / medians["ours"] if "ours" in medians else None
            rows.append(row)
    return rows


def show(rows):
    print("\n| B | peer | ms a step, median | minimum | tokens/s | memory in use | first loss | over ours |")
    print("|--:|---|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        if "ms" not in row:
            print(f"| {row['B']} | {row['peer']} | {row['why']} | | | | | |")
            continue
        over = f"{row['over_ours']:.2f}" if row["over_ours"] else ""
        memory = f"{row['memory'] / 2**30:.1f} GiB" if row["memory"] else ""
        times = f"{row['ms']:.1f}", f"{row['least']:.1f}", f"{row['tokens_per_s']:,.0f}"
        cells = [row["B"], row["peer"], *times, memory, f"{row['loss']:.4f}", over]
        print("| " + " | ".join(map(str, cells)) + " |")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="4,16,32,64", help="sequences a step, one run each")
    parser.add_argument("--seq", type=int, default=1024, help="tokens of a sequence")
    parser.add_argument("--peers", default="ours,eager,compile", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--llmc", metavar="PATH", help="llm.c's train_gpt2cu, built")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15, help="timed steps of a round")
    parser.add_argument("--minutes", type=float, default=8, help="time limit: no round starts that would end later")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu only to try the script, in f32")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--worker", choices=list(PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.batches = [int(b) for b in args.batches.split(",")]
    args.peers = args.peers.split(",")
    unknown = [peer for peer in args.peers if peer not in PEERS]
    if unknown:
        parser.error(f"--peers {','.join(unknown)}: expected some of {', '.join(PEERS)}")
    if args.llmc:
        args.peers.append("llmc")
    return args


def main():
    args = parse()
    if args.worker:
        raise SystemExit(work(args))
    results = measure(args)
    rows = rows_of(results, args)
    show(rows)
    save(results, args)
    if not any("ms" in row for row in rows if row["peer"] == "ours"):
        raise SystemExit("corelm did not run: the table has the reason")


if __name__ == "__main__":
    main()
