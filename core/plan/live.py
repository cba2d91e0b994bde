"""The first pass: the nodes that a request needs, and the values whose gradients a training plan needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.errors import BuildError
from core.graph import Graph, Node
from core.plan.layout import ParameterLayout
from core.plan.steps import GENERATE, TRAIN, Request
from core.roles import DOCUMENTS, POSITIONS


@dataclass(frozen=True)
class Live:
    """The part of a graph that a request needs.

    nodes: in the graph's order. wanted: values that must be readable after the run. trainable: parameters that get a
    gradient. needs: values computed from a parameter that trains. reach: values that the loss is computed from.
    """

    nodes: list[Node]
    wanted: frozenset[str]
    trainable: frozenset[str]
    needs: frozenset[str]
    reach: frozenset[str]

    def differentiated(self, node: Node) -> bool:
        """Whether this node's backward must run: on the way from the loss to something that trains.

        Raises BuildError for one that must and whose op has no gradient.
        """
        if not self.reach & set(node.outputs.values()):
            return False
        needed = bool(self.trainable & set(node.params.values()) or self.needs & set(node.inputs.values()))
        if needed and not node.op.gradient:
            raise BuildError(
                f'{node.where}: node {node.name}: op "{node.op.name}" has no gradient, and trainable parameters '
                "feed into it",
                hint="freeze those parameters ([train] freeze), or remove the node from the path to the loss",
            )
        return needed


def live(graph: Graph, request: Request, layout: ParameterLayout) -> Live:
    """The part of `graph` that `request` needs. Raises BuildError for a model that cannot generate."""
    training = request.kind == TRAIN
    wanted = set(request.outputs) | (set(graph.loss) if training else set())
    trainable = {p for p, place in layout.places.items() if place.trains} if training else set()
    needs = _values_that_need_gradients(graph, trainable)
    reach = _values_that_reach_the_loss(graph) if training else set()
    nodes = _live(graph.nodes, wanted, request.kind)
    if request.kind == GENERATE:
        nodes = [_of_one_document(node, graph) for node in nodes]
        _check_decode(graph, nodes)
    return Live(nodes, *(frozenset(values) for values in (wanted, trainable, needs, reach)))


def _live(nodes: list[Node], wanted: set[str], kind: str) -> list[Node]:
    """The nodes that the request needs: for its outputs, or because they keep state."""
    live, nodes_live = set(wanted), []
    for node in reversed(nodes):
        keeps_state = kind == GENERATE and bool(node.op.state)
        if keeps_state or live & set(node.outputs.values()):
            nodes_live.append(node)
            live |= set(node.inputs.values())
    return nodes_live[::-1]


def _values_that_need_gradients(graph: Graph, trainable: set[str]) -> set[str]:
    needs: set[str] = set()
    for node in graph.nodes:
        if trainable & set(node.params.values()) or needs & set(node.inputs.values()):
            needs |= {v for r, v in node.outputs.items() if not node.op.outputs[r].pattern.integer}
    return needs


def _values_that_reach_the_loss(graph: Graph) -> set[str]:
    reach = set(graph.loss)
    for node in reversed(graph.nodes):
        if reach & set(node.outputs.values()):
            reach |= {v for r, v in node.inputs.items() if not node.op.inputs[r].pattern.integer}
    return reach


def _of_one_document(node: Node, graph: Graph) -> Node:
    """The node without its documents: a row of a decode session is one document, so that nothing is masked."""
    documents = graph.roles.get(DOCUMENTS)
    inputs = {r: v for r, v in node.inputs.items() if v != documents or not node.op.inputs[r].optional}
    return replace(node, inputs=inputs) if len(inputs) < len(node.inputs) else node


def _check_decode(graph: Graph, nodes: list[Node]) -> None:
    """BuildError unless every node can continue from a cache with the results of all tokens at once."""
    for node in nodes:
        why = node.op.why_no_decode(node.dims) or _ignored_input(node) or _missing_input(node, graph)
        if why:
            raise BuildError(
                f"{graph.name} cannot generate: {node.where}, node {node.name}: {why}",
                hint="a model that generates looks at earlier tokens only; sample_every = 0 trains without samples",
            )


def _ignored_input(node: Node) -> str | None:
    """Why an optional input keeps a node from decoding: it describes tokens that are in the KV cache already."""
    if not (node.op.state or "start" in node.op.uses):
        return None
    ignored = [r for r in node.inputs if node.op.inputs[r].optional and r not in node.op.decodes]
    return f'"{ignored[0]}" is connected, which {node.op.name} does not look at while decoding' if ignored else None


def _missing_input(node: Node, graph: Graph) -> str | None:
    """Why an input of the graph keeps a node from decoding: generation gives tokens and their positions alone."""
    session = {graph.token_input, graph.roles.get(POSITIONS)}
    missing = [v for v in node.inputs.values() if v in graph.inputs and v not in session]
    return f'it reads the input "{missing[0]}", and generation gives "{graph.token_input}" only' if missing else None
