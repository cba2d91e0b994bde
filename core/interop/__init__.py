"""Files that hold models: safetensors, checkpoints made of them, and the parts of a plugin's format of weights.

The package knows no run, no engine and no other program's format. The names of `__all__` are public: a plugin that
brings a `WeightFormat` imports them from here (docs/plugins.md). Each is loaded at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.lazy import imports_of

if TYPE_CHECKING:
    from core.checkpoint.safetensors_file import write_tensors as write_tensors
    from core.checkpoint.tensor_file import CHANGED as CHANGED
    from core.checkpoint.tensor_file import TensorFile as TensorFile
    from core.graph import Graph as Graph
    from core.graph import ModelDocument as ModelDocument
    from core.graph import ModelSource as ModelSource
    from core.graph import load_model as load_model
    from core.graph.dims import unusable as unusable
    from core.graph.dims import unusable_dim as unusable_dim
    from core.graph.model_schema import as_list as as_list
    from core.graph.model_schema import check_string as check_string
    from core.graph.model_schema import check_strings as check_strings
    from core.graph.model_schema import check_table as check_table
    from core.graph.model_schema import is_names as is_names
    from core.graph.model_schema import wrong as wrong
    from core.graph.problems import Problems as Problems
    from core.graph.types import Parameter as Parameter
    from core.interop.export import Export as Export
    from core.interop.export import check_meaning as check_meaning
    from core.interop.fitting import CONFIG as CONFIG
    from core.interop.fitting import MOST as MOST
    from core.interop.fitting import Array as Array
    from core.interop.fitting import Dims as Dims
    from core.interop.fitting import Fitted as Fitted
    from core.interop.fitting import Misfit as Misfit
    from core.interop.fitting import ModelMatch as ModelMatch
    from core.interop.fitting import Weights as Weights
    from core.interop.fitting import about as about
    from core.interop.fitting import build as build
    from core.interop.fitting import check_dims as check_dims
    from core.interop.fitting import find_model as find_model
    from core.interop.fitting import name_pattern as name_pattern
    from core.interop.fitting import raise_some as raise_some
    from core.interop.fitting import with_length as with_length
    from core.interop.flat_file import named_by as named_by
    from core.interop.flat_file import read_head as read_head
    from core.interop.flat_file import read_numbers as read_numbers
    from core.interop.generation import BEGIN as BEGIN
    from core.interop.generation import END as END
    from core.interop.generation import PADDING as PADDING
    from core.interop.generation import Generation as Generation
    from core.interop.generation import of_ids as of_ids
    from core.kernels.tensors import to_bf16 as to_bf16
    from core.registry import Registry as Registry

__getattr__ = imports_of(__name__)
