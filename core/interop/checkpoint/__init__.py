"""Checkpoints: a folder that holds a whole model and the state from which its training continues.

    step_00001000/
        model.safetensors      parameters by the graph's names, without padding; of a bf16 run, in f32 as they are kept
        optimizer.safetensors  "<state>.<parameter>": m.wte.weight, v.wte.weight
        model.toml             the model, nothing left to look up
        tokenizer.json         the run's tokenizer; absent where the data had none
        state.json             step, seed, tokens drawn, the record of the data, ...: `State`
        manifest.json          sha256 and size of each of these files; written last

A save is staged beside its place, synced, hashed and renamed, then LATEST and BEST are replaced (`pointers.py`): a kill
at any moment leaves the checkpoint before it valid. Reading trusts nothing: hashes, headers, names, types. It
knows no engine and no run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.interop.checkpoint.manifest import (
    DOOMED,
    FORMAT,
    MANIFEST,
    MODEL,
    MODEL_TOML,
    OPTIMIZER,
    REQUIRED,
    STAGED,
    STATE,
    STEP,
    TOKENIZER,
    folder_name,
    is_whole,
    steps,
)
from core.interop.checkpoint.saving import METADATA, Contents, check_room, retain, save, stage, sweep, try_out
from core.lazy import imports_of

READING = (
    "Checkpoint",
    "CheckpointWarning",
    "best",
    "find",
    "is_pointer",
    "load",
    "newest",
    "why_no_pointer",
)  # loaded when it is asked for: a fresh run reads none

if TYPE_CHECKING:
    from core.interop.checkpoint.opening import Checkpoint as Checkpoint
    from core.interop.checkpoint.opening import CheckpointWarning as CheckpointWarning
    from core.interop.checkpoint.opening import best as best
    from core.interop.checkpoint.opening import find as find
    from core.interop.checkpoint.opening import is_pointer as is_pointer
    from core.interop.checkpoint.opening import load as load
    from core.interop.checkpoint.opening import newest as newest
    from core.interop.checkpoint.opening import why_no_pointer as why_no_pointer

__all__ = [
    "Contents",
    "DOOMED",
    "FORMAT",
    "MANIFEST",
    "METADATA",
    "MODEL",
    "MODEL_TOML",
    "OPTIMIZER",
    "REQUIRED",
    "STAGED",
    "STATE",
    "STEP",
    "TOKENIZER",
    "check_room",
    "folder_name",
    "is_whole",
    "retain",
    "save",
    "stage",
    "steps",
    "sweep",
    "try_out",
    *READING,
]  # noqa: PLE0604

__getattr__ = imports_of(__name__, dict.fromkeys(READING, "core.interop.checkpoint.opening"))
