"""The peers of cpu.py that run in a process of their own: corelm, PyTorch, torch.compile and JAX."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
from gpt2_start import BETAS, BLOCK, CLIP, DECAY, EPS, LR, SHAPES, C, H, L, P, draw, draw_tokens
from jax_gpt2 import train_step
from torch_gpt2 import gpt2_logits
from worker import answer, orders, peak_memory

ROOT = Path(__file__).resolve().parent.parent


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
        """Seconds of the bare matrix products of one step in NumPy, forward, dgrad and wgrad: the least of `steps`."""
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
    """The same model and optimizer in eager PyTorch."""

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
        if hasattr(os, "sched_setaffinity"):  # XLA starts a thread on each core in this set
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


def work(name, batch, seq, threads):
    """The worker: construction of a peer, then the steps of each order."""
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
