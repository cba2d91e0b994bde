"""Fixtures that tests of several rooms share, and one environment, whoever starts them and wherever they print to."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partialmethod
from pathlib import Path

import pytest

# Results follow from these; where files are kept, how many threads there are and what runs kernels are the starter's.
for variable in [name for name in os.environ if name.startswith("CORELM_")]:
    if variable not in ("CORELM_CACHE", "CORELM_THREADS", "CORELM_SIM_EXECUTOR"):
        del os.environ[variable]
os.environ |= {"COLUMNS": "120", "TERM": "xterm"}
# Where modules are not to be compiled into their folders, processes that tests start compile each once, beside.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(__file__).parents[1] / ".pytest_cache" / "modules"))
# What nohup and a shell's background jobs ignore, the tests' processes would ignore too, and rightly.
for signal_name in ("SIGINT", "SIGTERM", "SIGHUP"):
    number = getattr(signal, signal_name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if signal_name == "SIGINT" else signal.SIG_DFL)

# Thousands of tests and their modules' trees are no garbage: a collector that looks for cycles among them, while they
# are collected and after each test, takes more time than many a test.
gc.disable()


PLUGINS = f"{Path(__file__).parents[1] / 'plugins'}{os.sep}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The plugins' tests begin, some of which take long: at the end, the other workers would wait for them."""
    items.sort(key=lambda item: not str(item.path).startswith(PLUGINS))


def pytest_collection_finish() -> None:
    gc.enable()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)  # a seventh of the time of checks in the simulator was spent on cycles


@pytest.fixture(params=[False, True], ids=["interpreted", "screened"])
def screens(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Strict mode on the interpreter alone, and on the machine first: both are to have the same findings."""
    from core.sim import Simulator  # most tests need no simulator

    monkeypatch.setattr(Simulator, "launch", partialmethod(Simulator.launch, screens=request.param))
    return bool(request.param)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """An ExitStack that closes what a test opens: the folder of a run."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory that is empty but for the cache, which has nothing but the simulator's machine."""
    import stored_machine

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORELM_CACHE", str(stored_machine.link(tmp_path / "cache")))
    return tmp_path
