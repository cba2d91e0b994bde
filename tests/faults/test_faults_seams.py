"""Errors at the seams: hints of every refusal of the system, text that is none behind its first MiB, and exports of
vocabularies with very long tokens."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from core.cli import run as core_command
from core.data.text_blocks import BLOCK_BYTES, read_blocks
from core.errors import BuildError, DataError
from core.kernels.sources import read_source
from core.loader import load_registry
from core.tokenizers.byte_pairs import BytePairTokenizer as Tokenizer
from core.tokenizers.folder import LONGEST_TOKEN, _split, to_tokenizers

ROOT = Path(__file__).resolve().parents[2]


def test_every_error_of_what_cannot_be_read_says_what_to_do() -> None:
    found, without = 0, []
    for path in (p for part in ("core", "ops", "plugins") for p in (ROOT / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Raise)
                and isinstance(node.exc, ast.Call)
                and "cannot be read: {error" in ast.unparse(node)
            ):
                found += 1
                if not any(keyword.arg == "hint" for keyword in node.exc.keywords):
                    without.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found > 5 and not without


def test_a_kernel_file_that_is_gone_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"add\.cu: cannot be read: No such file") as caught:
        read_source(tmp_path / "add.cu")
    assert "put it back" in caught.value.hint


def test_a_plugin_that_cannot_be_loaded_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from core import BuildError\nraise BuildError('no such thing')\n")
    with pytest.raises(BuildError, match="no such thing") as caught:
        load_registry([tmp_path / "mine.py"])
    assert caught.value.hint


@pytest.mark.parametrize("at", [0, BLOCK_BYTES, 2 * BLOCK_BYTES + 7])
def test_bytes_that_are_no_text_are_seen_wherever_they_begin(at: int, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(128, 256, BLOCK_BYTES).astype(np.uint8).tobytes()
    path = tmp_path / "a.txt"
    path.write_bytes((b"a line of text\n" * (at // 15 + 1))[:at] + b"\xff\xfa" + noise)
    notes: list[str] = []
    with pytest.raises(DataError, match=rf"a.txt: expected UTF-8 text, got something else from byte {at:,} on \(ff fa"):
        list(read_blocks(path, notes))


def test_a_run_on_text_that_is_none_behind_its_first_mib_ends_with_6(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    Path("a.txt").write_bytes(b"some text. " * 100_000 + b"\xff\xfe" * 400_000)
    assert core_command(["data", "prepare", "a.txt", "--tokenizer", "bytes", "--out", "d"]) == 6
    assert "from byte 1,100,000 on" in capsys.readouterr().err and not list(Path("d").rglob("*.bin"))


def test_a_few_damaged_letters_in_a_small_last_block_stay_a_note(tmp_path: Path) -> None:
    path, notes = tmp_path / "a.txt", list[str]()
    path.write_bytes(b"x" * BLOCK_BYTES + b"caf\xe9")
    assert "".join(read_blocks(path, notes)).endswith("caf\ufffd") and len(notes) == 1


def plain_split(token: bytes, ranks: Mapping[bytes, int], below: int) -> list[bytes]:
    """The definition: of all neighbours, the pair of the lowest rank is merged, until two parts are left."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [(ranks.get(a + b, below), i) for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False))]
        rank, i = min(pairs)
        if rank >= below:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def test_merges_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        tokens = [b"a", b"b", b"c"]
        for _ in range(30):
            a, b = rng.choice(len(tokens), 2)
            if tokens[a] + tokens[b] not in tokens:
                tokens.append(tokens[a] + tokens[b])
        ranks = {token: rank for rank, token in enumerate(tokens)}
        for rank, token in enumerate(tokens):
            if len(token) > 1:
                assert _split(token, ranks, rank) == plain_split(token, ranks, rank)


def test_a_long_token_takes_look_ups_in_proportion_to_its_length() -> None:
    """Counted: 2,000 bytes by the definition take two million."""

    class Counted(dict[bytes, int]):
        asked = 0

        def get(self, key: bytes, default: int = 0) -> int:  # type: ignore[override]
            Counted.asked += 1
            return super().get(key, default)

    token = b"a" * 2000
    ranks = Counted({b"a" * (2**i): i for i in range(11)})
    _split(token, ranks, 99)
    assert Counted.asked < 4 * len(token)


def test_a_token_beyond_the_bound_is_refused_before_it_is_split() -> None:
    single = [bytes([i]) for i in range(256)]
    tokenizer = Tokenizer("bpe", [*single, b"a" * (LONGEST_TOKEN + 1)], name="long")
    with pytest.raises(DataError, match=r"tokenizer long: its tokens have 16,641 bytes, the longest 16,385"):
        to_tokenizers(tokenizer)
