"""The backward of SiLU, graded by the op check."""

from core.testing.puzzle import OpTask, Puzzle, WrongAnswer

RIGHT = "t.dy * (s + t.x * s * (1 - s))"

PUZZLE = Puzzle(
    "The backward of SiLU",
    OpTask("my_silu"),
    minutes=20,
    hints=[
        ("written", 'The gradient has no value yet. t.add("dx", ...) adds it; t.dx = ... only names something else.'),
        ("read-only", "The slope for x belongs into the gradient of x. Which name has it?"),
        ("ValueError|broadcast|shape", "dx has an element for each element of x. Has your product the shape of t.x?"),
        ("absent|accumulate", "The engine may have put the gradient of another reader of x there already. Which call "
                              "adds to it, as at a fork?"),
        ("at ones|dy is not in it", "The loss moves through y. Is the slope that arrives, t.dy, a factor of all that "
                                   "you add?"),
        ("derivative|right", "y = x * s is a product, and both factors move with x: two roads, so a sum of two. What "
                             "does s move by when x moves? Measure it, as in lesson 1. Both roads go into one t.add: "
                             "a second call for dx replaces the first."),
    ],
    wrong={
        "forgets that s moves": WrongAnswer("gradient: dx is not the derivative", (RIGHT, "t.dy * s")),
        "forgets the slope that arrives": WrongAnswer(
            "gradient: dx is not the derivative", (RIGHT, "s + t.x * s * (1 - s)")
        ),
        "slope of s alone": WrongAnswer("gradient: dx is not the derivative", (RIGHT, "t.dy * t.x * s * (1 - s)")),
        "one sum for all": WrongAnswer("dx has the shape", (RIGHT, f"({RIGHT}).sum()")),
        "sign": WrongAnswer("gradient: dx is not the derivative", ("(1 - s))", "(s - 1))")),
        "names instead of adds": WrongAnswer("written", ('t.add("dx", ' + RIGHT + ")", "dx = " + RIGHT)),
    },
    why="The product rule is the fork of lesson 1: x is read as a factor, and by s. The slope of s is s * (1 - s).",
)  # fmt: skip
