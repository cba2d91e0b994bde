"""NCCL sums and gathers tensors between GPUs, inside the CUDA graph; where no MPI is, it joins the ranks of a run too.

pip install 'corelm[nccl]'
torchrun --nproc_per_node 8 --no-python core train configs/gpt2_124m.toml
"""

from core import Variant, contents_of

from . import collectives, kind


def core_ranks():
    return [kind.Nccl]


def core_variants():
    return contents_of(Variant, collectives)
