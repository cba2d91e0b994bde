"""The op check of collective ops: two ranks under mpiexec, each with tensors of its own.

The check starts `core.testing.rank_trial` and reads the output of its rank 0. Where two ranks cannot be started, a
variant is not checked, and the report has the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import core
from core.discovery import GIVEN
from core.op import Op, Variant
from core.ranks.launched import launched
from core.registry import Registry
from core.testing.check_report import VariantReport
from core.testing.log import Failure, Log

RANKS = 2
LIMIT = 300  # seconds
TIMED = "timed"  # in place of a seed: time the variant
MARK = "@@"  # prefix of the results of rank 0
# of Open MPI, which else refuses root and more ranks than cores; others ignore them
STARTS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


def check_on_ranks(op: Op, variant: Variant, registry: Registry, report: VariantReport, seed: int) -> None:
    """Fill the report of a variant of a collective op."""
    why = why_no_ranks()
    if variant.library and registry.device(report.device).simulated:
        why = f"it calls {variant.library}, which runs on a GPU"
    if why:
        report.left_out = why
        return
    outcome = results([op.name, variant.name, report.device, str(seed), *given_plugins(registry)])
    if isinstance(outcome, str):
        report.left_out = outcome
        return
    log = Log()
    for row in outcome:
        log.case, log.dtype = row["example"], row["dtype"]
        log.passed(row["check"], row["error"])
        if row["wrong"]:
            log.failures.append(Failure(row["check"], row["wrong"], row["error"], row["example"], row["dtype"]))
    sizes = [{"n": int(row["n"])} for row in outcome]
    report.cover(dict.fromkeys(variant.dtypes, sizes))
    report.take(log)


def times_on_ranks(op: Op, variant: Variant, registry: Registry, device: str) -> list[dict[str, Any]] | str:
    """The times of a variant of a collective op on two ranks, by the bytes of its flat tensor: milliseconds, and
    multiples of a copy of as many bytes. Or the reason why there are none."""
    why = why_no_ranks()
    return why or results([op.name, variant.name, device, TIMED, *given_plugins(registry)])


def why_no_ranks() -> str:
    """The reason why two ranks cannot be started here; "" where they can."""
    if launched().size > 1:
        return f"it takes {RANKS} ranks of its own, and this process is a rank already"
    if shutil.which("mpiexec") is None or find_spec("mpi4py") is None:
        return f"it takes {RANKS} ranks, and there is no mpiexec with mpi4py: pip install 'corelm[mpi]'"
    return ""


def given_plugins(registry: Registry) -> list[str]:
    """The paths of plugins that a user gave."""
    return [str(record.path) for record in registry.plugins if record.kind == GIVEN and record.path is not None]


def results(arguments: Sequence[str]) -> list[dict[str, Any]] | str:
    """The findings of `core.testing.rank_trial`, a row a sub-check; or the reason why it could not try."""
    root = str(Path(core.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = ["mpiexec", "-n", str(RANKS), sys.executable, "-m", "core.testing.rank_trial", *arguments]
    environment = {**os.environ, **STARTS, "PYTHONPATH": path, "CORELM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return f"{RANKS} ranks under mpiexec did not end within {LIMIT} s"
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            said: list[dict[str, Any]] | str = json.loads(line.removeprefix(MARK))
            return said
    words = [line for line in done.stderr.splitlines() if line.strip(" -")]
    return f"mpiexec ended with {done.returncode}: {' '.join(words[-3:])}"
