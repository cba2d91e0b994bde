"""Commands whose options depend on plugins: the plugins of a command line are loaded before its options are parsed."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    from core.registry import Registry

REGISTRY = "core.registry"
PLUGIN = re.compile(r"--plugin(=|$)")


class BroughtCommand(click.Command, ABC):
    """A command with options, or values of one, that the plugins of its line bring: `with_brought`."""

    @abstractmethod
    def with_brought(self, own: list[click.Parameter], registry: Registry) -> list[click.Parameter]:
        """The parameters: `own`, changed and extended by `registry`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from core.loader import load_registry

        ctx.meta[REGISTRY] = load_registry(plugins_in(args))
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from core.loader import load_registry

        if REGISTRY not in ctx.meta:  # for its options, without a command line
            ctx.meta[REGISTRY] = load_registry(strict=False)
        return self.with_brought(super().get_params(ctx), ctx.meta[REGISTRY])


def registry_of(ctx: click.Context) -> Registry:
    """The registry of a command's line."""
    return cast("Registry", ctx.meta[REGISTRY])


def plugins_in(args: Sequence[str]) -> list[str]:
    """The values of --plugin on a command line that is not parsed yet."""
    pairs = pairwise([*args, ""])
    values = [value if word == "--plugin" else word.partition("=")[2] for word, value in pairs if PLUGIN.match(word)]
    return [path for path in values if path]
