"""HellaSwag's score: the completion with the least cross-entropy, by its tokens' mean (acc_norm) and sum (acc)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from core import Download, Evaluation

from .questions import COMPLETIONS, Example, Questions

EXAMPLES = 4  # in a batch: 16 rows
STEP = 32  # rows are as long as the longest, rounded up to this: few plans, little padding


class HellaSwag(Evaluation):
    """`cut` in the score: examples whose context was too long for the model and lost its beginning."""

    name = "hellaswag"
    help = "HellaSwag's questions in llm.c's file; core get hellaswag downloads it."
    tokenizer = "gpt2"
    download = Download("karpathy/llmc-starter-pack", "dataset", ("hellaswag_val.bin",))

    def score(self, model, file, most, progress):
        dims, tokens = model.graph.dims, next(iter(model.graph.inputs.values()))
        positions = int(dims.get("S", dims["T"]))
        questions = Questions(file, tokens.bound)
        total = min(most or len(questions), len(questions))
        remaining = islice(questions, total)
        done = by_mean = by_sum = cut = 0
        while group := list(islice(remaining, EXAMPLES)):
            tokens, targets = rows_of(group, positions)
            sums = model.losses(tokens, targets).astype(np.float64).sum(1).reshape(-1, COMPLETIONS)
            means = sums / (targets >= 0).sum(1).reshape(-1, COMPLETIONS)
            for example, mean, whole in zip(group, means, sums, strict=False):
                by_mean += int(mean.argmin() == example.label)
                by_sum += int(whole.argmin() == example.label)
                cut += longest(example) > positions
            done += len(group)
            progress(done, total)
        return {"acc_norm": by_mean / done, "acc": by_sum / done, "examples": done, "cut": cut}

    def line(self, score):
        cut = f"; {score['cut']:,} contexts cut to fit the model" if score["cut"] else ""
        rates = f"{score['acc_norm']:.4f} acc_norm, {score['acc']:.4f} acc"
        return f"HellaSwag      {rates}, {score['examples']:,} examples{cut}"


def rows_of(group: Sequence[Example], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and targets (4 * EXAMPLES, T) of up to EXAMPLES examples: a row a completion after its context.

    Only the completion's tokens are targets. Rows that are longer than `most` lose the beginning of their context;
    rows that no example fills have one target, so that the shape stays and a mean is defined.
    """
    most_here = max(min(longest(example), most) for example in group)
    T = min(most, -(-most_here // STEP) * STEP)
    tokens = np.zeros((COMPLETIONS * EXAMPLES, T), np.int32)
    targets = np.full(tokens.shape, -1, np.int32)
    targets[:, 0] = 0
    for i, example in enumerate(group):
        for j, completion in enumerate(example.completions):
            row = COMPLETIONS * i + j
            whole = np.concatenate([example.context, completion])[-most - 1 :]
            n = min(completion.size, whole.size - 1)
            tokens[row, : whole.size - 1] = whole[:-1]
            targets[row, 0] = -1
            targets[row, whole.size - 1 - n : whole.size - 1] = whole[whole.size - n :]
    return tokens, targets


def longest(example: Example) -> int:
    """Positions that the longest of its rows takes: a row's last token is only a target."""
    return example.context.size + max(c.size for c in example.completions) - 1
