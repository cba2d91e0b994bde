"""Writing token shards to keep and to publish: from text, and from files of bare ids.

A run's own preparation is in `prepare.py`; this module writes a folder that can be kept, copied and checked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import files
from core.atomic_files import staged_folder
from core.config.out_folder import name_problem
from core.data.data_names import BUILTIN, Readers, expand, resolve
from core.data.documents import WHOLE, Progress, Reading, corpus_digest
from core.data.shard_writer import ShardWriter
from core.data.shards import SHARD_TOKENS, Format, format_for
from core.data.tokenising import tokenise
from core.errors import DataError, UsageError
from core.outside import read_array
from core.tokenizers.preference import choose_tokenizer
from core.tokenizers.recorded import load_tokenizer
from core.tokenizers.tokenizer import Tokenizer
from core.tokenizers.tokenizer_kind import Kinds

RAW_DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
RAW_CHUNK = 1 << 22  # tokens read at a time


@dataclass(frozen=True)
class ConvertedShards:
    """Written shards, their tokens, and the tokenizer (None for bare ids) with the reason for its choice."""

    paths: list[Path]
    tokens: int
    tokenizer: Tokenizer | None
    notes: list[str]


def text_to_shards(
    sources: Sequence[str],
    out: Path,
    *,
    split: str = "train",
    name: str | None = None,
    tokenizer: Sequence[str] = (),
    vocab_size: int = 4096,
    shard_tokens: int = SHARD_TOKENS,
    progress: Progress | None = None,
    reading: Reading = WHOLE,
    kinds: Kinds | None = None,
    readers: Readers | None = None,
) -> ConvertedShards:
    """Files, folders, globs or "builtin" as `out/<name>_<split>_000000.bin`, ... with sidecars and tokenizer.json.

    tokenizer: a preference list; without one, the folder's tokenizer.json, so that a second split gets the same, else
    gpt2, else bpe; kinds, readers: a registry's. UsageError when shards of that name exist, DataError when the folder
    has another tokenizer.
    """
    stem = _stem(out, name, split)
    notes: list[str] = []
    inputs = resolve(sources, split, "data prepare", notes, reading, readers)
    if inputs.shards or inputs.arrays:
        kind = "a token shard already" if inputs.shards else "an array"
        raise UsageError(f"{sources[0]}: expected text, this is {kind}", hint="use it as it is")
    recorded = out / "tokenizer.json"
    specs = list(tokenizer) or ([f"bpe:{recorded}"] if recorded.exists() else ["gpt2", "bpe"])
    choice = choose_tokenizer(
        specs,
        text=lambda: (block for document in inputs.documents for block in document.blocks()),
        digest=corpus_digest(inputs.documents),
        vocab_size=vocab_size,
        kinds=kinds,
    )
    if recorded.exists() and load_tokenizer(recorded, kinds=kinds).hash != choice.tokenizer.hash:
        raise DataError(
            f"{recorded}: the folder's shards were made with another tokenizer than {choice.why}",
            hint="leave --tokenizer out to use the folder's, or write to another folder",
        )
    if choice.tokenizer.eot is None:
        notes.append(f"tokenizer {choice.tokenizer.name} has no end of text: nothing is between two documents")
    chunks = tokenise(inputs.documents, choice.tokenizer, progress)
    record = {"tokenizer": choice.tokenizer.record(), "sources": [s if s == BUILTIN else Path(s).name for s in sources]}
    format = format_for(choice.tokenizer.vocab_size)
    paths, tokens = _write(chunks, out, stem, format, record, shard_tokens, choice.tokenizer)
    return ConvertedShards(paths, tokens, choice.tokenizer, [f"tokenizer: {choice.why}", *notes])


def raw_to_shards(
    sources: Sequence[str],
    out: Path,
    dtype: str,
    *,
    split: str = "train",
    name: str | None = None,
    shard_tokens: int = SHARD_TOKENS,
    progress: Progress | None = None,
) -> ConvertedShards:
    """Headerless files of ids, as nanoGPT's train.bin (uint16), as shards. Which tokenizer made them stays unknown."""
    stem = _stem(out, name, split)
    paths = [path for source in sources for path in expand(source, "data prepare")]
    itemsize = RAW_DTYPES[dtype].itemsize
    for path in paths:
        size = path.stat().st_size
        if not path.is_file() or size == 0 or size % itemsize:
            raise DataError(
                f"{path}: expected a file of {dtype} ids, got {size:,} bytes", hint="try the other --raw type"
            )
    total = sum(path.stat().st_size for path in paths) // itemsize

    def chunks() -> Iterator[NDArray[Any]]:
        done = 0
        for path in paths:
            size = path.stat().st_size // itemsize
            for at in range(0, size, RAW_CHUNK):
                count = min(RAW_CHUNK, size - at)
                yield read_array(path, RAW_DTYPES[dtype], at * itemsize, (count,))
                done += count
                if progress is not None:
                    progress(done, total, f"copying {path.name}")

    format = format_for(2 ** (8 * itemsize))
    written, tokens = _write(chunks(), out, stem, format, {"sources": [path.name for path in paths]}, shard_tokens)
    return ConvertedShards(written, tokens, None, [])


def _stem(out: Path, name: str | None, split: str) -> str:
    """The first part of the shards' names. UsageError for a folder that cannot be, and for shards that exist."""
    if why := name_problem(str(out)):
        raise UsageError(f"--out {str(out)[:60]!r}: {why}", hint="give a path to a folder")
    if name and (why := name_problem(name) or ("it is a path" if Path(name).name != name else "")):
        raise UsageError(f"--name {name[:60]!r}: {why}", hint="give the first part of the shards' names")
    stem = f"{name or os.path.basename(os.path.realpath(out))}_{split}"
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: expected a folder for the shards, got a file", hint="name a folder with --out")
    shards = sorted(out.glob(f"{stem}_*.bin"))
    if shards:
        raise UsageError(
            f"{shards[0]} exists; no file was overwritten", hint="choose another --out or --name, or remove it"
        )
    return stem


def _write(
    chunks: Iterator[NDArray[Any]],
    out: Path,
    stem: str,
    format: Format,
    record: dict[str, Any],
    shard_tokens: int,
    tokenizer: Tokenizer | None = None,
) -> tuple[list[Path], int]:
    """Shards written aside and moved into `out` when all are whole. Returns their paths and the number of tokens."""
    done = out / f".{stem}"
    try:
        with staged_folder(done) as staged:
            with ShardWriter(staged, stem, format, record, shard_tokens=shard_tokens) as writer:
                for chunk in chunks:
                    writer.write(chunk)
            if tokenizer is not None:
                (staged / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
        sidecars_first = sorted(done.iterdir(), key=lambda file: file.suffix == ".bin")
        for file in sidecars_first:  # where a shard is, all that belongs to it is
            files.rename(file, out / file.name)
        done.rmdir()
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written: {error.strerror or error}", hint="check the disk and its permissions"
        ) from None
    return [out / path.name for path in writer.paths], writer.tokens
