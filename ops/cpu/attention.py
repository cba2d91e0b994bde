"""Causal or full attention in blocks of heads and queries; nothing of size T x T exists. Formulas: ../attention.py.

A task is some heads of one sequence; its scores for one block of queries are in the worker's scratch. BLAS reads
queries, keys and values in place, in qkv, and writes y and dqkv in place. Keys after a causal block, and those before
the window of its first query, are skipped.
"""

import math

import numpy as np

from core import Variant
from core.kernels.blocks import bytes_of, carve

SCORES = 128 * 1024  # bytes of a task's scores
QUERIES = 128


class Tasks:
    """The tasks of an attention: `heads` key heads (each with its group of queries) x `queries` at a time."""

    def __init__(self, t):
        item = t.qkv.dtype.itemsize
        self.group = t.heads // t.kv_heads
        self.queries = min(t.T, QUERIES)
        of_one = self.group * self.queries * t.T * item
        fitting = [h for h in range(1, t.kv_heads + 1) if t.kv_heads % h == 0 and h * of_one <= SCORES]
        self.heads = max(fitting, default=1)
        self.count = t.B * (t.kv_heads // self.heads)
        self.scale = t.scale or 1 / math.sqrt(t.D)
        n = self.queries
        self.scores = (self.heads, self.group, n, t.T)
        self.masks = masks(t, n)
        self.t = t

    def place(self, task):
        """The sequence and the first key head of a task."""
        b, part = divmod(task, self.t.kv_heads // self.heads)
        return b, part * self.heads

    def unpack(self, packed, task):
        """Views of the task's q (heads, group, T, D), k and v (heads, T, D) of a tensor like qkv."""
        t, (b, first) = self.t, self.place(task)
        by_head = packed.reshape(t.B, t.T, -1, t.D)[b].swapaxes(0, 1)
        q = self.queries_of(by_head, first)
        k, v = (by_head[at + first : at + first + self.heads] for at in (t.heads, t.heads + t.kv_heads))
        return q, k, v

    def unpack_y(self, y, task):
        """A view of the task's part of a tensor like y, (heads, group, T, D)."""
        t, (b, first) = self.t, self.place(task)
        return self.queries_of(y.reshape(t.B, t.T, t.heads, t.D)[b].swapaxes(0, 1), first)

    def queries_of(self, by_head, first):
        t = self.t
        mine = by_head[first * self.group : (first + self.heads) * self.group]
        return mine.reshape(self.heads, self.group, t.T, t.D)

    def blocks(self):
        """(first query, end of the queries, first key, end of the keys), the last one first: it sees all keys, or those
        of its window."""
        t, n = self.t, self.queries
        for lo in reversed(range(0, t.T, n)):
            hi = min(lo + n, t.T)
            yield lo, hi, first_key(t, lo), hi if t.causal else t.T

    def score(self, q, k, lo, hi, near, s):
        """s = scale * q k^T for queries lo..hi and keys from near on, -inf where hidden."""
        np.matmul(q[:, :, lo:hi], k[:, None, near : near + s.shape[-1]].swapaxes(-1, -2), out=s)
        s *= self.scale
        hide(s, self.masks, self.t.window, lo, near)


class AttentionBlocked(Variant):
    op, name, device = "attention", "blocked", "cpu"
    dtypes = ("f32", "f64")
    saved = {"lse": "B heads T : acc"}
    reads = ("qkv",)
    examples = [
        {"qkv": (2, 150, 24), "heads": 2},
        {"qkv": (1, 100, 48), "heads": 4},  # two tasks of two heads
        {"qkv": (1, 131, 40), "heads": 4, "kv_heads": 2},
        {"qkv": (1, 129, 24), "heads": 4, "causal": False, "scale": 0.2},
        {"qkv": (2, 140, 120), "heads": 2},
        {"qkv": (1, 300, 24), "heads": 2, "window": 5},  # narrower than a block of queries
        {"qkv": (1, 400, 12), "heads": 2, "kv_heads": 1, "window": 150},  # wider
        {"qkv": (1, 150, 24), "heads": 2, "window": 9, "causal": False},
    ]

    def why_not(self, t):
        features = {"softcap": t.softcap, "documents": t.documents is not None}
        return next((f"it does without {feature}" for feature, there in features.items() if there), None)

    def forward(self, t, launch):
        if t.start is not None:
            both = masks(t, min(t.T, QUERIES))
            launch.call(lambda: decode(t, both))
            return
        tasks, kind = Tasks(t), t.qkv.dtype
        lse = t.lse.reshape(t.B, t.kv_heads, tasks.group, t.T)
        sizes = (tasks.scores, tasks.scores[:3])
        ones = np.ones(t.T, kind)

        def attend(task, scratch):
            q, k, v = tasks.unpack(t.qkv, task)
            y = tasks.unpack_y(t.y, task)
            b, first = tasks.place(task)
            for lo, hi, near, keys in tasks.blocks():
                shape = (tasks.heads, tasks.group, hi - lo)
                s, row = carve(scratch, kind, (*shape, keys - near), shape)
                top = lse[b, first : first + tasks.heads, :, lo:hi]
                tasks.score(q, k, lo, hi, near, s)
                np.maximum.reduce(s, axis=-1, out=top)
                s -= top[..., None]
                np.exp(s, out=s)
                np.vecdot(s, ones[: keys - near], out=row)  # a sum of short rows: twice as fast as add.reduce
                np.matmul(s, v[:, None, near:keys], out=y[:, :, lo:hi])
                y[:, :, lo:hi] /= row[..., None]
                np.log(row, out=row)
                top += row

        launch.rows(tasks.count, one_by_one(attend), scratch=bytes_of(kind, *sizes))

    def backward(self, t, launch):
        if t.dqkv is None:
            return
        tasks, kind = Tasks(t), t.qkv.dtype
        lse = t.lse.reshape(t.B, t.kv_heads, tasks.group, t.T)
        sizes = (tasks.scores, tasks.scores, tasks.scores[:3], (tasks.heads, t.T, t.D))

        def differentiate(task, scratch):
            q, k, v = tasks.unpack(t.qkv, task)
            dq, dk, dv = tasks.unpack(t.dqkv, task)
            dy = tasks.unpack_y(t.dy, task)
            b, first = tasks.place(task)
            if t.window:  # else the first block of queries writes all keys
                dk[...], dv[...] = 0, 0
            for lo, hi, near, keys in tasks.blocks():
                shape, wide, fresh = (tasks.heads, tasks.group, hi - lo), keys - near, hi == t.T and not t.window
                p, ds, row, part = carve(scratch, kind, (*shape, wide), (*shape, wide), shape, (tasks.heads, wide, t.D))
                tasks.score(q, k, lo, hi, near, p)
                p -= lse[b, first : first + tasks.heads, :, lo:hi, None]
                np.exp(p, out=p)
                accumulate(p, dy[:, :, lo:hi], dv[:, near:keys], part, fresh)
                np.matmul(dy[:, :, lo:hi], v[:, None, near:keys].swapaxes(-1, -2), out=ds)
                np.vecdot(p, ds, out=row)
                ds -= row[..., None]
                ds *= p
                ds *= tasks.scale
                np.matmul(ds, k[:, None, near:keys], out=dq[:, :, lo:hi])
                accumulate(ds, q[:, :, lo:hi], dk[:, near:keys], part, fresh)

        launch.rows(tasks.count, one_by_one(differentiate), scratch=bytes_of(kind, *sizes))


def masks(t, n):
    """The terms that up to n queries add to their scores: -inf above the diagonal for later keys, None without
    causality; and -inf below it, for keys before a window, None without one."""
    hidden = np.full((n, n), -math.inf, t.qkv.dtype)
    return np.triu(hidden, 1) if t.causal else None, np.tril(hidden, -1) if t.window else None


def first_key(t, query):
    """The first key that a query, or a later one, sees."""
    return max(0, query - t.window + 1) if t.window else 0


def hide(s, both, window, lo, near):
    """Add the masks to scores of the queries from position lo on, and the keys from `near`, the first that they see."""
    later, before = both
    n = s.shape[-2]
    if later is not None:
        s[..., lo - near : lo - near + n] += later[:n, :n]
    if before is not None:  # the query in row r sees no key below lo + r - window + 1: column r - shift
        shift = near - (lo - window + 1)
        if shift < n:
            columns = s[..., : n - shift]
            columns += before[:n, shift : shift + columns.shape[-1]]


def decode(t, both):
    """Decode like the reference. BLAS reads the cache in place; the masks hide later keys among the new tokens, and
    keys before a window."""
    K, group, n, scale = t.kv_heads, t.heads // t.kv_heads, min(t.T, QUERIES), t.scale or 1 / math.sqrt(t.D)
    keys, values = t.heads * t.D, (t.heads + K) * t.D
    for b, start in enumerate(t.start.tolist()):
        q = t.qkv[b, :, :keys]
        t.k[b, start : start + t.T], t.v[b, start : start + t.T] = t.qkv[b, :, keys:values], t.qkv[b, :, values:]
        q, y = (a.reshape(t.T, K, group, t.D).transpose(1, 2, 0, 3) for a in (q, t.y[b]))
        k, v = (a[b].reshape(-1, K, 1, t.D).transpose(1, 2, 0, 3) for a in (t.k, t.v))
        for lo in range(0, t.T, n):
            hi = min(lo + n, t.T)
            end, near = start + hi, first_key(t, start + lo)
            heads = max(1, SCORES // (group * (hi - lo) * (end - near) * q.itemsize))
            for first in range(0, K, heads):
                some = slice(first, first + heads)
                s = np.matmul(q[some, :, lo:hi], k[some, :, near:end].swapaxes(2, 3))
                s *= scale
                hide(s, both, t.window, start + lo, near)
                s -= s.max(-1, keepdims=True)
                np.exp(s, out=s)
                total = s.sum(-1, keepdims=True)
                np.matmul(s, v[some, :, near:end], out=y[some, :, lo:hi])
                y[some, :, lo:hi] /= total


def accumulate(weights, rows, target, part, fresh):
    """target (heads, keys, D) = sum over the group of weights^T rows; added unless `fresh`."""
    for g in range(weights.shape[1]):
        transposed = weights[:, g].swapaxes(-1, -2)
        if fresh and g == 0:
            np.matmul(transposed, rows[:, g], out=target)
        else:
            np.matmul(transposed, rows[:, g], out=part)
            target += part


def one_by_one(f):
    """f(task, scratch) as the f(lo, hi, scratch) that a launch runs."""

    def run(lo, hi, scratch):
        for task in range(lo, hi):
            f(task, scratch)

    return run
