"""Text from a model: sampling from logits, the loop over a cached decode session, growing texts, conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.lazy import imports_of

if TYPE_CHECKING:
    from core.generate.chat import Answer as Answer
    from core.generate.chat import Chat as Chat
    from core.generate.chat import Form as Form
    from core.generate.chat import plain_form as plain_form
    from core.generate.sample import Sampling as Sampling
    from core.generate.sample import generate as generate
    from core.generate.sample import generate_steps as generate_steps
    from core.generate.sample import prompt_ids as prompt_ids
    from core.generate.sample import sample_logits as sample_logits
    from core.generate.text import Continuation as Continuation

__getattr__ = imports_of(__name__)
