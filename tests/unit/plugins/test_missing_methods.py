"""A plugin's class without a method that its kind must have: broken when it is registered, with place and method."""

from __future__ import annotations

from pathlib import Path

import pytest
from plugin_files import install

from core.cli import doctor
from core.cli import run as core_command
from core.loader import load_registry

CASES = {
    "an optimizer": ("core_optimizers", "Optimizer", "name = 'mine'", "step"),
    "a schedule": ("core_schedules", "Schedule", "name = 'mine'", "lr"),
    "an evaluation": ("core_evaluations", "Evaluation", "name = 'mine'", "line, score"),
    "a reader": ("core_data", "DataReader", "name = 'mine'", "read"),
    "a format that is read": ("core_formats", "WeightFormat", "def recognise(self, path, head): ...", "open, fit"),
    "a format that is written": ("core_formats", "WeightFormat", "targets = {'mine': '.bin'}", "write"),
    "a tokenizer by name": ("core_tokenizers", "TokenizerKind", "forms = ('mine',)", "make"),
    "a tokenizer of files": ("core_tokenizers", "TokenizerKind", "def reads(self, document): ...", "read"),
    "a tokenizer in checkpoints": ("core_tokenizers", "TokenizerKind", "format = 'mine 1'", "restore"),
}


@pytest.mark.parametrize("hook, base, body, missing", CASES.values(), ids=CASES)
def test_a_class_without_a_method_names_the_method_and_the_line(
    tmp_path: Path, hook: str, base: str, body: str, missing: str
) -> None:
    plugin = tmp_path / f"lacks_{list(CASES.values()).index((hook, base, body, missing))}.py"
    plugin.write_text(f"from core import {base}\nclass Mine({base}):\n    {body}\ndef {hook}():\n    return [Mine]\n")
    [record] = [r for r in load_registry([plugin], strict=False).plugins if r.name == plugin.stem]
    assert f"{plugin.name}:2: " in record.reason and record.reason.endswith(f"Mine does not define {missing}")


TOKENIZER = """
from core import Tokenizer, TokenizerKind

class Letters(Tokenizer):
    def encode(self, text): ...

class Kind(TokenizerKind):
    name, forms = "letters", ("letters",)

    def make(self, path, request):
        return Letters()

def core_tokenizers():
    return [Kind]
"""


def test_a_tokenizer_without_a_method_is_a_failure_of_its_plugin(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("letters.py").write_text(TOKENIZER)
    words = ["tokenizer", "encode", "a", "--tokenizer", "letters", "--plugin", "letters.py"]
    assert core_command(words) == 3
    said = capsys.readouterr().err
    assert "letters.py" in said and "hash" in said and "to_json" in said, said


def test_doctor_names_a_broken_format_of_weights_and_the_command_for_more(site: Path) -> None:
    text = 'from core import WeightFormat\nclass Mine(WeightFormat):\n    name, targets = "mine", {"mine": ""}\n'
    install(site, "rows", "corelm_rows_format", f"{text}def core_formats():\n    return [Mine]\n")
    broken = [entry for entry in doctor.plugins() if entry.verdict == doctor.PROBLEM]
    assert [entry.what for entry in broken] == ["plugin rows"]
    assert "corelm_rows_format.py:2: format Mine does not define write" in broken[0].found
    assert "`core plugins rows`" in broken[0].advice
