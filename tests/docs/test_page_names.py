"""Every name on a page exists: verbs and options, scripts and modules, files, links, floors, variables."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import click
import pytest
from page_commands import CONTRIBUTING, IDEA, PAGES, READING, README, ROOT, anchors, fenced, invocations, shown

from core import cli
from core.devices import RESIDENT


def test_every_verb_and_option_on_any_page_exists() -> None:
    unknown, count = [], 0
    for page, words in invocations():
        if words[0].startswith("-"):
            continue
        count += 1
        command: click.Command | None = cli.core.get_command(click.Context(cli.core), words[0])
        if isinstance(command, click.Group) and len(words) > 1:
            command = command.get_command(click.Context(command), words[1])
        params = command.get_params(click.Context(command)) if command else []
        options = {o for p in params for o in p.opts + p.secondary_opts}
        given = {w.partition("=")[0] for w in words if w.startswith("-")}
        if command is None or given - options - {"-h", "--help"}:
            unknown.append(f"{page}: core {' '.join(words)}")
    assert count > 20
    assert not unknown


def test_every_script_and_module_on_any_page_exists_with_its_options() -> None:
    """`python benchmarks/cpu.py --quick`: the file exists and has the option. The changelog has removed ones."""
    unknown, count = [], 0
    for page, words in shown("python"):
        name = words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0]
        file = ROOT / (name if (ROOT / name).is_file() else name.removesuffix(".py") + "/__main__.py")
        count += 1
        options = {w.partition("=")[0] for w in words if w.startswith("--")}
        gone = not file.is_file() or {o for o in options if o not in file.read_text("utf-8")}
        if gone and page != "CHANGELOG.md":
            unknown.append(f"{page}: python {' '.join(words)}")
    assert count > 20
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if link.startswith(("http://", "https://")):
            continue
        titled = target.suffix != ".html"  # a page of core view has views and states: tests/docs/test_view_page.py
        if not target.exists() or (anchor and titled and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_no_page_announces_what_is_here_and_each_device_is_shown() -> None:
    assert not [p.name for p in PAGES if re.search(r"comes? (?:next|later)|coming soon", p.read_text("utf-8"))]
    shown = {words[words.index("--device") + 1] for _, words in invocations() if "--device" in words[:-1]}
    assert set(RESIDENT) - shown <= {"cpu"}


def test_the_readme_leads_to_every_page() -> None:
    links = set(re.findall(r"\]\(([^)\s]+\.md)\)", README.read_text("utf-8")))
    pages = {p.relative_to(ROOT).as_posix() for p in [*(ROOT / "docs").glob("*.md"), CONTRIBUTING]}
    assert pages <= links


@pytest.mark.parametrize("page", [p for p in (README, CONTRIBUTING, READING, IDEA) if p.exists()], ids=lambda p: p.stem)
def test_every_file_that_the_page_names_exists(page: Path) -> None:
    folders = "core|ops|models|configs|tests|docs|benchmarks"
    named = re.findall(rf"(?<![\w./])((?:{folders})/[\w./-]*)", page.read_text("utf-8"))
    assert not [name for name in named if not (ROOT / name.rstrip(".")).exists()]


def test_contributing_lists_the_floors_that_are_tested() -> None:
    tree = ast.parse((ROOT / "tests/docs/test_floors.py").read_text("utf-8"))
    (floors,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"
    )
    stand = [n for floor in floors for n in floor if importlib.util.find_spec(f"core.{n}")]
    (block,) = (b for b in fenced(CONTRIBUTING, "text") if b.startswith("errors"))
    assert [n.strip() for line in block.splitlines() for n in line.split("  ")[0].split(",")] == stand


def test_the_page_on_configs_lists_every_environment_variable() -> None:
    read = {
        n for file in (ROOT / "core").rglob("*.py") for n in re.findall(r"CORELM_[A-Z0-9_]+", file.read_text("utf-8"))
    }
    told = re.findall(r"^\| `(CORELM_\w+)` \|", (ROOT / "docs/config.md").read_text("utf-8"), re.M)
    assert read == set(told)
