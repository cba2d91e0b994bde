"""Commands of plugins: listed after the verbs, never in a verb's place, missed by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from command_lists import ROOT


def install_command(site: Path, name: str, body: str) -> None:
    site.mkdir(exist_ok=True)
    (site / "corelm_hello.py").write_text(
        f"import click\n@click.command('{name}')\ndef hello():\n    '''Says hello.'''\n    {body}\n"
        "def core_commands():\n    return [hello]\n"
    )
    info = site / "corelm_hello-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corelm-hello\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[corelm]\nhello = corelm_hello\n")


def core_with(site: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "CORELM_PLUGINS"} | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "core.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)


def test_a_plugins_command_is_listed_after_the_verbs_and_runs(tmp_path: Path) -> None:
    install_command(tmp_path / "site", "hello", "click.echo('hello')")
    listed = core_with(tmp_path / "site", "--help").stdout
    assert listed.index("doctor") < listed.index("Commands of plugins") < listed.index("Says hello.")
    assert core_with(tmp_path / "site", "hello").stdout == "hello\n"
    wrong = core_with(tmp_path / "site", "helo")
    assert wrong.returncode == 2 and 'did you mean "hello"' in wrong.stderr


def test_a_plugins_command_never_takes_a_verbs_place(tmp_path: Path) -> None:
    install_command(tmp_path / "site", "models", "click.echo('mine')")
    done = core_with(tmp_path / "site", "--help")
    assert "is hidden by the verb" in done.stderr and "Says hello." not in done.stdout


def test_the_command_of_a_broken_plugin_is_missed_by_name(tmp_path: Path) -> None:
    install_command(tmp_path / "site", "hello", "pass")
    (tmp_path / "site" / "corelm_hello.py").open("a").write("raise RuntimeError('boom')\n")
    done = core_with(tmp_path / "site", "hello")
    assert done.returncode == 2
    assert "is broken: RuntimeError: boom" in done.stderr and "mentions hello" in done.stderr
