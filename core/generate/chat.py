"""A conversation with a model: its messages, and a decode session that holds their tokens. It knows no terminal.

Each turn tokenises the whole conversation again by its form, since a template may write earlier messages in another way
than before. The session keeps the common prefix: usually all but the new turn, so that a turn costs its own tokens and
not those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.engine.decode import DecodeSession
from core.errors import UsageError
from core.generate.sample import Array, Sampling, continue_steps
from core.generate.text import Continuation
from core.tokenizers.tokenizer import Tokenizer

CONTEXT, INTERRUPTED = "context", "interrupted"  # reasons for the end of an answer, in addition to those of text.py
PIECE = 128  # tokens that are fed between two questions whether to go on

Message = Mapping[str, str]  # {"role": "system", "user" or "assistant", "content"}


@dataclass(frozen=True)
class Form:
    """The form of a conversation in tokens. render: the ids up to where the next answer begins. ends: ids that end an
    answer in addition to the tokenizer's end of text; stops: texts that do."""

    render: Callable[[Sequence[Message]], Sequence[int] | Array]
    ends: Collection[int] = ()
    stops: tuple[str, ...] = ()


PLAIN = {"user": "User", "assistant": "Assistant"}


def plain_form(tokenizer: Tokenizer) -> Form:
    """A conversation as a text to continue, for a model that was not made for one: `User: ...`, `Assistant: ...`."""

    def render(messages: Sequence[Message]) -> list[int]:
        lines = [f"{PLAIN[m['role']]}: {m['content']}" if m["role"] in PLAIN else m["content"] + "\n" for m in messages]
        text = "\n".join([*lines, f"{PLAIN['assistant']}:"])
        return [*tokenizer.begin, *(int(i) for i in tokenizer.encode(text))]

    return Form(render, stops=(f"\n{PLAIN['user']}:",))


@dataclass(frozen=True)
class Answer:
    """An answer: its text, its tokens, and why it `ended`; fed: tokens that were computed for it to begin; held: those
    of the conversation that the session has; dropped: messages that had to go first, for want of room."""

    text: str
    tokens: list[int]
    ended: str
    fed: int
    held: int
    dropped: int


class Chat:
    """A conversation. `messages`: those so far that have room; `system` opens it.

    session: of one row, for this chat alone. most: tokens of an answer. vocabulary: ids from there on are never drawn.
    """

    def __init__(
        self,
        session: DecodeSession,
        tokenizer: Tokenizer,
        form: Form,
        sampling: Sampling,
        most: int,
        *,
        stops: Sequence[str] = (),
        system: str = "",
        vocabulary: int | None = None,
    ) -> None:
        self.session, self.tokenizer, self.form, self.sampling, self.most = session, tokenizer, form, sampling, most
        self.stops, self.vocabulary = (*form.stops, *stops), vocabulary
        self.system: list[Message] = [{"role": "system", "content": system}] if system else []
        self.messages = list(self.system)
        self._held: list[int] = []  # the tokens that the session holds
        self._rng = np.random.default_rng(sampling.seed)

    def try_out(self) -> None:
        """See that a first turn can be put into tokens: raise its error before the first question."""
        self._fitting([*self.system, {"role": "user", "content": "a"}])

    def reset(self) -> None:
        """Forget all messages."""
        self.messages = list(self.system)

    def answer(self, text: str, show: Callable[[str], None], stopped: Callable[[], bool] = lambda: False) -> Answer:
        """The model's answer to `text`; `show` gets it piece by piece. `stopped()` is called between tokens.

        When there is no room for text and answer, the oldest turns go. Raises UsageError for a text that has no room
        alone, DataError for messages that a template refuses; the conversation is then unchanged.
        """
        conversation: list[Message] = [*self.messages, {"role": "user", "content": text}]
        messages, ids = self._fitting(conversation)
        dropped = len(conversation) - len(messages)
        logits, fed = self._feed(ids, stopped)
        if logits is None:
            return Answer("", [], INTERRUPTED, fed, len(self._held), 0)
        room = self.session.capacity + 1 - len(ids)
        growing = Continuation(self.tokenizer, self.stops, "", _begun(show), self.form.ends)
        steps = continue_steps(
            self.session, logits, [ids], min(self.most, room), self.sampling, self._rng, self.vocabulary
        )
        drawn: list[int] = []
        for step in steps:
            drawn.append(int(step[0]))
            growing.token(drawn[-1])
            if growing.ended:
                break
            if stopped():
                growing.end(INTERRUPTED)
                break
        growing.end(CONTEXT) if room < self.most else growing.end()
        self._held = [*ids, *drawn][: int(self.session.start[0])]
        said = growing.text.strip()
        self.messages = [*messages, {"role": "assistant", "content": said}]
        return Answer(said, growing.tokens, growing.ended, fed, len(self._held), dropped)

    def _fitting(self, messages: list[Message]) -> tuple[list[Message], list[int]]:
        """The conversation without as many of its oldest turns as must go for an answer to have room; its tokens."""
        capacity = self.session.capacity
        wanted = min(self.most, capacity // 4)
        while True:
            ids = [int(i) for i in self.form.render(messages)]
            if len(ids) + wanted <= capacity + 1:
                return messages, ids
            turns = [i for i, message in enumerate(messages) if message["role"] == "user"]
            if len(turns) == 1:
                break
            messages = [*messages[: turns[0]], *messages[turns[1] :]]
        if len(ids) > capacity:
            raise UsageError(
                f"a turn of {len(ids)} tokens, with the template's, and the conversation holds {capacity}",
                hint="shorten the message" + (", and a shorter --system" if self.system else ""),
            )
        return messages, ids

    def _feed(self, ids: list[int], stopped: Callable[[], bool]) -> tuple[Array | None, int]:
        """The logits after `ids`, None if it was stopped before; and how many tokens were fed for it."""
        same = 0
        while same < min(len(ids) - 1, len(self._held)) and ids[same] == self._held[same]:
            same += 1
        self.session.rewind(same)
        same = int(self.session.start[0])  # with a state of constant size, none of a conversation that was changed
        self._held = ids[:same]
        logits = None
        for at in range(same, len(ids), PIECE):
            if stopped():
                return None, len(self._held) - same
            piece = ids[at : at + PIECE]
            logits = self.session.feed(np.array([piece], np.int32))
            self._held += piece
        return logits, len(ids) - same


def _begun(show: Callable[[str], None]) -> Callable[[str], None]:
    """`show` without the white space that a text begins with."""
    begun = False

    def shown(text: str) -> None:
        nonlocal begun
        text = text if begun else text.lstrip()
        begun = begun or bool(text)
        if text:
            show(text)

    return shown
