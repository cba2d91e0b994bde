"""The backward of attention, and its decoding with a cache, graded by the op check."""

from pathlib import Path

from core.testing.puzzle import OpTask, Puzzle, WrongAnswer

PUZZLE = Puzzle(
    "Attention backwards, and one token at a time",
    OpTask(
        "attend", against="attend_truth.reference", plugins=[Path(__file__).parents[1] / "truths" / "attend.py"]
    ),
    minutes=60,
    hints=[
        ("^right: "
         "forward", "The forward was right as you got it, and the truth is another op's. What has changed in it?"),
        ("decode", "While decoding, q has only the new tokens, and keys[b, :end] has all so far. Which rows of keys "
                   "and values are new, and which position has the first query? `weights` takes it as `first`."),
        ("written", 'Four lines: dv from y = p v, then dp, then ds through the softmax, then dq and dk. Add each of '
                    'dv, dq and dk with t.add.'),
        ("ValueError|shape|broadcast", "Write the shapes beside the letters: p, dp and ds are (T, T), q, k, v and dy "
                                       "are (T, D). Which product of two of them has the shape that you need?"),
        ("dv is not the derivative", "y[i] is the sum of p[i, j] v[j]. To which y does v[j] go, with which weight?"),
        ("dk is not the derivative", "s[i, j] = q[i] . k[j]. Every query i reads k[j]: which axis of ds is summed?"),
        ("dq is not the derivative", "The softmax takes away from each row of dp a mean of that row. With which "
                                     "weights is that mean taken? And where does 1 / sqrt(D) come back?"),
    ],
    wrong={
        "forgets the scale": WrongAnswer("gradient: dq is not the derivative", (") / np.sqrt(t.D)", ")")),
        "softmax without its mean": WrongAnswer(
            "gradient: dq is not the derivative", ("p * (dp - (p * dp).sum(-1, keepdims=True))", "p * dp")
        ),
        "counts queries from 0": WrongAnswer(
            "right: decode", ("weights(t.q[b], t.keys[b, :end], start)", "weights(t.q[b], t.keys[b, :end])")
        ),
        "dv not turned": WrongAnswer("gradient: dv is not the derivative", ("p.swapaxes(-1, -2) @ t.dy", "p @ t.dy")),
        "dk not turned": WrongAnswer("gradient: dk is not the derivative", ("ds.swapaxes(-1, -2) @ t.q", "ds @ t.q")),
        "the mean of a column": WrongAnswer(
            "gradient: dq is not the derivative", ("(p * dp).sum(-1", "(p * dp).sum(-2")
        ),
        "another forward, with its own backward": WrongAnswer(
            "^right: forward", ("/ np.sqrt(q.shape[-1])", "/ q.shape[-1]"), ("/ np.sqrt(t.D)", "/ t.D")
        ),
        "the cache from its start": WrongAnswer(
            "right: decode", ("t.keys[b, start:end], t.values[b, start:end]", "t.keys[b, : t.T], t.values[b, : t.T]")
        ),
    },
    why="Each line is the chain rule for one arrow. The mask needs no line: where p is 0, ds is 0. While decoding, a "
        "query sees the keys of all tokens before it, and none of them changes: they are computed once and kept.",
)  # fmt: skip
