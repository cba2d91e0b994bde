"""Cross-entropy of rows of scores, and its gradient."""

import numpy as np

from core.testing.puzzle import FunctionCase, FunctionTask, Puzzle, WrongAnswer


def truth(logits, targets):
    losses, gradient = [], []
    for z, t in zip(logits, targets, strict=True):
        p = 1 / np.exp(z[None, :] - z[:, None]).sum(1)  # 1 / p_i is the sum of exp(z_j - z_i)
        counts = t >= 0
        losses.append(np.log(np.exp(z - z[t]).sum()) if counts else 0.0)
        gradient.append((p - np.eye(len(z))[t]) * counts)
    return {"loss": np.array(losses), "gradient": np.array(gradient)}


def drawn(shift):
    def arguments(rng):
        signs = np.array([[1], [-1], [1], [-1]])
        return {"logits": rng.standard_normal((4, 6)) + shift * signs, "targets": np.array([0, 5, 2, 2])}

    return arguments


PUZZLE = Puzzle(
    "Cross-entropy for scores of any size",
    FunctionTask(
        "cross_entropy",
        truth,
        cases=[
            FunctionCase({"logits": np.zeros((1, 4)), "targets": np.array([1])}, "knows nothing"),
            FunctionCase(drawn(0), "four rows"),
            FunctionCase(drawn(800), "far from zero"),
            FunctionCase({"logits": np.eye(3), "targets": np.array([2, -1, 0])}, "a target of -1"),
        ],
    ),
    minutes=25,
    hints=[
        ("NameError|not written", "First the shares p, a row at a time; then the loss of each row, and the gradient."),
        ("IndexError|shape", "Each row has one loss, and each score one gradient. Along which axis is the sum?"),
        ("far from zero", "exp of 800 is infinite, and exp of -800 is 0. Softmax does not change when a number is "
                          "taken off a whole row: which one?"),
        ("target of -1", "Index -1 is Python's last element. What should the loss and the gradient of that row be?"),
        ("four rows", "Right for one row. Which scores take part in the sum of a row, and which targets are its?"),
        (r'wrong: cross_entropy\["loss', "With equal scores each of the 4 tokens has the share 1 / 4. Which number "
                                         "is minus its natural log?"),
        (r'wrong: cross_entropy\["gradient', "Push the score of the target up: should the loss grow or fall? A row's "
                                             "gradient sums to 0. Does yours?"),
    ],
    wrong={
        "exp of the scores as they are": WrongAnswer("far from zero", ("logits.max(-1, keepdims=True)", "0")),
        "counts the -1": WrongAnswer("target of -1", (" * counts[:, None]", "")),
        "forgets the target": WrongAnswer('"gradient".*knows nothing', ("dz[rows, targets] -= 1", "pass")),
        "the largest of the batch": WrongAnswer("far from zero", ("logits.max(-1, keepdims=True)", "logits.max()")),
        "one sum for all rows": WrongAnswer("four rows", ("e.sum(-1, keepdims=True)", "e.sum(keepdims=True)")),
        "log of two": WrongAnswer('"loss".*knows nothing', ("np.log(", "np.log2(")),
    },
    why="Each row is shifted by its own largest score: one exponent is then 0, none is positive, and the sum is at "
        "least 1. A share can still be 0, so the loss is taken from the scores, not from the log of a share.",
)  # fmt: skip
