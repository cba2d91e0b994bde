"""Conversations: the loss counts the assistant's tokens alone, whole documents in rows, and errors with a line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from batch_layouts import CHATS, Config, V, documents_of, opened, rows_of
from library_tokenizers import CONFIG, write_tokenizer

from core.errors import DataError, UsageError
from core.tokenizers.folder import read_folder

# --- conversations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["stream", "packed", "rows"])
def test_the_loss_counts_the_assistants_tokens_alone(chats, folder, layout):
    tokenizer = read_folder(folder)
    data = opened(Config(chats, messages="messages", layout=layout), tokenizer=tokenizer, T=45)
    counted = []
    for row in rows_of(data.train):
        assert ((row["targets"] < 0) | (row["targets"] < V)).all()
        for d in documents_of(row):
            runs = np.split(d["targets"], np.flatnonzero(np.diff(d["targets"] >= 0)) + 1)
            counted += [tokenizer.decode(run) for run in runs if run[0] >= 0]
    answers = [content + "</s>" for chat in CHATS for role, content in chat if role == "assistant"]
    if layout == "stream":
        assert set(answers[:3]) <= set(counted)
    else:
        (cut,) = [text for text in counted if not text.endswith("</s>")]
        assert sorted(counted) == sorted([cut, *answers[:-1]]) and answers[-1].startswith(cut)
        assert any("1 of 5 documents have more than T = 45 tokens" in note for note in data.notes)


def test_a_template_that_marks_answers_is_believed(chats, tmp_path):
    template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}</s>{% endfor %}"
    )
    tokenizer = read_folder(write_tokenizer(tmp_path / "f", "byte_level", {**CONFIG, "chat_template": template}))
    ids, counts = tokenizer.conversation([{"role": r, "content": c} for r, c in CHATS[0]])
    runs = np.split(ids, np.flatnonzero(np.diff(counts)) + 1)
    assert [tokenizer.decode(run) for run in runs[1::2]] == ["sat on", "the mat"]
    assert tokenizer.decode(tokenizer.chat([{"role": "user", "content": "a"}])) == "<s>[user]a</s>"


BAD_CHATS = {
    "no list": ({"messages": "hello"}, 'x.jsonl:2: expected a list of messages, got "hello"'),
    "empty": ({"messages": []}, "x.jsonl:2: the conversation is empty"),
    "no field": ({"message": []}, 'x.jsonl:2: expected an object with a conversation in "messages".*did you mean'),
    "no object": ({"messages": ["a"]}, 'x.jsonl:2: message 0: expected an object, got "a"'),
    "no content": ({"messages": [{"role": "user"}]}, 'message 0: expected a text in "content", got nothing'),
    "sharegpt": ({"messages": [{"from": "human", "value": "a"}]}, 'has "from" and "value"; expected "role"'),
    "no answer": (
        {"messages": [{"role": "user", "content": "a"}]},
        r'no message has the role "assistant" \(roles: user',
    ),
    "a role": (
        {"messages": [{"role": "tool", "content": "a"}, {"role": "assistant", "content": "b"}]},
        "x.jsonl:2: .*the chat template, line 1, says: role tool",
    ),
}


@pytest.mark.parametrize("record, says", BAD_CHATS.values(), ids=BAD_CHATS)
def test_a_conversation_that_is_none_is_refused_with_its_line(tmp_path, folder, record, says):
    path = tmp_path / "x.jsonl"
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    path.write_text(f"{json.dumps(good)}\n{json.dumps(record)}\n")
    with pytest.raises(DataError, match=says):
        opened(Config(str(path), messages="messages"), tokenizer=read_folder(folder))


def test_conversations_need_a_chat_template(chats):
    with pytest.raises(UsageError, match="conversations need a chat template, and tokenizer bytes has none"):
        opened(Config(chats, messages="messages"))


def test_a_template_that_rewrites_earlier_answers_is_refused(chats, tmp_path):
    last = "{% for m in messages %}{{ m.content if loop.last or m.role == 'user' else '-' }}{% endfor %}"
    tokenizer = read_folder(write_tokenizer(tmp_path / "f", "byte_level", {**CONFIG, "chat_template": last}))
    with pytest.raises(DataError, match="chats.jsonl:1: the chat template writes message 1 differently once"):
        opened(Config(chats, messages="messages"), tokenizer=tokenizer)


def test_conversations_are_tokenised_once(chats, folder, monkeypatch):
    config, tokenizer = Config(chats, messages="messages", layout="rows"), read_folder(folder)
    first = opened(config, tokenizer=tokenizer).train
    monkeypatch.setattr("core.tokenizers.turns.conversation", None)
    again = opened(config, tokenizer=tokenizer).train
    assert first.describe() == again.describe()
    assert all(np.array_equal(v, again.batch(2)[k]) for k, v in first.batch(2).items())
