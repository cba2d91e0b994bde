"""The conformance kit: checks of ops, variants, models and plugins, and the parts of their tests.

`check_op("rmsnorm")` and `check_model("mistral_7b", peer="MistralForCausalLM")` in a plugin's tests are all that most
authors need. The names of `__all__` are public (docs/plugins.md), and each is imported at its first use. The kit
knows no op and no model by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.lazy import imports_of

if TYPE_CHECKING:
    from core.engine import Engine as Engine
    from core.engine import Settings as Settings
    from core.graph import load_model as load_model
    from core.loader import load_registry as load_registry
    from core.op import make_tensors as make_tensors
    from core.testing.check import check_op as check_op
    from core.testing.check import check_variant as check_variant
    from core.testing.check_report import CheckReport as CheckReport
    from core.testing.check_report import VariantReport as VariantReport
    from core.testing.compiles import check_compiles as check_compiles
    from core.testing.derived import derive_reference as derive_reference
    from core.testing.golden_folder import check_values as check_values
    from core.testing.golden_folder import write_folder as write_folder
    from core.testing.model_check import LOGITS as LOGITS
    from core.testing.model_check import ModelCase as ModelCase
    from core.testing.model_check import ModelReport as ModelReport
    from core.testing.model_check import check_model as check_model
    from core.testing.model_check import distance as distance
    from core.testing.small_model import CHOICES as CHOICES
    from core.testing.small_model import shared_registry as shared_registry
    from core.testing.transformers_peer import load_peer as load_peer
    from core.testing.transformers_peer import peer_loss as peer_loss

__getattr__ = imports_of(__name__)
