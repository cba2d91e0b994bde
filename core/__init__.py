"""corelm: train language models with nothing hidden.

It has the names that authors of ops, kernels, models and optimizers import; all others are in modules of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from core.lazy import imports_of

__version__ = "0.1.0"

# In a checkout, ops/, plugins/, models/ and configs/ are beside core/; in a wheel they are inside it. Either way
# they are imported as `core.ops` and so on: a traceback and a pickle have the same names everywhere.
if not (Path(__file__).parent / "ops").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from core.adapter import Adapter as Adapter
    from core.api import load as load
    from core.contents import contents_of as contents_of
    from core.data_reader import DataReader as DataReader
    from core.device.protocol import Device as Device
    from core.devices import DeviceKind as DeviceKind
    from core.errors import BuildError as BuildError
    from core.errors import CheckFailed as CheckFailed
    from core.errors import CheckpointError as CheckpointError
    from core.errors import CoreError as CoreError
    from core.errors import DataError as DataError
    from core.errors import DeviceError as DeviceError
    from core.errors import UsageError as UsageError
    from core.evaluation import Download as Download
    from core.evaluation import Evaluation as Evaluation
    from core.expr import cdiv as cdiv
    from core.expr import unpadded as unpadded
    from core.hooks import hookimpl as hookimpl
    from core.lens import Lens as Lens
    from core.lens import LensMark as LensMark
    from core.op import CpuLaunch as CpuLaunch
    from core.op import GpuLaunch as GpuLaunch
    from core.op import Launch as Launch
    from core.op import Op as Op
    from core.op import Optimizer as Optimizer
    from core.op import Param as Param
    from core.op import Reference as Reference
    from core.op import Schedule as Schedule
    from core.op import State as State
    from core.op import Tensors as Tensors
    from core.op import Variant as Variant
    from core.products import product as product
    from core.ranks.group import Ranks as Ranks
    from core.ranks.ranks_kind import RanksKind as RanksKind
    from core.scalars import f32 as f32
    from core.scalars import f64 as f64
    from core.scalars import i32 as i32
    from core.scalars import i64 as i64
    from core.scalars import u32 as u32
    from core.scalars import u64 as u64
    from core.step_record import CHUNK as CHUNK
    from core.step_record import SLOT as SLOT
    from core.step_record import stretches as stretches
    from core.tokenizers.tokenizer import Tokenizer as Tokenizer
    from core.tokenizers.tokenizer_kind import TokenizerKind as TokenizerKind
    from core.train.training import TrainingRun as TrainingRun
    from core.view.replay import replay as replay
    from core.weight_format import WeightFormat as WeightFormat

__getattr__ = imports_of(__name__, "__version__")
