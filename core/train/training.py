"""A run as the hooks of plugins see it: its parameters, their tensors in checkpoints, and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from core.errors import BuildError, CheckpointError, UsageError, did_you_mean
from core.train.job import Job

Array = np.ndarray[Any, Any]
Weights = Callable[[], Mapping[str, Array]]


class TrainingRun:
    """A run in training: the argument `training` of the hooks `core_train_start`, `core_step_end`, `core_train_end`.

    run: its folder, `run.path` and `run.name`. step: steps done; steps: of the whole run. ranks: its processes, of
    which the first calls the hooks. saved: the step of the newest checkpoint; None without any. best, early_stop: of
    [train]. state: JSON values by plugin, which each checkpoint has, and which a resumed run begins with.
    """

    def __init__(self, job: Job, step: int, resumed: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """resumed: the state that a checkpoint's hooks left, arrays: the hooks' tensors."""
        self._job = job
        self.run, self.steps, self.ranks = job.run, job.table.steps, job.ranks.size
        self.best, self.early_stop = job.table.best, job.table.early_stop
        self.step = step
        self.saved = step or None
        self.state: dict[str, Any] = dict(resumed)
        self.ended = ""  # why the run ends before its last step
        self._arrays = arrays
        self._kept: dict[str, Weights] = {}
        self._updates: list[Callable[[int], None]] = []
        self._validated: Weights | None = None
        self._options = set[str]()

    def options(self, plugin: str, declared: Mapping[str, Any]) -> dict[str, Any]:
        """The table [plugins.PLUGIN] of the config over the defaults in `declared`; their types are those of the
        options of an optimizer. Raises UsageError, naming each wrong key and value."""
        from core.config import check_options  # of runs with such plugins

        self._options.add(plugin)
        table = self._job.plugin_options.get(plugin, {})
        return check_options(table, declared, lambda name: f"[plugins.{plugin}] {name}")

    def check_options(self) -> None:
        """UsageError for a table [plugins.NAME] that no plugin has read."""
        for name in self._job.plugin_options:
            if name not in self._options:
                names = ", ".join(sorted(self._options)) or "none"
                raise UsageError(
                    f"[plugins.{name}]: no plugin of this run has such options{did_you_mean(name, self._options)} "
                    f"(with options: {names})"
                )

    def parameters(self) -> Mapping[str, Array]:
        """All parameters by name, (V, C), ... without padding, f32 or f64: views on the cpu, else copies."""
        return self._job.engine.parameters()

    def trainable(self) -> list[str]:
        """The names of the parameters that train."""
        return [name for name, place in self._job.engine.layout.places.items() if place.trains]

    def after_update(self, call: Callable[[int], None]) -> None:
        """Call `call(step)` after the update of each step, before validation, samples and checkpoints. Its exceptions
        end the run."""
        self._updates.append(call)

    def keep(self, name: str, weights: Weights) -> None:
        """Put `weights()`, parameter -> array of its shape, f32 or f64, into each checkpoint; RUN/NAME is then a model
        with these parameters. Raises UsageError for a name in use."""
        taken = [*self._kept, *self._job.engine.optimizer_state()]
        if name in taken or not name.isidentifier():
            raise UsageError(f'the name "{name}" of kept weights is in use or no identifier (in use: {taken})')
        self._kept[name] = weights

    def restored(self, name: str) -> Mapping[str, Array] | None:
        """The tensors by that name in the checkpoint that the run continues: parameter -> array of its shape, (V, C),
        ..., f32 or f64; None for a fresh run, or without."""
        arrays = self._arrays.get(name)
        return None if arrays is None else dict(arrays)

    def validate_with(self, weights: Weights) -> None:
        """Validate with these weights, parameter -> array, in place of those that train."""
        self._validated = weights

    def stop(self, why: str) -> None:
        """End the run after this step, with a checkpoint as after its last one. why: a phrase, for the last line."""
        self.ended = self.ended or why

    def say(self, line: str) -> None:
        """Print a line, and put it into train.log."""
        self._job.display.line(line)

    # --- for the loop ------------------------------------------------------------------------------------------

    def updated(self, step: int) -> None:
        """A step was made. Raises BuildError for a call of `after_update` that fails."""
        self.step = step
        for call in self._updates:
            try:
                call(step)
            except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
                raise BuildError(f"{call.__module__}: after_update raised {type(error).__name__}: {error}") from error

    def weights_to_keep(self) -> dict[str, Mapping[str, Array]]:
        """Name -> parameter -> array of the same shape, f32 or f64: the tensors in a checkpoint beside the optimizer's
        state. Raises CheckpointError for other names or shapes than the parameters'."""
        weights, shapes = {}, {name: array.shape for name, array in self.parameters().items()} if self._kept else {}
        for name, own in self._kept.items():
            weights[name] = own()
            wrong = [n for n, array in weights[name].items() if shapes.get(n) != array.shape]
            if wrong:
                raise CheckpointError(f"kept weights {name}: {wrong[0]} is not a parameter, or has another shape")
        return weights

    @contextmanager
    def validating(self) -> Iterator[None]:
        """The weights of `validate_with` in place of the model's."""
        if self._validated is None:
            yield
            return
        with self._job.engine.lent({**self.parameters(), **self._validated()}):
            yield
