"""`core eval`: a model's loss, its bits per byte, and its scores by the evaluations that plugins bring."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.cli.brought import BroughtCommand, registry_of
from core.cli.data import progress_line
from core.cli.show import device_option, field_option, json_option, json_text, plugin_option, separator_option
from core.devices import AUTO
from core.dtypes import PRECISIONS
from core.endings import ending
from core.errors import BuildError, DataError, UsageError

if TYPE_CHECKING:
    from core.api import Model
    from core.data.documents import Reading
    from core.devices import DeviceKind
    from core.engine import Engine
    from core.evaluation import Evaluation
    from core.registry import Registry

BATCHES = 20  # of validation, without --tokens and val_tokens of the run: as in [train] val_tokens


class EvalCommand(BroughtCommand):
    """`core eval`, with an option --NAME FILE for each evaluation of the plugins that the line loads."""

    def with_brought(self, own: list[click.Parameter], registry: Registry) -> list[click.Parameter]:
        evaluations = registry.evaluations.values()
        taken = {option for parameter in own for option in parameter.opts}
        for evaluation in evaluations:
            if f"--{evaluation.name}" in taken or evaluation.name in {parameter.name for parameter in own}:
                raise BuildError(
                    f'{evaluation.origin}: an evaluation cannot be called "{evaluation.name}": `core eval` has that '
                    "argument itself",
                    hint="rename it",
                )
        file = click.Path(path_type=Path)
        brought = [click.Option([f"--{e.name}", e.name], type=file, metavar="FILE", help=e.help) for e in evaluations]
        return [*own[:-1], *brought, own[-1]]  # --help stays last


@click.command("eval", cls=EvalCommand)
@click.argument("run", required=False)
@click.option("--data", multiple=True, metavar="GLOB", help="Shards or text files, or builtin.  [default: the run's]")
@field_option
@separator_option
@click.option("--tokens", type=click.IntRange(1), help="Number of tokens of the data, from its start.")
@click.option("--examples", type=click.IntRange(1), help="Number of examples of an evaluation.  [default: all]")
@device_option()
@click.option("--precision", type=click.Choice([*PRECISIONS, AUTO]), help="[default: the run's, else f32]")
@plugin_option
@json_option
def command(
    run: str | None,
    data: tuple[str, ...],
    field: str,
    separator: str,
    tokens: int | None,
    examples: int | None,
    device: str,
    precision: str | None,
    plugin: tuple[str, ...],
    as_json: bool,
    **files: Path | None,
) -> None:
    """Measure RUN: a run's, checkpoint's or Hugging Face folder, a name under runs/, an llm.c file; or the newest run.

    The loss is the mean over the data's first tokens, in nats; bits per byte divides it by the bytes of their text.
    """
    from core.api import build_model
    from core.data.documents import Reading
    from core.interop.opened import open_path
    from core.train.run_names import find_run

    registry = registry_of(click.get_current_context())
    chosen = {name: file for name, file in files.items() if file is not None}
    if examples and not chosen:
        raise no_evaluation(registry)
    path = find_run(run)
    opened = open_path(path, registry)
    if opened.weights is None:
        raise UsageError(f"{path}: a model without weights has no loss", hint="name a run, or a file with weights")
    own = own_settings(opened.path)
    model = build_model(opened, registry, device, precision or _precision(own, registry.device(device)), fuse=True)
    result: dict[str, Any] = {"from": str(opened.path), "model": model.graph.name, "precision": model.engine.precision}
    result |= {"device": model.engine.device.name, "step": opened.step}
    measured: list[str] = []

    def text(cut_off: str) -> str:
        if as_json:
            return json_text(result | {"cut_off": cut_off})
        scores = [registry.evaluations[name].line(result[name]) for name in chosen if name in measured]
        rest = [f"not measured: the rest: {cut_off}"] if cut_off else []
        return "\n".join([f"{opened.path}: {model!r}", *lines(result), *scores, *rest])

    with ending(text, measured):
        if data or not chosen:
            result |= measure_data(model, own, data, tokens, path, Reading(field, separator))
            measured.append("data")
        for name, file in chosen.items():
            result[name] = scored(registry.evaluations[name], model, file, examples)
            measured.append(name)


def no_evaluation(registry: Registry) -> UsageError:
    """The error for --examples alone."""
    options = " or ".join(f"--{name} FILE" for name in registry.evaluations) or "an evaluation; no plugin brings one"
    return UsageError(f"--examples limits an evaluation; expected {options}")


def lines(result: dict[str, Any]) -> list[str]:
    """The measurements as text."""
    shown = []
    if "loss" in result:
        of = f"over {result['tokens']:,} tokens of {', '.join(result['data'])}"
        shown.append(f"loss           {result['loss']:.4f} {of}")
        if abs(result["nll"] - result["loss"]) > 1e-6:
            shown.append(f"cross-entropy  {result['nll']:.4f}, of the tokens alone")
            terms = ", ".join(result["terms"])
            shown.append(f"other terms    {result['loss'] - result['nll']:.4f} of that loss: {terms}")
        bits = result["bits_per_byte"]
        figure = (
            f"{bits:.4f} over {result['bytes']:,} bytes" if bits else "unknown: there is no tokenizer to count with"
        )
        shown.append(f"bits per byte  {figure}")
    return shown


@dataclass(frozen=True)
class Own:
    """The validation settings of a run's config; empty where a model belongs to no run."""

    val: list[str] | dict[str, Any] = field(default_factory=list)
    reading: tuple[str, str, str] = ("", "", "")  # of core.data.documents.Reading
    layout: str = "stream"
    val_tokens: int = 0
    precision: str = "f32"


def own_settings(checkpoint: Path) -> Own:
    """Settings of the run that a checkpoint's folder belongs to. UsageError for a config that is damaged."""
    import tomli

    from core.data.text_pieces import as_list
    from core.outside import read_whole
    from core.train.run import RESOLVED

    path = checkpoint.resolve().parent.parent / RESOLVED
    if not path.is_file():
        return Own()
    try:
        config = tomli.loads(read_whole(path).decode())
        data, tokens = config["data"], config["train"]["val_tokens"]
        val = data["val"] if isinstance(data["val"], dict) else as_list(data["val"])
        field, separator, messages = (str(data.get(key, "")) for key in ("field", "separator", "messages"))
        layout = str(data.get("layout", "stream"))
        return Own(val, (field, separator, messages), layout, int(tokens), str(config["precision"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read: {error!r}", hint="move it away, and give --data") from None


def _precision(own: Own, kind: DeviceKind) -> str:
    """The run's own precision, where the device computes in it."""
    return own.precision if own.precision in (*kind.precisions, AUTO) else "f32"


def measure_data(
    model: Model, own: Own, data: tuple[str, ...], tokens: int | None, path: Path, reading: Reading
) -> dict[str, Any]:
    """Loss and bits per byte over the data that is named, or over the run's validation data."""
    from core.data.documents import Reading
    from core.measure.evaluate import Bytes, measure
    from core.measure.held_out import token_source

    names = list(data) or own.val
    if not names:
        raise UsageError(f"{path}: it records no validation data", hint="name data: --data GLOB, or --data builtin")
    wanted = tokens or own.val_tokens or BATCHES * math.prod(model.graph.batch)
    reading, layout = (reading, "stream") if data else (Reading(*own.reading), own.layout)
    source, notes = token_source(model.engine, model.tokenizer, names, reading, layout)
    for note in notes:
        click.echo(note, err=True)
    draw = progress_line()
    progress = (lambda done: draw(done, min(wanted, source.tokens - 1), "evaluating")) if draw else None
    size = Bytes(model.tokenizer) if model.tokenizer is not None else None
    losses = measure(model.engine, source.val_batches(wanted), size, progress)
    return {
        "data": names,
        "loss": losses.loss,
        "nll": losses.nll,
        "terms": other_terms(model.engine),
        "tokens": losses.targets,
        "bytes": losses.bytes,
        "bits_per_byte": losses.bits_per_byte,
    }


def other_terms(engine: Engine) -> list[str]:
    """The values that the loss adds to the cross-entropy of the tokens, `*` for the number of a repeat."""
    from core.measure.evaluate import token_loss

    own, weights = token_loss(engine), engine.graph.loss
    names = [re.sub(r"\.\d+(?=\.|$)", ".*", name) for name, weight in weights.items() if weight and name != own]
    return list(dict.fromkeys(names))


def check_ids(file: Path, evaluation: Evaluation, model: Model) -> None:
    """DataError for a model with another tokenizer than the file's; a note where the model came with none."""
    from core.data.match import promised_hash

    if not evaluation.tokenizer:
        return
    if model.tokenizer is None:
        note = f"{file}: its ids are {evaluation.tokenizer}'s, and the model has no tokenizer: both are treated as one"
        click.echo(note, err=True)
    elif promised_hash(evaluation.tokenizer, model.engine.registry.tokenizers) not in model.tokenizer.hashes:
        raise DataError(
            f"{file}: it holds the ids of {evaluation.tokenizer}'s tokenizer; the model's is {model.tokenizer.name}, "
            f"{model.tokenizer.vocab_size:,} ids",
            hint="the score would be meaningless; score a model with that tokenizer",
        )


def scored(evaluation: Evaluation, model: Model, file: Path, most: int | None) -> dict[str, Any]:
    """The figures of an evaluation, which a plugin computes."""
    from core.containment import of_plugin
    from core.outside import open_file, reads

    with reads(DataError, file), open_file(file):
        pass  # a file: a plugin need not expect a pipe or a device
    check_ids(file, evaluation, model)
    draw = progress_line()
    progress = (lambda done, total: draw(done, total, evaluation.name)) if draw else (lambda done, total: None)
    scoring = f"evaluation {evaluation.name}"
    return dict(of_plugin(evaluation.origin, scoring, lambda: evaluation.score(model, file, most, progress)))
