"""Philox4x32-10, a counter-based random generator: Salmon et al., SC'11, "Parallel random numbers: as easy as 1, 2, 3".

Every device implements this definition, so that all give the same bits. For a node's element at row r and column
c of the flattened (rows, C) tensor, with t.key = (seed, node, step, first):
    philox key     = (seed, node)                       node: CRC-32 of the node's name
    philox counter = (c // 4, row, step, 0)             row = first + r  modulo 2^32
    word           = output[c % 4]
`first` counts this tensor's rows in the step's micro-batches before it, over micro-steps and ranks, so that neither the
micro-batch nor the number of devices changes the bits. Dropout keeps an element if word >= floor(p * 2^32).
"""

import numpy as np

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
LOW, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
ROUNDS = 10


def philox(counter, key):
    """Four u32 words (..., 4) for counters (..., 4) of u32 under a key of two u32."""
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = int(key[0]), int(key[1])
    for _ in range(ROUNDS):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> SHIFT) ^ c1 ^ np.uint64(k0),
            second & LOW,
            (first >> SHIFT) ^ c3 ^ np.uint64(k1),
            first & LOW,
        )
        k0, k1 = (k0 + WEYL[0]) % 2**32, (k1 + WEYL[1]) % 2**32
    return np.stack([c0, c1, c2, c3], -1).astype(np.uint32)


def words(key, shape):
    """The u32 word of each element of a tensor of `shape` (..., C) under t.key (u32[4])."""
    *leading, C = shape
    rows = int(np.prod(leading, dtype=np.int64))
    counter = np.zeros((rows, -(-C // 4), 4), np.uint32)
    counter[..., 0] = np.arange(counter.shape[1])
    counter[..., 1] = ((int(key[3]) + np.arange(rows, dtype=np.int64)) % 2**32)[:, None]
    counter[..., 2] = key[2]
    return philox(counter, key).reshape(rows, -1)[:, :C].reshape(shape)
