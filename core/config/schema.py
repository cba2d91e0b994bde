"""The schema of a run config: every table and key with its type, limits, default and meaning.

One msgspec Struct a table. The loader checks by it, the resolved form is written by it, and docs/config.md is
made from it: a key is added here and nowhere else. No default names an op, model or optimizer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

Text = Annotated[str, Meta(min_length=1)]
Texts = Annotated[list[Text], Meta(extra={"lone": True})]  # one string stands for a list of one
SomeTexts = Annotated[list[Text], Meta(min_length=1, extra={"lone": True})]
Every = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", extra={"expected": "a name of letters, digits and _"})]
Size = Annotated[
    Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)] | Text,
    Meta(extra={"expected": "a number >= 0 or arithmetic over the dims"}),
]
Scalar = bool | int | float | str
Option = Annotated[
    Scalar | list[Scalar], Meta(extra={"expected": "a number, true or false, a string, or a list of these"})
]
Fusion = Annotated[
    bool | dict[str, Scalar], Meta(extra={"expected": "true, false, or a table of the fused op's attributes"})
]
Seconds = Annotated[bool | float, Meta(extra={"expected": "true, false, or seconds"})]
REST = {"rest": True}  # this field takes every key of its table that is no other field's


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables."""


class DataTable(Table, frozen=True, kw_only=True):
    """The text or tokens to train on. Paths are relative to the current directory; globs are understood."""

    train: Annotated[
        SomeTexts, Meta(description='`"builtin"` (text that comes with Python), token shards, text files, folders.')
    ] = field(default_factory=lambda: ["builtin"])
    val: Annotated[Texts, Meta(description="The same, for validation; `[]` is none.")] = field(default_factory=list)
    tokenizer: Annotated[
        SomeTexts, Meta(description="In order of preference; the first that is available is taken and recorded.")
    ] = field(default_factory=lambda: ["gpt2", "bpe"])
    field: Annotated[
        str, Meta(description='The field with the text in each line of a `.jsonl`; `""` refuses such files.')
    ] = ""
    separator: Annotated[
        str,
        Meta(
            description='The text between the documents of a file, as `"<|endoftext|>"`; `""`: a file is one document.'
        ),
    ] = ""
    vocab_size: Annotated[
        int, Meta(ge=257, description="Tokens of a `bpe` trained on the run's text: 256 bytes, end of text, merges.")
    ] = 4096


class TrainTable(Table, frozen=True, kw_only=True):
    """How long to train, and what happens on the way. In every `..._every`, 0 is never; validation, sample and
    checkpoint that are not off also happen after the last step."""

    steps: Annotated[Count, Meta(description="Optimizer steps of the whole run.")]
    tokens_per_step: Annotated[
        Count, Meta(description="Tokens of one optimizer step: a multiple of B * T (times ranks); micro-steps follow.")
    ]
    val_every: Annotated[Every, Meta(description="Steps between validations.")] = 0
    val_tokens: Annotated[
        Every, Meta(description="Tokens of one validation, at most what there is; 0 is 20 * B * T.")
    ] = 0
    sample_every: Annotated[Every, Meta(description="Steps between samples.")] = 0
    sample_tokens: Annotated[Count, Meta(description="Tokens of a sample, without its prompt.")] = 64
    sample_prompt: Annotated[str, Meta(description='What a sample continues; `""` is the start of a document.')] = ""
    sample_temperature: Annotated[
        float, Meta(ge=0, description="Above 1 a sample is more random, below 1 less; 0 takes the likeliest token.")
    ] = 0.8
    checkpoint_every: Annotated[
        int,
        Meta(
            ge=-1, description="Steps between checkpoints; -1 is one when the run ends, by its last step or a signal."
        ),
    ] = -1
    keep_best: Annotated[
        bool,
        Meta(
            description="Save a checkpoint at each validation that is the best so far, and keep the best one; "
            "`RUN/BEST` names it. None is saved with `checkpoint_every = 0`."
        ),
    ] = True
    keep_last: Annotated[Count, Meta(description="The newest so many checkpoints are kept, and the best.")] = 2
    keep_every: Annotated[
        Every, Meta(description="Checkpoints of steps that this divides are kept for good, besides `keep_last`.")
    ] = 0
    save_errors: Annotated[
        Literal["stop", "continue"],
        Meta(
            description="A checkpoint that the disk refuses ends the run, or is a warning and tried again when the "
            "next one is due; the run's last one ends it with an error."
        ),
    ] = "stop"
    log_every: Annotated[Every, Meta(description="Steps between printed lines; metrics.jsonl has every step.")] = 1
    health_every: Annotated[
        Every,
        Meta(
            description="Steps between statistics of every tensor, gradient, parameter and update in health.jsonl; "
            "they change no bit of the training."
        ),
    ] = 0
    freeze: Annotated[
        Texts,
        Meta(description="Globs of parameters that are not trained; `*` crosses dots. Each must match."),
    ] = field(default_factory=list)
    recompute: Annotated[
        Texts, Meta(description="Ops that backward computes again instead of keeping what forward saved.")
    ] = field(default_factory=list)
    tf32: Annotated[
        bool,
        Meta(description="In f32, matrix products may be of TF32 (10 bits of mantissa) on tensor cores."),
    ] = False
    capture: Annotated[
        bool,
        Meta(description="Replay a step's launches as CUDA graphs, on `cuda`. The bits are the same without."),
    ] = True
    first_contact: Annotated[
        Seconds,
        Meta(
            description="On a GPU without verdicts, check the variants that were chosen before step 1, within so many "
            "seconds, and pass over those that fail there; `true` is 40."
        ),
    ] = True
    check: Annotated[
        Seconds,
        Meta(
            description="Check variants that do not come with corelm before step 1, where no check has covered the "
            "run's sizes, within so many seconds; `true` is 30."
        ),
    ] = True


class DetectTable(Table, frozen=True, kw_only=True):
    """Watches on a run. A spike is a loss or gradient norm that is this many standard deviations above
    the mean of the last `window` steps; there is none before there are so many. Whatever is set here, a loss, gradient
    or learning rate that is not finite stops the run before it changes anything."""

    action: Annotated[
        Literal["warn", "skip", "abort"],
        Meta(description="On a spike: say so; leave out that update and go on; or stop the run, with nothing updated."),
    ] = "warn"
    loss_z: Annotated[float, Meta(ge=0, description="Standard deviations that make a loss a spike; 0 is never.")] = 7.0
    norm_z: Annotated[float, Meta(ge=0, description="The same for the gradient's norm.")] = 7.0
    window: Annotated[
        int, Meta(ge=2, description="Steps that a spike is measured against; skipped ones are not among them.")
    ] = 128
    zero_steps: Annotated[
        Every, Meta(description="A parameter whose gradient stays exactly zero for so many steps is named; 0 is never.")
    ] = 200


class OptimizerTable(Table, frozen=True, kw_only=True):
    """The optimizer; keys beside these are its own options, checked against it."""

    name: Annotated[Text, Meta(description="A registered optimizer.")]
    lr: Annotated[float, Meta(gt=0, description="Peak learning rate.")]
    clip: Annotated[float, Meta(ge=0, description="Largest global norm of the gradients; 0 is no clipping.")] = 1.0
    options: Annotated[dict[str, Option], Meta(description="Options of the optimizer.", extra=REST)] = field(
        default_factory=dict
    )


class ScheduleTable(Table, frozen=True, kw_only=True):
    """The learning rate's course; keys beside `name` are the schedule's own options, checked against it."""

    name: Annotated[Text, Meta(description="A registered schedule.")]
    options: Annotated[dict[str, Option], Meta(description="Options of the schedule.", extra=REST)] = field(
        default_factory=dict
    )


class OpsTable(Table, frozen=True, kw_only=True):
    """Variants by op: `matmul = "tiled"`. Unlisted ops are `"auto"`. A choice never falls back to another."""

    generate: Annotated[
        dict[str, Text], Meta(description="Variants by op for generation, in place of those above.")
    ] = field(default_factory=dict)
    variants: Annotated[dict[str, Text], Meta(description='A variant of that op, or `"auto"`.', extra=REST)] = field(
        default_factory=dict
    )


class PluginsTable(Table, frozen=True, kw_only=True):
    """Plugins beside the shipped and the installed ones."""

    load: Annotated[Texts, Meta(description="Folders and files to load, relative to the current directory.")] = field(
        default_factory=list
    )
    disable: Annotated[Texts, Meta(description="Plugins to leave out, by name.")] = field(default_factory=list)


class Schema(Table, frozen=True, kw_only=True):
    """Keys before the first table."""

    model: Annotated[Text, Meta(description="A name from `core models`, or the path of a model TOML.")]
    precision: Annotated[
        Literal["f32", "bf16", "f64"],
        Meta(description="Of weights and activations: see Precision below."),
    ] = "f32"
    executor: Annotated[
        Literal["", "native", "interpreter"],
        Meta(description='What runs kernels in the simulator; `""`: native code where there is a C compiler.'),
    ] = ""
    weights: Annotated[
        str, Meta(description='A checkpoint or a folder of weights to start from; `""` is a fresh start.')
    ] = ""
    seed: Annotated[
        int, Meta(ge=0, description="Seed of the initial weights, the order of the data, dropout and samples.")
    ] = 1337
    dims: Annotated[
        dict[Name, Size], Meta(description="The model's dims by name, in place of its own values: B, T and others.")
    ] = field(default_factory=dict)
    data: DataTable = field(default_factory=DataTable)
    train: TrainTable
    detect: DetectTable = field(default_factory=DetectTable)
    optimizer: OptimizerTable
    schedule: ScheduleTable
    ops: OpsTable = field(default_factory=OpsTable)
    nodes: Annotated[
        dict[str, Text],
        Meta(
            description="Variants by glob of node names, over `[ops]`; `*` crosses dots. A fused node has the name of "
            'its last part: `"h.*.y" = "mlp_gelu.mma"` names a variant of the fused op.'
        ),
    ] = field(default_factory=dict)
    fuse: Annotated[
        dict[str, Fusion],
        Meta(
            description="Fused ops by name: `false` is off, a table sets attributes that none of its parts has, such "
            "as head_loss's `chunk`; what the parts have is the model's to set. A node that `[ops]`, `[nodes]` or "
            "`recompute` names is kept apart by itself; `core plan` says which."
        ),
    ] = field(default_factory=dict)
    plugins: PluginsTable = field(default_factory=PluginsTable)


class DeviceTables(Table, frozen=True, kw_only=True):
    """What holds on one device only: any key and table of this page except `extends`."""

    devices: Annotated[dict[Name, Schema], Meta(description="Keys for one device.", extra=REST)]


class ConfigFile(Schema, frozen=True, kw_only=True):
    """A file: the schema, what it extends, and what holds on one device."""

    extends: Annotated[
        str,
        Meta(min_length=1, description="A config to start from: a path relative to this file, or a shipped name."),
    ]
    on: DeviceTables


# Tables whose `name` says what their other keys mean: another name makes the old options meaningless.
NAMED: dict[str, type[Table]] = {"optimizer": OptimizerTable, "schedule": ScheduleTable}

Document = dict[str, Any]
