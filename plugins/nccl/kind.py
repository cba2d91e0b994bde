"""When NCCL alone joins the processes of a run: on GPUs, under a launcher that names a place to meet."""

import os
import re

from core import RanksKind, UsageError

from .library import describe, missing

PORTS, FIRST_PORT = 20_000, 20_000  # where SLURM names no port: one that follows from the job's number


class Nccl(RanksKind):
    """libnccl, under torchrun and srun; under mpiexec MPI joins the ranks, and NCCL moves their tensors."""

    name = "nccl"

    def why_not(self, launched, device):
        if device.runs != "cuda" or not device.numbered:
            return f"NCCL joins ranks on GPUs, and this run is {device.where}"
        if meeting(os.environ) is None:
            return "the launcher names no place to meet: MASTER_ADDR and MASTER_PORT, or SLURM_JOB_NODELIST"
        return missing()

    def open(self, launched, device):
        from .ranks import NcclRanks

        os.environ["NCCL_COMM_ID"] = str(meeting(os.environ))
        return NcclRanks(launched, device.open(launched.local))

    def describe(self):
        return "" if missing() else describe()

    def problem(self):
        return missing() or ""


def meeting(environment):
    """host:port where the ranks meet: that of NCCL_COMM_ID; rank 0's host, and a port beside the launcher's own; the
    first host of a SLURM job. None where nothing names a host. Raises UsageError for a port that is no number."""
    if "NCCL_COMM_ID" in environment:
        return environment["NCCL_COMM_ID"]
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    host = environment.get("MASTER_ADDR") or first_host(nodes)
    if not host or ("MASTER_PORT" not in environment and not nodes):
        return None
    port = number(environment, "MASTER_PORT")
    if port is None:
        port = FIRST_PORT + (number(environment, "SLURM_JOB_ID") or 0) % PORTS
        port += (number(environment, "SLURM_STEP_ID") or 0) % 64
    else:
        port += 1 if port < 65535 else -1
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def number(environment, name):
    text = environment.get(name)
    if text is not None and not (text.isascii() and text.isdigit()):
        raise UsageError(f"{name} is {text!r}; expected a whole number", hint="torchrun and srun set it")
    return None if text is None else int(text)


def first_host(nodes):
    """The first host of SLURM's list: "node[03-07,9],login1" begins with node03."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first.group() if first else "")
