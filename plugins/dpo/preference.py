"""Direct preference optimization, arXiv:2305.18290: of each row a chosen and a rejected answer.

The losses per token (minus log-probabilities) are 0 where a target is negative, as in the prompt. c and r are those of
the chosen and rejected answers under the model, c0 and r0 under the reference:
    margin_k = beta sum_t ((r - r0) - (c - c0))[k, t]
    loss = mean over rows of log(1 + exp(-margin))
Gradient: dc[k, t] = dloss beta / B sigmoid(-margin_k) = -dr = -dc0 = dr0.
"""

import numpy as np

from core import Adapter, BuildError, Op, Reference

ANSWERS = ("chosen", "rejected", "chosen_reference", "rejected_reference")
SIGNS = dict(zip(ANSWERS, (1, -1, -1, 1), strict=True))  # of their gradients


def shapes(*shape):
    return dict.fromkeys(ANSWERS, shape)


FAR = 90 * np.array([[1.0], [-1.0]])  # margins beyond the range of exp in f32

dpo_loss = Op(
    "dpo_loss",
    inputs=dict.fromkeys(ANSWERS, "B T : acc"),
    outputs={"loss": ": acc"},
    attrs={"beta": 0.1},
    examples=[
        shapes(1, 3),
        {**shapes(3, 5), "beta": 0.7},
        shapes(2, 1031),
        shapes(1031, 3),
        {**dict.fromkeys(ANSWERS, np.zeros((2, 2))), "rejected": FAR * np.ones((2, 2)), "beta": 1.0},
    ],
    doc="DPO's loss of chosen and rejected answers.",
)


class DpoLossReference(Reference):
    op = "dpo_loss"
    saved = {"margin": "B : acc"}
    made_of = {**dict.fromkeys(("loss", "margin"), " ".join(ANSWERS)), **{f"d{one}": "margin dloss" for one in ANSWERS}}

    def forward(self, t):
        t.margin[...] = t.beta * ((t.rejected - t.rejected_reference) - (t.chosen - t.chosen_reference)).sum(-1)
        t.loss[...] = np.logaddexp(0, -t.margin).mean()

    def backward(self, t):
        each = t.dloss * t.beta / t.B * np.exp(-np.logaddexp(0, t.margin))
        for name, sign in SIGNS.items():
            t.add(f"d{name}", np.broadcast_to(sign * each[:, None], (t.B, t.T)))


class Preference(Adapter):
    """DPO's loss in the place of the model's. A copy of the graph, under `prefix`, is the reference; of each, a copy
    with the same parameters reads the rejected answers: the inputs whose names begin with rejected_."""

    name = "dpo"
    options = {"beta": 0.1, "prefix": "ref.", "sft": 0.0}

    def apply(self, edit, options):
        terms = edit.matching(["*"], "cross_entropy")
        if len(terms) != 1:
            raise BuildError(f"{edit.where}: the model has {len(terms)} cross_entropy nodes; expected one")
        (policy,) = terms
        reference = edit.copy(options["prefix"], policy.name)
        others = {name: f"rejected_{name}" for name in edit.inputs if f"rejected_{name}" in edit.inputs}
        if policy.inputs["targets"] not in others or len(others) < 2:
            declared = "\n".join(f'rejected_{name} = "{edit.inputs[name]}"' for name in edit.inputs)
            raise BuildError(f"{edit.where}: the model has no inputs of rejected answers", hint=f"[inputs]\n{declared}")
        values = [policy.name, edit.share("rejected.", policy.name, others), reference]
        values.append(edit.share("rejected.", reference, others))
        by_role = dict(zip(("chosen", "rejected", "chosen_reference", "rejected_reference"), values, strict=True))
        node = edit.add("dpo", "dpo_loss", by_role, policy, beta=options["beta"])
        edit.loss = {node.name: 1.0} | ({policy.name: options["sft"]} if options["sft"] else {})
