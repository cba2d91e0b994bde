"""Cross-entropy on CUDA: one thread a row; one thread block a row, in three steps. Kernels: cross_entropy.cu."""

from core import Variant, cdiv, i32
from core.kernels.width import width

THREADS = 256  # of a thread block, and the step to more of them
MOST = 1024
KEPT = 8  # packs of 16 bytes that a thread keeps: half of its registers where a multiprocessor has 1,024 threads


class CrossEntropyNaive(Variant):
    """One thread a row: two passes over the logits, neighbouring threads a row apart."""

    op, name, priority = "cross_entropy", "naive", 0
    saved = {"lse": "... : acc"}
    reads = ("logits", "targets")
    inplace = {"dlogits": "logits"}
    examples = [{"logits": (35, 133), "targets": (35,), "classes": 131}]  # two thread blocks of rows, two of columns

    def forward(self, t, launch):
        arguments = (t.loss, t.lse, t.logits, t.targets, i32(t.rows), i32(t.P), i32(t.classes))
        launch("naive_forward", *arguments, grid=cdiv(t.rows, 32), block=32)

    def backward(self, t, launch):
        if t.dlogits is not None:
            arguments = (t.dlogits, t.logits, t.targets, t.lse, t.dloss, i32(t.P), i32(t.classes))
            launch("naive_dlogits", *arguments, grid=(t.rows, cdiv(t.P, 128)), block=128)


class CrossEntropyTwoPass(Variant):
    """A thread block a row, 16 bytes a thread: an eighth of the sectors of `naive`; the row is read twice."""

    op, name, priority = "cross_entropy", "twopass", 3
    saved = {"lse": "... : acc"}
    reads = ("logits", "targets")
    inplace = {"dlogits": "logits"}
    examples = [
        {"logits": (3, 2312), "targets": (3,), "classes": 2307},  # more than a pass of the thread block
        # more than its registers keep, twice; more padding than it has threads
        {"logits": (2, 11401), "targets": (2,), "classes": 10301},
    ]

    def forward(self, t, launch):
        launch("twopass_forward", t.loss, t.lse, t.logits, t.targets, *columns(t), **a_block_each(t))

    def backward(self, t, launch):
        if t.dlogits is not None:
            arguments = (t.dlogits, t.logits, t.targets, t.lse, t.dloss, *columns(t))
            launch("block_dlogits", *arguments, **a_block_each(t))


class CrossEntropyOnline(CrossEntropyTwoPass):
    """Maximum and sum in one pass, the sum corrected when a larger logit comes: half the reads of `twopass`."""

    name, priority = "online", 6

    def forward(self, t, launch):
        launch("block_forward", t.loss, t.lse, t.logits, t.targets, *columns(t), **a_block_each(t))


class CrossEntropyFused(CrossEntropyOnline):
    """In training the gradient in the same launch, in the logits' own memory: one read and one write of them in all."""

    name, priority = "fused", 10

    def forward_backward(self, t, launch):
        arguments = (t.loss, t.lse, t.dlogits, t.logits, t.targets, t.dloss, *columns(t))
        launch("block_both", *arguments, **a_block_each(t))


def columns(t):
    return i32(t.P), i32(t.classes)


def a_block_each(t):
    return blocks_of_rows(t.rows, t.P, t.logits)


def blocks_of_rows(rows, columns, logits):
    """A thread block for each row, with registers for all of it: up to 65,536 columns in 16 bits."""
    each = width(columns, logits)
    packs = cdiv(columns, each)
    threads = min(cdiv(cdiv(packs, KEPT), THREADS) * THREADS, MOST)
    define = {"WIDTH": each, "THREADS": threads, "KEPT": min(cdiv(packs, threads), KEPT)}
    return {"grid": rows, "block": threads, "define": define}
