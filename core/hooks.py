"""The hooks: everything that a plugin can bring, and nothing else.

A plugin is a module: a folder with an `__init__.py`, a single `.py` file, or an installed entry point in the group
`corelm`. It defines functions of the names below, with or without the mark `@hookimpl`, and each returns a plain
list. Nothing registers on import, and no hook is handed the registry. An argument that a hook does not need may be
left out of its signature. Names `core_*` are kept for hooks: a misspelt one is refused.

The smallest plugin, `mine.py`, which `core train CONFIG --plugin ./mine.py` loads:

    from core import Op, Reference

    double = Op("double", inputs={"x": "..."}, outputs={"y": "..."}, examples=[{"x": (2, 3)}])

    class DoubleReference(Reference):
        op = "double"

        def forward(self, t):
            t.y[...] = 2 * t.x

        def backward(self, t):
            t.add("dx", 2 * t.dy)

    def core_ops():
        return [double]

    def core_variants():
        return [DoubleReference]

To install it for every run instead, its package has in its pyproject.toml:

    [project.entry-points.corelm]
    mine = "mine"

A plugin may state `core_api = 1`, the version of these hooks that it was written for; another version is refused.
"""

# mypy: disable-error-code="empty-body"
# (a specification is not called)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

    from core.adapter import Adapter
    from core.data_reader import DataReader
    from core.devices.kind import DeviceKind
    from core.evaluation import Evaluation
    from core.lens import Lens
    from core.op import Op, Optimizer, Schedule, Variant
    from core.ranks.ranks_kind import RanksKind
    from core.tokenizers.tokenizer_kind import TokenizerKind
    from core.weight_format import WeightFormat

GROUP = "corelm"  # the entry points' group, and the name under which marks are kept
CORE_API = 1  # the version of the hooks on this page

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def core_ops() -> list[Op]:
    """Ops: schemas, without a way to compute them. All plugins' ops are registered before any variant.

    Sample:

        def core_ops():
            return [rmsnorm]
    """


@hookspec
def core_variants(device: str) -> list[type[Variant]]:
    """Variants as classes, references included, for ops of this plugin or of any other.

    device: the `device` of the variants that a run needs, such as "cpu"; "" for all. Variants of other devices may be
    left out of the list, so that their modules need not be imported.

    Sample:

        def core_variants():
            return [RmsNormReference, RmsNormWarp]
    """


@hookspec
def core_models() -> list[Path | str]:
    """Model graphs: paths of TOML files in the plugin's folder; relative ones start there. The stem is the name.

    Sample:

        def core_models():
            return ["llama_1b.toml"]
    """


@hookspec
def core_tuned() -> list[Path | str]:
    """Choices of variants and tiles by chip, as `core tune --write-defaults FILE` writes them: paths of TOML files in
    the plugin's folder. A run takes them where nothing was tuned on its own machine.

    Sample:

        def core_tuned():
            return ["tuned.toml"]
    """


@hookspec
def core_optimizers() -> list[type[Optimizer]]:
    """Optimizers as classes. Their updates are ops, which `core_ops` brings.

    Sample:

        def core_optimizers():
            return [Lion]
    """


@hookspec
def core_schedules() -> list[type[Schedule]]:
    """Learning-rate schedules as classes.

    Sample:

        def core_schedules():
            return [InverseSquareRoot]
    """


@hookspec
def core_evaluations() -> list[type[Evaluation]]:
    """Benchmarks as classes: each becomes an option of `core eval`, and of `core get` where its file is published.

    Sample:

        def core_evaluations():
            return [WordPrediction]
    """


@hookspec
def core_formats() -> list[type[WeightFormat]]:
    """Formats of weights as classes: `weights`, `core.load` and `core import` read them, `core export` writes them.

    Sample:

        def core_formats():
            return [NumpyArchive]
    """


@hookspec
def core_devices() -> list[DeviceKind]:
    """Devices, as rows of the table of devices: names for `--device` and `[on.NAME]`, capabilities, how to open each.

    Sample:

        def core_devices():
            return [DeviceKind("mirror", runs="cpu", precisions=("f32",), opener=MirrorDevice)]
    """


@hookspec
def core_ranks() -> list[type[RanksKind]]:
    """Engines as classes that join the processes of a run: those of `core train` under mpiexec, srun or torchrun.

    Sample:

        def core_ranks():
            return [SharedMemory]
    """


@hookspec
def core_tokenizers() -> list[type[TokenizerKind]]:
    """Kinds of tokenizers as classes: values of `[data] tokenizer`, files of tokenizers, records in checkpoints.

    Sample:

        def core_tokenizers():
            return [Words]
    """


@hookspec
def core_data() -> list[type[DataReader]]:
    """Readers of training data as classes: names in `[data] train` and `val`, files that they recognise.

    Sample:

        def core_data():
            return [MailboxReader]
    """


@hookspec
def core_adapters() -> list[type[Adapter]]:
    """Adapters as classes: changes of a model's graph, each by a table [adapt.NAME] of the model's TOML.

    Sample:

        def core_adapters():
            return [LowRank]
    """


@hookspec
def core_lenses() -> list[type[Lens]]:
    """Lenses as classes: views of `core view`, each a tab of its page and a key of its JSON.

    Sample:

        def core_lenses():
            return [TokenCounts]
    """


@hookspec
def core_courses() -> list[Path | str]:
    """Courses of `core learn`: paths of TOML files in the plugin's folder, beside their pages and puzzles. The stem is
    the name. A course may extend another plugin's.

    Sample:

        def core_courses():
            return ["kernels.toml"]
    """


@hookspec
def core_commands() -> list[click.Command]:
    """Commands, listed by `core --help` after the built-in ones, whose names they may not take.

    Sample:

        @click.command()
        def hello():
            click.echo("hello")

        def core_commands():
            return [hello]
    """


@hookspec
def core_train_start(run: Any, training: Any) -> None:
    """Called before a run's first step, and before the first one of a run that is resumed. `training` is a
    `core.TrainingRun`: options, parameters, and a plugin's part of each checkpoint. An exception ends the run.

    Sample:

        def core_train_start(training):
            print(training.options("mine", {"every": 10}))
    """


@hookspec
def core_step_end(run: Any, step: int, metrics: dict[str, Any], training: Any) -> None:
    """Called after each training step with its line of metrics.jsonl. An exception is reported and training continues.

    Sample:

        def core_step_end(step, metrics):
            print(step, metrics["loss"])
    """


@hookspec
def core_train_end(run: Any, training: Any) -> None:
    """Called when a run ends, by its last step, a signal or `training.stop`; not when an error ends it. An exception is
    reported.

    Sample:

        def core_train_end(run, training):
            print(run.name, training.step)
    """


SPECS = {name: spec for name, spec in list(globals().items()) if name.startswith("core_")}
