"""The op check at practical sizes, where the simulator runs kernels in native code.

Strict mode finds races in the small examples. One large example for each dtype then shows values at sizes that many
thread blocks share: with as many rows or sequences as some FLOPs allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.errors import BuildError
from core.op import Op, Reference, Variant
from core.registry import Registry
from core.testing.case import make_case
from core.testing.growing_sizes import grown, work_of
from core.testing.log import Log
from core.testing.model_sizes import at_size
from core.testing.runner import CpuRunner, Runner
from core.testing.trial import Trial
from core.testing.trials import modes_of
from core.verdicts import Sizes, sizes_of

WORK = 2e8  # FLOPs of a step at these sizes, at most; an element counts as some. About those of GPT-2 on 256 tokens


def check_real_sizes(
    log: Log, op: Op, variant: Variant, registry: Registry, runner: Runner, reference: Reference, dtypes: Sequence[str]
) -> dict[str, list[Sizes]]:
    """Outputs and gradients at a large example in each of the dtypes; dtype -> the sizes of those that ran."""
    home, sizes = CpuRunner(registry), dict[str, list[Sizes]]()
    for example in real_examples(op, variant):
        try:
            case = make_case(op, example)
        except BuildError:  # sizes that only fit together as they were
            continue
        for dtype in (d for d in dtypes if d not in sizes):
            trials = [Trial(case, variant, reference, dtype, mode, runner, home) for mode in modes_of(op, variant)]
            for trial in (t for t in trials if t.why_not() is None):
                trial.fast = True
                log.case, log.dtype = case.label, dtype
                with log.caught("forward"):
                    at_size(log, trial)
                sizes.setdefault(dtype, []).append(sizes_of(op, trial.dims))
    return sizes


def real_examples(op: Op, variant: Variant) -> Iterator[Mapping[str, Any]]:
    """The examples of shapes alone, grown; the one with the most work in a row or sequence first."""
    examples = [e for e in (*variant.examples, *op.examples) if all(isinstance(e.get(n, ()), tuple) for n in op.inputs)]
    for example in sorted(examples, key=lambda e: -work_of(op, e)):
        if (larger := grown(op, example, WORK)) is not None:
            yield larger
