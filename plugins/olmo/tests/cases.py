"""The OLMos that are held to transformers: a head of keys for each of queries, and for every two.

`python plugins/olmo/tests/cases.py` writes their golden values.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

FOLDER = Path(__file__).parent
spec = spec_from_file_location("llama_peer", FOLDER.parent.parent / "llama" / "tests" / "peer.py")
peer = module_from_spec(spec)
spec.loader.exec_module(peer)


class Olmo2(peer.Peer):
    def layer(self, of, C, F):
        q, k = self.dims["H"] * self.width, self.dims["K"] * self.width
        return super().layer(of, C, F) | {
            "norm_1.weight": {f"{of}.post_attention_layernorm.weight": (C,)},
            "norm_2.weight": {f"{of}.post_feedforward_layernorm.weight": (C,)},
            "qk.q_weight": {f"{of}.self_attn.q_norm.weight": (q,)},
            "qk.k_weight": {f"{of}.self_attn.k_norm.weight": (k,)},
        }


def golden(name):
    return FOLDER / "golden" / f"{name}.safetensors"


OLMO = {"model_type": "olmo2", "attention_bias": False, "tie_word_embeddings": False}

CASES = {
    name: Olmo2(golden(name), model, {"K": K, "base": 10000.0, "eps": 1e-5}, OLMO, "Olmo2ForCausalLM")
    for name, model, K in (("all", "olmo2_1b", 4), ("groups", "olmo2_7b", 2))
}


if __name__ == "__main__":
    for case in CASES.values():
        case.write()
