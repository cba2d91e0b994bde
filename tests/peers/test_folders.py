"""Nothing of a folder or its tokenizer is read in another way than its own program reads it, without a word.

A tiny LLaMA with a tokenizer of SentencePiece's kind or of bytes, against transformers where it is installed, and
against what is written here where it is not.
"""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from library_tokenizers import CONFIG, KINDS, LLAMA, TEXT, write_model, write_tokenizer
from trained_run import run as ran

from core import cli
from core.cli.chat import form_of
from core.data.data_names import resolve
from core.data.documents import WHOLE
from core.data.text_files import text_document
from core.data.tokenising import tokenise
from core.errors import DataError, UsageError
from core.generate import Continuation
from core.interop.opened import open_path
from core.loader import load_registry
from core.tokenizers.folder import read_folder
from core.tokenizers.library import LibraryTokenizer
from core.tokenizers.preference import choose_tokenizer
from core.tokenizers.recorded import from_json

tokenizers = pytest.importorskip("tokenizers")


def ids_of(path, tokenizer, reading=WHOLE):
    documents = resolve([str(path)], "train", "", [], reading).documents
    return np.concatenate(list(tokenise(documents, tokenizer))).tolist()


# --- tokenizers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_file_says_of_truncation_and_padding_is_left_out(kind, tmp_path):
    cut = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    fill = {"strategy": {"Fixed": 40}, "direction": "Left", "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>",
            "pad_to_multiple_of": None}  # fmt: skip
    plain = read_folder(write_tokenizer(tmp_path / "plain", kind))
    for name, change in (("cut", {"truncation": cut}), ("filled", {"padding": fill})):
        found = read_folder(write_tokenizer(tmp_path / name, kind, **change))
        assert found.encode(TEXT[0]).tolist() == plain.encode(TEXT[0]).tolist()
        assert found.begin == plain.begin and len(found.begin) == 1
        again = from_json(found.to_json())  # and in a checkpoint
        assert again.encode(TEXT[0]).tolist() == plain.encode(TEXT[0]).tolist()


ADDED = {
    "sentencepiece": [("▁▁▁▁", False), ("<|tool|>", False), ("<0x41>x", False), ("été▁", False)],
    "byte_level": [("<|tool|>", False), ("ĠĠx", False), ("a b", False), ("☃", True)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_of_added_tokens_are_those_that_the_tokenizers_decoder_gives(kind, tmp_path):
    document = KINDS[kind]()
    first = 1 + max(document["model"]["vocab"].values())
    for i, (content, special) in enumerate(ADDED[kind]):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        document["added_tokens"] = [
            *document["added_tokens"],
            {"id": first + i, "content": content, "special": special, **flags},
        ]
    found = read_folder(write_tokenizer(tmp_path / "a", kind, added_tokens=document["added_tokens"]))
    anchor = found.encode("x").tolist()
    before = found._library.decode(anchor, skip_special_tokens=False)
    for i in range(len(ADDED[kind])):
        whole = found._library.decode([*anchor, first + i], skip_special_tokens=False)
        assert found.decode_bytes([first + i]).decode("utf-8", "replace") == whole.removeprefix(before), ADDED[kind][i]
    for text in ("def f():\n    return 1    # x", "été ☃"):
        got = found.decode_bytes(found.encode(text)).decode()
        assert got == (" " if found.dummy else "") + text
        assert int(found.lengths[found.encode(text)].sum()) - found.dummy == len(text.encode())


WORDS = ["the", "cat", "sat", "on", "mat", "and", "dog", "log"]


@pytest.mark.parametrize("form", [*KINDS, "metaspace"])
@pytest.mark.parametrize("glue", [" ", "\n", "  ", " \n "])
def test_tokens_do_not_depend_on_where_a_text_is_cut(form, glue, tmp_path, monkeypatch):
    monkeypatch.setattr("core.data.text_blocks.BLOCK_BYTES", 700)
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
    change = {"normalizer": None, "pre_tokenizer": metaspace, "decoder": metaspace} if form == "metaspace" else {}
    found = read_folder(write_tokenizer(tmp_path / "t", "sentencepiece" if change else form, **change))
    order = np.random.RandomState(0).randint(0, len(WORDS), 900)
    text = "".join(WORDS[i] + (glue if n % 3 else " ") for n, i in enumerate(order)) + "été"
    (tmp_path / "a.txt").write_text(text, "utf-8")
    want = found._library.encode(text, add_special_tokens=False).ids
    assert ids_of(tmp_path / "a.txt", found) == [*found.begin, *want]


def test_a_tokenizer_whose_tokens_go_over_blanks_gets_whole_texts(tmp_path, monkeypatch):
    monkeypatch.setattr("core.data.text_blocks.BLOCK_BYTES", 100)
    document = KINDS["sentencepiece"]()
    vocabulary = document["model"]["vocab"]
    pair = next(m for m in document["model"]["merges"] if (m if isinstance(m, list) else m.split(" "))[0] == "c")
    first, second = pair if isinstance(pair, list) else pair.split(" ")
    vocabulary[f"{first}{second}▁"] = len(vocabulary)
    document["model"]["merges"] = [*document["model"]["merges"], [first + second, "▁"]]
    found = read_folder(write_tokenizer(tmp_path / "t", model=document["model"]))
    assert found.whole
    (tmp_path / "a.txt").write_text("the cat sat on the mat " * 60)
    want = found._library.encode("the cat sat on the mat " * 60, add_special_tokens=False).ids
    assert ids_of(tmp_path / "a.txt", found) == [*found.begin, *want]


@pytest.mark.parametrize("kind", KINDS)
def test_documents_begin_as_the_tokenizer_begins_them_with_end_of_text_between(kind, tmp_path):
    found = read_folder(write_tokenizer(tmp_path / "t", kind))
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("the cat")
    documents = [text_document(tmp_path / f"{name}.txt", []) for name in "ab"]
    text = found.encode("the cat").tolist()
    got = np.concatenate(list(tokenise(documents, found))).tolist()
    assert got == [*found.begin, *text, found.eot, *found.begin, *text]
    without = {key: value for key, value in KINDS[kind]().items() if key != "post_processor"}
    bare = LibraryTokenizer(json.dumps({**without, "post_processor": None}), CONFIG, name="x")
    assert np.concatenate(list(tokenise(documents, bare))).tolist() == [bare.eot, *text, bare.eot, *text]


SEEN = (
    "{{ bos_token is defined }}{{ unk_token is defined }}{{ tools is none }}{{ documents is none }}"
    "{% if tools is not none %}tools{% endif %}{{ messages | tojson(ensure_ascii=False, indent=None, "
    "separators=(',', ':'), sort_keys=True) }}{{ add_bos_token is defined }}"
)


def test_a_template_sees_what_transformers_gives_it(tmp_path):
    config = {**CONFIG, "bos_token": None, "add_bos_token": True, "chat_template": SEEN}
    folder = write_tokenizer(tmp_path / "t", config=config)
    chat = [{"role": "user", "content": "été <b>"}]
    got = read_folder(folder).written(chat, add_generation_prompt=True)
    assert got == 'FalseTrueTrueTrue[{"content":"été <b>","role":"user"}]False'
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    assert got == theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)


def test_special_tokens_of_an_older_folder_are_found(tmp_path, capsys):
    config = {key: value for key, value in CONFIG.items() if key != "eos_token"}
    folder = write_tokenizer(tmp_path / "t", config=config)
    assert read_folder(folder).eot is None
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    assert read_folder(folder).eot == KINDS["sentencepiece"]()["model"]["vocab"]["</s>"]
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "added_tokens_decoder": {}}))
    assert read_folder(folder).eot is None  # as transformers decides


def test_a_tokenizer_without_end_of_text_is_said(here, capsys):
    config = {key: value for key, value in CONFIG.items() if key != "eos_token"}
    write_tokenizer(here / "t", config=config)
    (here / "a.txt").write_text("the cat")
    assert (
        "has no end of text"
        in ran(capsys, "data", "prepare", "a.txt", "--out", "o", "--tokenizer", "t/tokenizer.json").out
    )


@pytest.mark.parametrize("spec", ["{}/tokenizer.json", "bpe:{}/tokenizer.json"])
def test_a_tokenizer_json_from_elsewhere_is_named_by_its_path(spec, tmp_path):
    folder = write_tokenizer(tmp_path / "t")
    found = choose_tokenizer([spec.format(folder)]).tokenizer
    assert isinstance(found, LibraryTokenizer) and found.hash == read_folder(folder).hash
    with pytest.raises(DataError, match="cannot be read"):
        choose_tokenizer([str(tmp_path / "none.json")])
    with pytest.raises(UsageError, match="unknown tokenizer"):
        choose_tokenizer(["file"])


def test_other_forms_of_a_tokenizer_are_named_with_what_makes_a_tokenizer_json(here, capsys):
    folder = write_model(here)
    (folder / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text("{}")
    for words, code in ((("import", folder, "i"), 0), (("sample", folder), 7)):
        said = ran(capsys, *words, code=code)
        assert "vocab.json, merges.txt" in said.out + said.err and "save_pretrained" in said.out + said.err
        assert "--tokenizer gpt2" not in said.out + said.err


def test_the_blank_before_a_text_is_not_shown(tmp_path):
    found = read_folder(write_tokenizer(tmp_path / "t"))
    for prompt, want in (("", "the cat"), ("x", " the cat")):
        growing = Continuation(found, (), prompt, lambda text: None)
        for token in found.encode("the cat").tolist():
            growing.token(token)
        growing.end()
        assert growing.text == want


# --- a model with its tokenizer ------------------------------------------------------------------------------------


def independent(folder, text):
    """bits per byte and loss of a text by transformers and the folder's own tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    ids = PreTrainedTokenizerFast.from_pretrained(folder)(text, split_special_tokens=True)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).double().eval()
    T, total = LLAMA["max_position_embeddings"], 0.0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, T):
            window = torch.tensor([ids[start : start + T + 1]])
            logits = model(window[:, :-1]).logits[0]
            total += float(torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum"))
    return total / math.log(2) / len(text.encode()), total / (len(ids) - 1), len(ids) - 1


GOLDEN = {  # kind -> bits per byte, loss, tokens: what `independent` gives
    "sentencepiece": (3.1673649846245624, 6.294918896305897, 226),
    "byte_level": (3.1533412048303213, 5.804724419777137, 244),
}
EVALUATED = "the cat sat on the mat.\nnaïve été ☃ and the dog    sat on the log. " * 9


@pytest.mark.parametrize("kind", KINDS)
def test_bits_per_byte_and_loss_are_those_of_an_independent_computation(kind, here, capsys):
    folder = write_model(here, kind)
    (here / "a.txt").write_text(EVALUATED, "utf-8")
    found = json.loads(
        ran(capsys, "eval", folder, "--data", "a.txt", "--tokens", 10**6, "--device", "cpu", "--json").out
    )
    bits, loss, tokens = GOLDEN[kind]
    assert found["tokens"] == tokens and found["bytes"] == len(EVALUATED.encode())
    assert abs(found["bits_per_byte"] / bits - 1) < 1e-4 and abs(found["loss"] / loss - 1) < 1e-4
    pytest.importorskip("transformers")
    assert np.allclose(independent(folder, EVALUATED), GOLDEN[kind], rtol=1e-5)


def test_every_end_of_generation_config_ends_a_text_and_an_answer(here, capsys, monkeypatch):
    generation = {"bos_token_id": 1, "eos_token_id": [2, 9], "temperature": 0.6, "_from_model_config": True}
    folder = write_model(here, generation=generation)
    plain = json.loads(
        ran(capsys, "sample", folder, "--prompt", "the", "--temperature", 0, "--tokens", 8, "--json").out
    )
    drawn = plain["tokens"][len(read_folder(folder).begin) + len(read_folder(folder).encode("the")) :]
    (folder / "generation_config.json").write_text(json.dumps({**generation, "eos_token_id": [2, drawn[3]]}))
    at = drawn.index(drawn[3])
    ended = json.loads(
        ran(capsys, "sample", folder, "--prompt", "the", "--temperature", 0, "--tokens", 8, "--json").out
    )
    assert ended["tokens"] == plain["tokens"][: len(plain["tokens"]) - len(drawn) + at]
    ran(capsys, "import", folder, "imported")
    again = json.loads(
        ran(capsys, "sample", "imported", "--prompt", "the", "--temperature", 0, "--tokens", 8, "--json").out
    )
    assert again["tokens"] == ended["tokens"]

    ends = open_path(folder, load_registry()).generation.ends
    form, _ = form_of(read_folder(folder), ends)
    assert drawn[3] in form.ends and 2 in form.ends


def test_ends_and_generation_config_go_out_as_they_came(here, capsys):
    generation = {"bos_token_id": 1, "eos_token_id": [2, 9, 11], "temperature": 0.6, "top_p": 0.9}
    folder = write_model(here, generation=generation, eos_token_id=[2, 9], pad_token_id=3)
    ran(capsys, "import", folder, "imported")
    for source, out in ((folder, "a"), ("imported", "b")):
        ran(capsys, "export", source, "--to", "hf", "--out", out)
        assert json.loads((here / out / "generation_config.json").read_text()) == generation
        config = json.loads((here / out / "config.json").read_text())
        assert {k: v for k, v in config.items() if k.endswith("_token_id")} == {
            "bos_token_id": 1, "eos_token_id": [2, 9], "pad_token_id": 3,
        }  # fmt: skip


def piped(monkeypatch, capsys, lines, *words):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    return cli.run(["chat", *map(str, words), "--device", "cpu"]), *capsys.readouterr()


def test_a_chat_through_a_pipe_goes_on_behind_a_line_that_it_cannot_answer(here, monkeypatch, capsys):
    folder = write_model(here)
    words = (folder, "--temperature", 0, "--tokens", 3, "--seed", 1)
    lines = ["the cat " * 100, "/n", "the cat"]
    code, out, err = piped(monkeypatch, capsys, lines, *words)
    assert code == 2 and out.strip() and err.count("core: error") == 2
    code, out, _ = piped(monkeypatch, capsys, lines, *words, "--json")
    objects = [json.loads(line) for line in out.splitlines()]
    assert code == 2 and [("error" in one, "text" in one) for one in objects] == [(True, False)] * 2 + [(False, True)]
