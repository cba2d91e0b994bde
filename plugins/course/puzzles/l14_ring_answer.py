"""The sum over ranks, as a ring. Each of n ranks begins with a gradient of its own, cut into n chunks:
parts[rank][chunk]. At the end parts[rank][chunk] is the sum over all ranks, on every rank. `send(rank, chunk)` is
the message: a copy of that rank's chunk as it is now, for its neighbour, rank + 1 (and 0 after the
last). All ranks send at the same time."""

import numpy as np


def ring(parts, send):
    n = len(parts)
    #[ n - 1 turns in which sums grow, then n - 1 turns in which whole sums travel on
    for turn in range(n - 1):
        moved = [send(rank, (rank - turn) % n) for rank in range(n)]
        for rank in range(n):
            chunk = (rank - turn) % n
            parts[(rank + 1) % n][chunk] = parts[(rank + 1) % n][chunk] + moved[rank]
    for turn in range(n - 1):
        moved = [send(rank, (rank + 1 - turn) % n) for rank in range(n)]
        for rank in range(n):
            parts[(rank + 1) % n][(rank + 1 - turn) % n] = moved[rank]
    #]


def measured(gradients):
    """gradients: (ranks, elements). Each rank's sums at the end, and how often the gradient a rank sent, at most."""
    n, elements = gradients.shape
    parts, sent = [np.array_split(one, n) for one in gradients.copy()], [0] * n

    def send(rank, chunk):
        sent[rank] += parts[rank][chunk].size
        return parts[rank][chunk].copy()

    ring(parts, send)
    return {"sums": np.array([np.concatenate(one) for one in parts]), "gradients sent": max(sent) / elements}
