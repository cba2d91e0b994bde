"""The mask of the assistant's tokens: that of transformers for templates that mark answers, else the difference of
its prefixes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from library_tokenizers import CONFIG, write_tokenizer

from core.tokenizers.folder import read_folder

transformers = pytest.importorskip("transformers")

CHATML = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}{% generation %}\n"
    "{{ m.content | trim }}</s>{% endgeneration %}{% else %}{{ m.content }}</s>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PLAIN = CHATML.replace("{% generation %}", "").replace("{% endgeneration %}", "")
CHATS = (
    [("user", "The cat"), ("assistant", " sat on the mat, été. ")],
    [("system", "a  b"), ("user", "dog"), ("assistant", "log"), ("user", "\n and?"), ("assistant", "the mat  and 12")],
    [("user", ""), ("assistant", "é"), ("assistant", "the dog")],
)


@pytest.fixture(scope="module", params=["byte_level", "sentencepiece"])
def made(request, tmp_path_factory):
    """(template -> our tokenizer and transformers')."""

    def pair(template):
        folder = tmp_path_factory.mktemp("t")
        write_tokenizer(folder, request.param, {**CONFIG, "chat_template": template})
        return read_folder(folder), transformers.AutoTokenizer.from_pretrained(folder)

    return pair


def test_a_template_that_marks_answers_gives_the_mask_of_transformers(made):
    ours, theirs = made(CHATML)
    for chat in CHATS:
        messages = [{"role": role, "content": content} for role, content in chat]
        ids, counts = ours.conversation(messages)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            want = theirs.apply_chat_template(
                messages, return_assistant_tokens_mask=True, return_dict=True, tokenize=True
            )
        assert ids.tolist() == want["input_ids"]
        assert counts.astype(int).tolist() == want["assistant_masks"] and 0 < counts.sum() < len(counts)


def test_other_templates_give_the_difference_of_prefixes(made):
    ours, theirs = made(PLAIN)
    for chat in CHATS:
        messages = [{"role": role, "content": content} for role, content in chat]
        ids, counts = ours.conversation(messages)
        want = np.zeros(len(ids), bool)
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                begin, end = (
                    theirs.apply_chat_template(part, add_generation_prompt=prompt, tokenize=True, return_dict=False)
                    for part, prompt in ((messages[:number], True), (messages[: number + 1], False))
                )
                assert ids[: len(end)].tolist() == end and end[: len(begin)] == begin
                want[len(begin) : len(end)] = True
        assert np.array_equal(counts, want) and 0 < counts.sum() < len(counts)
