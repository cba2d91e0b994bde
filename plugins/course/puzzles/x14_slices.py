"""ZeRO-1: who keeps which slice, and how many bytes that is."""

import numpy as np

from core.testing.puzzle import FunctionCase, FunctionTask, Puzzle, WrongAnswer

CHUNK = 1 << 14


def truth(elements, ranks):
    chunks = int(np.ceil(elements / CHUNK))
    cuts = np.minimum(np.arange(ranks + 1) * chunks // ranks * CHUNK, elements)
    share = 1 - 1 / ranks
    return {"cuts": cuts, "bytes": 8 * elements + 8 * np.diff(cuts).max(), "sent": 8 * elements * share}


PUZZLE = Puzzle(
    "Who keeps which slice",
    FunctionTask(
        "zero",
        truth,
        cases=[
            FunctionCase({"elements": 4 * CHUNK, "ranks": 1}, "one rank"),
            FunctionCase({"elements": 8 * CHUNK, "ranks": 4}, "8 chunks on 4 ranks"),
            FunctionCase({"elements": 1_063_680, "ranks": 4}, "tiny on 4 ranks"),
            FunctionCase({"elements": 124_475_904, "ranks": 7}, "GPT-2 on 7 ranks"),
        ],
        tolerance=1e-9,
    ),
    minutes=25,
    hints=[
        ("TypeError|NameError|not written", "Three keys: cuts, bytes and sent."),
        (": zero..cuts.*shape", "n slices have n + 1 ends, 0 and `elements` among them."),
        (": zero..cuts", "Count the chunks, the short one too. The last slice ends where the elements end. And which "
                         "quotient is rounded down: that of chunks, or that of elements?"),
        (": zero..bytes.*one rank", "With one rank there is nothing to share: 16 bytes a parameter, as in lesson 8."),
        (": zero..bytes", "Which parts are whole on each rank, which one is cut, and which rank has the largest one?"),
        (": zero..sent.*one rank", "One rank has no neighbour."),
        (": zero..sent", "The gradient's slices are summed at their owners, and then new weights travel from their "
                         "owners: each is (n - 1) / n of 4 bytes a parameter."),
    ],
    wrong={
        "cuts in the middle of a chunk": WrongAnswer(
            "cuts", ("rank * chunks // ranks * 16_384", "rank * elements // ranks")
        ),
        "the short chunk forgotten": WrongAnswer(
            "cuts", ("-(-elements // 16_384)", "elements // 16_384")
        ),
        "the mean for the fullest": WrongAnswer(r'\["bytes"\].*tiny', ("8 * largest", "8 * elements // ranks")),
        "gradients in slices too": WrongAnswer(
            r'\["bytes"\].*8 chunks', ("4 * elements + 4 * elements + 8 * largest", "4 * elements + 12 * largest")
        ),
        "everything to everyone": WrongAnswer(r'\["sent"\]', ("* 2 * (ranks - 1) / ranks", "* (ranks - 1)")),
        "half of the way": WrongAnswer(r'\["sent"\].*8 chunks', ("* 2 * (ranks - 1)", "* (ranks - 1)")),
    },
    why="Summing to the owners and sending the new weights back moves as much as a ring's sum does, so the optimizer's "
        "memory falls with the number of ranks at no cost in traffic.",
)  # fmt: skip
