"""The reasons why a name of a graph is unknown, a block cannot be unrolled, or nodes have no order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from core.errors import did_you_mean
from core.graph.model_schema import as_list

STAND_IN = 'else = "..." beside "when" names the value that takes its place'
SHOWN = 30  # names that a hint lists


def unknown_input(
    subject: str, name: str, table: str, scope: Mapping[str, str], absent: Mapping[str, str], gone: str
) -> tuple[str, str]:
    """Message and hint for a name in `in` that `scope` lacks. absent: nodes that do not exist there -> the reason;
    gone: the place that removed it; ""."""
    if name.partition(".")[0] in absent:
        return f'{subject} names "{name}", which does not exist here: {absent[name.partition(".")[0]]}', STAND_IN
    message = f'{subject} names "{name}", which is neither a node of [{table}] nor an input'
    if gone:
        return f"{message}: {gone} removes it", f'give this node another "in" beside {name} = false'
    here = ", ".join(sorted(scope)[:SHOWN]) + (", ..." if len(scope) > SHOWN else "")
    return message + did_you_mean(name, scope), f"names here: {here or 'none'}"


def unknown_output(
    where: str, name: str, scope: Mapping[str, str], absent: Mapping[str, str], gone: str
) -> tuple[str, str]:
    """Message and hint for a name in a block's `out` that the block does not make; absent, gone: as above."""
    if name in absent:
        return f'{where}: "out" names "{name}", which does not exist here: {absent[name]}', STAND_IN
    message = f'{where}: "out" names "{name}", which the block does not make{did_you_mean(name, scope)}'
    return message, f"{gone} removes it" if gone else ""


def why_not_unrolled(
    name: str, spec: Mapping[str, Any], repeat: Any, blocks: Mapping[str, Any], inside: Collection[str], most: int
) -> str:
    """The reason why a block node cannot be unrolled. inside: the blocks that it is in; most: nodes of a graph."""
    if name not in blocks:
        return f"there is no [block.{name}]{did_you_mean(name, blocks)}"
    if name in inside:
        return f"a block contains itself: {' -> '.join([*inside, name])}"
    if not isinstance(repeat, int) or repeat < 1:
        return f'"repeat" is {spec["repeat"]!r} = {repeat}; expected a whole number of at least 1'
    if repeat > most:
        return f'"repeat" is {repeat:,}; a graph has at most {most:,} nodes'
    takes, gives, passed = (as_list(names) for names in (blocks[name]["in"], blocks[name]["out"], spec["in"]))
    if len(passed) != len(takes):
        return f'"in" has {len(passed)} names, but [block.{name}] takes {len(takes)}: {", ".join(takes)}'
    return (
        f"[block.{name}] cannot be repeated: it takes {len(takes)} ({', '.join(takes)}) and gives "
        f"{len(gives)} ({', '.join(gives)}); a repeat takes the values that the previous one gives"
    )


def cycle(needs: Sequence[set[int]], left: Sequence[int]) -> list[int]:
    """The numbers of nodes that need one another, in order. needs: of each node; left: how many of them have none."""
    at, seen = next(i for i, n in enumerate(left) if n), list[int]()
    while at not in seen:
        seen.append(at)
        at = min(j for j in needs[at] if left[j])
    return [*reversed(seen[seen.index(at) :])]
