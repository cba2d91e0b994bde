"""Roles: the names of inputs and dims of a language model that the engine, the data and the run rely on."""

from __future__ import annotations

TOKENS = "tokens"  # the input that generation appends to
TARGETS = "targets"  # the input of next tokens; negative ones do not count in the loss
DOCUMENTS = "documents"  # the input of each token's document in its row: 0, 1, ...
POSITIONS = "positions"  # the input of each token's place in its document: 0, 1, ...
ROLES = (TOKENS, TARGETS, DOCUMENTS, POSITIONS)  # an input of such a name has that role, unless `roles` has another

B = "B"  # sequences of a batch
T = "T"  # tokens of a sequence in a batch
S = "S"  # positions: the longest sequence that a model with learned positions takes, and a cache's capacity
V = "V"  # ids of the vocabulary, without padding

BATCH = (B, T)  # dims of a batch, not of the model: they may change when a run is resumed
