"""The Mistrals that are held to transformers: with a window and without.

`python plugins/mistral/tests/cases.py` writes their golden values.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

FOLDER = Path(__file__).parent
spec = spec_from_file_location("llama_peer", FOLDER.parent.parent / "llama" / "tests" / "peer.py")
peer = module_from_spec(spec)
spec.loader.exec_module(peer)


def golden(name):
    return FOLDER / "golden" / f"{name}.safetensors"


MISTRAL = {"model_type": "mistral", "tie_word_embeddings": False, "head_dim": 4}

CASES = {
    name: peer.Peer(
        golden(name), model, {"W": window, "base": 10000.0}, {**MISTRAL, "sliding_window": window or None},
        "MistralForCausalLM",
    )
    for name, model, window in (("window", "mistral_7b_v01", 5), ("all", "mistral_7b", 0))
}  # fmt: skip


if __name__ == "__main__":
    for case in CASES.values():
        case.write()
