"""vocab.json and merges.txt without a tokenizer.json: transformers' ids where their class is known, else refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from core.errors import DataError
from core.tokenizers.folder import other_forms, read_folder
from core.tokenizers.library import LibraryTokenizer
from core.tokenizers.token_files import byte_letters
from core.tokenizers.tokenizer import END_OF_TEXT

tokenizers = pytest.importorskip("tokenizers")

LEARNED = ["the cat sat on the mat and the dog sat on the log.", "It's 12 o'clock! IT'S été, naïve\n\n  x = 1"] * 20
ASKED = [
    *LEARNED[:2],
    " the  cat\n",
    "nai\u0308ve été ☃ 🎉",
    "a<|im_start|>b <|endoftext|>",
    "",
    "12345",
    "<tool> x\r\n",
]
IM = {"content": "<|im_start|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
CONFIGS = {  # tokenizer_config.json, config.json, whether <|endoftext|> is in vocab.json, added_tokens.json
    "gpt2": ({"tokenizer_class": "GPT2Tokenizer"}, {}, True, None),
    "gpt2 by its model type": (None, {"model_type": "gpt2"}, True, None),
    "gpt2 fast": ({"tokenizer_class": "GPT2TokenizerFast", "model_max_length": 9}, {"model_type": "mamba"}, True, None),
    "gpt2 with a blank": ({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, {}, True, None),
    "gpt2 with another end": (
        {"tokenizer_class": "GPT2Tokenizer", "eos_token": "cat", "pad_token": END_OF_TEXT}, {}, True, None,
    ),
    "qwen2": (
        {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_start|>", "bos_token": None, "unk_token": None,
         "added_tokens_decoder": {"V": {**IM, "content": END_OF_TEXT, "special": True}, "V+1": {**IM, "special": True},
                                  "V+2": {**IM, "content": "<tool>", "special": False}}},
        {"model_type": "qwen2"}, False, None,
    ),
    "qwen2 by its model type": (None, {"model_type": "qwen2"}, True, None),
    "qwen2 with added_tokens.json": (
        {"tokenizer_class": "Qwen2Tokenizer", "additional_special_tokens": ["<|im_start|>"]},
        {}, False, {END_OF_TEXT: "V", "<|im_start|>": "V+1"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def learned():
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = list(byte_letters().values())
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=330, initial_alphabet=letters, show_progress=False)
    made.train_from_iterator(LEARNED, trainer)
    model = json.loads(made.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    order = [*letters, *("".join(merge.split(" ")) for merge in merges)]
    return {token: i for i, token in enumerate(dict.fromkeys(order))}, merges


def folder_of(path, learned, name):
    config, model, within, added = CONFIGS[name]
    vocab, merges = dict(learned[0]), learned[1]
    if within:
        vocab[END_OF_TEXT] = len(vocab)

    def number(text):
        return len(vocab) + int(text[2:] or 0)

    path.mkdir()
    (path / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    (path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    (path / "config.json").write_text(json.dumps({"architectures": ["X"], **model}))
    if config is not None:
        config = dict(config)
        if "added_tokens_decoder" in config:
            found = config["added_tokens_decoder"].items()
            config["added_tokens_decoder"] = {str(number(key)): value for key, value in found}
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    if added is not None:
        (path / "added_tokens.json").write_text(json.dumps({key: number(value) for key, value in added.items()}))
    return path


@pytest.mark.parametrize("name", CONFIGS)
def test_ids_are_those_of_transformers(name, learned, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = folder_of(tmp_path / "t", learned, name)
    ours = read_folder(folder)
    class_named = (CONFIGS[name][0] or {}).get("tokenizer_class") or f"{name.split()[0].title()}Tokenizer"
    class_named = class_named.removesuffix("Fast").replace("Gpt2", "GPT2")
    theirs = getattr(transformers, class_named).from_pretrained(folder)
    for text in ASKED:
        wanted = theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert ours.encode(text).tolist() == wanted, text
        assert ours.decode(ours.encode(text)).encode() == theirs.decode(wanted).encode() or ours.dummy
    assert ours.eot == theirs.eos_token_id
    assert ours.vocab_size == len(theirs)


def test_gpt2s_own_form_is_read_without_the_library_and_with_the_ids_of_its_rules(learned, tmp_path):
    ours = read_folder(folder_of(tmp_path / "t", learned, "gpt2 by its model type"))
    assert not isinstance(ours, LibraryTokenizer) and ours.eot == ours.vocab_size - 1
    assert ours.encode("the cat sat").size < len("the cat sat") and ours.decode(ours.encode("the cat")) == "the cat"
    blank = read_folder(folder_of(tmp_path / "b", learned, "gpt2 with a blank"))
    assert np.array_equal(blank.encode("the cat"), ours.encode(" the cat"))


REFUSED = {
    "another class": {"tokenizer_class": "RobertaTokenizer"},
    "a class that begins like one": {"tokenizer_class": "GPT2TokenizerX"},
    "no class and an unknown model type": {},
    "a begin of text": {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True},
}


@pytest.mark.parametrize("config", REFUSED.values(), ids=REFUSED)
def test_another_class_is_refused_with_the_way(config, learned, tmp_path):
    folder = folder_of(tmp_path / "t", learned, "gpt2")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert read_folder(folder) is None and "save_pretrained" in other_forms(folder)


DAMAGE = {
    "merges.txt": ("#version: 0.2\na b c\n", "merges.txt:2"),
    "vocab.json": ('{"a": 0, "b": 2}', "vocab.json: its ids"),
    "added_tokens.json": ('{"<x>": 3}', "added tokens do not fit vocab.json"),
    "tokenizer_config.json": (
        '{"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": {"x": 1}}', "are damaged",
    ),
    "config.json": ("[]", "config.json: damaged"),
}  # fmt: skip


@pytest.mark.parametrize("file", DAMAGE)
def test_a_damaged_file_is_named(file, learned, tmp_path):
    folder = folder_of(tmp_path / "t", learned, "gpt2")
    (folder / file).write_text(DAMAGE[file][0])
    with pytest.raises(DataError, match=DAMAGE[file][1]):
        read_folder(folder)


def test_a_special_token_without_an_id_is_refused(learned, tmp_path):
    folder = folder_of(tmp_path / "t", learned, "gpt2")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "pad_token": "<pad>"}')
    with pytest.raises(DataError, match="do not fit vocab.json .*<pad>"):
        read_folder(folder)
