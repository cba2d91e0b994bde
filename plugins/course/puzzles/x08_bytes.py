"""The memory of a training run, by hand."""

from core.testing.puzzle import FunctionCase, FunctionTask, Puzzle, WrongAnswer


def truth(V, S, C, L, B, T):
    shapes = [(V, C), (S, C), (C,), (C,)]
    for _ in range(L):
        shapes += [(C,)] * 4 + [(3 * C, C), (3 * C,), (C, C), (C,), (4 * C, C), (4 * C,), (C, 4 * C), (C,)]
    weights = sum(4 * shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes)
    widths = [C] * 2 + [width * C for _ in range(L) for width in (1, 3, 1, 1, 1, 4, 4, 1)]
    saved = sum(4 * B * T * width for width in widths)
    return {"weights": weights, "gradients": weights, "optimizer": 2 * weights, "saved": saved, "cache": 8 * T * C * L}


PUZZLE = Puzzle(
    "The memory of a run, by hand",
    FunctionTask(
        "bytes_of",
        truth,
        cases=[
            FunctionCase({"V": 2048, "S": 64, "C": 128, "L": 4, "B": 16, "T": 64}, "tiny"),
            FunctionCase({"V": 50257, "S": 1024, "C": 768, "L": 12, "B": 4, "T": 1024}, "GPT-2"),
            FunctionCase({"V": 100, "S": 50, "C": 8, "L": 1, "B": 1, "T": 10}, "a very small one"),
        ],
        tolerance=0.001,
    ),
    minutes=25,
    hints=[
        ("NameError|not written", "Five numbers: weights, gradients, optimizer, saved and cache. Begin with the count "
                                  "of parameters of lesson 6."),
        (r'\["weights"\] is', "How many parameters are outside the layers, how many in each, and how many bytes has an "
                              "f32?"),
        (r'\["gradients"\] is', "Each parameter has a gradient. In which format?"),
        (r'\["optimizer"\] is', "Which numbers does AdamW keep for each parameter between two steps?"),
        (r'\["saved"\] is', "Go through a layer, node by node: does the backward of a later one read this result? How "
                            "wide is it, for each of the B * T tokens?"),
        (r'\["cache"\] is', "One row of text is generated. For each token and layer, which two rows are kept, and how "
                            "wide is each?"),
    ],
    wrong={
        "elements for bytes": WrongAnswer(r'\["weights"\] is', ("weights = 4 *", "weights = 1 *")),
        "Adam keeps one": WrongAnswer(r'\["optimizer"\] is', ('"optimizer": 2 * weights', '"optimizer": weights')),
        "one layer's activations": WrongAnswer(r'\["saved"\] is', ("(2 + 16 * L)", "(2 + 16)")),
        "no hidden part of the MLP": WrongAnswer(r'\["saved"\] is', ("16 * L", "8 * L")),
        "keys without values": WrongAnswer(r'\["cache"\] is', ("2 * 4 * L * T * C", "4 * L * T * C")),
        "a cache for the vocabulary": WrongAnswer(r'\["cache"\] is', ("2 * 4 * L * T * C", "2 * 4 * L * T * V")),
    },
    why="Weights, gradients and AdamW's two means are 16 bytes a parameter. Activations grow with the tokens of a "
        "micro-step, 16 rows of C for each layer, so a smaller B makes a run fit.",
)  # fmt: skip
