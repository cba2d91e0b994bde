"""The Gemmas that are held to transformers: one head of keys for all queries, and as many as of queries.

`python plugins/gemma/tests/cases.py` writes their golden values.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

FOLDER = Path(__file__).parent
spec = spec_from_file_location("llama_peer", FOLDER.parent.parent / "llama" / "tests" / "peer.py")
peer = module_from_spec(spec)
spec.loader.exec_module(peer)


def golden(name):
    return FOLDER / "golden" / f"{name}.safetensors"


GEMMA = {"model_type": "gemma", "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True, "head_dim": 6}

CASES = {
    name: peer.Peer(golden(name), model, {"K": K, "D": 6, "eps": 1e-5}, GEMMA, "GemmaForCausalLM")
    for name, model, K in (("one", "gemma_2b", 1), ("all", "gemma_7b", 4))
}


if __name__ == "__main__":
    for case in CASES.values():
        case.write()
