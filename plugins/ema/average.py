"""The average: average += (1 - decay) (weights - average) after each `every` steps, from the first such weights on.

It is computed on the host in the weights' own precision, f32 or f64; on a GPU each update of it copies the weights.
"""

import numpy as np

from core import UsageError


def begin(training, options):
    """Start the average of a run, or continue that of its checkpoint."""
    decay, every = options["decay"], options["every"]
    if not 0 < decay < 1 or every < 1:
        raise UsageError(f"[plugins.ema]: decay is {decay} and every {every}; expected 0 < decay < 1 and every >= 1")
    if training.ranks > 1:
        raise UsageError(
            f"[plugins.ema]: the run has {training.ranks} ranks, and the average is kept on one alone",
            hint="leave [plugins.ema] out, or train on one rank",
        )
    names = training.trainable()
    before = training.restored("ema") or {}
    average = {name: np.array(before[name]) for name in names} if set(before) == set(names) else {}
    if training.step and not average:
        training.say("ema: the checkpoint has no average of these parameters; it begins with the next update")
    state = training.state.setdefault("ema", {"updates": 0})
    state["decay"] = decay

    def update(step):
        if step % every:
            return
        state["updates"] += 1
        weights = training.parameters()
        for name in names:
            new = weights[name]
            if name not in average:
                average[name] = np.array(new)
            else:
                average[name] += new.dtype.type(1 - decay) * (new - average[name])

    training.after_update(update)
    training.keep("ema", lambda: average)
    if options["validate"]:
        training.validate_with(lambda: average)
