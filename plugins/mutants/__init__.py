"""Mutation testing: `core mutants` breaks backwards and kernels on purpose and shows what the op check lets pass."""

from .command import mutants


def core_commands():
    return [mutants]
