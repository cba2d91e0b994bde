"""A ring that sums over ranks, with the traffic counted."""

import numpy as np

from core.testing.puzzle import FunctionCase, FunctionTask, Puzzle, WrongAnswer


def truth(gradients):
    n = len(gradients)
    return {"sums": np.tile(gradients.sum(0), (n, 1)), "gradients sent": 2 * (n - 1) / n}


def drawn(ranks):
    return lambda rng: {"gradients": rng.standard_normal((ranks, 12))}


TRAVEL = """    for turn in range(n - 1):
        moved = [send(rank, (rank + 1 - turn) % n) for rank in range(n)]
        for rank in range(n):
            parts[(rank + 1) % n][(rank + 1 - turn) % n] = moved[rank]
"""

PUZZLE = Puzzle(
    "A ring of ranks",
    FunctionTask(
        "measured",
        truth,
        cases=[
            FunctionCase(drawn(2), "two ranks"),
            FunctionCase(drawn(3), "three ranks"),
            FunctionCase(drawn(4), "four ranks"),
        ],
    ),
    minutes=40,
    hints=[
        ("IndexError|KeyError|TypeError|NameError|ValueError", "Ranks and chunks are counted from 0, and behind the "
                                                               "last comes the first: `% n`."),
        (r'wrong: measured\["gradients.*two ranks', "Two ranks, two chunks: each sends one chunk so that a sum is "
                                                    "whole at one of them, and then one whole sum. That is one "
                                                    "gradient in all."),
        (r'wrong: measured\["gradients', "The sums are right, and the traffic is not a ring's. More: does a rank send "
                                         "chunks that its neighbour does not need in this turn? Less: what a rank "
                                         "sends reaches its neighbour, and no other rank."),
        (r'wrong: measured\["sums.*two ranks', "After the first turn each rank has ONE whole sum. Which chunk is it, "
                                               "and does the other rank get it? What a rank sends must be taken "
                                               "before its neighbour's arrives."),
        (r'wrong: measured\["sums', "Right for two ranks. In turn t, which chunk did a rank get in turn t - 1? That "
                                    "is the one to hand on."),
    ],
    wrong={
        "sends the whole gradient each turn": WrongAnswer(
            "sent", ("[send(rank, (rank - turn) % n)", "[[send(rank, one) for one in range(n)][(rank - turn) % n]")
        ),
        "sums do not travel on": WrongAnswer("sums", (TRAVEL, "")),
        "a turn too few": WrongAnswer("sums", ("range(n - 1)", "range(n - 2)")),
        "always the same chunk": WrongAnswer(
            "sums.*three", ("send(rank, (rank - turn) % "
                            "n)", "send(rank, rank)"), ("chunk = (rank - turn) % n", "chunk = rank")
        ),
        "replaces in place of adding": WrongAnswer(
            "sums", ("parts[(rank + 1) % n][chunk] = parts[(rank + 1) % n][chunk] + moved[rank]",
                     "parts[(rank + 1) % n][chunk] = moved[rank]"),
        ),
        "adds in the second half": WrongAnswer(
            "sums", ("[(rank + 1 - turn) % n] = moved[rank]", "[(rank + 1 - turn) % n] += moved[rank]")
        ),
    },
    why="A rank sends 2 (n - 1) chunks of 1 / n of the gradient: less than two gradients, however many ranks there "
        "are. The first half alone is a reduce-scatter, the second an all-gather.",
)  # fmt: skip
