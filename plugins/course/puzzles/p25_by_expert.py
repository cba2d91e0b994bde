"""Tokens by expert: a stable sort without a race for places."""

import numpy as np

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer


def truth(expert, E):
    return {"order": np.argsort(expert, kind="stable"), "first": np.searchsorted(np.sort(expert), np.arange(E))}


LOOP = """    for (int start = 0; start < n; start += 32) {
        int i = start + lane;
        bool mine = i < n && expert[i] == e;
        unsigned all = __ballot_sync(0xffffffff, mine);  // a bit for each lane
        if (mine) order[at + __popc(all & ((1u << lane) - 1))] = i;
        at += __popc(all);
    }
"""
ATOMIC = """    __shared__ int next;
    if (lane == 0) next = at;
    __syncwarp();
    for (int i = lane; i < n; i += 32)
        if (expert[i] == e) order[atomicAdd(&next, 1)] = i;
"""

PUZZLE = Puzzle(
    "Tokens by expert",
    KernelTask(
        truth,
        inputs={"expert": "n : i32 < E"},
        outputs={"order": "n : i32", "first": "E : i32"},
        launches=KernelLaunch("by_expert", "order first expert n", grid="E", block=32),
        cases=[
            KernelCase({"n": 1, "E": 1}, "one slot"),
            KernelCase({"n": 7, "E": 4}, "an expert without a token", {"expert": [3, 0, 3, 1, 0, 3, 1]}),
            KernelCase({"n": 100, "E": 5}, "more slots than lanes"),
        ],
    ),
    minutes=40,
    hints=[
        ("race", "Two slots got one place, or two lanes add to one counter with nothing between. Who owns a place?"),
        ("out of bounds", "There are n slots and n places, and n is no multiple of 32: which lanes have no slot in the "
                          "last turn, and is a slot counted twice?"),
        ("divergent|mask|member|absent", "All lanes of the mask must take part in a ballot, those without a slot too."),
        ("wrong: first|first\\[", "first[e] counts the slots of experts BEFORE e, over all lanes."),
        ("not written", "Does every expert write where it begins, also one without a token? Is every slot placed?"),
        ("wrong.*more "
         "slots", "Right for a single turn. Where do the slots of the second turn begin? An atomic gives the next "
                  "place to whoever comes first: how could a lane know how many of this expert's slots stand BEFORE "
                  "its own?"),
        ("wrong", "Place = slots of earlier experts + own slots of earlier lanes. Is a lane itself among the earlier?"),
    ],
    wrong={
        "an atomic for the place": WrongAnswer("order|wrong", (LOOP, ATOMIC)),
        "itself among the earlier": WrongAnswer("out of bounds|wrong", ("(1u << lane) - 1", "(2u << lane) - 1")),
        "each turn from the start": WrongAnswer("race|wrong|not written", ("        at += __popc(all);\n", "")),
        "own slots among the earlier experts'": WrongAnswer("out of bounds|wrong", ("expert[i] < e", "expert[i] <= e")),
        "one lane's count": WrongAnswer(
            "race|wrong", ("    for (int o = 16; o > 0; o /= 2) at += __shfl_xor_sync(0xffffffff, at, o);\n", "")
        ),
        "no guard": WrongAnswer("out of bounds", ("i < n && expert", "expert")),
    },
    why="A ballot gives every lane the votes of all, so each knows its rank among them without asking in turn. "
        "Sorted, an expert's tokens are one matrix product, and equal bits need an equal order.",
)  # fmt: skip
