"""Text from a model: sampling from logits, and the loop over a cached decode session."""

from core.generate.sample import Sampling, generate, sample_logits

__all__ = ["Sampling", "generate", "sample_logits"]
