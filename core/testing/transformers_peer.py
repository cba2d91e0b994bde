"""transformers' side of `core.testing.check_model`: it reads our export, and computes loss, gradients and AdamW steps.

transformers shares no code with our ops. torch and transformers are imported when a function is called.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import CheckFailed
from core.testing.small_model import CONFIG, IGNORED, OPTIONS, RATE, STEPS, Array, SmallModel


def peers_values(case: SmallModel) -> dict[str, Array]:
    """The results of transformers' class: logits, loss, gradients as "d" + our parameter, and `STEPS` losses.

    It loads our export, and its gradients come back through `save_pretrained` and our reader, so that neither side's
    names are written twice. Sums are in f64 where transformers has the choice. CheckFailed for a model that
    transformers reads as another one, or saves with other values.
    """
    import torch

    torch.set_num_threads(1)  # for tensors this small, its threads only wait for each other
    with tempfile.TemporaryDirectory() as place:
        ours, theirs = case.folder(Path(place) / "ours"), Path(place) / "theirs"
        model = load_peer(ours, case.peer)
        model.float().save_pretrained(theirs)
        check_saved(case, theirs)
        model.double()
        tokens, targets = (torch.tensor(case.batch[name], dtype=torch.long) for name in ("tokens", "targets"))

        def loss() -> Any:
            return (case.objective or peer_loss)(model, tokens, targets)

        now = loss()
        now.backward()
        values = {"logits": model(tokens).logits.detach().numpy(), "loss": now.detach().numpy()}
        held = list(model.parameters())
        decay = [
            p.ndim > 1 and not any(fnmatchcase(n, glob) for glob in case.undecayed) for n, p in model.named_parameters()
        ]
        before = [p.data for p in held]
        for p in held:
            p.data = p.grad.float()
        model.save_pretrained(theirs)
        (theirs / CONFIG).write_bytes((ours / CONFIG).read_bytes())
        values |= {"d" + name: np.array(value) for name, value in case.read(theirs).items()}
        for p, value in zip(held, before, strict=True):
            p.data = value
        losses = adamw_losses(held, decay, loss)
    return {**{name: value.astype(np.float32) for name, value in values.items()}, "losses": np.array(losses)}


def load_peer(folder: Path, peer: str) -> Any:
    """transformers' model of a folder, in f64. Raises CheckFailed for another class or tensors that do not fit."""
    import torch
    from transformers import AutoModelForCausalLM

    how = {"attn_implementation": "eager", "experts_implementation": "eager"}
    reader: Any = AutoModelForCausalLM
    model, report = reader.from_pretrained(folder, output_loading_info=True, dtype=torch.float32, **how)
    if type(model).__name__ != peer:
        raise CheckFailed(f"transformers reads our export as {type(model).__name__}, expected {peer}")
    wrong = {kind: sorted(map(str, names)) for kind, names in report.items() if names}
    if wrong:
        raise CheckFailed(f"transformers reads our export with tensors that do not fit {peer}: {wrong}")
    return model.double()


def check_saved(case: SmallModel, folder: Path) -> None:
    """Check that the files that transformers saves, config.json included, are read as the same weights."""
    back = case.read(folder)
    wrong = [name for name, value in case.weights.items() if not np.array_equal(back[name], value)]
    if wrong:
        raise CheckFailed(f"{case.name}: transformers saves other values than it read: {', '.join(wrong)}")


def peer_loss(model: Any, tokens: Any, targets: Any) -> Any:
    """The mean cross-entropy of transformers' model, a scalar tensor; tokens, targets: (B, T) torch.long."""
    from torch.nn import functional

    return functional.cross_entropy(model(tokens).logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def adamw_losses(held: Sequence[Any], decay: Sequence[bool], loss: Callable[[], Any]) -> list[float]:
    """The losses before each of `STEPS` steps of torch's AdamW. decay: whether each parameter decays."""
    import torch

    groups = [
        {
            "params": [p for p, decays in zip(held, decay, strict=True) if decays],
            "weight_decay": OPTIONS["weight_decay"],
        },
        {"params": [p for p, decays in zip(held, decay, strict=True) if not decays], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=RATE, betas=tuple(OPTIONS["betas"]), eps=OPTIONS["eps"])  # type: ignore[arg-type]
    losses = []
    for _ in range(STEPS):
        adamw.zero_grad()
        now = loss()
        now.backward()
        adamw.step()
        losses.append(float(now.detach()))
    return losses
