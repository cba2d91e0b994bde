"""The task of a puzzle whose answer takes part in a training run: a plugin, or the kernels of a plugin of the author's.

The op check grades the answer's ops, on strict examples; then two runs of `core train` are made, with the answer
and without, and the author's conditions compare the files in their folders.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from core.api import Model, load
from core.errors import BuildError, CoreError
from core.loader import load_registry
from core.op import Op, Variant
from core.registry import Registry
from core.testing.check import check_variant
from core.testing.check_report import VariantReport
from core.testing.puzzle_types import OnActivity, PuzzleTask, PuzzleVerdict, no_display
from core.testing.python_tasks import finding_of, module_of, raised
from core.train.display import Display
from core.train.runs import curve, parting
from core.train.setup import TrainArguments, train

MINE, BASELINE = "mine", "baseline"
Settings = Mapping[str, Any]  # key of a config -> value, as `--set` takes them


@dataclass(frozen=True)
class FinishedRun:
    """Results of a run. folder: with metrics.jsonl; plugin: the one of its model, None without; losses: one for each
    step; val_loss: the last one."""

    folder: Path
    plugin: Path | None = None

    @cached_property
    def losses(self) -> list[float]:
        return curve(self.folder, "loss")[1]

    @cached_property
    def val_loss(self) -> float:
        return curve(self.folder, "val_loss")[1][-1]

    @cached_property
    def parameters(self) -> int:
        """The number of the model's parameters."""
        return sum(array.size for array in self.model().params.values())

    def model(self) -> Model:
        """The model of its last checkpoint."""
        return load(self.folder, plugins=[self.plugin] if self.plugin else [])


# (the answer's run, the baseline's) -> the finding, "" where the condition holds
Condition = Callable[[FinishedRun, FinishedRun], str]


class RunTask(PuzzleTask):
    """A run of `core train` with the answer, compared with a baseline's.

    suffix: of the answer, ".py" for a plugin of one file, ".cu" for kernels. files: for kernels, name -> text of the
    plugin that launches them, whose `source` is `answer`; the first one is loaded. config: of both runs; settings: keys
    of both; mine, baseline: keys of one. devices: of the two runs. conditions: kind -> a
    function of both runs, in their order; the first finding counts. causal: whether the logits of the answer's model
    may not depend on later tokens, which is then tried.
    """

    seconds = 60.0

    def __init__(
        self,
        conditions: Mapping[str, Condition],
        *,
        config: str,
        settings: Settings,
        mine: Settings | None = None,
        baseline: Settings | None = None,
        devices: tuple[str, str],
        answer: str = "",
        files: Mapping[str, str] | None = None,
        causal: bool = False,
    ) -> None:
        self.conditions, self.config, self.causal = conditions, config, causal
        self.devices = dict(zip((MINE, BASELINE), devices, strict=True))
        self.settings = {MINE: {**settings, **(mine or {})}, BASELINE: {**settings, **(baseline or {})}}
        self.files, self.answer = dict(files or {}), answer
        self.suffix = ".cu" if answer else ".py"
        if bool(self.files) != bool(answer):
            raise BuildError("expected both kernels and a plugin that launches them, or neither",
                             hint='answer="mine.cu", files={"launcher.py": ...}')  # fmt: skip

    def verdict(self, answer: Path, on_activity: OnActivity = no_display) -> PuzzleVerdict:
        """See PuzzleTask."""
        with tempfile.TemporaryDirectory() as folder:
            verdict = self._verdict(answer, Path(folder), on_activity)
            return replace(verdict, **{
                name: getattr(verdict, name).replace(f"{folder}/", "").replace(f"{answer.absolute().parent}/", "")
                for name in ("message", "hint", "details")
            })  # fmt: skip

    def _verdict(self, answer: Path, folder: Path, on_activity: OnActivity) -> PuzzleVerdict:
        plugin, verdict = self._plugin(answer, folder)
        if verdict is not None:
            return verdict
        try:
            registry = load_registry([str(plugin)])
            for op, variant in brought(registry, plugin):
                on_activity(f"the check of {op.name}.{variant.name}")
                report = checked(op, variant, registry, on_activity)
                if not report.passed:
                    return finding_of(report)
        except CoreError as error:
            return PuzzleVerdict("compiles", "plugin", error.message, hint=error.hint)
        runs = {}
        for name in (MINE, BASELINE):
            on_activity(f"the run {name}")
            runs[name] = FinishedRun(folder / name, plugin if name == MINE else None)
            try:
                self._train(name, plugin, runs[name].folder)
            except CoreError as error:
                stage = "compiles" if isinstance(error, BuildError) else "runs"
                return PuzzleVerdict(stage, "train", error.message, f"the run {name}", hint=error.hint)
            except MemoryError:
                raise
            except Exception as error:  # of the answer's own code
                return raised(plugin, error, f"the run {name}")
        return self._judged(runs[MINE], runs[BASELINE])

    def _plugin(self, answer: Path, folder: Path) -> tuple[Path, PuzzleVerdict | None]:
        """The plugin's file, and the finding that keeps a Python answer from running."""
        if not self.files:
            return answer.absolute(), module_of(answer)[1]
        shutil.copyfile(answer, folder / self.answer)
        for name, text in self.files.items():
            (folder / name).write_text(text, "utf-8")
        return folder / next(iter(self.files)), None

    def _train(self, name: str, plugin: Path, out: Path) -> None:
        words = tuple(f"{key}={as_set(value)}" for key, value in self.settings[name].items())
        arguments = TrainArguments(
            config=self.config, overrides=(*words, "train.check=false"), out=out, long=True,
            device=self.devices[name], plugins=(str(plugin),) if name == MINE else (),
        )  # fmt: skip
        train(arguments, Display(quiet=True))

    def _judged(self, mine: FinishedRun, baseline: FinishedRun) -> PuzzleVerdict:
        for line in parting(mine.folder, baseline.folder).settings:
            print(line)
        for run in (mine, baseline):
            print(f"{run.folder.name}: loss {run.losses[0]:.4f} to {run.losses[-1]:.4f}, validation {run.val_loss:.4f}")
        if self.causal and (token := seen_early(mine.model())) is not None:
            message = (
                f"the logits of token {token} change when a later token does: the model sees the token that it predicts"
            )
            return PuzzleVerdict("right", "future", message, "the run mine")
        for kind, condition in self.conditions.items():
            if message := condition(mine, baseline):
                return PuzzleVerdict("right", kind, message, "the run mine beside the baseline")
        return PuzzleVerdict()


def as_set(value: Any) -> str:
    """A value as `--set` takes it: text bare, lists and tables as TOML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def brought(registry: Registry, plugin: Path) -> Iterator[tuple[Op, Variant]]:
    """The variants that the answer's plugin brings, with their ops."""
    for name, variants in registry.variants.items():
        for variant in variants.values():
            if variant.folder == plugin.parent and not variant.substitute:
                yield registry.op(name), variant


def checked(op: Op, variant: Variant, registry: Registry, on_activity: OnActivity) -> VariantReport:
    """The op check of a variant on its own examples, where it has some, else the quick one and then all examples."""
    if own := len(variant.examples):
        numbers = range(len(op.examples), len(op.examples) + own)
        return check_variant(op, variant, registry, archs=(), whole=False, examples=numbers, on_activity=on_activity)
    report = check_variant(op, variant, registry, archs=(), whole=False, quick=True, on_activity=on_activity)
    return (
        report
        if not report.passed
        else check_variant(op, variant, registry, archs=(), whole=False, on_activity=on_activity)
    )


def seen_early(model: Model) -> int | None:
    """The first token of a row whose logits change when a later one does, None where none do."""
    vocabulary, length = model.graph.dims["V"], min(8, model.graph.dims["T"])
    tokens = np.random.default_rng(0).integers(0, vocabulary, (1, length))
    before = model.logits(tokens)
    for at in range(length - 1, 0, -1):
        tokens[:, at:] = (tokens[:, at:] + 1) % vocabulary
        moved = np.abs(model.logits(tokens)[0, :at] - before[0, :at]).max(-1) > 1e-6
        if moved.any():
            return int(np.argmax(moved))
        before = model.logits(tokens)
    return None
