"""Capstone: the student's attention kernel in a run of GPT-2, with the losses of the reference."""

from core.learning import RunTask
from core.testing.puzzle import Puzzle, WrongAnswer

LAUNCHER = '''"""attention.mine: a variant of attention. Its forward launches the kernel of c12_attention.cu, its
backward is that of the shipped variant `online`, which works the shares out again from lse.

    core train tiny --plugin course/c12_launcher.py --device sim --set ops.attention=mine --set train.steps=2 \\
        --set ops.generate.attention=auto
"""

import math

from core import BuildError, Variant, cdiv, f32, i32

NO_CACHE = "it trains, and has no KV cache to generate from"


class AttentionMine(Variant):
    op, name, base, priority = "attention", "mine", "online", -1
    source, dtypes = "c12_attention.cu", ("f32",)
    examples = [{"qkv": (1, 1, 3 * 8), "heads": 1}, {"qkv": (2, 37, 3 * 2 * 8), "heads": 2}]

    def why_not(self, t):
        if getattr(t, "start", None) is not None:
            return NO_CACHE
        plain = t.causal and not (t.window or t.softcap or t.scale or t.documents is not None)
        return None if plain and t.heads == t.kv_heads else "it is causal attention with a key head for each query head"

    def forward(self, t, launch):
        if t.start is not None:
            raise BuildError(f"attention.mine: {NO_CACHE}", hint="--set ops.generate.attention=auto")
        launch("attention", t.y, t.lse, t.qkv, i32(t.T), i32(t.heads), f32(1 / math.sqrt(t.D)),
               grid=(cdiv(t.T, 64), t.B * t.heads), block=64, define={"HEAD_DIM": t.D})


def core_variants():
    return [AttentionMine]
'''
FILES = {"c12_launcher.py": LAUNCHER}
SIZES = {"B": 1, "T": 100, "S": 100, "C": 16, "H": 2, "L": 1, "V": 257}
SETTINGS = {f"dims.{name}": size for name, size in SIZES.items()} | {
    "data.tokenizer": "bytes", "data.vocab_size": 257, "optimizer.lr": 0.02, "schedule.warmup": 1, "train.steps": 2,
    "train.tokens_per_step": 100, "train.val_every": 2, "train.val_tokens": 100, "train.sample_every": 0,
    "train.checkpoint_every": 0,
}  # fmt: skip


def same_losses(mine, reference):
    for step, (a, b) in enumerate(zip(mine.losses, reference.losses, strict=True), 1):
        if not abs(a - b) <= 1e-5:
            return f"the loss of step {step} is {a:.6f}, and with the reference {b:.6f}"
    return ""


PUZZLE = Puzzle(
    "Capstone: your attention trains GPT-2",
    RunTask(
        {"losses": same_losses},
        config="tiny",
        settings=SETTINGS,
        devices=("sim", "cpu"),
        mine={"executor": "interpreter", "ops.attention": "mine"},
        baseline={"ops.attention": "reference"},
        answer="c12_attention.cu",
        files=FILES,
    ),
    files=FILES,
    minutes=90,
    hints=[
        ("compiles", "Puzzle p16 has such a kernel for one head; here q, k and v stand in one tensor. Which name or "
                     "sign does the first error name?"),
        ("race", "A loop that fetches a tile and uses it needs two barriers a turn: which one is missing?"),
        ("divergent", "Threads with few keys, or without a query, must wait with the others: which of them leave "
                      "early?"),
        ("uninit", "Which threads fetch the tile, and is every place of it written, also behind T?"),
        ("out of bounds|bounds", "The last tile sticks out beyond T, and the last block has threads without a query."),
        ("not "
         "written|written", "Each query has HEAD_DIM numbers in y and ONE in lse. Which of them does no thread write?"),
        ("right: gradient", "y is right, and the backward works the shares out again from lse: the log of the sum of "
                            "exp(score). Your sum is that of exp(score - top). What must be added?"),
        ("right: forward.*got nan", "Not a number is 0 / 0, or an infinity less an infinity. Has every query a key, "
                                    "itself at least? Which exponent is -infinity while top is?"),
        (r"right: forward.*1, 1, 24", "With one token the share is 1, and y is v. Where does v begin, behind how many "
                                      "queries and keys?"),
        ("right: losses", "Right for 37 tokens, and the run has 100: a second thread block of queries. Up to which key "
                          "does it walk?"),
        ("right", "Right for one token of one head. Compare the index of q, k and v with the shape of qkv, for a "
                  "second row of the batch, a second head, a second token. Then the softmax: what shrinks when top "
                  "grows? And which keys may a query see?"),
    ],
    wrong={
        "no lse": WrongAnswer("written: written.*lse", ("    lse[blockIdx.y * T + i] = top + logf(sum);\n", "")),
        "lse without its top": WrongAnswer("right: gradient", ("top + logf(sum)", "logf(sum)")),
        "one row of the batch": WrongAnswer("right", ("qkv + b * T * next + h", "qkv + h")),
        "the second head's queries": WrongAnswer("right", ("*k = q + heads * HEAD_DIM", "*k = q + HEAD_DIM")),
        "no wait behind the tile": WrongAnswer("race", (
            "            top = higher;\n        }\n        __syncthreads();", "            top = higher;\n        }")),
        "output not shrunk": WrongAnswer("right", ("out[d] * shrink", "out[d]")),
        "no scale": WrongAnswer("right", ("scale * q[", "q[")),
        "the first block's keys alone": WrongAnswer("losses", ("first < (blockIdx.x + 1) * 64", "first < 64")),
    },
    why="A run is a list of launches, and the config decides which kernel stands at each place. Forward and backward "
        "meet in lse alone, so a kernel that writes y and lse trains, whatever way it takes to them.",
)  # fmt: skip
