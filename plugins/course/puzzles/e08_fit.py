"""A run that fits into a given memory: fewer rows at a time, and results that are computed again."""

from core.testing.puzzle import FunctionCase, FunctionTask, Puzzle, WrongAnswer


def truth():
    return {"same step": 1, "fits": 1}


PUZZLE = Puzzle(
    "GPT-2 in 2 GiB",
    FunctionTask("planned", truth, cases=[FunctionCase({}, "GPT-2 124M on the CPU, in f32")]),
    minutes=20,
    hints=[
        ("TypeError|NameError|KeyError|JSON|not "
         "written", "settings() returns a dict of keys and values. A misspelt key "
                                                          "is named in the output above."),
        (r'wrong: planned\["same', "A shorter T, fewer tokens a step or another format is another run. Which settings "
                                   "change the memory and leave the sum of gradients as it is?"),
        (r'wrong: planned\["fits', "Weights, gradients and AdamW's means are 16 bytes a parameter, whatever you do. "
                                   "How much is left for activations? `core plan gpt2_124m --device cpu` lists what "
                                   "each op saves for backward: which op saves most, and could be computed again?"),
    ],
    wrong={
        "two rows at a time": WrongAnswer('"fits"', ('"dims.B": 1', '"dims.B": 2')),
        "one row, and nothing forgotten": WrongAnswer('"fits"', (', "train.recompute": ["matmul"]', "")),
        "forgets too little": WrongAnswer('"fits"', ('["matmul"]', '["attention"]')),
        "a smaller step": WrongAnswer("same step", ('"train.recompute": ["matmul"]', '"train.tokens_per_step": 1024')),
        "shorter rows": WrongAnswer("same step", ('"train.recompute": ["matmul"]', '"dims.T": 128')),
        "a misspelt key": WrongAnswer("JSON", ("train.recompute", "train.recomputed")),
    },
    why="The state of GPT-2 and AdamW takes 1.85 GiB of the two. Fewer rows a micro-step divide the activations, and "
        "recompute forgets some: both leave the gradient as it is, and cost time.",
)  # fmt: skip
