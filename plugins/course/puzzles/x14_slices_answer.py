"""ZeRO-1 in f32: of the optimizer's two means, each of `ranks` ranks keeps one slice; weights and gradients are whole
on each. A slice begins at a multiple of 16,384 elements: `elements` has a number of such chunks (the last one may
be short), and rank r begins at chunk r * chunks // ranks. Returns a dict: cuts, ranks + 1 offsets, 0 first and
`elements` last; bytes, those of the fullest rank; sent, the bytes that a rank of a ring sends in a step, 2 (n -
1) / n of the gradient."""


def zero(elements, ranks):
    #[ {"cuts": [...], "bytes": ..., "sent": ...}
    chunks = -(-elements // 16_384)
    cuts = [rank * chunks // ranks * 16_384 for rank in range(ranks)] + [elements]
    largest = max(stop - start for start, stop in zip(cuts, cuts[1:], strict=False))
    sent = 4 * elements * 2 * (ranks - 1) / ranks
    return {"cuts": cuts, "bytes": 4 * elements + 4 * elements + 8 * largest, "sent": sent}
    #]
