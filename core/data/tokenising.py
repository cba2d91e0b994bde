"""Documents to tokens, several blocks at a time. Each tokenizer frames a document in tokens by `Tokenizer.frame`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from core import signals
from core.data.documents import Document, Progress
from core.tokenizers.tokenizer import Tokenizer

A = TypeVar("A")
B = TypeVar("B")


def tokenise(
    documents: Sequence[Document], tokenizer: Tokenizer, progress: Progress | None = None
) -> Iterator[NDArray[np.int32]]:
    """The documents' tokens in order, in chunks (n,) int32, each document in the tokenizer's frame."""
    between, begin = (np.array(ids, np.int32) for ids in tokenizer.frame)
    total, done = sum(document.size for document in documents), 0

    def pieces() -> Iterator[tuple[str, int | None, Document]]:
        """Texts, each with the number of the document that it begins, None where the document continues."""
        number = 0
        for document in documents:
            if not document.each:
                blocks = iter(["".join(document.blocks())]) if tokenizer.whole else document.blocks()
                yield next(blocks, ""), number, document
                yield from ((text, None, document) for text in blocks)
                number += 1
                continue
            for text in document.blocks():
                yield text, number, document
                number += 1

    def encode(piece: tuple[str, int | None, Document]) -> tuple[NDArray[np.int32], int, Document]:
        text, number, document = piece
        if number is None:
            return tokenizer.encode_more(text), len(text), document
        return np.concatenate([*[between][: number > 0], begin, tokenizer.encode(text)]), len(text), document

    for tokens, characters, document in _parallel(encode, pieces()):
        yield tokens
        done = min(total, done + characters)
        if progress is not None:
            progress(done, total, f"tokenising {Path(document.name).name}")


def _parallel(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """work(item) in order, a few at a time: the encoder lets go of Python's lock."""
    waiting: deque[Future[B]] = deque()
    workers = min(8, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            signals.check()
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # on Ctrl-C: do not finish the queue first
