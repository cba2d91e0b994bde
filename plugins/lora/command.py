"""`core lora save`, `core lora merge`, `core lora apply`: the adapters of a run in PEFT's format; the model with them
added to its weights; a model with the adapters of such a folder added."""

from pathlib import Path

import click


@click.group()
def lora():
    """Low-rank adapters: `save` in PEFT's format, `merge` into the weights, `apply` a PEFT folder's adapters."""


def options(function):
    plugin = click.option("--plugin", "plugins", multiple=True, help="A plugin that the model needs.")
    out = click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write.")
    return click.argument("path")(out(plugin(function)))


@lora.command()
@options
@click.option("--base", default="", help="The base model's name or path, for adapter_config.json.")
def save(path, out, plugins, base):
    """Write the adapters of PATH (a run or checkpoint) alone: adapter_config.json, adapter_model.safetensors."""
    from . import adapters

    count = adapters.save(path, out, list(plugins), base)
    click.echo(f"saved {count:,} parameters of the adapters in {out}")


@lora.command()
@options
def merge(path, out, plugins):
    """Write the model of PATH with W + (alpha / rank) B A in the place of each W: a checkpoint without adapters."""
    from . import adapters

    adapters.merge(path, out, list(plugins))
    click.echo(f"merged into {out}")


@lora.command()
@options
@click.argument("adapter", type=click.Path(path_type=Path))
def apply(path, adapter, out, plugins):
    """Write the model of PATH with the adapters of ADAPTER, a folder that PEFT saved, added to its weights."""
    from . import reading

    count = reading.apply(path, adapter, out, list(plugins))
    click.echo(f"added {count} adapters to {out}")
