"""docs/reliability.md is in step with the faults that the tests inject: a row for each, and a test for each row.

The test files are read as text and not imported, so that this costs nothing.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parents[1] / "docs" / "reliability.md"
HEADER = "| fault | result | test |"
ROW = re.compile(r"\| (?P<fault>[^|]+) \| (?P<then>[^|]+) \| `(?P<test>test_faults_\w+\.py::test_\w+)` \|")


def injected() -> list[str]:
    """`test_faults_<area>.py::test_name` of every test function that injects a fault."""
    return [
        f"{path.name}::{node.name}"
        for path in sorted(TESTS.parent.rglob("test_faults_*.py"))
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def rows() -> list[str]:
    """The rows of the page's tables of faults."""
    tables = PAGE.read_text("utf-8").split(f"\n{HEADER}\n")[1:]
    lines = [line for table in tables for line in table.partition("\n\n")[0].splitlines()]
    return [line for line in lines if not set(line) <= set("|-")]


def test_every_row_says_a_fault_what_happens_and_its_test() -> None:
    assert [row for row in rows() if not ROW.fullmatch(row)] == []


def test_every_fault_that_is_injected_has_one_row_and_every_row_its_test() -> None:
    named = Counter(found["test"] for row in rows() if (found := ROW.fullmatch(row)))
    assert [test for test, count in named.items() if count > 1] == [], "in more than one row"
    assert sorted(set(injected()) - set(named)) == [], "without a row in docs/reliability.md"
    assert sorted(set(named) - set(injected())) == [], "rows whose test is gone"


def test_no_two_tests_of_a_file_have_one_name() -> None:
    """The second would hide the first, and pytest would run only one."""
    assert [test for test, count in Counter(injected()).items() if count > 1] == []
