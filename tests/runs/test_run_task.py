"""Answers that take part in a training run: core.learning.RunTask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import BuildError
from core.learning import FinishedRun, RunTask

SMALL = {f"dims.{name}": size for name, size in {"B": 2, "T": 4, "S": 4, "C": 8, "H": 2, "L": 1, "V": 257}.items()} | {
    "data.tokenizer": "bytes", "data.vocab_size": 257, "train.steps": 2, "train.tokens_per_step": 8,
    "train.val_every": 2, "train.val_tokens": 8, "train.sample_every": 0,
}  # fmt: skip
MODEL = """
from pathlib import Path
TEXT = 'extends = "gpt2_124m"\\nhf = false\\nllmc = false\\n[block.layer]\\n{node}\\n'
def core_models():
    file = Path(__file__).with_name("my_model.toml")
    file.write_text(TEXT)
    return [file]
"""


def larger(mine: FinishedRun, baseline: FinishedRun) -> str:
    assert len(mine.losses) == len(baseline.losses) == 2 and mine.val_loss > 0
    return "" if mine.parameters > baseline.parameters else f"{mine.parameters} parameters"


def task(**more: Any) -> RunTask:
    settings = {"config": "tiny", "settings": SMALL, "mine": {"model": "my_model"}, "devices": ("cpu", "cpu")}
    return RunTask({"parameters": larger, "always": lambda mine, baseline: "never right"}, **settings, **more)


@pytest.mark.parametrize(
    ("node", "causal", "finding"),
    [
        ("", False, "right: parameters: 2976 parameters"),
        ('fc = { op = "matmul", in = "ln_2", features = "8*C" }', True, "right: always: never right"),
        ('attn = { op = "attention", in = "qkv", heads = "H", causal = false }', True, "right: future: the logits of"),
        ('fc = { op = "matmul", in = "ln_3", features = "8*C" }', False, "compiles: train: my_model.toml:5"),
    ],
)
def test_conditions_are_judged_in_their_order_after_the_future_and_the_model(
    tmp_path: Path, node: str, causal: bool, finding: str
) -> None:
    answer = tmp_path / "mine.py"
    answer.write_text(MODEL.replace("{node}", node.replace("'", "")), "utf-8")
    verdict = task(causal=causal).verdict(answer)
    assert verdict.text.startswith(finding), verdict


def test_kernels_want_a_plugin_that_launches_them() -> None:
    with pytest.raises(BuildError, match="a plugin that launches them"):
        task(answer="mine.cu")
    assert task(answer="mine.cu", files={"launcher.py": ""}).suffix == ".cu" and task().suffix == ".py"
