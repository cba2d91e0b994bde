"""Tokens a second of GPT-2 124M on the cpu, one sequence, f32: corelm's and transformers', in alternating rounds.

    python benchmarks/generate.py                    32 tokens of prompt, 128 new ones, then the cost of context
    python benchmarks/generate.py --rounds 9 --new 64 --prompt 256 --threads 2 --json result.json

transformers' save_pretrained writes a model with random weights, and both peers read that folder: corelm with the
reader of `core.load`, transformers with from_pretrained. Both decode greedily with a KV cache and must give the same
text. Each has a process of its own (worker.py) and sleeps while the other one runs. Rounds alternate, since the speed
of a shared machine varies: compare times within a run only. CPU time is that of all threads, busy waits included: on a
machine that is not idle, only `--threads 1` makes it comparable.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from worker import Worker, answer, machine, orders, usable_cores

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY, POSITIONS = 50257, 1024
CONTEXTS = (64, 900)  # tokens of context at which a token's cost is measured
STEPS = 16  # timed tokens at each context


def write_model(folder):
    """Save GPT-2 124M with transformers' random initial weights."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1337)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)


def prompt_of(length):
    return np.random.default_rng(1337).integers(0, VOCABULARY, (1, length)).astype(np.int64)


# --- the peers, each in its own process --------------------------------------------------------------------------


class Ours:
    """The engine as `core sample` opens it."""

    def __init__(self, folder, threads):
        sys.path.insert(0, str(ROOT))
        from core.api import build_model
        from core.interop.opened import open_path
        from core.loader import load_registry

        registry = load_registry()
        self.engine = build_model(open_path(folder, registry), registry, fuse=True).engine
        self.session = self.engine.session(1, POSITIONS)

    def generate(self, prompt, new):
        from core.generate import Sampling, generate

        self.session.rewind(0)
        return generate(self.session, prompt.tolist(), new, Sampling(temperature=0))[0]

    def seconds_at(self, context):
        """Seconds of each of STEPS tokens after `context` tokens."""
        self.session.rewind(0)
        self.session.feed(prompt_of(context))
        return timed(lambda: self.session.feed(np.ones((1, 1))))


class Transformers:
    """GPT2LMHeadModel and its `generate`; tokens after a context by its forward."""

    def __init__(self, folder, threads):
        import torch
        from transformers import GPT2LMHeadModel

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch = torch
        self.model = GPT2LMHeadModel.from_pretrained(folder).eval()

    def generate(self, prompt, new):
        ids = self.torch.from_numpy(prompt)
        whole = self.model.generate(
            ids, attention_mask=self.torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False,
            use_cache=True, pad_token_id=0, eos_token_id=None,
        )  # fmt: skip
        return whole[0, prompt.shape[1] :].tolist()

    def seconds_at(self, context):
        self.cache = self.model(self.torch.from_numpy(prompt_of(context)), use_cache=True).past_key_values
        one = self.torch.ones((1, 1), dtype=self.torch.int64)

        def step():
            self.cache = self.model(one, past_key_values=self.cache, use_cache=True).past_key_values

        return timed(step)


def timed(step):
    times = []
    for _ in range(STEPS):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return times


PEERS = {"ours": Ours, "transformers": Transformers}


def work(name, folder, threads):
    """The worker: rounds of generation, or tokens at a context, for each order."""
    peer = PEERS[name](folder, threads)
    for order in orders():
        if "context" in order:
            answer(seconds=peer.seconds_at(order["context"]))
        else:
            prompt = prompt_of(order["prompt"])
            begun, spent = time.perf_counter(), time.process_time()
            tokens = peer.generate(prompt, order["new"])
            seconds, cpu = time.perf_counter() - begun, time.process_time() - spent
            answer(seconds=seconds, cpu=cpu, tokens=tokens)


# --- the run -------------------------------------------------------------------------------------------------------


def measure(workers, args):
    """{peer: {"tokens_per_s", "cpu_ms": [one a round], "tokens": the text, "context": {length: [s of a token]}}}"""
    rounds = {n: {"tokens_per_s": [], "cpu_ms": [], "context": {length: [] for length in CONTEXTS}} for n in workers}
    for number in range(args.rounds + 1):
        for name, worker in workers.items():
            answer = worker.ask(prompt=args.prompt, new=args.new)
            rounds[name]["tokens"] = answer["tokens"]
            if number:  # the first round touches the memory and makes the plans
                rounds[name]["tokens_per_s"].append(args.new / answer["seconds"])
                rounds[name]["cpu_ms"].append(1e3 * answer["cpu"] / args.new)
                for length in CONTEXTS:
                    rounds[name]["context"][length] += worker.ask(context=length)["seconds"]
        if number:
            rates = ", ".join(f"{name} {rounds[name]['tokens_per_s'][-1]:.1f}" for name in workers)
            print(f"round {number}: {rates} tokens/s", flush=True)
    return rounds


def summary(peers):
    """One row a peer: tokens/s, and milliseconds of a token after each context: the median and the minimum."""
    rows = []
    for name, one in peers.items():
        row = {"peer": name, "median": statistics.median(one["tokens_per_s"]), "best": max(one["tokens_per_s"])}
        row["cpu_ms"] = statistics.median(one["cpu_ms"])
        for length, seconds in one["context"].items():
            row[f"ms_at_{length}"] = 1e3 * statistics.median(seconds)
        rows.append(row)
    return rows


def print_summary(rows, peers):
    first, last = CONTEXTS
    print(f"\n| peer | tokens/s, median | best | CPU ms a token | ms a token at {first} | at {last} | grows by |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        near, far = row[f"ms_at_{first}"], row[f"ms_at_{last}"]
        print(
            f"| {row['peer']} | {row['median']:.1f} | {row['best']:.1f} | {row['cpu_ms']:.1f} | {near:.1f} | {far:.1f} "
            f"| {100 * (far / near - 1):.0f}% |"
        )
    if len(rows) > 1:
        rates, cpu = ([one[key] for one in peers.values()] for key in ("tokens_per_s", "cpu_ms"))
        faster = statistics.median(a / b for a, b in zip(*rates, strict=True))
        less = statistics.median(b / a for a, b in zip(*cpu, strict=True))
        same = len({tuple(one["tokens"]) for one in peers.values()}) == 1
        print(f"\n{' over '.join(peers)}, medians of {len(rates[0])} rounds: {faster:.2f}; by CPU time {less:.2f}")
        print("the text is the same" if same else "the texts DIFFER")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; default: %(default)s")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens that are generated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--folder", type=Path, help="GPT-2 124M in Hugging Face's form, instead of random weights")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = set(args.peers.split(",")) - set(PEERS)
    if unknown:
        parser.error(f"--peers {', '.join(unknown)}: expected some of {', '.join(PEERS)}")
    return args


def main():
    args = arguments()
    if args.worker:
        work(args.worker, args.folder, args.threads)
        return
    about = machine(args.threads, "numpy", "torch", "transformers")
    print(f"GPT-2 124M, f32, one sequence: {args.prompt} tokens of prompt, {args.new} new ones")
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    with tempfile.TemporaryDirectory() as temporary:
        if args.folder is None:
            write_model(temporary)
        workers = {}
        try:
            for name in args.peers.split(","):
                words = ("--folder", args.folder or temporary, "--threads", args.threads)
                workers[name] = Worker(__file__, name, *words, threads=args.threads)
            rounds = measure(workers, args)
        finally:
            for worker in workers.values():
                worker.close()
    rows = summary(rounds)
    print_summary(rows, rounds)
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "peers": rows, "rounds": rounds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
