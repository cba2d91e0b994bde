"""Mutation testing: `core mutants` breaks backwards and kernels on purpose and lists those that pass the check."""

import click

from .command import mutants


def core_commands() -> list[click.Command]:
    return [mutants]
