"""Many random models compared with numeric derivatives and with themselves, and the planner broken on purpose.

    python -m core.testing.graphs                              # 300 models, those that run with the tests
    python -m core.testing.graphs --graphs 3000 --seed 1000 --plugin ./mine
    python -m core.testing.graphs --faults                     # how many faults of the planner these models catch

The promises that each model tests are in `core.testing.graph_trial`.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import click

from core.errors import CoreError
from core.registry import Registry
from core.testing.graph_document import RandomModel, reductions
from core.testing.graph_faults import show
from core.testing.graph_models import random_model
from core.testing.graph_trial import each, examine, failure, registry_of
from core.threads import cores

GRAPHS = 300  # models of a plain run, from seed 0


def smaller(model: RandomModel, registry: Registry, tries: int = 150) -> RandomModel:
    """The model with as much taken out as leaves it wrong: settings, loss terms, nodes for one of their inputs."""
    improved = True
    while improved and tries > 0:
        improved = False
        for candidate in reductions(model):
            tries -= 1
            if tries <= 0:
                break
            try:
                candidate.source.build(registry)
            except CoreError:
                continue
            if failure(candidate, registry):
                model, improved = candidate, True
                break
    return model


def report(seed: int, plugins: tuple[str, ...] = ()) -> tuple[int, str, tuple[str, ...]]:
    """(seed, the problem of its model with the smallest model that shows it, the model's features)."""
    registry = registry_of(plugins)
    model = random_model(seed, registry)
    try:
        model.features.add(examine(model, registry))
    except Exception:
        least = smaller(model, registry)
        text = f"seed {seed}: {failure(model, registry)}\n{least}\nwhich gives: {failure(least, registry)}"
        return seed, text, tuple(model.features)
    return seed, "", tuple(model.features)


@click.command()
@click.option("--graphs", default=GRAPHS, show_default=True, help="How many models.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="The first model's seed; the others follow."
)
@click.option("--plugin", multiple=True, help="A plugin's folder or file, whose ops take part.")
@click.option("--jobs", default=0, help="Processes; by default one on each core.")
@click.option(
    "--faults", is_flag=True, help="Break the planner, one fault at a time, and count the faults that are caught."
)
def command(graphs: int, seed: int, plugin: tuple[str, ...], jobs: int, faults: bool) -> None:
    """Random models, compared with numeric derivatives and among their plans."""
    if faults:
        raise SystemExit(show(seed, jobs or cores()))
    wrong, features = 0, Counter[str]()
    for found_seed, text, has in each(partial(report, plugins=plugin), range(seed, seed + graphs), jobs or cores()):
        features.update(has)
        if text:
            wrong += 1
            click.echo(text)
            click.echo(f"again: python -m core.testing.graphs --graphs 1 --seed {found_seed}")
    for name, count in sorted(features.items(), key=lambda item: -item[1]):
        click.echo(f"{count:8,}  {name}")
    click.echo(f"{graphs:,} models from seed {seed}: {wrong} wrong")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    command()
