"""Matrix products by NVIDIA's cuBLASLt, a yardstick for kernels. Never automatic: `[ops] matmul = "cublaslt"`."""

from core import Variant, contents_of


def core_variants(device):
    if device not in ("", "cuda"):
        return []
    from . import matmul

    return contents_of(Variant, matmul)
