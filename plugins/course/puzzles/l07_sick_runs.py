"""Five sick runs of `core train`, each repaired in one number."""

from core.testing.puzzle import FunctionCase, FunctionTask, Puzzle, WrongAnswer


def truth(run):
    return {"learns": 1, "numbers changed": 1}


PUZZLE = Puzzle(
    "Five sick runs",
    FunctionTask("measured", truth, cases=[FunctionCase({"run": name}, f"run {name}") for name in "bcdef"]),
    minutes=25,
    hints=[
        ("TypeError|KeyError|AttributeError|not written", "repaired(run) returns a dict with one key and its new "
                                                         "number, for each of the runs b to f."),
        (r'wrong: measured\["numbers', "It learns, but more than one number is new. Which one was the illness?"),
        ("run b", "The loss grows from the first steps on. Is a step too long, or too short?"),
        ("run c", "Adam moves each weight by about lr a step. How far have 30 steps come, and how large are weights "
                  "that begin with a deviation of 0.02?"),
        ("run d", "lr is right, and still nothing moves. A step is lr * m / (sqrt(v) + eps). Which part of it is far "
                  "too large?"),
        ("run e", "Which share of lr has the warm-up reached after 30 steps?"),
        ("run "
         "f", "metrics.jsonl has a healthy norm, and it is the norm before clipping. How large is the gradient after "
                  "it, and what stands beside sqrt(v)?"),
    ],
    wrong={
        "b hardly slower": WrongAnswer("run b", ('"b": {"optimizer.lr": 0.01}', '"b": {"optimizer.lr": 2.0}')),
        "two numbers at once": WrongAnswer(
            "numbers", ('"b": {"optimizer.lr": 0.01}', '"b": {"optimizer.lr": 0.01, "schedule.warmup": 6}')
        ),
        "c hardly faster": WrongAnswer("run c", ('"c": {"optimizer.lr": 0.01}', '"c": {"optimizer.lr": 1e-5}')),
        "d with more lr": WrongAnswer("run d", ('"d": {"optimizer.eps": 1e-8}', '"d": {"optimizer.lr": 0.02}')),
        "e with more lr": WrongAnswer("run e", ('"e": {"schedule.warmup": 5}', '"e": {"optimizer.lr": 0.02}')),
        "f with another eps": WrongAnswer("run f", ('"f": {"optimizer.clip": 1.0}', '"f": {"optimizer.eps": 1e-6}')),
    },
    why="A step has a length: lr times the share that warm-up has reached, times m / (sqrt(v) + eps), where m and v "
        "are of the clipped gradient. Each run had one of these factors wrong by some orders of magnitude.",
)  # fmt: skip
