"""From `[data]` to token sources: names become files, text becomes tokens, and everything is checked.

A run calls `open_data`. Text is tokenised once and cached by the digests of its contents and of its tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.data.data_names import Readers, resolve
from core.data.documents import Progress, Reading, corpus_digest
from core.data.inputs import Inputs
from core.data.source import DataSource
from core.data.text_pieces import STREAM, as_list, token_pieces
from core.data.token_source import TokenSource
from core.errors import DataError
from core.outside import reads
from core.roles import TARGETS, TOKENS, V
from core.tokenizers.preference import TokenizerChoice, TokenizerNeed, recorded_choice
from core.tokenizers.tokenizer import Tokenizer
from core.tokenizers.tokenizer_kind import Kinds

if TYPE_CHECKING:
    from core.config.schema import DataTable
    from core.graph import Value


@dataclass
class Data:
    """The data of a run. `tokenizer` is None where shards have none: such a run has no samples.

    `notes` are sentences for the user: choices with their reasons, skipped files, suspicious but legal settings.
    """

    train: DataSource
    val: DataSource | None
    tokenizer: Tokenizer | None
    notes: list[str]
    why: str = ""  # how the tokenizer came to be chosen

    def describe(self) -> dict[str, Any]:
        """For state.json: the data that a resumed run must have again."""
        return {"train": self.train.describe(), "val": self.val.describe() if self.val else None}


@reads(DataError, "the training data")
def open_data(
    data: DataTable,
    *,
    dims: Mapping[str, Any],
    seed: int = 0,
    vocab: int | None = None,
    tokenizer: Tokenizer | None = None,
    where: Callable[[str], str] = str,
    offline: bool = False,
    progress: Progress | None = None,
    why: str = "recorded by the run",
    kinds: Kinds | None = None,
    readers: Readers | None = None,
    feeds: Mapping[str, Value] | None = None,
) -> Data:
    """The data of a run.

    data: `[data]` of a run config. dims: B and T, and V, the model's vocabulary, unless `vocab` gives it; tokenizer:
    the one that a checkpoint or the weights brought, instead of a choice, and `why`; where: a config key such as
    "data.train" to its place, for messages; offline: no download (CORELM_OFFLINE=1 does the same); kinds, readers: a
    registry's. feeds: role, or input without one -> the graph's input; by default tokens and targets. UsageError where
    names match nothing, DataError for the files' contents.
    """
    B, T = int(dims["B"]), int(dims.get("T", 1))
    vocab = vocab if vocab is not None else int(dims[V]) if V in dims else None
    notes: list[str] = []
    reading = Reading(*(getattr(data, key, "") for key in ("field", "separator", "messages")))
    groups = _groups(data, where, notes, reading, readers)
    train, val = (_joined(groups[part]) for part in ("train", "val"))
    _note_shared(train, val, notes)
    listed, place = as_list(data.tokenizer), where("data.tokenizer")
    need = TokenizerNeed(listed, vocab, tokenizer, why, place, offline, kinds, notes)
    choice = _choose(need, train, val, data.vocab_size)
    chosen = choice.tokenizer if choice else None
    sources: dict[str, DataSource] = {}
    for part, inputs in (("train", train), ("val", val)):
        if groups[part] and _text_alone(data, feeds, groups[part], inputs):
            pieces = [*inputs.shards, *inputs.pieces, *token_pieces(inputs.documents, chosen, notes, progress, part)]
            least = 2 if part == "val" else None
            sources[part] = source = TokenSource(pieces, B, T, seed=seed, vocab=vocab, name=part, least=least)
            source.check_tokens()
        elif groups[part]:
            from core.data.assemble import Setting, default_feeds, source_of

            feeds = feeds or default_feeds(B, T, vocab)
            setting = Setting(B, T, seed, vocab, feeds, data.layout, chosen, notes, progress, where)
            sources[part] = source_of(groups[part], data, setting, part)
    if choice is not None:
        notes.insert(0, f"tokenizer: {choice.why}")
    return Data(sources["train"], sources.get("val"), chosen, list(dict.fromkeys(notes)), choice.why if choice else "")


def _groups(
    data: DataTable, where: Callable[[str], str], notes: list[str], reading: Reading, readers: Readers | None
) -> Mapping[str, Mapping[str, Inputs]]:
    """Part -> the sources of its names: under "" that of a list, else as `core.data.assemble.groups_of` has it."""
    if getattr(data, "mix", {}) or isinstance(data.train, Mapping) or isinstance(data.val, Mapping):
        from core.data.assemble import parts_of

        return parts_of(data, where, notes, reading, readers)
    train = resolve(as_list(data.train), "train", where("data.train"), notes, reading, readers)
    val = as_list(data.val)
    return {
        "train": {"": train},
        "val": {"": resolve(val, "val", where("data.val"), notes, reading, readers)} if val else {},
    }


def _joined(groups: Mapping[str, Inputs]) -> Inputs:
    if len(groups) == 1:
        return next(iter(groups.values()))
    whole = Inputs()
    for inputs in groups.values():
        whole.add(inputs)
    return whole


def _text_alone(
    data: DataTable, feeds: Mapping[str, Value] | None, groups: Mapping[str, Inputs], inputs: Inputs
) -> bool:
    """Whether a part is a stream of text for a model that reads tokens and targets."""
    if [*groups] != [""] or inputs.conversations or inputs.arrays:
        return False
    return getattr(data, "layout", STREAM) == STREAM and (feeds is None or set(feeds) == {TOKENS, TARGETS})


def _note_shared(train: Inputs, val: Inputs, notes: list[str]) -> None:
    if shared := sorted(str(path) for path in train.files & val.files):
        notes.append(
            f"warning: train and val share {', '.join(shared[:3])}: the validation loss does not measure learning"
        )


def _choose(need: TokenizerNeed, train: Inputs, val: Inputs, vocab_size: int) -> TokenizerChoice | None:
    """The tokenizer: a recorded one, else that of the shards, else the config's preference. vocab_size: ids of one
    that is trained on the text."""
    shards = [*train.shards, *val.shards]
    if shards:
        from core.data.match import choose_for_shards  # for shards

        beside = bool(train.documents or val.documents or train.conversations or val.conversations)
        return choose_for_shards(need, shards, beside)
    if need.recorded is not None:
        return recorded_choice(need.recorded, need.why)
    if train.arrays and not train.documents and len(need.preference) > 1:
        return None  # numbers have no text unless one tokenizer is named
    if not train.documents and (train.pieces or train.arrays or train.conversations):
        from core.data.match import choose_without_text

        return choose_without_text(need)
    documents = train.documents
    return need.choose(
        need.preference,
        text=lambda: (block for document in documents for block in document.blocks()),
        digest=corpus_digest(documents),
        vocab_size=vocab_size,
    )
