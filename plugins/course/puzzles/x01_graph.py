"""A graph of four steps, backwards by hand."""

from core.testing.puzzle import FunctionCase, FunctionTask, Puzzle, WrongAnswer


def truth(x, w, b):
    """The slopes as the imaginary part of the loss whose input moved by a tiny imaginary number: no rule is used."""

    def loss(x, w, b):
        p = x * w
        s = p + b
        return s * s * p

    tiny = 1e-30
    pushed = {"b": (x, w, b + tiny * 1j), "x": (x + tiny * 1j, w, b), "w": (x, w + tiny * 1j, b)}
    return {name: loss(*numbers).imag / tiny for name, numbers in pushed.items()}


PUZZLE = Puzzle(
    "Backwards through four steps",
    FunctionTask(
        "slopes",
        truth,
        cases=[
            FunctionCase({"x": 1.0, "w": 2.0, "b": 1.0}, "on paper"),
            FunctionCase({"x": 3.0, "w": 0.5, "b": -0.5}, "with a negative b"),
            FunctionCase({"x": -1.25, "w": 2.0, "b": 0.5}, "another point"),
        ],
    ),
    minutes=25,
    hints=[
        ("NameError|not written", "Begin at the end with dloss, and go up one line at a time: dq, ds, dp, and then the "
                                  "three inputs."),
        (r'wrong: slopes\["b"\] is 0,', "Everything is a multiple of the slope that the walk begins with. By how much "
                                        "does the loss move when the loss moves by 1?"),
        (r'wrong: slopes\["b"\]', "b reaches the loss on one road: s, q, loss. Which slope does each of these steps "
                                  "have, and are all of them in your product?"),
        (r'wrong: slopes\["x"\]', "b is right, and x is not. How many lines read p?"),
        (r'wrong: slopes\["w"\]', "x is right, and w is not. In p = x * w, what does a push of w move p by?"),
    ],
    wrong={
        "overwrites at the fork": WrongAnswer(r'slopes\["x"\] is .*should be 42', ("dp = dloss * q + ds", "dp = ds")),
        "one road of the fork": WrongAnswer(r'slopes\["x"\] is 18', ("dp = dloss * q + ds", "dp = dloss * q")),
        "forgets the outer slope": WrongAnswer(r'slopes\["b"\] is .*should be 12', ("ds = dq * 2 * s", "ds = 2 * s")),
        "begins with 0": WrongAnswer(r'slopes\["b"\] is 0,', ("dloss = 1", "dloss = 0")),
        "square as one factor": WrongAnswer(r'slopes\["b"\] is 6,', ("dq * 2 * s", "dq * s")),
        "x for w": WrongAnswer(r'slopes\["x"\] is 21', ('"x": dp * w, "w": dp * x', '"x": dp * x, "w": dp * w')),
    },
    why="The walk hands each slope on once. p is read by s and by the loss, so its slope is a sum of two; s is read "
        "twice by q = s * s, which is where the 2 comes from.",
)  # fmt: skip
