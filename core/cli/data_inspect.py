"""`core data inspect`: files of data, or the batches that a config's run draws."""

from __future__ import annotations

from typing import Any

import click

from core.cli.show import device_option, emit_json, emit_table, json_option, plugin_option

LONGEST = 100  # characters of a part's text; --json has all
CONFIG = ".toml"


@click.command("inspect")
@click.argument("sources", nargs=-1, required=True, metavar="CONFIG|SOURCE...")
@click.option("--step", type=click.IntRange(1), default=1, help="With a config: the step whose batch is shown.")
@click.option("--rows", type=click.IntRange(1), default=4, help="With a config: rows of the batch.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="With a config: as in core train.")
@device_option("With a config: as in core train.")
@plugin_option
@json_option
def inspect(
    sources: tuple[str, ...],
    step: int,
    rows: int,
    overrides: tuple[str, ...],
    device: str,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the contents of shards and texts: tokens, largest id, tokenizer, the first ids.

    With a run config: rows of a step's batch, with the text of their tokens, the targets that count in the loss, the
    borders of documents, and the shares of a mix.
    """
    if len(sources) == 1 and sources[0].endswith(CONFIG):
        from core.train.data_inspection import inspected

        drawn = inspected(sources[0], overrides, device, plugin, step, rows)
        emit_json(drawn) if as_json else print_config(drawn)
        return
    inspect_files(sources, plugin, as_json)


def print_config(drawn: dict[str, Any]) -> None:
    for note in drawn["notes"]:
        click.echo(note)
    for part in ("train", "val"):
        if facts := drawn[part]:
            layout = f", layout {facts['layout']}" if "layout" in facts else ""
            click.echo(f"{part}: {facts['rows']:,} rows of {facts['T']:,}{layout}: {', '.join(facts['inputs'])}")
    if drawn["mix"]:
        columns = ("source", "weight", "share", "rows", "epochs")
        rows = [
            (m["source"], f"{m['weight']:g}", f"{m['share']:.1%}", f"{m['rows']:,}", f"{m['epochs']:.2f}")
            for m in drawn["mix"]
        ]
        emit_table([c.upper() for c in columns], rows)
    for number, row in enumerate(drawn["batch"]):
        click.echo(f"step {drawn['step']}, row {number}: row {row['row']:,} of the data")
        for name, facts in row["inputs"].items():
            click.echo(f"  {name}: {facts['shape']} {facts['dtype']}, {facts['min']:g} to {facts['max']:g}")
        for document in row["documents"]:
            print_document(document)


def print_document(document: dict[str, Any]) -> None:
    (first, last), (begin, end) = document["places"], document["positions"]
    kind = "padding" if document["padding"] else f"document {document['document']}"
    click.echo(f"  {kind}: places {first} to {last}, positions {begin} to {end}")
    for part in document["parts"]:
        text = part["text"] if part["text"] is not None else " ".join(map(str, part["tokens"]))
        text = text.replace("\n", "\\n")
        text = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
        click.echo(f"    {'loss' if part['loss'] else '  - '} {len(part['tokens']):4d}  {text}")


def inspect_files(sources: tuple[str, ...], plugin: tuple[str, ...], as_json: bool) -> None:
    from core.data.data_names import resolve
    from core.data.documents import Reading
    from core.loader import load_registry

    notes: list[str] = []
    readers = load_registry(plugin).readers
    reading = Reading("text")  # nothing of a text is read here
    inputs = resolve(sources, "train", "data inspect", notes, reading, readers)
    shards = [describe_shard(shard) for shard in inputs.shards]
    texts = [{"file": d.name, "kind": "text", "bytes": d.size} for d in inputs.documents]
    pieces = [{"file": p.name, "kind": "tokens", "tokens": p.count} for p in inputs.pieces]
    arrays = [
        {"file": a.name, "kind": "array", "shape": list(a.shape), "dtype": a.dtype.name}
        for own in inputs.arrays.values()
        for a in own
    ]
    if as_json:
        emit_json([*shards, *pieces, *texts, *arrays])
        return
    if pieces:
        emit_table(("PIECE", "TOKENS"), [(p["file"], show(p["tokens"])) for p in pieces])
    if arrays:
        emit_table(("ARRAY", "SHAPE", "DTYPE"), [(a["file"], str(a["shape"]), a["dtype"]) for a in arrays])
    if shards:
        columns = ("file", "kind", "tokens", "bytes", "largest id", "tokenizer", "hash", "first ids")
        emit_table([c.upper() for c in columns], [[show(shard[c]) for c in columns] for shard in shards])
    if texts:
        rows = [(t["file"], show(t["bytes"])) for t in texts[:20]]
        emit_table(("TEXT", "BYTES"), rows)
        click.echo(f"{len(texts):,} documents, {sum(d.size for d in inputs.documents):,} bytes")


def describe_shard(shard: Any) -> dict[str, Any]:
    """A shard as the listing shows it. Reads all of it once, for the largest id."""
    from core.data.shards import recorded_sha256
    from core.data.tokenizer_sidecar import tokenizer_record

    record = tokenizer_record(shard.path)
    with shard.reader() as tokens:
        largest = max(int(tokens[at : at + 2**22].max()) for at in range(0, len(tokens), 2**22))
        first = [int(i) for i in tokens[:6]]
    return {
        "file": str(shard.path),
        "kind": f"{shard.format.name}, {shard.format.dtype.name}",
        "tokens": shard.count,
        "bytes": shard.path.stat().st_size,
        "largest id": largest,
        "tokenizer": record["name"] if record else None,
        "tokenizer hash": record["hash"] if record else None,
        "hash": "verified" if recorded_sha256(shard.path) else "none",
        "first ids": first,
    }


def show(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "-" if value is None else str(value)
