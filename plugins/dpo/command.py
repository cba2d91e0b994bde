"""`core dpo save`: the policy of a run alone."""

from pathlib import Path

import click


@click.group()
def dpo():
    """Direct preference optimization: `save` writes the policy alone."""


@dpo.command()
@click.argument("path")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The checkpoint to write.")
@click.option("--plugin", "plugins", multiple=True, help="A plugin that the model needs.")
def save(path, out, plugins):
    """Write the policy of PATH (a run or checkpoint): the model without [adapt.dpo] and the reference."""
    import tempfile

    import tomli_w

    import core

    model = core.load(path, plugins=plugins)
    document = dict(model.graph.source.document)
    adapt = dict(document.pop("adapt", {}))
    if adapt.pop("dpo", None) is None:
        raise core.UsageError(f"{path}: model {model.graph.name} has no table [adapt.dpo]")
    inputs = {name: text for name, text in document["inputs"].items() if not name.startswith("rejected_")}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{model.graph.name}.toml"
        file.write_text(tomli_w.dumps({**document, "inputs": inputs, **({"adapt": adapt} if adapt else {})}))
        policy = core.load(file, plugins=plugins)
    policy.tokenizer = model.tokenizer
    for name, values in policy.params.items():
        values[...] = model.params[name]
    policy.save(out)
    click.echo(f"saved the policy of {path} in {out}")
