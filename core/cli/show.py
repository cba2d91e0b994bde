"""Shared by the listings: their options, tables of text, and the JSON twin."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from core.devices import AUTO, RESIDENT
from core.words import table

F = TypeVar("F", bound=Callable[..., Any])

plugin_option = click.option(
    "--plugin", multiple=True, metavar="PATH", help="Load a plugin: a folder with an __init__.py, or a .py file."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of CONFIG.")
field_option = click.option(
    "--field", default="", metavar="NAME", help="The field with the text in each line of a .jsonl."
)
separator_option = click.option(
    "--separator", default="", metavar="TEXT", help="Separator between the documents of a text file."
)


def device_option(text: str = "auto: the GPU, or the cpu of a machine without one.") -> Callable[[F], F]:
    """`--device NAME`, "auto" without it, as the argument `device`; the registry checks it: plugins bring devices."""
    return click.option(
        "--device", default=AUTO, show_default=True, metavar=f"[{'|'.join([AUTO, *RESIDENT])}|...]", help=text
    )


def json_text(data: Any) -> str:
    """`data` as JSON. Values without a type in JSON become text."""
    return json.dumps(data, indent=2, default=str)


def emit_json(data: Any) -> None:
    """`json_text` on stdout."""
    click.echo(json_text(data))


def emit_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A listing on stdout, with its header."""
    click.echo("\n".join(table(header, rows)))
