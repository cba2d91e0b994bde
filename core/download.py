"""Downloads with a time limit: a small file in memory, or a large one resumed into a file and hashed on the way.

A socket's timeout restarts with each byte and covers neither name resolution nor proxies, so a thread does the
work and is abandoned when time is up. The callers choose URLs, places and error hints; this module writes only into
a file that is already open.
"""

from __future__ import annotations

import http.client
import queue
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from core.errors import DataError

T = TypeVar("T")
Progress = Callable[[int, int, str], None]  # bytes so far, bytes of the file, its name
CHUNK = 1 << 20


class TimeIsUp(Exception):
    """`within` returned before the work was done."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """The result of `work`, or its exception; TimeIsUp after at most `seconds`. The abandoned thread is a daemon."""
    answer: queue.Queue[tuple[T | None, Exception | None]] = queue.Queue()

    def attempt() -> None:
        try:
            answer.put((work(), None))
        except Exception as error:  # raised again on the waiting side
            answer.put((None, error))

    threading.Thread(target=attempt, daemon=True, name="download").start()
    try:
        result, error = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeIsUp from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def small_file(url: str, seconds: float, largest: int) -> bytes:
    """At most `largest` bytes of a file, or DataError after at most `seconds` in all."""

    def read() -> bytes:
        import urllib.request  # with TLS a tenth of a second, and only a download needs it

        with urllib.request.urlopen(url, timeout=2 * seconds) as response:
            content: bytes = response.read(largest)
        return content

    try:
        return within(seconds, read)
    except TimeIsUp:
        raise DataError(f"no answer from {url} within {seconds:.0f} s") from None
    except Exception as error:  # of the network, of TLS, of HTTP
        raise DataError(f"{url} cannot be reached: {getattr(error, 'reason', None) or error}") from None


class PartialFile:
    """A partial download: the bytes that the open file has, and their hash so far.

    hasher: makes an empty hash object. size: bytes of the whole file.
    """

    def __init__(self, file: BinaryIO, size: int, hasher: Callable[[], Any]) -> None:
        self.file, self.size, self._empty = file, size, hasher
        self.hasher = hasher()
        self.have = hash_rest(file, self.hasher)
        if self.have > size:
            self.restart()

    def restart(self) -> None:
        """Drop all bytes."""
        self.file.seek(0)
        self.file.truncate()
        self.have, self.hasher = 0, self._empty()

    def add(self, chunk: bytes) -> None:
        self.file.write(chunk)
        self.hasher.update(chunk)
        self.have += len(chunk)


def resume(part: PartialFile, url: str, seconds: float, notify: Callable[[], None]) -> str:
    """Append the server's bytes from the end of `part`; `notify` after each chunk. Returns the reason of their end.

    seconds: of silence. A server without ranges sends the file from its start. OSError of the disk passes.
    """
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, headers={"Range": f"bytes={part.have}-", "Accept-Encoding": "identity"})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
            begin, total = _range(response)
            if total != part.size or begin not in (0, part.have):
                return f"sent bytes from {begin} of {total}, expected {part.have} of {part.size}: a sign-in page?"
            if begin != part.have:
                part.restart()
            while chunk := response.read1(min(CHUNK, part.size - part.have)):
                part.add(chunk)
                notify()
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code} {error.reason}"
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        return first_line(error)
    return "the connection ended"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters; of its reason where it has one."""
    text = str(getattr(error, "reason", None) or error) or type(error).__name__
    return text.strip().splitlines()[0][:200]


def hash_rest(file: BinaryIO, hasher: Any) -> int:
    """Feed an open file, from its position to its end, into a hash. Returns the number of bytes."""
    count = 0
    while chunk := file.read(CHUNK):
        hasher.update(chunk)
        count += len(chunk)
    return count


def _range(response: Any) -> tuple[int, int]:
    """(first byte, bytes of the whole file) of an answer; (-1, -1) where its headers lack them."""
    try:
        if response.status == 206:  # Content-Range: bytes 5-9/10
            span, _, total = response.headers["Content-Range"].removeprefix("bytes ").partition("/")
            return int(span.partition("-")[0]), int(total)
        return 0, int(response.headers["Content-Length"])
    except (KeyError, ValueError, AttributeError, TypeError):
        return -1, -1
