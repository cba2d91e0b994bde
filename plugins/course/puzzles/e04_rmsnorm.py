"""The backward of RMSNorm, graded by the op check."""

from core.testing.puzzle import OpTask, Puzzle, WrongAnswer

DX = "t.rstd[..., None] * (dn - n * np.mean(dn * n, axis=-1, keepdims=True))"

PUZZLE = Puzzle(
    "The backward of RMSNorm",
    OpTask("rms_norm", against="rmsnorm.reference"),
    minutes=30,
    hints=[
        ("^right: "
         "forward", "The forward was right as you got it, and the truth is another op's. What has changed in it?"),
        ("written", 'Two gradients are yours: t.add("dx", ...) and t.add("dweight", ...).'),
        ("dweight.*derivative", "Every row reads the same weight, so its slopes add over all rows. Which axes are "
                                "summed, and which one stays? And what stands beside the weight in y: x, or n?"),
        ("dweight has the shape", "weight has one number for each column, and every row reads it. Over which axes is "
                                  "its gradient a sum, and which axis stays?"),
        ("ValueError|shape|broadcast", "rstd has one number a row: t.rstd[..., None] stretches it along the row. A "
                                       "mean along the row wants keepdims=True."),
        ("dx is not the derivative", "Push one x of a row of two by hand. n moves because x does, and because rstd "
                                     "does; rstd is shared by the row, so its slope is a sum. Which of the two roads "
                                     "has your dx, and does dy meet the weight on the way to n?"),
    ],
    wrong={
        "forgets that rstd moves": WrongAnswer("gradient: dx is not the derivative", (DX, "t.rstd[..., None] * dn")),
        "sum for mean": WrongAnswer("gradient: dx is not the derivative", ("np.mean(dn * n", "np.sum(dn * n")),
        "forgets the weight": WrongAnswer("gradient: dx is not the derivative", ("t.dy * t.weight", "t.dy")),
        "layernorm's": WrongAnswer(
            "gradient: dx is not the derivative", ("(dn - n *", "(dn - dn.mean(-1, keepdims=True) - n *")
        ),
        "dweight with x for n": WrongAnswer("gradient: dweight is not the derivative", ("(t.dy * n)", "(t.dy * t.x)")),
        "another forward, with its own backward": WrongAnswer("^right: forward", ("+ t.eps)", "+ 1)")),
        "dweight of every row apart": WrongAnswer("dweight has the shape", (".sum(0)", "")),
        "dweight of the first row": WrongAnswer("gradient: dweight is not the derivative", (".sum(0)", "[0]")),
    },
    why="The arrow `- mean` is gone, and with it the term mean(dn): RMSNorm sees a shift of x, so a gradient may "
        "be one. It does not see a stretch, and n * mean(dn * n) is the part of dn along n.",
)  # fmt: skip
