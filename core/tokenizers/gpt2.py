"""GPT-2's tokenizer: the places of its 50,256 tokens, and one bounded attempt to download them.

The places in order: the file that CORELM_GPT2_RANKS names; our cache; tiktoken's cache, which is only read (tiktoken
itself would delete a file with a wrong hash, and download without a time limit); the network. The file must have
GPT-2's hash. A failed download is remembered, so that the next run does not wait for it again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from core import download, variables
from core.cache import cache_folder, read_json
from core.cache.writing import try_write
from core.errors import DataError
from core.outside import read_whole
from core.tokenizers.byte_pairs import GPT2_HASH as HASH
from core.tokenizers.byte_pairs import BytePairTokenizer
from core.tokenizers.token_files import load_byte_pairs, read_merges, read_ranks

URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"
URL_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
# The same tokens in tiktoken's own format, as its encoding r50k_base keeps them.
RANKS_URL = "https://openaipublic.blob.core.windows.net/encodings/r50k_base.tiktoken"
DOWNLOAD_SECONDS = 10.0
REMEMBER_SECONDS = 600.0
LARGEST = 4 << 20  # bytes: vocab.bpe has 456 kB, a longer download is not it
ENVIRONMENT = "CORELM_GPT2_RANKS"
OFFLINE = "CORELM_OFFLINE"  # set: only `core tokenizer fetch` downloads
FIXES = (
    "one of: (1) `core tokenizer fetch` where there is a network, then copy the file it names here; "
    f'(2) name a vocab.bpe or r50k_base.tiktoken: tokenizer = "gpt2:PATH", or {ENVIRONMENT}=PATH; '
    '(3) tokenizer = "bpe", trained on your own text, or "bytes"'
)


def load_gpt2(path: Path | None = None, *, offline: bool = False, again: bool = False) -> BytePairTokenizer:
    """GPT-2's tokenizer from `path`, or from wherever it is found.

    offline: no download; again: download even if an attempt failed minutes ago. DataError has the reason, and
    three remedies.
    """
    named = path or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if named is not None:  # an explicit file never falls back to another
        return _checked(load_byte_pairs(Path(os.path.expanduser(named)), "gpt2"), str(named))
    passed: list[str] = []
    for file, read in _places():
        try:
            if file.is_file():
                return _checked(BytePairTokenizer("gpt2", read(read_whole(file), file), name="gpt2"), str(file))
        except (DataError, OSError) as error:
            passed.append(
                f"{file} is left alone and not used ({error.message if isinstance(error, DataError) else error})"
            )
    try:
        if offline or (variables.flag(OFFLINE) and not again):
            raise DataError("it is not on this machine, and downloads are switched off")
        raw = _download_once(again)
    except DataError as error:
        raise DataError("; ".join(["gpt2: " + error.message, *passed]), hint=FIXES) from None
    return _checked(BytePairTokenizer("gpt2", read_merges(raw, URL), name="gpt2"), URL)


def cached_file() -> Path:
    """The place of a downloaded vocab.bpe."""
    return cache_folder() / "tokenizers" / "gpt2" / "vocab.bpe"


def _places() -> list[tuple[Path, Callable[[bytes, object], list[bytes]]]]:
    """Files that may hold the tokens, and how each is read."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    theirs = Path(tempfile.gettempdir()) / "data-gym-cache" if folder is None else Path(folder)
    places: list[tuple[Path, Callable[[bytes, object], list[bytes]]]] = [(cached_file(), read_merges)]
    if folder != "":  # an empty name is tiktoken's word for: no cache
        places.append((theirs / hashlib.sha1(URL.encode()).hexdigest(), read_merges))
        places.append((theirs / hashlib.sha1(RANKS_URL.encode()).hexdigest(), read_ranks))
    return places


def _checked(tokenizer: BytePairTokenizer, where: str) -> BytePairTokenizer:
    if tokenizer.hash != HASH:
        raise DataError(
            f"{where}: expected GPT-2's tokens, sha256 {HASH[:16]}..., got {tokenizer.hash[:16]}... "
            f"({tokenizer.vocab_size:,} ids)",
            hint='the file is damaged or another tokenizer\'s; name that one as "bpe:PATH"',
        )
    tokenizer.kind = tokenizer.name = "gpt2"
    return tokenizer


def _download_once(again: bool) -> bytes:
    """vocab.bpe from the network into our cache, at most one attempt in ten minutes."""
    memory = cache_folder() / "tokenizers" / "gpt2" / "failed.json"
    last = read_json(memory)
    if not again and isinstance(last, dict) and 0 <= time.time() - float(last.get("time", 0)) < REMEMBER_SECONDS:
        minutes = (time.time() - float(last["time"])) / 60
        raise DataError(
            f"the download failed {minutes:.0f} min ago ({last.get('why')}); `core tokenizer fetch` tries at once"
        )
    try:
        raw = download.small_file(URL, DOWNLOAD_SECONDS, LARGEST)
        if hashlib.sha256(raw).hexdigest() != URL_SHA256:
            start = raw[:40].decode("utf-8", "replace")
            raise DataError(
                f"the download from {URL} is not vocab.bpe ({len(raw):,} bytes, {start!r}): a sign-in page or a proxy?"
            )
    except DataError as error:
        try_write(memory, json.dumps({"time": time.time(), "why": error.message}).encode())
        raise
    try_write(cached_file(), raw)
    return raw
