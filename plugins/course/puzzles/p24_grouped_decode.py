"""A decoding step of grouped-query attention from a cache, with rows of different length."""

import numpy as np

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer


def truth(keys, values, q, k, v, start):
    keys, values, y = keys.copy(), values.copy(), np.empty_like(q)
    group = q.shape[1] // k.shape[1]
    for b, n in enumerate(start):
        keys[b, n], values[b, n] = k[b], v[b]
        for h in range(q.shape[1]):
            s = keys[b, : n + 1, h // group] @ q[b, h] / np.sqrt(32)
            p = np.exp(s - s.max())
            y[b, h] = p / p.sum() @ values[b, : n + 1, h // group]
    return {"y": y, "keys": keys, "values": values}


def rows(*start):
    """Caches whose rows have `start` tokens, and numbers near 30 after them."""

    def contents(rng, dims):
        cache = rng.standard_normal((2, len(start), dims["S"], dims["K"], 32))
        for b, n in enumerate(start):
            cache[:, b, n:] += 30
        return {"start": np.array(start), "keys": cache[0], "values": cache[1]}

    return contents


PUZZLE = Puzzle(
    "One token, a cache, and heads that share keys",
    KernelTask(
        truth,
        inputs={"keys": "B S K 32", "values": "B S K 32", "q": "B K*G 32", "k": "B K 32", "v": "B K 32",
                "start": "B : i32 < S"},
        outputs={"y": "B K*G 32", "keys": "B S K 32", "values": "B S K 32"},
        launches=KernelLaunch("decode", "y keys values q k v start S K", grid=("K", "B"), block=(32, "G")),
        cases=[
            KernelCase({"B": 1, "S": 1, "K": 1, "G": 1}, "an empty cache", rows(0)),
            KernelCase({"B": 1, "S": 6, "K": 2, "G": 1}, "two key heads", rows(4)),
            KernelCase({"B": 3, "S": 9, "K": 2, "G": 3}, "groups, and rows of different length", rows(0, 8, 3)),
        ],
    ),
    minutes=40,
    hints=[
        ("race", "One warp writes the new key, and the others of its block read it: what stands between? Each element "
                 "wants ONE writer, and a thread block reads its own key head alone."),
        ("out of bounds", "Of the cache's S places, row b has used `start[b]`. Which place is the next one, and which "
                          "head, of keys or of queries, does the cache's index have?"),
        ("wrong.*empty "
         "cache", "With one token the share is 1, and y is v, whatever the scores are. Does the token join "
                               "the cache before it is read?"),
        ("wrong: (keys|values)", "The caches are results too: the new token's key and value stand at its position, and "
                                 "nothing else changes. Which position is that?"),
        ("wrong.*two key "
         "heads", "A token sees all tokens so far, itself among them, and no rubbish behind. Which j are "
                                 "those? And a score wants the sum over ALL lanes, and its scale."),
        ("wrong", "Right for one row and one query a group. Is there anything that each row, or each group, has for "
                  "itself?"),
        ("is nan|not written", "Each query sees its own token at least. What if the loop never runs?"),
    ],
    wrong={
        "no barrier": WrongAnswer("race", ("    __syncthreads();\n", "")),
        "every warp appends": WrongAnswer("race", ("if (threadIdx.y == 0) {", "{")),
        "not itself": WrongAnswer("is nan|wrong", ("j <= n", "j < n")),
        "one too many": WrongAnswer("out of bounds|wrong", ("j <= n", "j <= n + 1")),
        "the first row's length": WrongAnswer("wrong", ("n = start[b]", "n = start[0]")),
        "a cache that is not appended": WrongAnswer(
            "wrong", ("        keys[((b * S + n) * K + g) * 32 + d] = k[(b * K + g) * 32 + d];\n", "")
        ),
        "query head for key head": WrongAnswer(
            "race|out of bounds", ("int at = ((b * S + j) * K + g)", "int at = ((b * S + j) * K + threadIdx.y)")
        ),
        "no scale": WrongAnswer("wrong.*two key heads", ("        s *= 0.17677669f;  // 1 / sqrt(32)\n", "")),
    },
    why="A cache of K heads in place of K * G is smaller by the factor G, and so is the traffic of a step, which "
        "reads all of it once. Rows of a batch have different lengths, so each has its own end.",
)  # fmt: skip
