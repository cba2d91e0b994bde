"""Learning-rate schedules: each takes step 0 .. steps-1 to a learning rate.

All warm up alike, lr = peak * (step + 1) / warmup for step < warmup, and reach peak. The falling ones would reach
final * peak one step after the last, as in llm.c, so that the last step still learns.
"""

import math

from core import Schedule


def warmed(step, peak, options):
    """The learning rate during warm-up, None after it."""
    return peak * (step + 1) / options["warmup"] if step < options["warmup"] else None


def progress(step, steps, warmup):
    """A step's position between the end of warm-up, 0, and the end of the run, 1."""
    return min(1.0, (step - warmup) / max(1, steps - warmup))


class Warmed(Schedule):
    """The base of schedules: a remark on a warm-up that takes the whole run."""

    def remarks(self, steps, options):
        if options["warmup"] > steps:
            reached = f"{100 * steps / options['warmup']:.0f} %"
            yield f"warmup is {options['warmup']:,} steps and the run {steps:,}: it ends at {reached} of optimizer.lr"


class Cosine(Warmed):
    """Half a cosine from peak to final * peak, arXiv:1608.03983."""

    name = "cosine"
    options = {"warmup": 0, "final": 0.0}

    def lr(self, step, steps, peak, options):
        warm = warmed(step, peak, options)
        if warm is not None:
            return warm
        falling = (1 + math.cos(math.pi * progress(step, steps, options["warmup"]))) / 2
        return peak * (options["final"] + (1 - options["final"]) * falling)


class Linear(Warmed):
    """A straight line from peak to final * peak."""

    name = "linear"
    options = {"warmup": 0, "final": 0.0}

    def lr(self, step, steps, peak, options):
        warm = warmed(step, peak, options)
        if warm is not None:
            return warm
        return peak * (1 - (1 - options["final"]) * progress(step, steps, options["warmup"]))


class Constant(Warmed):
    """Peak after warm-up, to the end."""

    name = "constant"
    options = {"warmup": 0}

    def lr(self, step, steps, peak, options):
        warm = warmed(step, peak, options)
        return peak if warm is None else warm


class Wsd(Warmed):
    """Warm-up, stable, decay, arXiv:2404.06395: peak, then a line to final * peak over the last `decay` steps.

    decay = 0 stands for a fifth of the steps.
    """

    name = "wsd"
    options = {"warmup": 0, "decay": 0, "final": 0.0}

    def remarks(self, steps, options):
        yield from super().remarks(steps, options)
        warmup, decay = options["warmup"], options["decay"] or max(1, steps // 5)
        if decay > steps:
            yield f"decay is {decay:,} steps and the run {steps:,}: it starts below optimizer.lr"
        elif warmup < steps < warmup + decay:
            yield (
                f"warmup is {warmup:,} steps and decay {decay:,}, more than the run's {steps:,}: the learning rate "
                "falls within a step where the one ends in the other"
            )

    def lr(self, step, steps, peak, options):
        warm = warmed(step, peak, options)
        if warm is not None:
            return warm
        decay = options["decay"] or max(1, steps // 5)
        left = min(1.0, (steps - step) / decay)
        return peak * (options["final"] + (1 - options["final"]) * left)
