"""The MPI of this machine: mpi4py's library, and the mpiexec that would start ranks."""

import shutil
import subprocess
import sys

ASK = """
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
print(f"mpi4py {mpi4py.__version__} with {MPI.Get_library_version().splitlines()[0]}")
"""
SECONDS = 20
FAMILIES = {"Open MPI": "Open MPI", "MPICH": "MPICH", "HYDRA": "MPICH", "Intel(R) MPI": "Intel MPI", "slurm": "SLURM"}


def printed(*command):
    """The output of a command; "" where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def library():
    """ "mpi4py 4.1.2 with Open MPI v5.0.11", or "", from a process of its own: a library may abort its process."""
    return printed(sys.executable, "-c", ASK).split(", package")[0].strip("\0 \n")


def launcher():
    """The mpiexec of PATH in a line, "" without one."""
    found_at = shutil.which("mpiexec")
    lines = printed(found_at, "--version").split("\n") if found_at else []
    named = [line.strip() for line in lines if family(line)]
    return named[0] if named else (found_at or "")


def family(text):
    """The MPI that a line names; "" for a line without one."""
    return next((name for part, name in FAMILIES.items() if part in text), "")


def mismatch(of_library, of_launcher):
    """The reason why the launcher's ranks would not meet through the library; "" where they would."""
    ours, theirs = family(of_library), family(of_launcher)
    if not ours or not theirs or ours == theirs:
        return ""
    return f"mpiexec is {theirs}'s and mpi4py's library {ours}'s: each rank would be a world of its own"
