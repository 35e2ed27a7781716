"""The service map: services, the calls between them, and the requests, errors and latency of each."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from hello_service.localview import terms
from hello_service.localview.calls import calls, requests
from hello_service.localview.spans import Span, Trace


@dataclass
class Figures:
    """The figures of a service's requests, or of the calls from one service to another."""

    durations: list[int] = field(default_factory=list)
    errors: int = 0

    def add(self, span: Span) -> None:
        """Count one request."""
        self.durations.append(span.duration)
        self.errors += span.error

    @property
    def requests(self) -> int:
        return len(self.durations)

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    @property
    def average(self) -> float:
        return sum(self.durations) / len(self.durations) if self.durations else 0.0

    @property
    def p95(self) -> int:
        """The 95th percentile of the durations, in nanoseconds; 0 without requests."""
        if not self.durations:
            return 0
        rank = math.ceil(len(self.durations) * 95 / 100)
        return sorted(self.durations)[rank - 1]


@dataclass(eq=False)
class Node:
    """A service. It is `inferred` if it sent no spans and only the tag `peer.service` of its callers reveals it."""

    service: str
    figures: Figures = field(default_factory=Figures)
    inferred: bool = True

    @property
    def search(self) -> str:
        """The search that finds the traces counted here."""
        return terms.exact("request_to", self.service)


@dataclass(eq=False)
class Edge:
    """Calls from one service to another, or to itself."""

    source: Node
    target: Node
    figures: Figures = field(default_factory=Figures)

    @property
    def search(self) -> str:
        """The search that finds the traces counted here."""
        return terms.call_term(self.source.service, self.target.service)


@dataclass
class Map:
    """Services and calls, sorted by name. If a service is `chosen`, only that service and its neighbors are drawn."""

    nodes: list[Node]
    edges: list[Edge]
    chosen: Node | None = None

    def most_connected(self) -> Node:
        """Return the service with the most callers and called services."""
        return max(self.nodes, key=lambda node: sum(node in (edge.source, edge.target) for edge in self.edges))

    def parts_to_draw(self) -> tuple[list[Node], list[Edge]]:
        """Return the services and calls to draw."""
        if self.chosen is None:
            return self.nodes, self.edges
        edges = [edge for edge in self.edges if self.chosen in (edge.source, edge.target)]
        neighbors = {id(node) for edge in edges for node in (edge.source, edge.target)}
        nodes = [node for node in self.nodes if node is self.chosen or id(node) in neighbors]
        return nodes, edges


def service_map(traces: Collection[Trace]) -> Map:
    """Return the map of `traces`."""
    nodes: dict[str, Node] = {}
    edges: dict[tuple[str, str], Edge] = {}

    def node_of(service: str) -> Node:
        return nodes.setdefault(service, Node(service))

    for trace in traces:
        for span in trace.spans:
            node_of(span.service).inferred = False
        for service, span in requests(trace):
            node_of(service).figures.add(span)
        for source, target, span in calls(trace):
            if (source, target) not in edges:
                edges[source, target] = Edge(node_of(source), node_of(target))
            edges[source, target].figures.add(span)
    return Map([nodes[name] for name in sorted(nodes)], [edges[names] for names in sorted(edges)])
