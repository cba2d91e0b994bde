"""Generated text as it grows, token by token: its part that further tokens cannot change, and its end."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Sequence

from core.tokenizers.tokenizer import Tokenizer

# reasons for the end of a text: the model's, a stop text, the requested number of tokens
END, STOP, TOKENS = "end", "stop", "tokens"


class Continuation:
    """The text after a prompt as it grows: `tokens` and `text` so far; `ended` is the reason for its end, or "".

    `show` gets the prompt, then pieces of the text as soon as they are certain: a character's bytes may come in several
    tokens, and a possible start of one of `stops` is held back. A stop, and a token that ends the text (the tokenizer's
    end of text, or one of `ends`), are left out.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: Sequence[str],
        prompt: str,
        show: Callable[[str], None],
        ends: Collection[int] = (),
    ) -> None:
        self._tokenizer, self._stops, self._show = tokenizer, [s for s in stops if s], show
        self._ends = {tokenizer.eot, *ends}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # text that may be the start of a stop
        self._opens = bool(getattr(tokenizer, "dummy", 0)) and not prompt
        self.tokens: list[int] = []
        self.text, self.ended = "", ""
        if prompt:
            show(prompt)

    def token(self, token: int) -> None:
        if self.ended:
            return
        if token in self._ends:
            self.end(END)
            return
        self.tokens.append(token)
        data = self._tokenizer.decode_bytes([token])
        if self._opens:  # the blank that the tokenizer puts before a text is none of it
            data, self._opens = data.removeprefix(b" "), False
        self._add(self._decoder.decode(data))

    def _add(self, text: str) -> None:
        text = self._held + text
        places = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if places:
            self._held, self.ended = "", STOP
            self._give(text[: min(places)])
            return
        most = max((len(stop) - 1 for stop in self._stops), default=0)
        begins = (n for n in range(min(most, len(text)), 0, -1) if any(s.startswith(text[-n:]) for s in self._stops))
        held = next(begins, 0)
        self._held = text[len(text) - held :]
        self._give(text[: len(text) - held])

    def _give(self, text: str) -> None:
        self.text += text
        if text:
            self._show(text)

    def end(self, why: str = TOKENS) -> None:
        """End the text: the bytes that were held back become text."""
        if not self.ended:
            self.ended = why
            self._give(self._held + self._decoder.decode(b"", final=True))
