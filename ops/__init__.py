"""The ops, optimizers, schedules and models that come with corelm, through the hooks that any plugin uses."""

from pathlib import Path

from core import hookimpl

from . import (
    adamw,
    add,
    add_layernorm,
    attention,
    cross_entropy,
    cuda,
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
    schedules,
)
from .cpu import adamw as cpu_adamw
from .cpu import attention as cpu_attention
from .cpu import cross_entropy as cpu_cross_entropy
from .cpu import gelu as cpu_gelu
from .cpu import layernorm as cpu_layernorm
from .cpu import matmul as cpu_matmul


@hookimpl
def core_ops():
    return [
        embedding.embedding,
        position.position,
        layernorm.layernorm,
        matmul.matmul,
        attention.attention,
        gelu.gelu,
        add.add,
        dropout.dropout,
        cross_entropy.cross_entropy,
        add_layernorm.add_layernorm,
        embed.embed,
        head_loss.head_loss,
        matmul_add.matmul_add,
        mlp_gelu.mlp_gelu,
        global_norm.global_norm,
        adamw.adamw_update,
    ]


@hookimpl
def core_variants():
    return [
        embedding.EmbeddingReference,
        position.PositionReference,
        layernorm.LayerNormReference,
        matmul.MatmulReference,
        attention.AttentionReference,
        gelu.GeluReference,
        add.AddReference,
        dropout.DropoutReference,
        cross_entropy.CrossEntropyReference,
        global_norm.GlobalNormReference,
        adamw.AdamWUpdateReference,
        cpu_layernorm.LayerNormBlocked,
        cpu_layernorm.AddLayerNormBlocked,
        cpu_matmul.MatmulBlas,
        cpu_attention.AttentionBlocked,
        cpu_gelu.GeluBlocked,
        cpu_cross_entropy.CrossEntropyBlocked,
        cpu_cross_entropy.HeadLossChunked,
        cpu_adamw.GlobalNormBlocked,
        cpu_adamw.AdamWBlocked,
        *cuda.VARIANTS,
    ]


@hookimpl
def core_optimizers():
    return [adamw.AdamW]


@hookimpl
def core_schedules():
    return [schedules.Cosine, schedules.Linear, schedules.Constant, schedules.Wsd]


@hookimpl
def core_models():
    """The model graphs beside this folder: in the checkout's root, or inside `core` in a wheel."""
    return sorted((Path(__file__).parent.parent / "models").glob("*.toml"))


@hookimpl
def core_tuned():
    return ["cuda/tuned.toml"]
