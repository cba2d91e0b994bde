"""The ops' CUDA variants: for each op a .cu file with its kernels and a .py file with its launchers.

`naive` is the clearest variant, to be read first; the others are a practitioner's next steps. All run on `--device
cuda`, and in the simulator on `--device sim`.
"""

from . import (
    adamw_update,
    add,
    attention,
    attention_split,
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
    matmul_rows,
    position,
)

MODULES = (
    embedding,
    embed,
    position,
    layernorm,
    matmul,
    matmul_mma,
    matmul_rows,
    attention,
    attention_split,
    gelu,
    add,
    dropout,
    cross_entropy,
    head_loss,
    global_norm,
    adamw_update,
)
