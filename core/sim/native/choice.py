"""Which executor runs a launch: the machine in C, or the interpreter."""

from __future__ import annotations

import os

from core.errors import UsageError, did_you_mean
from core.sim.native.toolchain import compiler, describe

EXECUTORS = ("native", "interpreter")
VARIABLE = "CORELM_SIM_EXECUTOR"
NO_COMPILER = "no C compiler works here: gcc or clang makes kernels some twenty times faster"


def natively(executor: str | None, watched: str) -> bool:
    """Whether a launch runs on the machine.

    executor: one of EXECUTORS; None: what the environment says, else native where there is a compiler. watched:
    "strict", "count" or "tape", which only the interpreter does; "" for none. Raises UsageError for what does not go
    together.
    """
    asked = executor if executor is not None else default_executor()
    if asked is not None and asked not in EXECUTORS:
        where = VARIABLE if executor is None else "executor"
        raise UsageError(f"{where}={asked!r}; expected one of {', '.join(EXECUTORS)}{did_you_mean(asked, EXECUTORS)}")
    if executor == "native" and watched:
        raise UsageError(
            f'executor="native" does not go with {watched}: only the interpreter watches what a kernel does',
            hint=f'executor="interpreter", or {watched}=False',
        )
    if asked == "native" and compiler() is None:
        raise UsageError('executor="native" needs a C compiler, and there is none here',
                         hint="install gcc or clang, or name one in CC")  # fmt: skip
    return not watched and asked != "interpreter" and compiler() is not None


def default_executor() -> str | None:
    """What CORELM_SIM_EXECUTOR says, None where it says nothing."""
    return os.environ.get(VARIABLE, "").strip() or None


def described(executor: str | None = None) -> str:
    """What runs launches that nothing watches, in words."""
    if natively(executor, ""):
        return f"in native code ({describe()})"
    return "on NumPy" + ("" if executor or default_executor() else f"; {NO_COMPILER}")


_SAID: list[str] = []


def fell_back(text: str) -> str:
    """A line that says why the interpreter runs a kernel, the first time; "" after that."""
    if text in _SAID:
        return ""
    _SAID.append(text)
    return text
