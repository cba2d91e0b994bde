"""GPT-2's block and graph as TOML, compared with the shipped model."""

from functools import cache

from core.testing.puzzle import FunctionCase, FunctionTask, Puzzle, WrongAnswer


@cache
def shipped(dims):
    import core

    return core.load("gpt2_124m", dims=dict(dims), precision="f64")


def truth(dims, tokens, targets):
    return shipped(tuple(dims.items())).gradients(tokens, targets)


def batch(layers):
    def arguments(rng):
        dims = {"B": 2, "T": 5, "S": 6, "V": 11, "C": 8, "H": 2, "L": layers}
        tokens = rng.integers(0, 11, (2, 6))
        return {"dims": dims, "tokens": tokens[:, :-1], "targets": tokens[:, 1:]}

    return arguments


PUZZLE = Puzzle(
    "GPT-2 from an empty block",
    FunctionTask(
        "gradients",
        truth,
        cases=[FunctionCase(batch(1), "one layer"), FunctionCase(batch(3), "three layers")],
        tolerance=1e-9,
    ),
    minutes=45,
    hints=[
        ("not TOML", "The ten nodes are lines of TOML, `name = { op = ..., in = ... }`, with their names from above. "
                     "Which line does the message name?"),
        ("no multiple of heads", "Attention wants q, k and v side by side. How many features has its input?"),
        ("nothing uses it", "A node's result that no node reads has no gradient. Which node should read this one?"),
        ("BuildError", "The message names the node and its input. Does each node read a node that exists, and does the "
                       "block define y?"),
        ("not written", "A parameter of GPT-2 is not there: its node is missing or has another name."),
        ("shape", "The node is there with another size. How wide is the hidden part of the MLP?"),
        ("wrong", "Every parameter is there, and a road is missing or leads elsewhere. Which value does each `add` "
                  "take: the stream before the norm, or after it? May a token see later ones? Which form of GELU has "
                  "GPT-2?"),
    ],
    wrong={
        "adds the norm's output": WrongAnswer("right: wrong", ('in = ["x", "proj"]', 'in = ["ln_1", "proj"]')),
        "second add from the block's input": WrongAnswer("right: wrong", ('in = ["r", "down"]', 'in = ["x", "down"]')),
        "a narrow MLP": WrongAnswer("right: shape", ('features = "4*C"', 'features = "3*C"')),
        "sees the future": WrongAnswer("right: wrong", ("causal = true", "causal = false")),
        "the exact GELU": WrongAnswer("right: wrong", ('approx = "tanh"', 'approx = "erf"')),
        "MLP without its norm": WrongAnswer("nothing uses it", ('in = "ln_2", features', 'in = "r", features')),
        "queries alone": WrongAnswer("no multiple of heads", ('features = "3*C"', 'features = "C"')),
    },
    why="Each layer adds twice to the stream, and each time reads it through a norm of its own. The stream itself "
        "passes no norm until the end, so a gradient reaches the first layer without a detour.",
)  # fmt: skip
