"""The selective scan on CUDA: chunks of tokens in parallel, and a scan over the chunks. Kernels: selective_scan.cu."""

from core import Variant, cdiv, i32, u64

CHUNK = 32  # tokens of a chunk: CHUNK in the kernels
THREADS = 128
MOST = 65535  # thread blocks along y and z


class SelectiveScanChunked(Variant):
    op, name = "selective_scan", "chunked"
    source = ("selective_scan.cu", "selective_scan_carry.cu")
    saved = {"states": "B cdiv(T,32) E N : acc"}  # h before each chunk
    reads = ("x", "dt", "bc", "A_log", "D")
    can_add = ("x", "dt", "bc")
    examples = [
        {"x": (2, 67, 9), "dt": (2, 67, 9), "bc": (2, 67, 32)},  # three chunks, more channels than a thread block has
        {"x": (1, 3, 5), "dt": (1, 3, 5), "bc": (1, 3, 64)},  # as many states as lanes
    ]

    def why_not(self, t):
        if t.N > 32:
            return f"{t.N} states a channel; at most 32, one for each lane of a warp"
        if t.B > MOST or cdiv(t.T, CHUNK) > MOST:
            return f"{t.B} sequences of {t.T} tokens; at most {MOST} sequences, of {MOST * CHUNK} tokens"
        return None

    def workspace(self, t):
        return 4 * (of_chunks(t) * t.E * (t.N + 2) + t.B * t.T * cdiv(t.E, channels(t)) * 2 * t.N)

    def forward(self, t, launch):
        how, sizes = shared(t), (i32(t.T), i32(t.E), i32(cdiv(t.T, CHUNK)))
        if t.T > CHUNK:
            totals = launch.workspace.part(0, (of_chunks(t), t.E), "f32")
            launch("ends", t.states, totals, t.x, t.dt, t.bc, t.A_log, t.counts, *sizes, **how)
            launch("carry", t.states, totals, t.h, t.A_log, i32(t.E), i32(t.N), sizes[2], **over(t.E * t.N, t.B))
        arguments = (t.y, t.states, t.h, t.x, t.dt, t.bc, t.A_log, t.D, t.counts)
        launch("forward", *arguments, *sizes, **how)

    def backward(self, t, launch):
        how, sizes = shared(t), (i32(t.T), i32(t.E), i32(cdiv(t.T, CHUNK)))
        rows, blocks, at = of_chunks(t), cdiv(t.E, channels(t)), 0
        parts = []
        for shape in ((rows, t.E, t.N), (rows, t.E), (rows, t.E), (t.B * t.T, blocks, 2 * t.N)):
            parts.append(launch.workspace.part(at, shape, "f32"))
            at += parts[-1].nbytes
        carried, totals, skipped, shared_parts = parts
        launch("adjoint_ends", carried, totals, t.dy, t.dt, t.bc, t.A_log, *sizes, **how)
        launch("adjoint_carry", carried, totals, t.A_log, i32(t.E), i32(t.N), sizes[2], **over(t.E * t.N, t.B))
        arguments = (t.dx, t.ddt, shared_parts, carried, skipped, t.dy, t.states, t.x, t.dt, t.bc, t.A_log, t.D)
        launch("backward", *arguments, *sizes, i32(t.add_dx), i32(t.add_ddt), **how)
        columns = (
            (t.dA_log, carried, rows, t.E * t.N, t.add_dA_log),
            (t.dD, skipped, rows, t.E, t.add_dD),
        )
        for out, part, count, width, add in columns:
            if out is not None:
                launch("sum_rows", out, part, i32(count), u64(width), i32(add), **over(width))
        if t.dbc is not None:
            n = t.B * t.T * 2 * t.N
            arguments = (t.dbc, shared_parts, u64(n), i32(blocks), i32(2 * t.N), i32(t.add_dbc))
            launch("sum_blocks", *arguments, **over(n))


def lanes(t):
    """Lanes of a channel: the power of two from N on, and 8 for fewer: more channels do not fit into shared memory."""
    return max(8, 1 << (t.N - 1).bit_length())


def channels(t):
    """Channels of a thread block."""
    return THREADS // lanes(t)


def of_chunks(t):
    """Chunks of all sequences."""
    return t.B * cdiv(t.T, CHUNK)


def shared(t):
    """Grid, block and macros of the kernels that go through the tokens."""
    grid = (cdiv(t.E, channels(t)), cdiv(t.T, CHUNK), t.B)
    return {"grid": grid, "block": THREADS, "define": {"STATES": t.N, "LANES": lanes(t)}}


def over(elements, rows=1):
    return {"grid": (cdiv(elements, THREADS), rows), "block": THREADS}
