"""The LLaMAs that are held to transformers.

`python plugins/llama/tests/cases.py` writes their golden values.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

FOLDER = Path(__file__).parent
spec = spec_from_file_location("llama_peer", FOLDER / "peer.py")
peer = module_from_spec(spec)
spec.loader.exec_module(peer)


def golden(name):
    return FOLDER / "golden" / f"{name}.safetensors"


LLAMA = {"model_type": "llama", "attention_bias": False, "mlp_bias": False}

CASES = {
    "tied": peer.Peer(golden("tied"), "llama_125m", {"K": 4}, {**LLAMA, "tie_word_embeddings": True, "head_dim": 4}),
    "wide": peer.Peer(  # heads that are not C / H wide
        golden("wide"), "tinyllama_1b", {"D": 6}, {**LLAMA, "tie_word_embeddings": False, "head_dim": 6}
    ),
    "scaled": peer.Peer(  # of the four pairs, one keeps its speed, one is between, and two are slowed down
        golden("scaled"),
        "llama3_1b",
        {"D": 8, "base": 50.0, "factor": 4.0, "low": 1.0, "high": 3.0, "length": 24},
        {**LLAMA, "tie_word_embeddings": True, "head_dim": 8},
    ),
}


if __name__ == "__main__":
    for case in CASES.values():
        case.write()
