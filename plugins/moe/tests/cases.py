"""The mixtures of experts that are held to transformers: with a tied head and with its own.

`python plugins/moe/tests/cases.py` writes their golden values.
"""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
spec = spec_from_file_location("llama_peer", FOLDER.parent.parent / "llama" / "tests" / "peer.py")
peer = module_from_spec(spec)
spec.loader.exec_module(peer)


class Mixtral(peer.Peer):
    """A file has a tensor for each matrix of an expert; in memory those of all experts are one, as ours are."""

    eager = {**peer.Peer.eager, "experts_implementation": "eager"}

    def config_json(self):
        sizes = {"num_local_experts": "E", "num_experts_per_tok": "A", "router_aux_loss_coef": "balance"}
        return super().config_json() | {key: self.dims[dim] for key, dim in sizes.items()}

    def layer(self, of, C, F):
        experts = [f"{of}.block_sparse_moe.experts.{e}" for e in range(self.dims["E"])]
        return super().layer(of, C, F) | {
            "gate.weight": {f"{of}.block_sparse_moe.gate.weight": (self.dims["E"], C)},
            "fc.weight": {f"{expert}.{name}.weight": (F, C) for expert in experts for name in ("w1", "w3")},
            "down.weight": {f"{expert}.w2.weight": (C, F) for expert in experts},
        }

    def ours(self, values):
        found = super().ours(values)
        for name in found:
            if name.endswith((".fc.weight", ".down.weight")):
                found[name] = found[name].reshape(self.dims["E"], -1, found[name].shape[-1])
        return found

    def in_memory(self, tensors):
        found = {name: value for name, value in tensors.items() if ".experts." not in name}
        ours = self.ours(tensors)
        for i in range(self.dims["L"]):
            experts = f"model.layers.{i}.block_sparse_moe.experts"
            found[f"{experts}.gate_up_proj"] = ours[f"h.{i}.fc.weight"]
            found[f"{experts}.down_proj"] = ours[f"h.{i}.down.weight"]
        return {name.replace(".block_sparse_moe.", ".mlp."): value for name, value in found.items()}

    def in_file(self, tensors):
        found = {}
        for name, value in tensors.items():
            layer, _, rest = name.partition(".mlp.")
            if not rest.startswith("experts."):
                found[f"{layer}.block_sparse_moe.{rest}" if rest else name] = value
                continue
            names = ("w1", "w3") if rest == "experts.gate_up_proj" else ("w2",)
            for e, expert in enumerate(value):
                for w, part in zip(names, np.split(expert, len(names)), strict=True):
                    found[f"{layer}.block_sparse_moe.experts.{e}.{w}.weight"] = part
        return found

    def objective(self, model, tokens, targets):
        """With their load-balancing loss of each layer; their own would take all layers' tokens for one layer's."""
        from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

        routers = model(tokens, output_router_logits=True).router_logits
        terms = [load_balancing_loss_func((logits,), self.dims["E"], self.dims["A"]) for logits in routers]
        return super().objective(model, tokens, targets) + self.dims["balance"] * sum(terms) / len(terms)

    def their_loss(self, routers):
        """transformers' own loss of the batch's tokens, each the target of the one before. routers: as its config."""
        import torch

        torch.set_num_threads(1)
        model, tokens = self.build(), torch.tensor(self.batch["tokens"], dtype=torch.long)
        model.config.output_router_logits = routers
        model.router_aux_loss_coef = self.dims["balance"]
        return float(model(tokens, labels=tokens, output_router_logits=routers).loss.detach())


LOSSES = FOLDER / "golden" / "losses.json"  # case -> transformers' own loss without its term and with it


def their_losses():
    return {name: {"false": case.their_loss(False), "true": case.their_loss(True)} for name, case in ALL.items()}


def golden(name):
    return FOLDER / "golden" / f"{name}.safetensors"


DIMS = {"E": 5, "A": 2, "F": 8, "balance": 0.5, "base": 10000.0}
MIXTRAL = {"model_type": "mixtral", "router_jitter_noise": 0.0, "head_dim": 4}

CASES = {
    name: Mixtral(
        golden(name), model, DIMS | more, MIXTRAL | {"tie_word_embeddings": name == "tied"}, "MixtralForCausalLM"
    )
    for name, model, more in (("tied", "moe_125m", {}), ("apart", "mixtral_8x7b", {"E": 4, "A": 3}))
}


ALL = {
    **CASES,
    "one layer": Mixtral(
        golden("apart"), "mixtral_8x7b", DIMS | {"L": 1}, MIXTRAL | {"tie_word_embeddings": False}, "MixtralForCausalLM"
    ),
}


if __name__ == "__main__":
    LOSSES.write_text(json.dumps(their_losses(), indent=1) + "\n")
    for case in CASES.values():
        case.write()
