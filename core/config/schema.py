"""The schema of a run config: every table and key with its type, limits, default and meaning.

Each table is a msgspec Struct. The loader checks by it, the resolved form is written by it, and docs/config.md is made
from it: a key is added here and nowhere else. No default names an op, model or optimizer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from core.config.value_types import (
    Count,
    Every,
    Fusion,
    Name,
    Option,
    Seconds,
    Sizes,
    SomeSources,
    SomeTexts,
    Sources,
    Text,
    Texts,
)  # fmt: skip

REST = {"rest": True}  # this field takes every key of its table that is no other field's


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables."""


class ReferenceTable(Table, frozen=True, kw_only=True):
    """A second set of weights, which does not train."""

    weights: Annotated[Text, Meta(description="A path of [interop.md](interop.md#paths-and-formats).")]
    prefix: Annotated[Text, Meta(description="The start of its parameters' names in the run's model: `\"ref.\"`.")]


class DataTable(Table, frozen=True, kw_only=True):
    """Training and validation data ([data.md](data.md)). Paths may be globs, relative to the current directory."""

    train: Annotated[
        SomeSources, Meta(description="Names of sources ([data.md](data.md#sources)), or a table of them by input.")
    ] = field(default_factory=lambda: ["builtin"])
    val: Annotated[Sources, Meta(description="Sources of validation data; `[]` is none.")] = field(default_factory=list)
    mix: Annotated[
        dict[Text, Annotated[float, Meta(gt=0)]], Meta(description="Weights of a mix, by the names in `train`.")
    ] = field(default_factory=dict)
    layout: Annotated[
        Literal["stream", "packed", "rows"],
        Meta(description="Rows of documents cut at T, of several whole ones, or of one ([data.md](data.md#layouts))."),
    ] = "stream"
    tokenizer: Annotated[
        SomeTexts, Meta(description="Tokenizers in order of preference; the first available one is used and recorded.")
    ] = field(default_factory=lambda: ["gpt2", "bpe"])
    field: Annotated[
        str, Meta(description='The field with the text in `.jsonl` and `.parquet`; with `""` such files are refused.')
    ] = ""
    messages: Annotated[
        str, Meta(description="The field with a conversation, whose loss counts the assistant's turns alone.")
    ] = ""
    separator: Annotated[
        str,
        Meta(
            description='Text between the documents of a file, such as `"<|endoftext|>"`; `""`: one document per file.'
        ),
    ] = ""
    vocab_size: Annotated[
        int,
        Meta(
            ge=257, description="Vocabulary size of a `bpe` trained on the run's text: 256 bytes, end of text, merges."
        ),
    ] = 4096


class TrainTable(Table, frozen=True, kw_only=True):
    """The length of a run, and its validation, samples, checkpoints and checks. A value of 0 disables a `..._every`;
    enabled validation, samples and checkpoints also run after the last step."""

    steps: Annotated[Count, Meta(description="Number of optimizer steps of the whole run.")]
    tokens_per_step: Annotated[
        Count,
        Meta(description="Tokens per optimizer step, a multiple of B * T (times ranks): [Sizes](#sizes)."),
    ]
    val_every: Annotated[Every, Meta(description="Steps between validations.")] = 0
    val_tokens: Annotated[
        Every, Meta(description="Tokens per validation, at most those of the data; 0 is 20 * B * T.")
    ] = 0
    sample_every: Annotated[Every, Meta(description="Steps between samples.")] = 0
    sample_tokens: Annotated[Count, Meta(description="Tokens per sample, without its prompt.")] = 64
    sample_prompt: Annotated[str, Meta(description='Prompt of a sample; `""` is the start of a document.')] = ""
    sample_temperature: Annotated[
        float, Meta(ge=0, description="Sampling temperature; 0 selects the most likely token.")
    ] = 0.8
    checkpoint_every: Annotated[
        int,
        Meta(
            ge=-1,
            description="Steps between checkpoints; -1 is one at the end of the run, by its last step or a signal.",
        ),
    ] = -1
    keep_best: Annotated[
        bool,
        Meta(
            description="Save a checkpoint at each validation with the lowest loss so far, and keep the best one; "
            "`RUN/BEST` names it. `checkpoint_every = 0` disables it."
        ),
    ] = True
    best: Annotated[
        str,
        Meta(
            description="The validation loss that `best` goes by: a key of the model's `[loss]`, without its weight; "
            '`""` is the weighted sum of all.'
        ),
    ] = ""
    keep_last: Annotated[Count, Meta(description="Number of newest checkpoints to keep, in addition to the best.")] = 2
    keep_every: Annotated[
        Every,
        Meta(description="Checkpoints at multiples of this number are kept permanently, in addition to `keep_last`."),
    ] = 0
    early_stop: Annotated[
        Every,
        Meta(description="End the run after this number of validations in a row without a new best; 0 disables it."),
    ] = 0
    save_errors: Annotated[
        Literal["stop", "continue"],
        Meta(
            description="A disk error during a save stops the run, or prints a warning and continues to the next "
            "checkpoint. An error at the last checkpoint always ends the run with an error."
        ),
    ] = "stop"
    log_every: Annotated[
        Every, Meta(description="Steps between printed lines; metrics.jsonl has a line for every step.")
    ] = 1
    health_every: Annotated[
        Every,
        Meta(
            description="Steps between statistics of every tensor, gradient, parameter and update in health.jsonl "
            "([health.md](health.md)); losses and weights keep their bits."
        ),
    ] = 0
    freeze: Annotated[
        Texts,
        Meta(description="Globs of frozen parameters; `*` matches dots too. Each glob must match."),
    ] = field(default_factory=list)
    only: Annotated[
        Texts,
        Meta(description='Globs of the parameters that train, all others are frozen; `[]`: all. `["*.lora_*"]`.'),
    ] = field(default_factory=list)
    recompute: Annotated[
        Texts, Meta(description="Ops whose saved tensors backward recomputes (activation checkpointing).")
    ] = field(default_factory=list)
    tf32: Annotated[
        bool,
        Meta(description="Permit TF32 (10 bits of mantissa) on tensor cores for matrix products in f32."),
    ] = False
    loss_scale: Annotated[
        float,
        Meta(ge=0, description="First loss scale of fp16; 0: by the tokens of a step ([Precision](#precision))."),
    ] = 0.0
    loss_scale_steps: Annotated[Count, Meta(description="Steps without an overflow after which it doubles.")] = 2000
    shard: Annotated[
        bool,
        Meta(
            description="On several ranks, hold the optimizer's state and master weights once, a slice on each rank "
            "(ZeRO-1); `false` holds all of it on each."
        ),
    ] = True
    overlap: Annotated[
        bool,
        Meta(
            description="On several GPUs, sum gradients over ranks while the last backward runs. Results have the same "
            "bits without."
        ),
    ] = True
    capture: Annotated[
        bool,
        Meta(description="Replay a step's launches as CUDA graphs, on `cuda`. Results have the same bits without."),
    ] = True
    dependent_launch: Annotated[
        bool,
        Meta(
            description="On `cuda`, from compute capability 9.0 on, a kernel may start before the kernel in front of "
            "it has ended ([launch.md](launch.md#programmatic-dependent-launch)). Results have the same bits without. "
            "Its effect on time is not measured."
        ),
    ] = False
    rank_timeout: Annotated[
        float,
        Meta(
            ge=2,
            description="Seconds within which all ranks end when one of them dies, hangs or cannot be reached; "
            "compilation, checks, preparation of data, saves, samples and validation may take longer.",
        ),
    ] = 60.0
    first_contact: Annotated[
        Seconds,
        Meta(
            description="Time limit for the check of the chosen variants before step 1, on a GPU without verdicts; a "
            "variant that fails is replaced. `true` is 40 seconds ([checks.md](checks.md#before-step-1))."
        ),
    ] = True
    check: Annotated[
        Seconds,
        Meta(
            description="Time limit for the check, before step 1, of variants that corelm does not ship, at sizes that "
            "no verdict covers. `true` is 30 seconds ([checks.md](checks.md#before-step-1))."
        ),
    ] = True


class DetectTable(Table, frozen=True, kw_only=True):
    """Detection of loss spikes and dead parameters. A spike is a loss or gradient norm `loss_z` or `norm_z` standard
    deviations above the mean of the last `window` steps; detection starts after `window` steps. A loss, gradient or
    learning rate that is not finite always stops the run before the update."""

    action: Annotated[
        Literal["warn", "skip", "abort"],
        Meta(description="At a spike: print a warning; skip the update; or stop the run before the update."),
    ] = "warn"
    loss_z: Annotated[float, Meta(ge=0, description="Standard deviations of a spike of the loss; 0 disables it.")] = 7.0
    norm_z: Annotated[
        float, Meta(ge=0, description="Standard deviations of a spike of the gradient's norm; 0 disables it.")
    ] = 7.0
    window: Annotated[
        int, Meta(ge=2, description="Steps of the mean and the standard deviation, without skipped steps.")
    ] = 128
    zero_steps: Annotated[
        Every,
        Meta(
            description="A warning names a parameter whose gradient is exactly zero for this many steps; 0 disables it."
        ),
    ] = 200


class GroupTable(Table, frozen=True, kw_only=True):
    """Parameters with a learning rate or a weight decay of their own."""

    match: Annotated[SomeTexts, Meta(description="Globs of parameters; `*` matches dots too. Each glob must match.")]
    lr: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Peak learning rate, in place of the optimizer's.", extra={"expected": "a number > 0"}),
    ] = None
    weight_decay: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(
            description="Weight decay, in place of the optimizer's; also of parameters whose op declares none.",
            extra={"expected": "a number >= 0"},
        ),
    ] = None


class OptimizerTable(Table, frozen=True, kw_only=True):
    """The optimizer. All other keys are options of the optimizer, which validates them."""

    name: Annotated[Text, Meta(description="A registered optimizer.")]
    lr: Annotated[float, Meta(gt=0, description="Peak learning rate.")]
    clip: Annotated[float, Meta(ge=0, description="Maximum global norm of the gradients; 0 disables clipping.")] = 1.0
    groups: Annotated[
        list[GroupTable],
        Meta(
            description="Tables `[[optimizer.groups]]`: [parameters](#groups-of-parameters) with a learning rate or "
            "weight decay of their own.",
            extra={"expected": "a list of tables"},
        ),
    ] = field(default_factory=list)
    options: Annotated[dict[str, Option], Meta(description="Options of the optimizer.", extra=REST)] = field(
        default_factory=dict
    )


class ScheduleTable(Table, frozen=True, kw_only=True):
    """The learning rate schedule. All keys except `name` are options of the schedule, which validates them."""

    name: Annotated[Text, Meta(description="A registered schedule.")]
    options: Annotated[dict[str, Option], Meta(description="Options of the schedule.", extra=REST)] = field(
        default_factory=dict
    )


class OpsTable(Table, frozen=True, kw_only=True):
    """Variants by op: `matmul = "tiled"`. The default is `"auto"`. A named variant is never replaced by another."""

    generate: Annotated[
        dict[str, Text], Meta(description="Variants by op for generation; they override the keys above.")
    ] = field(default_factory=dict)
    variants: Annotated[dict[str, Text], Meta(description='A variant of that op, or `"auto"`.', extra=REST)] = field(
        default_factory=dict
    )


class PluginsTable(Table, frozen=True, kw_only=True):
    """Plugins in addition to the shipped and installed ones."""

    load: Annotated[Texts, Meta(description="Folders and files to load, relative to the current directory.")] = field(
        default_factory=list
    )
    disable: Annotated[Texts, Meta(description="Names of plugins to disable.")] = field(default_factory=list)
    options: Annotated[
        dict[str, dict[str, Option]],
        Meta(
            description="`[plugins.NAME]`: options of a plugin, which validates them.",
            extra={**REST, "expected": "a table of the plugin's options"},
        ),
    ] = field(default_factory=dict)


class Schema(Table, frozen=True, kw_only=True):
    """Keys before the first table."""

    model: Annotated[Text, Meta(description="A name from `core models`, or the path of a model TOML.")]
    precision: Annotated[
        Literal["f32", "bf16", "fp16", "f64", "auto"],
        Meta(description="Dtype of weights and activations: [Precision](#precision)."),
    ] = "f32"
    executor: Annotated[
        Literal["", "native", "interpreter"],
        Meta(description='Executor of the simulator; `""`: native if a C compiler is found ([native.md](native.md)).'),
    ] = ""
    weights: Annotated[
        str,
        Meta(description='Initial weights: a path of [interop.md](interop.md#paths-and-formats); `""`: random ones.'),
    ] = ""
    new: Annotated[
        Texts,
        Meta(
            description="Globs of parameters that `weights` may lack: they start fresh, by the model's own init. Any "
            "other one that is missing is an error."
        ),
    ] = field(default_factory=list)
    reference: Annotated[
        list[ReferenceTable],
        Meta(
            description="Tables `[[reference]]`: [frozen weights](#frozen-weights-under-a-prefix) of the parameters "
            "under a prefix.",
            extra={"expected": "a list of tables"},
        ),
    ] = field(default_factory=list)
    seed: Annotated[int, Meta(ge=0, description="Seed of initial weights, order of the data, dropout and samples.")] = (
        1337
    )
    dims: Annotated[dict[Name, Sizes], Meta(description="Overrides of the model's dims, by name: B, T and others.")] = (
        field(default_factory=dict)
    )
    data: DataTable = field(default_factory=DataTable)
    train: TrainTable
    detect: DetectTable = field(default_factory=DetectTable)
    optimizer: OptimizerTable
    schedule: ScheduleTable
    ops: OpsTable = field(default_factory=OpsTable)
    nodes: Annotated[
        dict[str, Text],
        Meta(
            description="Variants by glob of node names; they override `[ops]`, and `*` matches dots too. A fused node "
            'has the name of its last part: `"h.*.y" = "mlp_gelu.mma"` names a variant of the fused op.'
        ),
    ] = field(default_factory=dict)
    fuse: Annotated[
        dict[str, Fusion],
        Meta(
            description="Fused ops by name: `false` disables one, a table sets attributes that none of its parts has, "
            "such as head_loss's `chunk`; the model sets the attributes of the parts. A node named in `[ops]`, "
            "`[nodes]` or `recompute` is not fused; `core plan` lists these nodes."
        ),
    ] = field(default_factory=dict)
    plugins: PluginsTable = field(default_factory=PluginsTable)


class DeviceTables(Table, frozen=True, kw_only=True):
    """Settings of one device: any key and table of this page except `extends`."""

    devices: Annotated[dict[Name, Schema], Meta(description="Keys for one device.", extra=REST)]


class ConfigFile(Schema, frozen=True, kw_only=True):
    """A file: the schema, its base, and tables for one device."""

    extends: Annotated[
        str,
        Meta(min_length=1, description="A base config: a path relative to this file, or a shipped name."),
    ]
    on: DeviceTables


# Tables whose `name` defines the meaning of their other keys: another name makes the old options meaningless.
NAMED: dict[str, type[Table]] = {"optimizer": OptimizerTable, "schedule": ScheduleTable}

Document = dict[str, Any]
