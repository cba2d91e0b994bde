"""Tokenizers: text to ids and back. A row for each kind (`kinds.py`), and the parts that kinds share.

`core.Tokenizer` and `core.TokenizerKind` are public: a plugin brings a kind by the hook `core_tokenizers`.
"""
