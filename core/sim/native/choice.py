"""The choice of the executor of a launch: the machine in C, or the interpreter."""

from __future__ import annotations

import os
from dataclasses import dataclass

from core.errors import UsageError, did_you_mean
from core.sim.native.toolchain import compiler, describe

EXECUTORS = ("native", "interpreter")
VARIABLE = "CORELM_SIM_EXECUTOR"
NO_COMPILER = "no C compiler works here: gcc or clang makes kernels some twenty times faster"


def natively(executor: str | None, watched: str) -> bool:
    """Whether a launch runs on the machine.

    executor: one of EXECUTORS; None: by the environment, else native where there is a compiler. watched:
    "strict", "count" or "tape", which only the interpreter does; "" for none. Raises UsageError for a
    combination that excludes itself.
    """
    words, chosen = _chosen(executor)
    if chosen not in (None, *EXECUTORS):
        raise UsageError(f"{words}; expected one of {', '.join(EXECUTORS)}{did_you_mean(str(chosen), EXECUTORS)}")
    if chosen == "native" and watched:
        raise UsageError(
            f"{words} does not go with {watched}: only the interpreter watches a kernel",
            hint=f"{words.replace(chosen, 'interpreter')}, or no {watched}",
        )
    if chosen == "native" and compiler() is None:
        raise UsageError(f"{words} needs a C compiler, and there is none here",
                         hint="install gcc or clang, or name one in CC")  # fmt: skip
    return not watched and chosen != "interpreter" and compiler() is not None


@dataclass(frozen=True)
class Lack:
    """Why the machine does not run a kernel. subject: "kernel k", or "kernels" where it runs none."""

    subject: str
    reason: str


def fall_back(executor: str | None, lack: Lack) -> str:
    """A line with the reason why the interpreter runs a kernel, the first time; "" after that.

    Raises UsageError where the native executor was chosen by name, so that no other one may run the kernel.
    """
    words, chosen = _chosen(executor)
    if chosen == "native":
        raise UsageError(f"{words} cannot run {lack.subject}: {lack.reason}",
                         hint="without a choice, the interpreter runs such kernels")  # fmt: skip
    if lack in _SAID:
        return ""
    _SAID.add(lack)
    verb = "runs" if lack.subject.startswith("kernel ") else "run"
    return f"{lack.subject} {verb} on the interpreter: {lack.reason}"


def _chosen(executor: str | None) -> tuple[str, str | None]:
    """(the choice as it was written, the executor), None for no choice."""
    if executor is not None:
        return f'executor="{executor}"', executor
    return f"{VARIABLE}={default_executor()}", default_executor()


def default_executor() -> str | None:
    """The executor that CORELM_SIM_EXECUTOR names, None where it is not set."""
    return os.environ.get(VARIABLE, "").strip() or None


def described(executor: str | None = None) -> str:
    """The executor of launches without an observer, as text."""
    if natively(executor, ""):
        return f"in native code ({describe()})"
    return "on NumPy" + ("" if executor or default_executor() else f"; {NO_COMPILER}")


_SAID: set[Lack] = set()  # those that were printed
