"""Prose by CONTRIBUTING's rule: a noun is the subject, the field's own word comes first. Words of the old dialect may
only get rarer: a count below is a ceiling, to be lowered when a text is rewritten.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from parsed import nodes_of

from core.variant_sources import PYTHON

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("core", "docs", "benchmarks", "ops", "plugins")
PAGES = ("README.md", "CONTRIBUTING.md")
ENDINGS = {".py", ".md", ".toml", ".cu", ".cuh", ".in"}
CEILINGS = {
    "lies": 0, "told": 0, "nobody": 1, "anybody": 0, "goes on": 0, "another's": 0, "has of": 0, "what is": 0, "lie": 0,
    "somebody": 0, "comes to": 0,
}  # fmt: skip  # nobody: the user of "~nobody"


@cache
def texts() -> dict[str, str]:
    """name -> text of every file of the project, in lower case."""
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in ENDINGS]
    paths = [*inside, *(ROOT / page for page in PAGES)]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8").lower() for path in paths}


def occurrences(word: str) -> list[str]:
    """file:line of every use of a word."""
    pattern = re.compile(rf"\b{word}\b")
    return [
        f"{name}:{number}"
        for name, text in texts().items()
        if word in text
        for number, line in enumerate(text.splitlines(), 1)
        for _ in pattern.findall(line)
    ]


@pytest.mark.parametrize("word", CEILINGS)
def test_a_word_of_the_old_dialect_only_gets_rarer(word: str) -> None:
    places = occurrences(word)
    assert len(places) <= CEILINGS[word], f'"{word}" stands {len(places)} times; lately {places[-5:]}: use a noun'


def test_commands_and_training_have_lost_the_dialect_in_their_texts() -> None:
    """core/cli and core/train are rewritten: none of these words comes back there."""
    words = [word for word in CEILINGS if word != "what is"]
    back = [place for word in words for place in occurrences(word) if place.startswith(("core/cli/", "core/train/"))]
    assert not back


# Patterns of the old dialect on pages -> an expert's words. Code, commands and addresses of links are left out.
DIALECT = {
    r"what(?![^.|]*\?)": "a noun; a question may have it",
    r"against": "compared with",
    r"says?|said|tells?|asks?|asked": "prints, states, has, requests",
    r"by (itself|themselves)": "automatically, separately",
    r"behind": "after",
    r"besides": "in addition to",
    r"so many": "a number, with its unit",
    r"anew": "again",
    r"held (to|against)": "compared with",
    r"ways? out": "alternatives, the remedy",
    r"looked (at|for)": "tested, detected",
    r"taken for": "treated as",
    r"as (it|they) stands?": "unchanged",
    r"whoever|what one|everybody": "the user, the reader",
    r"of (ours|practice)": "of corelm, practical",
    r"mend(s|ed|ing)?": "fix",
    r"(the|its) begin": "the start",
    r"that (is|are) none": "invalid",
    r"in words|the like": "as text, the cases by name",
}  # fmt: skip


@cache
def pages() -> dict[str, str]:
    """name -> prose of every page and README of the project; none is exempt."""
    inside = [
        p for folder in ("core", "docs", "benchmarks", "plugins", "tests") for p in (ROOT / folder).rglob("*.md*")
    ]
    paths = [p for p in (*ROOT.glob("*.md"), *inside) if p.name.endswith((".md", ".md.in"))]
    return {str(path.relative_to(ROOT)): prose(path.read_text("utf-8")) for path in paths}


def prose(text: str) -> str:
    """The sentences of a page, each in its line: code and addresses of links become blanks."""
    text = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.M | re.S)
    return re.sub(r"^    .*$|`[^`\n]*`|(?<=\])\([^)\s]*\)", " ", text, flags=re.M)


def dialect(pattern: str, text: str) -> list[str]:
    """line: words of every match of a pattern, also across the end of a line."""
    matches = matcher(pattern).finditer(text) if has_dialect(text) else ()
    return [f"{text.count(chr(10), 0, match.start()) + 1}: {match[0]}" for match in matches]


@cache
def matcher(pattern: str) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + pattern.replace(" ", r"\s+") + r")\b", re.IGNORECASE)


@cache
def has_dialect(text: str) -> bool:
    """Whether any pattern has a match: most texts have none, and one search shows that."""
    return matcher("|".join({**DIALECT, **IN_MESSAGES})).search(text) is not None


@pytest.mark.parametrize("pattern", DIALECT)
def test_no_page_has_a_pattern_of_the_old_dialect(pattern: str) -> None:
    places = [f"{name}:{place}" for name, text in pages().items() for place in dialect(pattern, text)]
    assert not places, f"an expert writes: {DIALECT[pattern]}"


def comments(path: Path) -> str:
    """The comments of a kernel or a TOML file, each in its line."""
    mark = "#" if path.suffix == ".toml" else "//"
    lines = path.read_text("utf-8").splitlines()
    return "\n".join(line.partition(mark)[2] if mark in line else "" for line in lines)


@cache
def commented() -> dict[str, str]:
    """name -> comments of every kernel, model and config."""
    folders = ("core", "ops", "plugins", "models", "configs")
    paths = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in (".cu", ".cuh", ".toml")]
    return {str(path.relative_to(ROOT)): comments(path) for path in paths}


@pytest.mark.parametrize("pattern", DIALECT)
def test_no_comment_of_a_kernel_a_model_or_a_config_has_a_pattern_of_the_old_dialect(pattern: str) -> None:
    places = [f"{name}:{place}" for name, text in commented().items() for place in dialect(pattern, text)]
    assert not places, f"an expert writes: {DIALECT[pattern]}"


def test_the_dialect_is_recognised_in_sentences_and_not_in_code() -> None:
    text = "Held\nto what it says.\n\n    core check --against\n\n```sh\nwhat\n```\n`says` [a](what.md) What is it?\n"
    assert {p: places for p in DIALECT if (places := dialect(p, prose(text)))} == {
        r"what(?![^.|]*\?)": ["2: what"],
        r"says?|said|tells?|asks?|asked": ["2: says"],
        r"held (to|against)": ["1: Held\nto"],
    }


# Patterns of the old dialect in messages, help and labels, besides those of pages.
IN_MESSAGES = {
    r"(?<!there\s)(is|are) no (?!longer|more|less|larger|smaller|such)\w+": "is not a ...",
    r"ours": "corelm's",
    r"wants?": "needs",
}


def messages(nodes: Sequence[ast.AST]) -> list[tuple[int, str]]:
    """(line, text) of every string of several words that is no docstring; code in backquotes left out."""
    statements = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    strings = [n for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    texts = [(n.lineno, re.sub(r"`[^`]*`", " ", n.value)) for n in strings if id(n) not in statements]
    return [(line, text) for line, text in texts if " " in text.strip()]


@cache
def messages_of_the_core() -> list[tuple[str, str]]:
    """(file:line, text) of core/ and the plugins; the course has sentences of its own, and tests have programs."""
    inside = [p for folder in ("core", "plugins") for p in sorted((ROOT / folder).rglob("*.py"))]
    paths = [p for p in inside if not {"tests", "course"} & set(p.parts)]
    rows = [(p, line, text) for p in paths for line, text in messages(nodes_of(p))]
    return [(f"{p.relative_to(ROOT)}:{line}", text) for p, line, text in rows]


@pytest.mark.parametrize("pattern", {**DIALECT, **IN_MESSAGES})
def test_no_message_has_a_pattern_of_the_old_dialect(pattern: str) -> None:
    places = [f"{place}: {text!r}" for place, text in messages_of_the_core() if dialect(pattern, text)]
    assert not places, f"an expert writes: {({**DIALECT, **IN_MESSAGES})[pattern]}"


def test_messages_are_strings_of_several_words_and_no_docstrings() -> None:
    tree = ast.parse('"""What."""\nX = "what"\nraise E(f"{x} is no list", hint="`what is`, what is")\n')
    assert [text for _, text in messages([*ast.walk(tree)])] == [" is no list", " , what is"]
    assert [bool(dialect(p, " is no list")) for p in IN_MESSAGES] == [True, False, False]


# Folders of Python whose docstrings and comments have the words of pages.
IN_PYTHON = ("core", "ops", "plugins", "benchmarks")


def docstrings(path: Path) -> list[str]:
    """The docstrings of a module, its classes and functions."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    return [ast.get_docstring(n) or "" for n in nodes_of(path) if isinstance(n, kinds)]


def python_comments(path: Path) -> list[str]:
    """The comments of a Python file."""
    matches = PYTHON.finditer(path.read_text("utf-8"))  # strings too, whose # begins none
    return [match[0] for match in matches if match.lastindex is None]


def sentences(path: Path) -> str:
    """The docstrings and comments of a file, a blank line between two; code in backquotes left out."""
    return re.sub(r"`[^`]*`", " ", "\n\n".join([*docstrings(path), *python_comments(path)]))


@pytest.mark.parametrize("folder", IN_PYTHON)
def test_docstrings_and_comments_have_no_pattern_of_the_old_dialect(folder: str) -> None:
    texts = {path: sentences(path) for path in sorted((ROOT / folder).rglob("*.py"))}
    every = [(path, pattern) for path, text in texts.items() for pattern in DIALECT for _ in dialect(pattern, text)]
    places = [f"{path.relative_to(ROOT)}: an expert writes: {DIALECT[pattern]}" for path, pattern in every]
    assert not places, "\n".join(places)


# First words of a docstring without a subject.
SUBJECTLESS = re.compile(r"(Of|As|Those|Whose|That|It|They|Also|Else|Among)\b")


@pytest.mark.parametrize("folder", IN_PYTHON)
def test_a_docstring_starts_with_its_subject(folder: str) -> None:
    texts = [(path, text) for path in sorted((ROOT / folder).rglob("*.py")) for text in docstrings(path)]
    bad = [f"{path.relative_to(ROOT)}: {text[:60]}" for path, text in texts if SUBJECTLESS.match(text)]
    assert not bad, "name the thing first: `Bytes of a tile`"


def test_a_docstring_without_a_subject_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""Office hours."""\ndef f():\n    """Of a tile."""\n')
    assert [bool(SUBJECTLESS.match(text)) for text in docstrings(tmp_path / "a.py")] == [False, True]


def test_docstrings_and_comments_are_sentences_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""What `it says`."""\nX = "what"  # behind X\n')
    text = sentences(tmp_path / "a.py")
    assert {pattern: len(dialect(pattern, text)) for pattern in DIALECT if dialect(pattern, text)} == {
        r"what(?![^.|]*\?)": 1,
        "behind": 1,
    }


# Names that say nothing about the thing named, as a class, a field or a method. Keys of JSON stay.
VAGUE = {"found", "told", "against", "asked", "kept", "apart", "what", "meanwhile"}
JSON_KEYS = {("Diagnosis", "what"), ("Diagnosis", "found"), ("Cause", "what"), ("Counts", "asked")}
ROOMS = (
    "cli", "config", "data", "device", "devices", "engine", "generate", "graph", "interop", "judge", "kernels",
    "learning", "measure", "op", "plan", "ranks", "registry", "sim", "testing", "tokenizers", "train", "view",
)  # fmt: skip


def vague_names(folder: Path) -> list[str]:
    """file: name of each class, class's field and method of a folder whose name is vague."""
    names = []
    for path in sorted(folder.rglob("*.py")):
        for node in nodes_of(path):
            if not isinstance(node, ast.ClassDef):
                continue
            inside = [n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
            inside += [n.name for n in node.body if isinstance(n, ast.FunctionDef)]
            bad = [n for n in inside if n.strip("_") in VAGUE and (node.name, n) not in JSON_KEYS]
            bad += [node.name] if node.name.lower() in VAGUE else []
            names += [f"{path.relative_to(ROOT)}: {node.name}.{name}" for name in bad]
    return names


# The same for functions.
VAGUE_FUNCTIONS = VAGUE | {"asks", "behind", "besides", "given", "known", "says", "tell", "tells"}


def test_functions_have_names_of_the_field() -> None:
    inside = [p for folder in ("core", "ops", "plugins", "benchmarks") for p in sorted((ROOT / folder).rglob("*.py"))]
    functions = [(path, n.name) for path in inside for n in nodes_of(path) if isinstance(n, ast.FunctionDef)]
    vague = [f"{path.relative_to(ROOT)}: {name}" for path, name in functions if name.strip("_") in VAGUE_FUNCTIONS]
    assert not vague


@pytest.mark.parametrize("room", ROOMS)
def test_classes_fields_and_methods_have_names_of_the_field(room: str) -> None:
    assert (ROOT / "core" / room).is_dir()
    assert not vague_names(ROOT / "core" / room)


def test_vague_names_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("class Kept:\n    what: str\n\n    def against(self): ...\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert len(vague_names(tmp_path)) == 3


# The same for parameters and local names.
VAGUE_LOCALS = {
    "found", "given", "known", "asked", "kept", "what", "told", "tell", "tells", "says", "asks", "behind", "besides",
}  # fmt: skip


def name_of(node: ast.AST) -> str:
    """The name of a parameter or a variable; "" for any other node."""
    return node.arg if isinstance(node, ast.arg) else node.id if isinstance(node, ast.Name) else ""


def vague_locals(path: Path) -> list[str]:
    """file:line: name of each parameter and local name of a function that is vague."""
    if not any(name_of(n) in VAGUE_LOCALS for n in nodes_of(path)):
        return []
    functions = [n for n in nodes_of(path) if isinstance(n, ast.FunctionDef | ast.Lambda)]
    inside = {id(n): n for function in functions for n in ast.walk(function)}.values()
    args = [(n.lineno, n.arg) for n in inside if isinstance(n, ast.arg)]
    names = [(n.lineno, n.id) for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return [f"{path.relative_to(ROOT)}:{line}: {name}" for line, name in (*args, *names) if name in VAGUE_LOCALS]


def test_parameters_and_local_names_say_the_thing() -> None:
    inside = [p for folder in ("core", "ops", "plugins", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    assert not [place for path in (*inside, *(ROOT / "tests").glob("*.py")) for place in vague_locals(path)]


def test_vague_locals_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("def f(given):\n    for known in given:\n        (what := known)\n    x.kept = 1\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert [place.rpartition(" ")[2] for place in vague_locals(tmp_path / "a.py")] == ["given", "known", "what"]
