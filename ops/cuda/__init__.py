"""The ops' CUDA variants: for each op a .cu file with its kernels and a .py file with its launchers.

`naive` is the clearest way and what to read first; the other one is what a practitioner would write next. Both run on
`--device cuda`, and in the simulator on `--device sim`.
"""

from . import (
    adamw_update,
    add,
    attention,
    cross_entropy,
    dropout,
    embed,
    embedding,
    gelu,
    global_norm,
    head_loss,
    layernorm,
    matmul,
    matmul_mma,
    position,
)

VARIANTS = [
    embedding.EmbeddingNaive,
    embedding.EmbeddingOwner,
    embedding.EmbeddingSorted,
    embed.EmbedVector,
    position.PositionNaive,
    position.PositionVector,
    layernorm.LayerNormNaive,
    layernorm.LayerNormWarp,
    layernorm.LayerNormShared,
    matmul.MatmulNaive,
    matmul.MatmulTiled,
    matmul.MatmulRegister,
    matmul_mma.MatmulMma,
    matmul_mma.MatmulAddMma,
    matmul_mma.MlpGeluMma,
    attention.AttentionNaive,
    attention.AttentionOnline,
    attention.AttentionFlash,
    gelu.GeluNaive,
    gelu.GeluVector,
    add.AddNaive,
    add.AddVector,
    dropout.DropoutNaive,
    dropout.DropoutVector,
    cross_entropy.CrossEntropyNaive,
    cross_entropy.CrossEntropyTwoPass,
    cross_entropy.CrossEntropyOnline,
    cross_entropy.CrossEntropyFused,
    head_loss.HeadLossMma,
    global_norm.GlobalNormNaive,
    global_norm.GlobalNormBlocks,
    adamw_update.AdamWNaive,
    adamw_update.AdamWVector,
]
