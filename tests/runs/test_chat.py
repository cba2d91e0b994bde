"""Conversations: each answer is that of the whole conversation, a turn costs its own tokens, and the terminal holds."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import foreign_files as foreign
import numpy as np
import pytest

import core
from core import cli
from core.engine import Engine, Settings
from core.errors import UsageError
from core.generate import Chat, Form, Sampling, generate, plain_form
from core.graph import load_model
from core.loader import load_registry
from core.tokenizers.byte_pairs import bytes_tokenizer

S = 2048
GREEDY = Sampling(temperature=0)
ASCII = 128  # ids of the bytes tokenizer below this are text that comes back as the same ids
TURNS = ("what is it?", "and why", "no")


@pytest.fixture(scope="module")
def engine():
    registry = load_registry()
    dims = {"V": 257, "C": 16, "H": 2, "L": 2, "S": 256, "B": 1, "T": 8}
    made = Engine(load_model("gpt2_124m", registry), registry, Settings(dims=dims))
    made.initialize(7)
    for array in made.parameters().values():
        array *= 8  # answers that depend on what was said
    return made


def written(messages):
    return list("".join(f"<{m['role'][0]}>{m['content']}" for m in messages).encode() + b"<a>")


def chat_of(engine, render=written, capacity=256, most=12, **more):
    form = Form(render)
    return Chat(engine.session(1, capacity), bytes_tokenizer(), form, GREEDY, most, vocabulary=ASCII, **more)


def alone(engine, ids, most=12):
    """The answer to these ids of a session that has never held anything."""
    return generate(engine.session(1), [ids], most, GREEDY, vocabulary=ASCII)[0]


def quiet(text):
    """Nobody looks."""


# --- what is answered ----------------------------------------------------------------------------------------------


def test_a_turn_feeds_its_own_tokens_alone_and_is_answered_as_if_all_were_fed(engine):
    chat, shown, before = chat_of(engine, system="be brief"), [], 0
    for text in TURNS:
        ids = written([*chat.messages, {"role": "user", "content": text}])
        answer = chat.answer(text, shown.append)
        assert answer.tokens == alone(engine, ids) and answer.ended == "tokens"
        assert answer.fed == len(ids) - before and answer.held == len(ids) + len(answer.tokens) - 1
        assert "".join(shown).strip() == answer.text == chat.messages[-1]["content"]
        before = answer.held
        shown.clear()
    assert [m["role"] for m in chat.messages] == ["system", *["user", "assistant"] * 3]
    chat.reset()
    assert chat.answer(TURNS[0], quiet).tokens == alone(engine, written([*chat.system, *chat.messages[1:2]]))


def test_a_form_that_writes_the_past_in_another_way_gets_the_answers_to_what_it_writes(engine):
    def shouted(messages):
        return written([{**m, "content": m["content"].upper()} for m in messages[:-1]] + [messages[-1]])

    chat = chat_of(engine, shouted)
    for text in TURNS:
        ids = shouted([*chat.messages, {"role": "user", "content": text}])
        answer = chat.answer(text, quiet)
        assert answer.tokens == alone(engine, ids)
    assert 3 + len(TURNS[0]) < answer.fed < len(ids), "only what is written as before is kept"


def test_an_answer_that_was_stopped_counts_as_said_and_one_that_never_began_was_not_asked_for(engine):
    chat, shown = chat_of(engine), []
    answer = chat.answer("what", shown.append, lambda: len(shown) == 4)
    whole = alone(engine, written([{"role": "user", "content": "what"}]))
    assert answer.ended == "interrupted" and 4 <= len(answer.tokens) < 12
    assert answer.tokens == whole[: len(answer.tokens)] and chat.messages[-1]["content"] == answer.text
    said = list(chat.messages)
    assert chat.answer("more", quiet, lambda: True).tokens == [] and chat.messages == said
    ids = written([*said, {"role": "user", "content": "why"}])
    assert chat.answer("why", quiet).tokens == alone(engine, ids)


def test_when_it_is_full_the_oldest_turns_go_and_the_rest_is_answered(engine):
    chat, dropped = chat_of(engine, capacity=64, system="kind"), 0
    for number in range(6):
        asked = [*chat.messages, {"role": "user", "content": f"turn {number}"}]
        answer = chat.answer(f"turn {number}", quiet)
        dropped += answer.dropped
        kept = [*asked[:1], *asked[1 + answer.dropped :]]
        assert chat.messages[:-1] == kept and kept[0]["role"] == "system" and kept[1]["role"] == "user"
        assert answer.tokens == alone(engine, written(kept)) and answer.held <= 64
    assert dropped >= 4


def test_what_has_no_room_by_itself_is_refused_and_the_conversation_stays(engine):
    chat = chat_of(engine, capacity=40)
    chat.answer("hi", quiet)
    said = list(chat.messages)
    with pytest.raises(UsageError, match="a turn of 106 tokens, .* holds 40"):
        chat.answer("x" * 100, quiet)
    assert chat.messages == said
    answer = chat.answer("x" * 30, quiet)
    assert answer.ended == "context" and len(answer.tokens) == 40 - 36 + 1 and answer.dropped == 2
    assert answer.tokens == alone(engine, written([{"role": "user", "content": "x" * 30}]), 5)


def test_a_model_without_a_template_continues_turns_and_does_not_speak_for_the_user(engine):
    form = plain_form(bytes_tokenizer())
    messages = [{"role": "system", "content": "A talk."}, {"role": "user", "content": "hi"}]
    said = bytes(form.render([*messages, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "ok"}]))
    assert said == b"A talk.\n\nUser: hi\nAssistant: yes\nUser: ok\nAssistant:" and form.stops == ("\nUser:",)
    whole = alone(engine, written([{"role": "user", "content": "hi"}]))
    chat = Chat(
        engine.session(1), bytes_tokenizer(), Form(written, stops=(chr(whole[4]),)), GREEDY, 12, vocabulary=ASCII
    )
    answer = chat.answer("hi", quiet)
    assert answer.ended == "stop" and answer.tokens == whole[: whole.index(whole[4]) + 1]
    assert answer.text == bytes(answer.tokens[:-1]).decode().strip()


# --- whole models --------------------------------------------------------------------------------------------------

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A GPT-2 of 2,048 positions for transformers, with a tokenizer that has a chat template; it never ends a text."""
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("jinja2")
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(["the cat sat on the mat, user"], vocab_size=280, special_tokens=SPECIAL)
    V, C, rng = trained.get_vocab_size(), foreign.DIMS["C"], np.random.default_rng(3)
    wte, wpe = rng.standard_normal((V, C), np.float32), rng.standard_normal((S, C), np.float32)
    bias = np.ones(C, np.float32)
    wte[:3] = -bias  # the special tokens come first, and are never likely
    names = ("wte.weight", "wpe.weight", "ln_f.bias")
    tensors = foreign.hf_tensors() | {f"transformer.{n}": v for n, v in zip(names, (wte, wpe, bias), strict=True)}
    config = {**foreign.CONFIG, "vocab_size": V, "n_positions": S, "bos_token_id": 0, "eos_token_id": 0}
    made = foreign.hf_folder(tmp_path_factory.mktemp("model") / "talker", tensors, config)
    trained.save(str(made / "tokenizer.json"))
    tokens = {"eos_token": SPECIAL[0], "chat_template": TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast"}
    (made / "tokenizer_config.json").write_text(json.dumps(tokens), "utf-8")
    return made


def piped(monkeypatch, capsys, lines, *words):
    """(exit code, stdout, stderr) of `core chat WORDS` with these lines on stdin."""
    given = "\n".join(lines).encode("utf-8", "surrogateescape")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given), "utf-8"))
    code = cli.run(["chat", *map(str, words), "--device", "cpu"])
    return code, *capsys.readouterr()


def test_each_answer_is_what_transformers_generates_from_its_own_rendering(folder, monkeypatch, capsys):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.set_num_threads(1)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    renders = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    words = ("--temperature", "0", "--tokens", "9", "--json", "--system", "be kind")
    code, out, _ = piped(monkeypatch, capsys, TURNS, folder, *words)
    turns = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [turn["prompt"] for turn in turns] == list(TURNS)
    messages = [{"role": "system", "content": "be kind"}]
    for turn in turns:
        messages.append({"role": "user", "content": turn["prompt"]})
        ids = renders.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=False)
        with torch.no_grad():
            found = theirs.generate(ids, max_new_tokens=9, do_sample=False, pad_token_id=0, eos_token_id=None)
        assert turn["tokens"] == found[0, ids.shape[1] :].tolist()
        messages.append({"role": "assistant", "content": turn["text"]})


def test_the_end_that_the_template_writes_ends_an_answer(folder, monkeypatch, capsys, tmp_path):
    ids = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    tensors = foreign.safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["transformer.wte.weight"][ids["<|im_end|>"]] = 9 * tensors["transformer.ln_f.bias"]
    (tmp_path / "ends").mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "ends" / file).write_bytes((folder / file).read_bytes())
    foreign.safetensors.numpy.save_file(tensors, tmp_path / "ends" / "model.safetensors")
    _, out, _ = piped(monkeypatch, capsys, ["hi"], tmp_path / "ends", "--json")
    assert (json.loads(out)["text"], json.loads(out)["ended"]) == ("", "end")


def test_a_pipe_has_a_turn_a_line_and_nothing_but_answers_comes_out(folder, monkeypatch, capsys):
    words = (folder, "--temperature", "0", "--tokens", "4")
    code, out, err = piped(monkeypatch, capsys, ["the cat", "", "the mat", "/reset", "the cat", "/exit", "no"], *words)
    _, as_json, _ = piped(monkeypatch, capsys, ["the cat", "the mat"], *words, "--json")
    answers = [json.loads(line)["text"] for line in as_json.splitlines()]
    shown = [text.strip() for text in out.split("\n") if text.strip()]
    assert code == 0 and "> " not in out and err.count("ended after 4 tokens") == 3
    assert "forgotten" in err
    plain = cli.sample.show  # what is not printable is replaced, as core sample does
    for text in (answers[0], answers[1], answers[0]):
        plain(text + "\n")
    assert [text.strip() for text in capsys.readouterr().out.split("\n") if text.strip()] == shown
    code, out, _ = piped(monkeypatch, capsys, ["\udcff the"], *words)  # no UTF-8
    assert code == 0 and out
    code, out, err = piped(monkeypatch, capsys, ["/rest", "the cat"], *words)
    assert code == 2 and out.strip() == answers[0].strip() and 'did you mean "/reset"?' in err
    code, out, err = piped(monkeypatch, capsys, ["the cat " * 900], *words)
    assert code == 2 and "the conversation holds 2048" in err and "Traceback" not in err


def test_a_model_whose_tokenizer_has_no_template_says_so_once(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "imported"
    assert cli.run(["import", str(folder), str(out), "--tokenizer", "bytes"]) == 0
    capsys.readouterr()
    code, shown, err = piped(monkeypatch, capsys, ["a", "b"], out, "--tokens", "3")
    assert code == 0 and err.count("no chat template") == 1 and shown


def test_core_sample_takes_a_folder_of_another_program(folder, tmp_path, monkeypatch, capsys):
    words = ["sample", str(folder), "--prompt", "the cat", "--tokens", "6", "--temperature", "0", "--device", "cpu"]
    assert cli.run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = core.load(folder)
    ids = model.tokenizer.encode("the cat")
    assert found["tokens"] == model.generate(ids, max_new_tokens=6, temperature=0).tolist()
    monkeypatch.chdir(tmp_path)
    assert cli.run(["sample", "gpt2_124m"]) == 2 and "no run" in capsys.readouterr().err
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "gpt2_124m").symlink_to(folder)
    assert cli.run(["sample", "gpt2_124m", *words[2:]]) == 0, "a run that is called as a model is"
    Path("mine.toml").write_text('extends = "gpt2_124m"\n', "utf-8")
    assert cli.run(["sample", "mine.toml"]) == 2 and "has no weights" in capsys.readouterr().err
    (bare := folder.parent / "bare").mkdir()
    for file in ("config.json", "model.safetensors"):
        (bare / file).write_bytes((folder / file).read_bytes())
    assert cli.run(["sample", str(bare)]) == 7 and "no known tokenizer" in capsys.readouterr().err


# --- the terminal --------------------------------------------------------------------------------------------------


class Terminal:
    """`core chat` in a terminal of its own."""

    def __init__(self, *words: str) -> None:
        pty = pytest.importorskip("pty")
        self.ours, its = pty.openpty()
        environment = os.environ | {"TERM": "dumb", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "core.cli", "chat", *words]
        self.process = subprocess.Popen(
            command, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True, preexec_fn=controlling
        )
        os.close(its)
        self.text = ""

    def until(self, mark: str, more: int = 0) -> str:
        """What comes up to `mark`, behind which `more` characters have come as well."""
        end = time.monotonic() + 60
        while mark not in self.text or len(self.text.partition(mark)[2]) < more:
            assert select.select([self.ours], [], [], end - time.monotonic())[0], f"no {mark!r} in {self.text!r}"
            try:
                self.text += os.read(self.ours, 4096).decode("utf-8", "replace")
            except OSError:  # nobody is at the other end
                pytest.fail(f"it left with {self.process.wait(60)}: {self.text}")
        found, _, self.text = self.text.partition(mark)
        return found

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def interrupted(self) -> int:
        """Ctrl-C until it has left, as by an impatient person. Python's `input` misses one that comes in the moment
        before it waits for a key, and the end of the process takes longer than a moment."""
        try:
            for _ in range(1200):
                self.type(CTRL_C)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return self.process.wait(0.05)
            pytest.fail(f"it does not leave: {self.text}")
        finally:
            self.process.kill()
            os.close(self.ours)


def controlling() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


CTRL_C = "\x03"


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_in_a_terminal_ctrl_c_ends_the_answer_and_then_leaves(folder):
    terminal = Terminal(str(folder), "--temperature", "0", "--tokens", "2000", "--device", "cpu")
    assert "2,048 tokens" in terminal.until("> ")
    terminal.type("the cat\n")
    terminal.until("the cat\r\n", more=20)  # the answer has begun
    terminal.type(CTRL_C)
    assert len(terminal.until("(stopped")) < 2000 * 2, "what 2,000 tokens would come to is far more"
    terminal.until("> ")
    terminal.type("/help\n")
    assert "/reset" in terminal.until("Ctrl-C ends the answer")
    terminal.until("> ")
    terminal.type("/what\n")
    assert "there is no /what" in terminal.until("> ")
    assert terminal.interrupted() == 0
