"""Mutation testing: `core mutants` breaks backwards and kernels on purpose and lists those that pass the check."""

import click


def core_commands() -> list[click.Command]:
    from .command import mutants

    return [mutants]
