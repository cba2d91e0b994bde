"""Shared by the listings: their options, tables of text, and the JSON twin."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from core.devices import AUTO, RESIDENT
from core.words import table

F = TypeVar("F", bound=Callable[..., Any])


def plugin_option(function: F) -> F:
    """`--plugin PATH`, any number of times, as the argument `plugin`."""
    return click.option(
        "--plugin", multiple=True, metavar="PATH", help="Load a plugin: a folder with an __init__.py, or a .py file."
    )(function)


def device_option(text: str) -> Callable[[F], F]:
    """`--device NAME`, "auto" without it, as the argument `device`; the registry checks it: plugins bring devices."""
    return click.option(
        "--device", default=AUTO, show_default=True, metavar=f"[{'|'.join([AUTO, *RESIDENT])}|...]", help=text
    )


def json_option(function: F) -> F:
    """`--json`, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def emit_json(data: Any) -> None:
    """`data` as JSON on stdout. Values without a type in JSON become text."""
    click.echo(json.dumps(data, indent=2, default=str))


def emit_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A listing on stdout, with its header."""
    click.echo("\n".join(table(header, rows)))
