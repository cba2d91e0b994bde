"""Memory and efficiency of runs on many GPUs, by formula: the tables of docs/distributed.md. Nothing is measured.

python benchmarks/scale.py            # both tables
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

RANKS = (8, 16, 64, 256, 1024)
NODE = 8  # GPUs of a node
WITHIN, BETWEEN = 350e9, 45e9  # bytes a second of a GPU inside its node and out of it: assumed
HIDING = 0.8 * 2 / 3  # the share of a step that hides transfers of gradients: 80% of backward, which is two thirds
FIXED, SHARED = 6, 12  # bytes a parameter in bf16: weights 2 and gradients 4 on each rank; master, m, v over all


@dataclass(frozen=True)
class Case:
    """A model and its batch. rate: tokens/s of one GPU, assumed. last: the share of gradients that come last."""

    name: str
    parameters: float
    tokens: int
    rate: float
    last: float


CASES = (
    Case("124M, 0.5M tokens a step", 124.5e6, 1 << 19, 600e3, 0.31),
    Case("1558M, 1M tokens a step", 1557.7e6, 1 << 20, 55e3, 0.05),
    Case("8B, 4M tokens a step", 8.03e9, 1 << 22, 14e3, 0.065),
)
MODELS = (("124M", 124.5e6), ("1558M", 1557.7e6), ("8B", 8.03e9), ("13B", 12.85e9), ("175B", 174.6e9))


def memory(parameters: float, ranks: int) -> float:
    """Bytes of weights, gradients, master weights and moments on one rank, in bf16 with [train] shard."""
    return (FIXED + SHARED / ranks) * parameters


def seconds(case: Case, ranks: int) -> tuple[float, float, float]:
    """Seconds of one step: (compute, transfer of f32 gradients, the part of the transfer that compute does not
    hide)."""
    node, nodes = min(ranks, NODE), max(1, ranks // NODE)
    nbytes = 4 * case.parameters
    computing = case.tokens / ranks / case.rate
    wire = 2 * (node - 1) / node * nbytes / WITHIN + 2 * (nodes - 1) / nodes * nbytes / node / BETWEEN
    return computing, wire, max(wire - HIDING * computing, case.last * wire)


def memory_table() -> list[str]:
    """Memory of a rank, in GiB."""
    counts = (1, *RANKS)
    head = "| model | " + " | ".join(f"N = {n}" if n == 1 else str(n) for n in counts) + " |"
    rows = [f"| {name} | " + " | ".join(f"{memory(p, n) / 2**30:,.1f}" for n in counts) + " |" for name, p in MODELS]
    return [head, "|---|" + "--:|" * len(counts), *rows]


def efficiency_table() -> list[str]:
    """Efficiency relative to one GPU, with and without overlap."""
    head = "| | " + " | ".join(f"N = {n}" if n == RANKS[0] else str(n) for n in RANKS) + " |"
    rows = []
    for case in CASES:
        for overlap in (False, True):
            shares = []
            for n in RANKS:
                computing, wire, exposed = seconds(case, n)
                shares.append(computing / (computing + (exposed if overlap else wire)))
            words = "overlapped" if overlap else "one after the other"
            rows.append(f"| {case.name}, {words} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    return [head, "|---|" + "--:|" * len(RANKS), *rows]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print("\n".join([*memory_table(), "", *efficiency_table()]))
