"""The Qwens that are held to transformers: a tied head and one of its own.

`python plugins/qwen/tests/cases.py` writes their golden values.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

FOLDER = Path(__file__).parent
spec = spec_from_file_location("llama_peer", FOLDER.parent.parent / "llama" / "tests" / "peer.py")
peer = module_from_spec(spec)
spec.loader.exec_module(peer)


def golden(name):
    return FOLDER / "golden" / f"{name}.safetensors"


CASES = {
    name: peer.Peer(
        golden(name), model, {"base": 10000.0, "eps": 1e-5}, {"model_type": "qwen2", "tie_word_embeddings": tied},
        "Qwen2ForCausalLM", biases=True,
    )
    for name, model, tied in (("tied", "qwen2_05b", True), ("apart", "qwen2_7b", False))
}  # fmt: skip


if __name__ == "__main__":
    for case in CASES.values():
        case.write()
