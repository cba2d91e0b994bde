"""Small models of LLaMA's family as transformers computes them: golden values, and what is held to them.

transformers shares no line with our ops; which of its tensors is which of ours is said below, once more than in the
models' [hf] tables. Weights and batches come from `numpy.random.RandomState`, whose streams NumPy has frozen, so the
files hold results alone: logits, loss and gradients of one batch, and the losses of ten AdamW steps. A plugin's
cases.py has its cases, and writes the files; nothing here but `build` and `compute` needs torch.
"""

import json
import zlib
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
from safetensors.numpy import load_file, save_file

from core.engine import Engine, Settings
from core.graph import load_model
from core.interop import export_huggingface
from core.interop.export import prepare
from core.interop.opened import open_path
from core.loader import load_registry

SEED = 20230227
IGNORED = -1  # a target that does not count
STEPS = 10
OPTIMIZER = {"lr": 1e-2, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
SMALL = {"B": 2, "T": 13, "S": 64, "V": 37, "P": "pad(V, 64)", "C": 16, "H": 4, "K": 2, "F": 24, "L": 2}

# relative 2-norms. transformers has norms and angles in f32, whatever the precision
LOGITS, GRADIENT, LOSSES = 2e-6, 1e-5, 1e-5
SIMULATED = {"f32": LOSSES, "bf16": 2**-7}  # of losses; bf16 keeps eight bits


@cache
def registry():
    return load_registry()


def references():
    return {op: "reference" for op, variants in registry().variants.items() if "reference" in variants}


def unfused():
    return {"fusion": {name: False for name, op in registry().ops.items() if op.replaces}}


CHOICES = {"auto": dict, "references": lambda: {"ops": references()}, "unfused": unfused}


def distance(got, expected):
    """Relative 2-norm of the difference."""
    expected = np.asarray(expected, np.float64)
    return np.linalg.norm(np.asarray(got, np.float64) - expected) / np.linalg.norm(expected)


@dataclass
class Peer:
    """A case: our `model` with `dims`, and what config.json says besides the sizes.

    file: its golden values. biases: whether queries, keys and values have them.
    """

    file: Path
    model: str
    dims: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    architecture: str = "LlamaForCausalLM"
    biases: bool = False
    eager: ClassVar = {"attn_implementation": "eager"}  # what transformers computes with, where it has a choice

    def __post_init__(self):
        self.dims = {**SMALL, **self.dims}

    @property
    def width(self):
        return self.dims.get("D", self.dims["C"] // self.dims["H"])

    @property
    def tied(self):
        return self.config["tie_word_embeddings"]

    def config_json(self):
        """What config.json holds, as transformers writes it."""
        dims = self.dims
        rope = {"rope_type": "default", "rope_theta": dims.get("base", 10000.0)}
        if "factor" in dims:
            rope |= {"rope_type": "llama3", "factor": dims["factor"], "low_freq_factor": dims["low"]}
            rope |= {"high_freq_factor": dims["high"], "original_max_position_embeddings": dims["length"]}
        return {
            "architectures": [self.architecture],
            "hidden_act": "silu",
            "hidden_size": dims["C"],
            "intermediate_size": dims["F"],
            "num_hidden_layers": dims["L"],
            "num_attention_heads": dims["H"],
            "num_key_value_heads": dims["K"],
            "vocab_size": dims["V"],
            "max_position_embeddings": dims["S"],
            "rms_norm_eps": 1e-5,
            "rope_parameters": rope,
            **self.config,
        }

    def theirs(self):
        """Our parameter -> their tensors, whose rows follow one another, each with its shape."""
        found = {"wte.weight": {"model.embed_tokens.weight": (self.dims["V"], self.dims["C"])}}
        for i in range(self.dims["L"]):
            layer = self.layer(f"model.layers.{i}", self.dims["C"], self.dims["F"])
            found |= {f"h.{i}.{name}": parts for name, parts in layer.items()}
        found["norm.weight"] = {"model.norm.weight": (self.dims["C"],)}
        if not self.tied:
            found["logits.weight"] = {"lm_head.weight": (self.dims["V"], self.dims["C"])}
        return found

    def layer(self, of, C, F):
        """`theirs` of one layer, by our names within it; `of` is what theirs begin with."""
        q, k = self.dims["H"] * self.width, self.dims["K"] * self.width
        packed = {f"{of}.self_attn.{name}_proj": rows for name, rows in (("q", q), ("k", k), ("v", k))}
        found = {
            "norm_1.weight": {f"{of}.input_layernorm.weight": (C,)},
            "qkv.weight": {f"{name}.weight": (rows, C) for name, rows in packed.items()},
            "proj.weight": {f"{of}.self_attn.o_proj.weight": (C, q)},
            "norm_2.weight": {f"{of}.post_attention_layernorm.weight": (C,)},
            "fc.weight": {f"{of}.mlp.gate_proj.weight": (F, C), f"{of}.mlp.up_proj.weight": (F, C)},
            "down.weight": {f"{of}.mlp.down_proj.weight": (C, F)},
        }
        if self.biases:
            found["qkv.bias"] = {f"{name}.bias": (rows,) for name, rows in packed.items()}
        return found

    def tensors(self):
        """Their tensors, f32: normal(0, 0.25), a norm's weight around 1. Nothing is 0 and nothing equal."""
        drawn = {}
        for parts in self.theirs().values():
            for name, shape in parts.items():
                noise = 0.25 * np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
                drawn[name] = (noise + ("norm" in name)).astype(np.float32)
        return drawn

    def ours(self, values):
        """Values by their names, put together by ours."""
        return {name: np.concatenate([values[part] for part in parts]) for name, parts in self.theirs().items()}

    @property
    def batch(self):
        """{"tokens", "targets"} of (B, T) i32; three of the targets do not count."""
        stream, shape = np.random.RandomState(SEED), (self.dims["B"], self.dims["T"])
        tokens, targets = (stream.randint(0, self.dims["V"], shape).astype(np.int32) for _ in range(2))
        targets.reshape(-1)[stream.permutation(targets.size)[:3]] = IGNORED
        return {"tokens": tokens, "targets": targets}

    # --- transformers ------------------------------------------------------------------------------------------

    def build(self):
        """The model with those weights. Sums are in f64 where it lets them be."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.for_model(**self.config_json())
        model = AutoModelForCausalLM.from_config(config, **self.eager)
        assert type(model).__name__ == self.architecture
        given = {name: torch.tensor(value) for name, value in self.in_memory(self.tensors()).items()}
        missing, unexpected = model.load_state_dict(given, strict=False)
        assert set(missing) <= {"lm_head.weight"} and not unexpected
        model.tie_weights()
        return model.double()

    def in_memory(self, tensors):
        """A file's tensors by the names and in the shapes that the model has them in."""
        return tensors

    def in_file(self, tensors):
        """And the other way round."""
        return tensors

    def objective(self, model, tokens, targets):
        from torch.nn.functional import cross_entropy

        return cross_entropy(model(tokens).logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    def compute(self):
        """Everything that the file holds."""
        import torch

        torch.set_num_threads(1)  # for tensors this small, its threads only wait for each other
        model = self.build()
        tokens, targets = (torch.tensor(self.batch[name], dtype=torch.long) for name in ("tokens", "targets"))

        def loss():
            return self.objective(model, tokens, targets)

        loss().backward()
        gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
        found = {"logits": model(tokens).logits.detach().numpy(), "loss": loss().detach().numpy()}
        found |= {"d" + name: value for name, value in self.ours(self.in_file(gradients)).items()}

        weights = list(model.parameters())
        groups = [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": OPTIMIZER["weight_decay"]},
            {"params": [p for p in weights if p.ndim == 1], "weight_decay": 0.0},
        ]
        how = {"lr": OPTIMIZER["lr"], "betas": tuple(OPTIMIZER["betas"]), "eps": OPTIMIZER["eps"]}
        adamw, losses = torch.optim.AdamW(groups, **how), []
        for _ in range(STEPS):
            adamw.zero_grad()
            now = loss()
            now.backward()
            adamw.step()
            losses.append(float(now.detach()))
        return {**{name: value.astype(np.float32) for name, value in found.items()}, "losses": np.array(losses)}

    def write(self):
        import torch
        import transformers

        save_file(self.compute(), self.file, {"torch": torch.__version__, "transformers": transformers.__version__})
        self.file.chmod(0o644)
        print(f"{self.file.name}: {self.file.stat().st_size} bytes")

    # --- ours, held to it --------------------------------------------------------------------------------------

    @cached_property
    def golden(self):
        return load_file(self.file)

    def engine(self, choice="auto", dims=None, **how):
        """Our model with those weights, and AdamW as the golden values have it. how: device, precision."""
        options = {k: v for k, v in OPTIMIZER.items() if k != "lr"} | {"clip": 1e9}
        settings = {"optimizer": "adamw", "options": options, "dims": self.dims | (dims or {}), **CHOICES[choice]()}
        how = {"precision": "f32", **how}
        built = Engine(load_model(self.model, registry()), registry(), Settings(**how, **settings))
        built.load_parameters(self.ours(self.tensors()))
        return built

    def folder(self, path, **changes):
        """A folder as transformers writes it; `changes` of config.json, None for a key that is not there."""
        path.mkdir()
        config = {key: value for key, value in (self.config_json() | changes).items() if value is not None}
        (path / "config.json").write_text(json.dumps(config))
        save_file(self.tensors(), path / "model.safetensors")
        return path

    def exports(self, path):
        """A folder of ours has the tensors that came; transformers, where installed, computes the same with it."""
        out = path / "exported"
        opened = open_path(self.folder(path / "theirs"), registry())
        export_huggingface.write(prepare(opened, registry(), "f32"), registry(), out)
        written, expected = load_file(out / "model.safetensors"), self.tensors()
        assert set(written) == set(expected)
        assert all(np.array_equal(written[name], value) for name, value in expected.items())
        if not find_spec("transformers"):
            return
        import torch
        from transformers import AutoModelForCausalLM

        how = {"output_loading_info": True, "dtype": torch.float32, **self.eager}
        model, report = AutoModelForCausalLM.from_pretrained(out, **how)
        assert type(model).__name__ == self.architecture and not any(report.values()), report
        found = model.double()(torch.tensor(self.batch["tokens"], dtype=torch.long)).logits
        assert distance(found.detach().numpy(), self.golden["logits"]) < LOGITS

    def holds_what_transformers_computes_here(self):
        fresh = self.compute()
        assert set(fresh) == set(self.golden)
        far = {name: distance(fresh[name], value) for name, value in self.golden.items()}
        assert max(far.values()) < 4e-6, far  # f32 sums are taken in another order on another CPU

    def agrees(self, choice):
        """Logits, loss and every gradient."""
        built = self.engine(choice)
        assert distance(built.logits(self.batch["tokens"]), self.golden["logits"]) < LOGITS
        loss, gradients = built.gradients(self.batch)
        assert abs(loss / self.golden["loss"] - 1) < LOGITS
        assert {"d" + name for name in gradients} == {name for name in self.golden if name.startswith("d")}
        far = {name: distance(value, self.golden["d" + name]) for name, value in gradients.items()}
        assert max(far.values()) < GRADIENT, far

    def trains(self, choice):
        """Ten AdamW losses."""
        built = self.engine(choice)
        losses = [built.step([self.batch], OPTIMIZER["lr"]).loss for _ in range(STEPS)]
        np.testing.assert_allclose(losses, self.golden["losses"], rtol=LOSSES)
        assert losses[-1] < losses[0] / 2  # and they are losses of something that learns

    def simulates(self, precision, nodes):
        """The first of these losses by the kernels, in the simulator. nodes: op -> the variant that must run it."""
        built, steps = self.engine(device="sim", precision=precision), 3
        losses = [built.step([self.batch], OPTIMIZER["lr"]).loss for _ in range(steps)]
        np.testing.assert_allclose(losses, self.golden["losses"][:steps], rtol=SIMULATED[precision])
        assert nodes.items() <= {row["op"]: row["variant"] for row in built.report(built.plan("train")).table()}.items()

    def decodes(self):
        """Through the cache, some tokens at a time, as the whole."""
        built, tokens = self.engine(), self.batch["tokens"]
        session, fed = built.session(*tokens.shape), 0
        for take in (5, 1, 1, tokens.shape[1] - 7):
            fed += take
            found = session.feed(tokens[:, fed - take : fed])
            assert distance(found, self.golden["logits"][:, fed - 1]) < LOGITS

    def generates(self, model):
        """Greedy tokens through the cache are those of the uncached path; `model` is a loaded one."""
        prompt = whole = self.batch["tokens"][:, :4]
        for _ in range(20):
            whole = np.concatenate([whole, model.logits(whole)[:, -1:].argmax(-1).astype(np.int32)], axis=1)
        np.testing.assert_array_equal(model.generate(prompt, max_new_tokens=20, temperature=0), whole)
