"""Agreement of all ranks of a run before step 1: compared, or rank 0's for all.

A comparison is one gather of keys and values. The first key in which two ranks differ is an error with both values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import core
from core.config import RunConfig
from core.engine import Engine
from core.errors import UsageError
from core.plan import TRAIN
from core.ranks.group import Ranks
from core.train.differences import flat

if TYPE_CHECKING:
    from core.checkpoint import Checkpoint
    from core.train.wiring import Parts

ABSENT = "nothing"
OF_ONE_MACHINE = ("commit", "python")  # of `made_with`: a checkout without git is the same program
SHORT = 12  # hexadecimal digits of a hash


def compare(ranks: Ranks, facts: Mapping[str, Any], partial: bool = False) -> None:
    """Raises UsageError for the first key whose value is not rank 0's on another rank. partial: a rank may lack a key,
    as one whose slice has no matrix lacks the update of matrices."""
    own = {key: str(value) for key, value in facts.items()}
    every = [json.loads(data) for data in ranks.gather(json.dumps(own).encode())]
    first = every[0]
    for rank, theirs in enumerate(every):
        for key in {**first, **theirs}:
            here, there = first.get(key, ABSENT), theirs.get(key, ABSENT)
            if here != there and not (partial and ABSENT in (here, there)):
                raise UsageError(
                    f"the ranks of a run must agree on {key}: rank 0 on {ranks.host(0)} has {here}, and rank {rank} on "
                    f"{ranks.host(rank)} has {there}",
                    hint="start all ranks from the same files, or on hosts that share a folder",
                )


def compare_programs(ranks: Ranks, config: RunConfig, arguments: Mapping[str, Any]) -> None:
    """The program and the resolved config: all that follows depends on them."""
    facts = {"the version of corelm": core.__version__, "the source of corelm": source_hash()}
    facts["the device"] = config.device
    facts |= {f"the argument {name}": value for name, value in arguments.items()}
    compare(ranks, {**facts, **flat(config.document, "the config's ")})


def compare_start(ranks: Ranks, start: Checkpoint | None) -> None:
    """The checkpoint that the run continues."""
    facts: dict[str, Any] = {"the step of the checkpoint": start.step if start else 0}
    if start is not None:
        from core.checkpoint import MANIFEST

        facts["the checkpoint's manifest"] = hashed((start.path / MANIFEST).read_bytes())
    compare(ranks, facts)


def compare_parts(parts: Parts, record: Mapping[str, Any]) -> None:
    """Data, tokenizer, choices and the sources of the code that runs. record: the run's variants.json."""
    tokenizer, depends = parts.data.tokenizer, parts.engine.device.depends()
    made = {name: value for name, value in record["made_with"].items() if name not in (*OF_ONE_MACHINE, *depends)}
    facts = flat(parts.data.describe(), "the data's ")
    facts["the tokenizer"] = f"{tokenizer.name} {tokenizer.hash[:SHORT]}" if tokenizer else ABSENT
    facts |= {f"the variant of {node}": name for node, name in record["nodes"].items()}
    facts |= {f"the tiles of {node}": tiles for node, tiles in record["tiles"].items()}
    compare(parts.engine.ranks, {**facts, **made}, partial=parts.engine.slices is not None)


def take_choices(engine: Engine) -> None:
    """Have this rank take rank 0's variants and tiles. BuildError where one cannot run here."""
    report = engine.report(engine.plan(TRAIN))
    own = {"nodes": {name: choice.variant.name for name, choice in report.choices().items()}, "tiles": report.tiles()}
    first: Any = engine.ranks.decide(lambda: own)
    if json.loads(json.dumps(own)) == first:
        return
    chosen = {"recorded": first["nodes"], "configs": first["tiles"], "tuned": {}, "shipped": {}}
    engine.chooser.settings = replace(engine.chooser.settings, **chosen)
    engine.choose_again()


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:SHORT]


def source_hash() -> str:
    """The hash of the files of core/."""
    folder = Path(core.__file__).parent
    paths = sorted(folder.rglob("*.py"))
    return hashed(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths))
