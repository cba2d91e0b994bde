"""NCCL sums and gathers tensors between GPUs, inside the CUDA graph; where no MPI is, it joins the ranks of a run too.

pip install 'corelm[nccl]'
torchrun --nproc_per_node 8 --no-python core train configs/gpt2_124m.toml
"""

from core import Variant, contents_of


def core_ranks():
    from . import kind

    return [kind.Nccl]


def core_variants(device):
    if device not in ("", "cuda"):
        return []
    from . import collectives

    return contents_of(Variant, collectives)
