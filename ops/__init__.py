"""The ops, optimizers, schedules and models that come with corelm, through the hooks that any plugin uses."""

from pathlib import Path

from core import Op, Optimizer, Schedule, Variant, contents_of, hookimpl

from . import (
    adamw,
    add,
    add_layernorm,
    all_gather,
    all_reduce,
    attention,
    cpu,
    cross_entropy,
    dropout,
    embed,
    embedding,
    gelu,
    global_norm,
    head_loss,
    layernorm,
    matmul,
    matmul_add,
    mlp_gelu,
    position,
    reduce_scatter,
    schedules,
)

PLAIN = (embedding, position, layernorm, matmul, attention, gelu, add, dropout, cross_entropy)
FUSED = (add_layernorm, embed, head_loss, matmul_add, mlp_gelu)
UPDATE = (global_norm, adamw)
COLLECTIVE = (all_reduce, reduce_scatter, all_gather)


@hookimpl
def core_ops():
    return contents_of(Op, *PLAIN, *FUSED, *UPDATE, *COLLECTIVE)


@hookimpl
def core_variants(device):
    kernels = ()
    if device in ("", "cuda"):
        from . import cuda  # a run on the cpu launches none of them

        kernels = cuda.MODULES
    return contents_of(Variant, *PLAIN, *FUSED, *UPDATE, *COLLECTIVE, *cpu.MODULES, *kernels)


@hookimpl
def core_optimizers():
    return contents_of(Optimizer, *UPDATE)


@hookimpl
def core_schedules():
    return contents_of(Schedule, schedules)


@hookimpl
def core_models():
    """The model graphs beside this folder: in the checkout's root, or inside `core` in a wheel."""
    return sorted((Path(__file__).parent.parent / "models").glob("*.toml"))


@hookimpl
def core_tuned():
    return ["cuda/tuned.toml"]
