"""Files of the Hugging Face hub: fetched whole, resumed, hashed, and never written over a different file.

huggingface_hub (the extra `hub`) lists the files with their sizes and hashes; the bytes are sent through
core/download.py, because the library drops a partial download and waits minutes for a silent network. A file is
downloaded to `.partial/` in the target folder, resumes where it stopped, and gets its name when its hash equals the
hub's. The module knows no model and no run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import atomic_files, download, files
from core.data.shards import sha256_sidecar
from core.download import PartialFile, Progress, hash_rest, resume
from core.errors import DataError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SECONDS = 9.0  # until a network that does not answer, or falls silent, is given up
SPARE = 64 << 20  # bytes of the disk that are left free
PARTIAL = ".partial"
ENDPOINT = "HF_ENDPOINT"
FIXES = (
    "one of: (1) look at the network and its proxy (HTTPS_PROXY), and run this again: it resumes where it stopped; "
    f"(2) set {ENDPOINT} to a mirror of huggingface.co; (3) fetch the files elsewhere and copy them here: {{files}}"
)


@dataclass(frozen=True)
class Collection:
    """A repository of the hub, and files in it."""

    repository: str
    kind: str  # "dataset" or "model"
    files: tuple[str, ...]


@dataclass(frozen=True)
class Remote:
    """One file as the hub describes it. hash: its sha256, or git's sha1 of a blob where that is all there is."""

    name: str
    url: str
    size: int
    hash: str

    def hasher(self) -> Any:
        if len(self.hash) == 64:
            return hashlib.sha256()
        return hashlib.sha1(f"blob {self.size}\0".encode())


@dataclass(frozen=True)
class Fetched:
    """A file that is here now; `new` if it was not before."""

    path: Path
    size: int
    new: bool


def fetch(collection: Collection, out: Path, progress: Progress | None = None) -> list[Fetched]:
    """All files of a collection in `out`, each with the hub's hash; a file that is present and right is left as it is.

    Raises DataError within seconds where the network does not answer, for files here that differ, and for a disk
    without room; UsageError without huggingface_hub. Nothing is deleted; a partial file is kept for the next time.
    """
    remotes = _describe(collection)
    missing = [remote for remote in remotes if not _is_here(out / remote.name, remote)]
    _check_room(out, missing)
    for remote in missing:
        try:
            _download(remote, out, progress)
        except OSError as error:
            raise DataError(
                f"{out / remote.name}: cannot be written: {error.strerror or error}",
                hint="make room, or --out elsewhere",
            ) from None
    with contextlib.suppress(OSError):
        (out / PARTIAL).rmdir()
    return [Fetched(out / remote.name, remote.size, remote in missing) for remote in remotes]


# --- listings -------------------------------------------------------------------------------------------------------


def _library() -> type[HfApi]:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise UsageError(
            "fetching needs the huggingface_hub library, which is not installed", hint='pip install "corelm[hub]"'
        ) from None
    return HfApi


def _describe(collection: Collection) -> list[Remote]:
    """Facts of the files on the hub, in one request. DataError without an answer that has all of them."""
    api = _library()(endpoint=os.environ.get(ENDPOINT) or None, token=False)
    names = list(collection.files)

    def ask() -> dict[str, Remote]:
        listed = api.get_paths_info(collection.repository, names, repo_type=collection.kind)
        return {info.path: _remote(collection, info, api.endpoint) for info in listed}

    description = _within(SECONDS, ask, api.endpoint, collection)
    absent = [name for name in names if name not in description]
    if absent:
        raise DataError(
            f"{collection.repository} on {api.endpoint} has no {', '.join(absent[:3])}",
            hint="name a repository that has them",
        )
    return [description[name] for name in names]


def _remote(collection: Collection, info: Any, endpoint: str) -> Remote:
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(collection.repository, info.path, repo_type=collection.kind, endpoint=endpoint)
    digest = info.lfs.sha256 if info.lfs else info.blob_id
    if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest) or not isinstance(info.size, int) or info.size < 0:
        raise ValueError(f"{info.path}: {info.size!r} bytes with the hash {digest!r}")
    return Remote(info.path, url, info.size, digest)


def _within(seconds: float, ask: Callable[[], Any], endpoint: str, collection: Collection) -> Any:
    """The answer, or DataError after at most `seconds` in all."""
    try:
        return download.within(seconds, ask)
    except download.TimeIsUp:
        raise _unreachable(f"no answer from {endpoint} within {seconds:.0f} s", collection.files) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _unreachable(f"{endpoint} answered, but not as the hub does: a sign-in page?", collection.files) from None
    except Exception as error:  # of the network or of the library
        raise _unreachable(f"{endpoint}: {download.first_line(error)}", collection.files) from None


def _unreachable(why: str, files: tuple[str, ...]) -> DataError:
    shown = ", ".join(files[:2]) + (", ..." if len(files) > 2 else "")
    return DataError(f"{why}; nothing here was changed", hint=FIXES.format(files=shown))


# --- local files -----------------------------------------------------------------------------------------------------


def _is_here(path: Path, remote: Remote) -> bool:
    """Whether the file is here and right. Raises DataError if a different file exists; never overwrites it."""
    if not path.exists():
        return False
    if path.is_file() and path.stat().st_size == remote.size:
        hasher = remote.hasher()
        with path.open("rb") as file:
            hash_rest(file, hasher)
        if hasher.hexdigest() == remote.hash:
            return True
    raise DataError(
        f"{path} differs from the hub's file ({remote.size:,} bytes, {remote.hash[:16]}...); it is unchanged",
        hint="move it away, or name another folder with --out",
    )


def _check_room(out: Path, missing: list[Remote]) -> None:
    """DataError when the disk has no room for the bytes still to download."""
    have = sum(_partial(out, remote).stat().st_size for remote in missing if _partial(out, remote).is_file())
    needed = sum(remote.size for remote in missing) - have
    folder = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free
    if needed and needed + SPARE > free:
        raise DataError(
            f"{out}: {needed:,} bytes are missing, and the disk has {free:,} left", hint="make room, or --out elsewhere"
        )


# --- bytes -----------------------------------------------------------------------------------------------------------


def _partial(out: Path, remote: Remote) -> Path:
    """The place of an unfinished download; the hash in its name keeps another version's bytes apart."""
    return out / PARTIAL / f"{remote.name}.{remote.hash[:16]}"


def _download(remote: Remote, out: Path, progress: Progress | None) -> None:
    """Fetch the missing bytes of a file, check its hash, give it its name. A dropped connection is resumed as
    long as each attempt brings something."""
    path = _partial(out, remote)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if path.exists() else "w+b") as file:
        part = PartialFile(file, remote.size, remote.hasher)

        def notify() -> None:
            if progress is not None:
                progress(part.have, remote.size, remote.name)

        while part.have < remote.size:
            before = part.have
            why = resume(part, remote.url, SECONDS, notify)
            if part.have <= before:
                so_far = f"{part.have:,} of {remote.size:,} bytes are kept"
                raise _unreachable(f"{remote.url}: {why}; {so_far}", (remote.name,))
        file.flush()
        os.fsync(file.fileno())
    if part.hasher.hexdigest() != remote.hash:
        path.unlink()  # ours, and of no use: with it, every next attempt would fail as well
        raise DataError(
            f"{remote.url}: the download has the hash {part.hasher.hexdigest()[:16]}..., the hub has "
            f"{remote.hash[:16]}...; the download was removed",
            hint="run this again; if it happens again, a proxy between this machine and the hub may change files",
        )
    files.rename(path, out / remote.name)
    if len(remote.hash) == 64:
        sidecar = sha256_sidecar(out / remote.name)
        atomic_files.replace(sidecar, f"{remote.hash}  {Path(remote.name).name}\n".encode())
