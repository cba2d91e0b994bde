"""Mutation testing: `core mutants` breaks backwards and kernels on purpose and shows what the op check lets pass."""

import click

from .command import mutants


def core_commands() -> list[click.Command]:
    return [mutants]
