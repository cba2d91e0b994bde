"""Other programs' tokenizers, through the tokenizers library: the ids and texts that transformers gives, and chats."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from library_tokenizers import CONFIG, KINDS, TEMPLATE, TEXT

from core.errors import CoreError, DataError, UsageError
from core.generate import prompt_ids
from core.tokenizers.folder import read_folder
from core.tokenizers.library import LibraryTokenizer
from core.tokenizers.recorded import from_json

tokenizers = pytest.importorskip("tokenizers")

ASKED = ["the cat", " the  cat\n", "naïve été ☃ 🎉", "<s> the </s>", "", "12"]


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp(request.param)
    (made / "tokenizer.json").write_text(json.dumps(KINDS[request.param]()), "utf-8")
    (made / "tokenizer_config.json").write_text(json.dumps(CONFIG), "utf-8")
    return made


@pytest.fixture(scope="module")
def found(folder) -> LibraryTokenizer:
    tokenizer = read_folder(folder)
    assert isinstance(tokenizer, LibraryTokenizer)
    return tokenizer


def test_ids_prompts_texts_and_chats_are_those_of_transformers(folder, found):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    for text in ASKED:
        ids = theirs(text, split_special_tokens=True, add_special_tokens=False)["input_ids"]
        assert found.encode(text).tolist() == ids, text
        assert found.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)
        if text:
            assert prompt_ids(found, text) == theirs(text, split_special_tokens=True)["input_ids"]
    assert found.eot == theirs.eos_token_id
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": " the cat? "}]
    want = theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert found.chat(chat).tolist() == want and found.eot in want


def test_templates_may_say_what_those_of_transformers_say(folder, found, tmp_path):
    transformers = pytest.importorskip("transformers")
    template = (
        "{{ strftime_now('%d') }}{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}</s>{% endgeneration %}{% else %}[{{ m | tojson }}]{% continue %}{% endif %}{% endfor %}"
    )
    shutil.copytree(folder, tmp_path / "a")
    (tmp_path / "a" / "chat_template.jinja").write_text(template, "utf-8")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "a")
    chat = [{"role": "user", "content": "the <cat>"}, {"role": "assistant", "content": "the dog"}]
    want = theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert read_folder(tmp_path / "a").chat(chat).tolist() == want


@pytest.mark.parametrize(
    ("behind", "ends"),
    [("</s>", ["</s>"]), ("\n<unk>\n", ["<unk>"]), (" the end", []), ("", []), ("{{ raise_exception('no') }}", [])],
)
def test_an_answer_ends_with_the_special_token_that_the_template_puts_behind_it(found, behind, ends):
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}" + behind
    made = LibraryTokenizer(found.document, {**CONFIG, "chat_template": template}, name="x")
    assert made.answer_ends == {int(made.encode_template(token)[0]) for token in ends}


def test_bytes_of_tokens_put_together_are_the_text(found):
    for text in ASKED:
        got = found.decode_bytes(found.encode(text)).decode()
        assert got in (text, f" {text}"), "SentencePiece puts a blank before a text"
    assert found.lengths[found.eot] == 0 and found.lengths[found.encode("the")].sum() in (3, 4)


def test_an_empty_prompt_begins_as_the_tokenizer_says(found):
    assert prompt_ids(found, "") == list(found.begin) != []


def test_special_tokens_are_read_from_templates_and_never_from_text(found):
    assert found.eot not in found.encode("a </s> b") and found.eot in found.encode_template("a </s> b")
    assert found.eot not in found.encode("a </s> b"), "the setting was put back"


def test_it_comes_back_whole_from_a_checkpoint_and_goes_out_as_it_came(folder, found):
    again = from_json(found.to_json())
    assert isinstance(again, LibraryTokenizer) and again.hash == found.hash and again.record() == found.record()
    np.testing.assert_array_equal(again.encode(TEXT[0]), found.encode(TEXT[0]))
    assert again.chat_template == TEMPLATE and again.files["tokenizer.json"] == (folder / "tokenizer.json").read_bytes()
    value = json.loads(found.to_json())
    for wrong in ({"document": 3}, {"hash": "0"}, {"document": "{}"}):
        with pytest.raises(CoreError):
            from_json(json.dumps(value | wrong))


def test_without_the_library_a_folder_has_no_tokenizer_and_it_says_what_to_install(folder, found, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.warns(UserWarning, match=r'pip install "corelm\[tokenizers\]"'):
        assert read_folder(folder) is None
    with pytest.raises(UsageError, match=r"corelm\[tokenizers\]"):
        from_json(found.to_json())


@pytest.mark.parametrize(
    ("template", "kind", "says"),
    [
        (None, UsageError, "core sample"),
        ("{{ raise_exception('no system') }}", DataError, "no system"),
        ("{% if", DataError, "chat template"),
        ("{{ messages.__class__.__mro__ }}", DataError, "unsafe"),
        ("{{ messages.append(1) }}", DataError, "unsafe"),
        ("{{ 1 / 0 }}", DataError, "division"),
    ],
)
def test_a_template_that_is_missing_wrong_or_bad_is_an_error_and_harms_nothing(template, kind, says, found):
    pytest.importorskip("jinja2")
    made = LibraryTokenizer(found.document, {**CONFIG, "chat_template": template}, name="x")
    with pytest.raises(kind, match=says):
        made.chat([{"role": "user", "content": "a"}])


def test_a_file_whose_tokens_bytes_are_not_known_is_refused(tmp_path):
    made = tokenizers.BertWordPieceTokenizer()
    made.train_from_iterator(TEXT, vocab_size=100, show_progress=False)
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="WordPiece"):
        read_folder(tmp_path)
