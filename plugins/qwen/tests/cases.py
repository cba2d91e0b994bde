"""The Qwens that are held to transformers: a tied head and one of its own, of Qwen 2 and of Qwen 3.

`python plugins/qwen/tests/cases.py` writes their golden values.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

FOLDER = Path(__file__).parent
spec = spec_from_file_location("llama_peer", FOLDER.parent.parent / "llama" / "tests" / "peer.py")
peer = module_from_spec(spec)
spec.loader.exec_module(peer)


class Qwen3(peer.Peer):
    def layer(self, of, C, F):
        norms = {f"qk.{name}_weight": {f"{of}.self_attn.{name}_norm.weight": (self.width,)} for name in ("q", "k")}
        return super().layer(of, C, F) | norms


def golden(name):
    return FOLDER / "golden" / f"{name}.safetensors"


SMALL = {"base": 10000.0, "eps": 1e-5}
QWEN2, QWEN3 = {"model_type": "qwen2"}, {"model_type": "qwen3", "attention_bias": False, "head_dim": 6}

CASES = {
    name: peer.Peer(
        golden(name), model, SMALL, {**QWEN2, "tie_word_embeddings": tied}, "Qwen2ForCausalLM", biases=True
    )
    for name, model, tied in (("tied", "qwen2_05b", True), ("apart", "qwen2_7b", False))
} | {
    name: Qwen3(
        golden(name), model, {**SMALL, "D": 6}, {**QWEN3, "tie_word_embeddings": tied}, "Qwen3ForCausalLM"
    )
    for name, model, tied in (("qwen3_tied", "qwen3_06b", True), ("qwen3_apart", "qwen3_8b", False))
}  # fmt: skip


if __name__ == "__main__":
    for case in CASES.values():
        case.write()
