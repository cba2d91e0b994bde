"""Matrix products by NVIDIA's cuBLASLt, a yardstick for kernels. Never automatic: `[ops] matmul = "cublaslt"`."""

from core import Variant, contents_of

from . import matmul


def core_variants():
    return contents_of(Variant, matmul)
