"""One update of AdamW."""

import numpy as np

from core.testing.puzzle import FunctionCase, FunctionTask, Puzzle, WrongAnswer

SETTINGS = {"lr": 0.1, "beta1": 0.9, "beta2": 0.95, "eps": 1e-3, "decay": 0.1}


def truth(param, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m, v = m + (1 - beta1) * (grad - m), v + (1 - beta2) * (grad**2 - v)
    pull = m / (1 - beta1**step) / (eps + (v / (1 - beta2**step)) ** 0.5)
    return {"m": m, "v": v, "param": (1 - lr * decay) * param - lr * pull}


def drawn(step, scale=1.0):
    def arguments(rng):
        param, grad, m = rng.standard_normal((3, 5))
        v = rng.standard_normal(5) ** 2
        return {"param": param, "grad": scale * grad, "m": scale * m, "v": scale**2 * v, "step": step, **SETTINGS}

    return arguments


ONE, ZERO = np.array([1.0]), np.zeros(1)
PUZZLE = Puzzle(
    "One update of AdamW",
    FunctionTask(
        "adamw",
        truth,
        cases=[
            FunctionCase({"param": ONE, "grad": 2 * ONE, "m": ZERO, "v": ZERO, "step": 1, **SETTINGS, "decay": 0.0},
                         "the first step, no decay"),
            FunctionCase({"param": ONE, "grad": ZERO, "m": ZERO, "v": ZERO, "step": 1, **SETTINGS}, "decay alone"),
            FunctionCase(drawn(3), "step 3"),
            FunctionCase(drawn(3, 1e-3), "small gradients"),
        ],
        tolerance=1e-9,
    ),
    minutes=30,
    hints=[
        ("NameError|not written", 'Return {"m": ..., "v": ..., "param": ...}, all three of them new.'),
        ("input changed", "m and v are arguments: `m *= beta1` writes into the caller's array. Which line makes a new "
                          "array?"),
        ("decay alone", "Without a gradient a weight shrinks by lr * decay of itself, and m and v stay 0."),
        (r'wrong: adamw\["m"\]', "m is a running mean of the gradient: how much of the old one stays, and how much of "
                                 "the new one enters?"),
        (r'wrong: adamw\["v"\]', "v is a running mean as m is, with beta2, of another quantity. Of which?"),
        ("first step", "m and v began at 0, so after one step they are too small. By which factor? And is eps added "
                       "to the root, or inside it?"),
        ("small gradients", "eps is to be small beside sqrt(v). Is it added to the root, or inside it?"),
        ("step 3", "m and v are right. Which of them, the old or the new, moves the parameter, and which power has "
                   "the correction at step 3?"),
    ],
    wrong={
        "no correction for the start": WrongAnswer(
            "wrong.*param.*first step", ("m / (1 - beta1**step), v / (1 - beta2**step)", "m, v")
        ),
        "decay inside the gradient": WrongAnswer(
            "wrong.*decay alone", ("    m = beta1", "    grad = grad + decay * param\n    m = beta1"),
            (" + decay * param)", ")"),
        ),
        "eps inside the root": WrongAnswer("wrong.*param", ("(np.sqrt(vhat) + eps)", "np.sqrt(vhat + eps)")),
        "gradient for m": WrongAnswer("wrong.*param.*step 3", ("mhat / (np", "grad / (np")),
        "v without the square": WrongAnswer(r'adamw\["v"\]', ("* grad * grad", "* grad")),
        "correction of step 1 for ever": WrongAnswer("wrong.*param.*step 3", ("**step", "")),
        "writes into m": WrongAnswer("input changed", ("m = beta1 * m + (1", "m *= beta1\n    m = m + (1")),
        "uphill": WrongAnswer("wrong.*param.*first step", ("param - lr", "param + lr")),
    },
    why="m is the usual gradient, and sqrt(v) its usual size: their ratio is about 1 for a parameter whose gradient "
        "keeps its sign. Decay acts on the weight directly, so that it does not depend on that ratio.",
)  # fmt: skip
