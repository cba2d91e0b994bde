"""The conformance kit: what an op, a variant and a plugin are held to.

`check_op("rmsnorm")` and `check_model("mistral_7b", peer="MistralForCausalLM")` in a plugin's tests are all that most
authors need. It knows no op and no model by name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from core.testing.check import CheckReport, VariantReport, check_op, check_variant
from core.testing.derived import derive_reference

if TYPE_CHECKING:
    from core.testing.model_check import ModelCase, ModelReport, check_model

MODELS = ("ModelCase", "ModelReport", "check_model")  # imported on first use: they bring the formats with them

__all__ = ["ModelCase", "ModelReport", "CheckReport", "VariantReport", "check_model", "check_op", "check_variant",
           "derive_reference"]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in MODELS:
        return getattr(import_module("core.testing.model_check"), name)
    raise AttributeError(f"module 'core.testing' has no attribute {name!r}")
