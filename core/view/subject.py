"""The subject of a view: runs, a step of the first one, and options of the command line. All parts load lazily."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from core.engine import Engine
from core.errors import UsageError
from core.graph import Graph
from core.plan import TRAIN, Plan
from core.registry import Registry
from core.view.run_record import RunRecord

if TYPE_CHECKING:
    from core.view.replay import ReplayedStep


@dataclass(frozen=True)
class LaunchOptions:
    """The options of `--kernel`: its launches and their tapes.

    shape: as of `core trace`. dtype: "" for the variant's first. direction: forward, backward or both. blocks: thread
    blocks that are taped; none for the first and the last. warp: the one whose steps a terminal shows.
    """

    shape: tuple[str, ...] = ()
    dtype: str = ""
    direction: str = "both"
    blocks: tuple[int, ...] = ()
    warp: int = 0

    @property
    def words(self) -> list[str]:
        """These options as arguments of `core view`."""
        own = [("--shape", one) for one in self.shape] + [("--block", str(one)) for one in self.blocks]
        own += [("--dtype", self.dtype)] if self.dtype else []
        own += [("--direction", self.direction)] if self.direction != "both" else []
        own += [("--warp", str(self.warp))] if self.warp else []
        return [word for pair in own for word in pair]


@dataclass(frozen=True)
class ViewOptions:
    """Options of `core view`, as parsed.

    step: None for the last one. text: a file for the model to read. node: the selected node. kernels: "op.variant",
    one or two; launch: how they are launched. no_text: leave out all texts: batches, samples,
    tokens. yes: replays may take more than a minute. measure: nodes are timed, however long it takes. more: nothing is
    left out for the page's size.
    """

    step: int | None = None
    text: Path | None = None
    node: str = ""
    kernels: tuple[str, ...] = ()
    no_text: bool = False
    yes: bool = False
    measure: bool = False
    more: bool = False
    launch: LaunchOptions = LaunchOptions()


class Subject:
    """Runs and a step, for lenses to collect from. A lens costs only its own reads.

    runs: the first one is the subject, the others are compared with it; none for a kernel alone.
    """

    def __init__(
        self,
        runs: Sequence[RunRecord],
        registry: Registry | None = None,
        options: ViewOptions | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """registry: for a subject without a run; else the first run's own. `say`: called with the
        estimated time of a replay."""
        self.runs, self.options, self._registry, self.say = tuple(runs), options or ViewOptions(), registry, say

    @property
    def words(self) -> list[str]:
        """The arguments of `core view` that name this subject."""
        kernels = [word for name in self.options.kernels for word in ("--kernel", name)]
        kernels += self.options.launch.words if kernels else []
        step = [] if self.options.step is None else ["--step", str(self.options.step)]
        return [*(record.name for record in self.runs), *kernels, *step]

    @property
    def folders(self) -> list[Path]:
        """The folders that hold the runs, which no page names."""
        return [folder for record in self.runs for folder in record.folders]

    @property
    def run(self) -> RunRecord:
        """The run. UsageError for a subject without one."""
        if not self.runs:
            raise UsageError("this view needs a run", hint="core view RUN")
        return self.runs[0]

    @property
    def registry(self) -> Registry:
        """The run's registry, or the one of this subject without a run."""
        return self._registry if self._registry is not None else self.run.registry

    @property
    def step(self) -> int:
        """The examined step: the one of the options, else the run's last. UsageError for a run without any."""
        step = self.run.last_step if self.options.step is None else self.options.step
        if step < 1:
            raise UsageError(f"{self.run.name} has no step yet", hint="wait for its first step")
        return step

    @property
    def engine(self) -> Engine:
        """The run's engine with its recorded choices; its parameters are at zero unless the step was replayed."""
        return self.run.engine

    @property
    def graph(self) -> Graph:
        """The run's graph, by its TOML."""
        return self.engine.graph

    @cached_property
    def plan(self) -> Plan:
        """The plan of a training micro-step of the run's engine."""
        return self.engine.plan(TRAIN)

    @cached_property
    def replay(self) -> ReplayedStep:
        """The step, run again with every tensor. Raises the errors of `core.replay`."""
        from core.view.replay import replay_of

        return replay_of(self.run, self.step, yes=self.options.yes, say=self.say)
