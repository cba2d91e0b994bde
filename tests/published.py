"""config.json files of published models, as they were saved from 2019 to 2025: every key kept, sizes shrunk.

tests/published.json is the table. An entry has the name on the hub, the year, `copy` (the public repository, path and
commit where the file was read; null where none was found: such a config is written from the documentation of its
class, and says less of what is really published), and what corelm makes of it: the registered `model` that reads it, or
the words of the error as which it is `refused`. `counted` are the 52 models of one survey of the hub, chosen before any
of them was tried. Sizes were shrunk alike for all: 2 layers, 16 features, 61 tokens; heads of keys stay as many as
heads of queries, or one, or become half as many; a width of heads that is not hidden_size / heads becomes 6; heads that
are turned in part become 2, of 8 or 10 features.

What transformers computes with a config and with weights drawn by their names is in tests/golden/published.json,
written by `python tests/peers/test_published.py`, as the tables of docs/interop.md are.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "published.json"
SEED, SHAPE, GREEDY = 20190214, (2, 13), 12  # of the batch, (B, T); tokens that are generated
PAD = 60  # the padding's id, which torch leaves without a gradient: it is not in the batch


@dataclass(frozen=True)
class Published:
    """A published file: an entry of tests/published.json. family: of the table in docs/interop.md."""

    hub: str
    year: int
    copy: str | None
    family: str
    counted: bool
    config: dict[str, Any]
    model: str = ""
    refused: str = ""
    note: str = ""

    @property
    def shown(self) -> str:
        """The name, with a star where no public copy was read."""
        return self.hub if self.copy else f"{self.hub}\\*"


TABLE = {name: Published(**entry) for name, entry in json.loads((HERE / "published.json").read_text()).items()}
READ = {name: entry for name, entry in TABLE.items() if entry.model}
REFUSED = {name: entry for name, entry in TABLE.items() if entry.refused}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight of a tensor, by its name alone: normal(0, 0.15), a norm's weight around 1. f32."""
    noise = 0.15 * np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return (noise + (1.0 if "norm" in name or "ln_" in name else 0.0)).astype(np.float32)


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Tokens and targets, (B, T) i32."""
    stream = np.random.RandomState(SEED)
    return stream.randint(0, PAD, SHAPE).astype(np.int32), stream.randint(0, PAD, SHAPE).astype(np.int32)


# --- the table of docs/interop.md ------------------------------------------------------------------------------------

BEGIN, END = "<!-- made by tests/peers/test_published.py -->", "<!-- until here -->"


def summary() -> list[str]:
    """How many of the counted models are read, a line of Markdown or two."""
    counted = [entry for entry in TABLE.values() if entry.counted]
    read, copies = sum(bool(e.model) for e in counted), sum(bool(e.copy) for e in counted)
    refused = len(counted) - read
    return [
        f"Of {len(counted)} models in a survey of the hub, {read} load as published and agree with transformers;",
        f"{refused} are refused by name. {copies} configs are public copies, with repository, path and commit in",
        "`tests/published.json`; those with a star follow the documentation of their classes.",
    ]


def _shown(size: Any) -> Any:
    """The dim of an absent key, as config.json would have it."""
    if size.flag:
        return json.dumps(bool(size.absent))
    return "null" if size.absent == size.sentinel else size.absent


def family_table(load: Any, sizes: Any, expected: Any) -> str:
    """The families as Markdown. load: a model's name -> its source; sizes, expected: of core.interop's table reader."""
    rows = ["| family | tested folders | model | class in an export | absent keys | keys with fixed values |"]
    rows.append("|---|---|---|---|---|---|")
    for family in dict.fromkeys(entry.family for entry in READ.values()):
        entries = [entry for entry in READ.values() if entry.family == family]
        models = list(dict.fromkeys(entry.model for entry in entries))
        source = load(models[0])
        by_key = {size.keys[0]: size for size in sizes(source).values() if size.absent is not None}
        absent = [f"`{key}` {_shown(size)}" for key, size in by_key.items()]
        pinned = [
            f"`{entry.keys[0].removesuffix('.*')}`" for entry in expected(source) if entry.keys != ("model_type",)
        ]
        folders = ", ".join(entry.shown for entry in entries)
        named = ", ".join(f"`{model}`" for model in models)
        written = source.document["hf"]["architectures"]
        written = written if isinstance(written, str) else written[0]
        rows.append(f"| {family} | {folders} | {named} | `{written}` | {', '.join(absent)} | {', '.join(pinned)} |")
    rows += ["", "| refused | reason |", "|---|---|"]
    rows += [f"| {entry.family}: {entry.shown} | {entry.refused} |" for entry in REFUSED.values()]
    rows += ["", *summary()]
    return "\n".join([BEGIN, *rows, END])


# --- what transformers computes ------------------------------------------------------------------------------------


def write_folder(folder: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Path:
    """A folder of the config and of tensors drawn by their names."""
    from safetensors.numpy import save_file

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {name: draw(name, shape) for name, shape in shapes.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def peer(folder: Path) -> Any:
    """transformers' model of a folder, which must take every tensor and lack none. Sums in f64 where it can."""
    import torch
    import transformers

    config = json.loads((folder / "config.json").read_text())
    kind = "AutoModelForCausalLM" if "model_type" in config else config["architectures"][0]
    model, report = getattr(transformers, kind).from_pretrained(
        folder,
        output_loading_info=True,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    assert not any(report.values()), report
    return model.double().eval()


def computed(model: Any) -> dict[str, Any]:
    """Logits, loss, gradients by transformers' names, and greedy tokens of the batch."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(1)
    tokens, targets = (torch.tensor(part, dtype=torch.long) for part in batch())
    logits = model(tokens).logits
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    named = {name: p.grad.numpy() for name, p in model.named_parameters()}
    norm = float(np.sqrt(sum((g**2).sum() for g in named.values())))
    how = {"do_sample": False, "use_cache": True, "eos_token_id": None, "pad_token_id": PAD}
    prompt = tokens[:, :4]
    greedy = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=GREEDY, **how)
    return {
        "logits": logits.detach().numpy(),
        "loss": float(loss.detach()),
        "norm": norm,
        "gradients": named,
        "greedy": greedy[:, 4:].tolist(),
    }
