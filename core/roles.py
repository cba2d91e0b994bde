"""Roles: the names of inputs and dims of a language model that the engine, the data and the run rely on."""

from __future__ import annotations

TOKENS = "tokens"  # the input that generation appends to; by another name, the only input of integers but the targets
TARGETS = "targets"  # the input of next tokens; negative ones do not count in the loss

B = "B"  # sequences of a batch
T = "T"  # tokens of a sequence in a batch
S = "S"  # positions: the longest sequence that a model with learned positions takes, and a cache's capacity
V = "V"  # ids of the vocabulary, without padding

BATCH = (B, T)  # dims of a batch, not of the model: they may change when a run is resumed
