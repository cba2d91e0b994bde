"""Capstone: an op and a model of the student's own, compared with GPT-2."""

from core.learning import RunTask
from core.testing.puzzle import Puzzle, WrongAnswer

SIZES = {"B": 8, "T": 32, "S": 32, "C": 32, "H": 2, "L": 1, "V": 257}
SETTINGS = {f"dims.{name}": size for name, size in SIZES.items()} | {
    "data.tokenizer": "bytes", "data.vocab_size": 257, "optimizer.name": "muon", "optimizer.lr": 0.02,
    "schedule.warmup": 5, "train.steps": 200, "train.tokens_per_step": 256, "train.val_every": 200,
    "train.val_tokens": 2048, "train.sample_every": 0, "train.checkpoint_every": -1,
}  # fmt: skip


def better(mine, baseline):
    if mine.val_loss <= baseline.val_loss - 0.05:
        return ""
    return f"the validation loss is {mine.val_loss:.3f}, and GPT-2's is {baseline.val_loss:.3f} after as many steps"


def no_larger(mine, baseline):
    if mine.parameters <= 1.02 * baseline.parameters:
        return ""
    return f"the model has {mine.parameters:,} parameters, and GPT-2 has {baseline.parameters:,}"


ALL = 'attn = { op = "attention", in = "qkv", heads = "H", causal = false }'
NODES = """near_1 = { op = "earlier", in = "ln_1" }
near_2 = { op = "earlier", in = "ln_2" }
qkv    = { op = "matmul", in = "near_1", features = "3*C" }
fc     = { op = "matmul", in = "near_2", features = "4*C" }
"""

PUZZLE = Puzzle(
    "Capstone: your architecture beside GPT-2",
    RunTask(
        {"parameters": no_larger, "val_loss": better},
        config="tiny",
        settings=SETTINGS,
        devices=("cpu", "cpu"),
        mine={"model": "c13_model"},
        causal=True,
    ),
    minutes=90,
    hints=[
        ("written", 'Two gradients are yours: t.add("dx", ...) and t.add("dweight", ...).'),
        ("dweight is not the derivative", "Every row but the first is weighted once. What does the weight of a channel "
                                          "multiply, and over which two axes are its slopes added?"),
        ("dx is not the "
         "derivative", "x[t] is read twice: by y[t], and by y[t + 1] with a weight. A fork, so a sum. Who "
                                     "reads the last row?"),
        ("ValueError|shape|broadcast", "x[:, :-1] has one row less than x: to which rows of dx does it belong?"),
        ("right: decode|future", "A model that sees the token which it must predict has a wonderful loss and predicts "
                                 "nothing. Which rows may row t read?"),
        ("right: forward", "The forward has changed. Is it still what the other sub-checks ask of it?"),
        ("compiles|train", "The nodes are lines of TOML. The message names the node: does each one read a node that is "
                           "there, and does the block still define y?"),
        ("parameters", "Lower with more parameters is no comparison. What could be narrower?"),
        ("val_loss", "Where does a token's neighbour help most: before q, k and v, before the MLP, or in the stream "
                     "itself? Does a node of the block read your op's result?"),
    ],
    wrong={
        "dx of one road": WrongAnswer("dx is not", ("        dx[:, :-1] += t.weight * t.dy[:, 1:]\n", "")),
        "shifted the wrong way": WrongAnswer(
            "dx is not", ("dx[:, :-1] += t.weight * t.dy[:, 1:]", "dx[:, 1:] += t.weight * t.dy[:, :-1]")
        ),
        "dweight without its rows": WrongAnswer(
            "dweight is not", ("t.x[:, :-1]).sum((0, 1))", "t.x[:, 1:]).sum((0, 1))")
        ),
        "the row behind": WrongAnswer(
            "decode|future",
            ("t.y[:, 1:] += t.weight * t.x[:, :-1]", "t.y[:, :-1] += t.weight * t.x[:, 1:]"),
            ("dx[:, :-1] += t.weight * t.dy[:, 1:]", "dx[:, 1:] += t.weight * t.dy[:, :-1]"),
            ("(t.dy[:, 1:] * t.x[:, :-1])", "(t.dy[:, :-1] * t.x[:, 1:])"),
        ),
        "an op that no node reads": WrongAnswer("nothing uses it", ('in = "near_1"', 'in = "ln_1"')),
        "GPT-2 itself": WrongAnswer("val_loss", (NODES, "")),
        "attention that sees all tokens": WrongAnswer("right: future", ("near_1 =", f"{ALL}\nnear_1 =")),
        "a wider MLP": WrongAnswer("parameters", ('near_2", features = "4*C" }', 'near_2", features = "8*C" }')),
    },
    why="Bytes of a word depend most on the byte before. Attention must learn to find it; a mixed row has it from the "
        "first step. Whether that lasts is what longer runs, other seeds and larger models are for.",
)  # fmt: skip
