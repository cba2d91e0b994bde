"""Read-only access to a run's folder: config, metrics, choices, checkpoints; and the run's engine, rebuilt."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from core import checkpoint
from core.checkpoint import Checkpoint
from core.checkpoint.pointers import CHECKPOINTS
from core.config import RunConfig, micro_steps, resolve_config
from core.data import Data
from core.devices import AUTO, DeviceKind
from core.engine import Engine
from core.errors import CheckpointError, UsageError
from core.graph import ModelSource, load_model
from core.outside import read_whole
from core.registry import Registry
from core.train.display import Display
from core.train.health_file import HealthStep, read_health
from core.train.run import CRASHES, ENV, RESOLVED, VARIANTS
from core.train.runs import CURVES, json_of, number, records_of, state_of
from core.train.start import find_weights
from core.train.wiring import build_engine, find_data

PLACE = re.compile(r"# resolved for device (\w+)")
NUMBERS = (*CURVES, "tokens")  # of a line of the metrics


def measured(value: Any) -> bool:
    """Whether a value of the metrics is a number, or the text of one that is not finite."""
    return number(value) is not None or value in ("nan", "inf", "-inf")


class RunRecord:
    """A run's folder. Nothing is locked or written, so that it works while the run is going on.

    Raises UsageError for a folder that is no run's.
    """

    def __init__(self, path: Path, plugins: Sequence[str] = (), device: str = "", unfused: bool = False) -> None:
        """device: where the run is computed again; "" for its own, or another one where its own is not here. unfused:
        each node separately, also those that the run fused."""
        if path.parent.name == CHECKPOINTS:
            path = path.parent.parent
        if not (path / RESOLVED).is_file():
            raise UsageError(f"{path} is not a run's folder: it has no {RESOLVED}", hint="core runs lists the runs")
        self.path, self.name, self.plugins, self.requested_device = path, path.resolve().name, plugins, device
        self.unfused = unfused

    # --- as it was recorded ------------------------------------------------------------------------------------

    @cached_property
    def place(self) -> str:
        """The name of the device that the run was resolved for."""
        match = PLACE.match(read_whole(self.path / RESOLVED, follow=False).decode("utf-8", "replace"))
        return match[1] if match else AUTO

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, one a step, in order; values of the wrong type are left out."""
        return [{k: v for k, v in line.items() if k not in NUMBERS or measured(v)} for line in records_of(self.path)]

    @cached_property
    def metrics_by_step(self) -> dict[int, dict[str, Any]]:
        """Step -> its line of the metrics."""
        return {line["step"]: line for line in self.metrics}

    @cached_property
    def variants(self) -> Mapping[str, Any]:
        """variants.json: device, precision, table of choices, nodes -> variant, tiles; damaged values are left out."""
        held = json_of(self.path / VARIANTS)
        kinds = {"device": str, "precision": str, "table": list, "nodes": dict, "tiles": dict}
        own = {name: held[name] for name, kind in kinds.items() if isinstance(held.get(name), kind)}
        return own | {"table": [row for row in own.get("table", ()) if isinstance(row, dict)]}

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """env.json; empty where it cannot be read."""
        return json_of(self.path / ENV)

    @property
    def checkpoints(self) -> list[int]:
        """The steps of the checkpoints that are kept, the newest first."""
        return checkpoint.steps(self.path / CHECKPOINTS)

    def checkpoint_folder(self, step: int) -> Path:
        """The folder of a step's checkpoint, whether or not it is kept."""
        return self.path / CHECKPOINTS / checkpoint.folder_name(step)

    def checkpoint_bytes(self, step: int) -> int:
        """The size of a checkpoint's files on disk."""
        folder = self.checkpoint_folder(step)
        return sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else 0

    @cached_property
    def health(self) -> list[HealthStep]:
        """The steps of health.jsonl, in order."""
        return read_health(self.path)

    @property
    def folders(self) -> list[Path]:
        """The folders that hold the run's, which no page names."""
        return [self.path.parent, self.path.resolve().parent]

    @property
    def crashes(self) -> list[Path]:
        """The folders of steps that stopped the run, in order."""
        return sorted(self.path.glob(CRASHES))

    @property
    def last_step(self) -> int:
        """The last step in the metrics; 0 without any."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    def facts(self) -> dict[str, Any]:
        """Facts of the run by name: texts and numbers without a path, a user or a host."""
        config, graph, table = self.config, self.engine.graph, self.config.train
        sizes = ", ".join(f"{name} = {size}" for name, size in graph.dims.items())
        last = self.metrics[-1] if self.metrics else {}
        return {
            "run": self.name,
            "model": f"{graph.name}, {graph.parameter_count:,} parameters",
            "sizes": sizes,
            "device": f"{self.place} ({self.variants.get('device', 'unknown')})",
            "precision": self.variants.get("precision", config.precision),
            "state": state_of(self.path, self.last_step, table.steps),
            "step": f"{self.last_step:,} of {table.steps:,}",
            "loss": last.get("loss", "no step yet"),
            "tokens a step": f"{table.tokens_per_step:,} in {self.micro} micro-steps",
            "optimizer": f"{config.optimizer.name}, lr {config.optimizer.lr:g}",
            "checkpoints": ", ".join(f"{step:,}" for step in sorted(self.checkpoints)) or "none",
            "corelm": self.environment.get("corelm", "unknown"),
            "command": f"core train {self.config_name}",
        }

    @property
    def config_name(self) -> str:
        """The file name, without folders, of the config on the command line; the run's own copy's where unknown."""
        argv = self.environment.get("argv")
        words = [word for word in argv if isinstance(word, str)] if isinstance(argv, list) else []
        return next((Path(word).name for word in words if word.endswith(".toml")), RESOLVED)

    # --- made again -------------------------------------------------------------------------------------------

    @cached_property
    def _own(self) -> tuple[RunConfig, Registry]:
        return resolve_config(self.path / RESOLVED, device=self.place, plugins=self.plugins)

    @cached_property
    def _resolved(self) -> tuple[RunConfig, Registry]:
        """The config resolved for `kind`, in a precision of that device where it lacks the run's."""
        settled = self._own[0].precision != AUTO
        if self.own_device and not self.unfused and settled:
            return self._own
        precisions, wanted = self.kind.precisions, self.variants.get("precision", "")
        theirs = wanted if wanted in precisions else precisions[0]
        overrides = [] if not wanted or (settled and theirs == wanted) else [f'precision="{theirs}"']
        if self.unfused:
            overrides += [f"fuse.{name}=false" for name, op in self._own[1].ops.items() if op.replaces]
        return resolve_config(self.path / RESOLVED, device=self.kind.name, overrides=overrides, plugins=self.plugins)

    @cached_property
    def kind(self) -> DeviceKind:
        """The device on which the run is computed again: the one that was named, its own, or the one that is here."""
        registry = self._own[1]
        own = registry.device(self.place)
        if self.requested_device:
            return registry.device(self.requested_device)
        return own if own.everywhere or own.detected() else registry.device(AUTO)

    @property
    def own_device(self) -> bool:
        """Whether that is the device that the run was made on."""
        return self.kind.name == self.place

    @property
    def config(self) -> RunConfig:
        """The config, resolved for `kind`."""
        return self._resolved[0]

    @property
    def registry(self) -> Registry:
        """The contents of the run's plugins."""
        return self._resolved[1]

    @cached_property
    def model(self) -> ModelSource:
        """The model of its files and the config."""
        return load_model(self.config.model, self.registry)

    @cached_property
    def engine(self) -> Engine:
        """The run's engine with the choices that it recorded, parameters at zero. Raises DeviceError, BuildError."""
        return self.new_engine()

    def new_engine(self) -> Engine:
        """Another one of these, for work that changes its parameters."""
        recorded = {"variants": self.variants.get("nodes", {}), "tiles": self.variants.get("tiles", {})}
        same = (
            self.own_device
            and not self.unfused
            and self.config.precision == self.variants.get("precision", self.config.precision)
        )
        return build_engine(self.config, self.registry, self.model, recorded if same else None)

    @cached_property
    def data(self) -> Data:
        """The run's data, with the tokenizer of a checkpoint, which a start would have to make again. Raises DataError,
        CheckpointError."""
        newest: Checkpoint | None = None
        with contextlib.suppress(CheckpointError):
            newest, _ = checkpoint.newest(self.path / CHECKPOINTS)
        weights = find_weights(self.config, self.registry, self.engine) if newest is None else None
        return find_data(self.config, self.registry, self.engine.graph, newest, weights, Display(quiet=True))

    @property
    def micro(self) -> int:
        """Micro-steps a step."""
        B, T = self.engine.graph.batch
        config = self.config
        return micro_steps(config.train.tokens_per_step, B, T, where=config.where("train.tokens_per_step"))
