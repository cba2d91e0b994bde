"""Checkpoints: a folder that holds a whole model and the state from which its training continues.

    step_00001000/
        model.safetensors      parameters by the graph's names, without padding; of a bf16 or fp16 run, in f32 as kept
        optimizer.safetensors  "<state>.<parameter>": m.wte.weight, v.wte.weight; a file of each rank where each holds a
                               slice, optimizer-00001-of-00002.safetensors: `joined_state.py`
        model.toml             the model, nothing left to look up
        tokenizer.json         the run's tokenizer; absent where the data had none
        state.json             step, seed, tokens drawn, the record of the data, ...: `SavedState`
        manifest.json          sha256 and size of each of these files; written last

A save is staged beside its place, synced, hashed and renamed, then LATEST and BEST are replaced (`pointers.py`): a kill
at any moment leaves the checkpoint before it valid. Reading trusts nothing: hashes, headers, names, types. It
knows no engine and no run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.checkpoint.manifest import MANIFEST as MANIFEST
from core.checkpoint.manifest import MODEL as MODEL
from core.checkpoint.manifest import MODEL_TOML as MODEL_TOML
from core.checkpoint.manifest import OPTIMIZER as OPTIMIZER
from core.checkpoint.manifest import REQUIRED as REQUIRED
from core.checkpoint.manifest import STATE as STATE
from core.checkpoint.manifest import STEP as STEP
from core.checkpoint.manifest import TOKENIZER as TOKENIZER
from core.checkpoint.manifest import folder_name as folder_name
from core.checkpoint.manifest import is_whole as is_whole
from core.checkpoint.manifest import steps as steps
from core.checkpoint.saving import Contents as Contents
from core.checkpoint.saving import check_room as check_room
from core.checkpoint.saving import retain as retain
from core.checkpoint.saving import save as save
from core.checkpoint.saving import stage as stage
from core.checkpoint.saving import sweep as sweep
from core.checkpoint.saving import try_out as try_out
from core.lazy import imports_of

if TYPE_CHECKING:  # reading: loaded at its first use, since a fresh run reads none
    from core.checkpoint.opening import Checkpoint as Checkpoint
    from core.checkpoint.opening import CheckpointWarning as CheckpointWarning
    from core.checkpoint.opening import KeptWeights as KeptWeights
    from core.checkpoint.opening import best as best
    from core.checkpoint.opening import find as find
    from core.checkpoint.opening import is_kept as is_kept
    from core.checkpoint.opening import is_pointer as is_pointer
    from core.checkpoint.opening import load as load
    from core.checkpoint.opening import newest as newest
    from core.checkpoint.opening import why_no_pointer as why_no_pointer

__getattr__ = imports_of(__name__)
