"""Which services call which, how often, how well: counted from traces and laid out for drawing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from hello_service.localview.spans import Span, Trace

NODE_WIDTH, NODE_HEIGHT = 210, 74
GAP_ACROSS, GAP_DOWN = 190, 56  # GAP_DOWN is more where a service calls itself
MARGIN, LOOP = 24, 58


@dataclass
class Figures:
    """Requests to a service, or from one to another."""

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
        """Nanoseconds; 0 without requests."""
        return sorted(self.durations)[(len(self.durations) * 95 - 1) // 100] if self.durations else 0


@dataclass
class Node:
    """A service. `inferred`: others name it as `peer.service`, and it sent no span itself."""

    service: str
    figures: Figures = field(default_factory=Figures)
    inferred: bool = True
    x: int = 0
    y: int = 0
    width: int = NODE_WIDTH
    height: int = NODE_HEIGHT


@dataclass
class Edge:
    """Calls from one service to another, or to itself."""

    source: Node
    target: Node
    figures: Figures = field(default_factory=Figures)

    @property
    def path(self) -> str:
        """The line as an SVG path."""
        middle = self.source.y + NODE_HEIGHT // 2
        begin = self.source.x + NODE_WIDTH
        if self.source is self.target:
            x, y = self.source.x + NODE_WIDTH // 2, self.source.y
            return f"M{x + 36},{y} C{x + 60},{y - LOOP} {x - 60},{y - LOOP} {x - 36},{y}"
        end, across = self.target.x, self.target.y + NODE_HEIGHT // 2
        if end > begin:
            bend = (end - begin) // 2
            return f"M{begin},{middle} C{begin + bend},{middle} {end - bend},{across} {end},{across}"
        # Backwards, for calls in a circle: below both.
        low = max(self.source.y, self.target.y) + NODE_HEIGHT + LOOP
        x, y = self.source.x + NODE_WIDTH // 2, self.source.y + NODE_HEIGHT
        to_x, to_y = self.target.x + NODE_WIDTH // 2, self.target.y + NODE_HEIGHT
        return f"M{x},{y} C{x},{low} {to_x},{low} {to_x},{to_y}"

    @property
    def label(self) -> tuple[int, int]:
        """Where what is written on the line has its middle."""
        if self.source is self.target:
            return self.source.x + NODE_WIDTH // 2, self.source.y - LOOP - 6
        if self.target.x > self.source.x:
            across = (self.source.x + NODE_WIDTH + self.target.x) // 2
            return across, (self.source.y + self.target.y + NODE_HEIGHT) // 2 - 23
        low = max(self.source.y, self.target.y) + NODE_HEIGHT + LOOP * 3 // 4
        return (self.source.x + self.target.x + NODE_WIDTH) // 2, low + 12


@dataclass
class Map:
    """Services and calls with their places in a picture of `width` by `height`."""

    nodes: list[Node]
    edges: list[Edge]
    width: int
    height: int


def service_map(traces: Collection[Trace]) -> Map:
    """Return the map of `traces`."""
    nodes: dict[str, Node] = {}
    edges: dict[tuple[str, str], Edge] = {}

    def node(service: str) -> Node:
        return nodes.setdefault(service, Node(service))

    for span in (span for trace in traces for span in trace.spans):
        node(span.service).inferred = False
        if span.enters_service:
            node(span.service).figures.add(span)
    for source, target, span in (call for trace in traces for call in _calls(trace)):
        if (source, target) not in edges:
            edges[source, target] = Edge(node(source), node(target))
        edges[source, target].figures.add(span)
        if node(target).inferred:
            node(target).figures.add(span)
    return _laid_out(list(nodes.values()), list(edges.values()))


def _calls(trace: Trace) -> Iterable[tuple[str, str, Span]]:
    """Yield (from, to, the caller's span) for each call between services.

    A call is a client's span with a server's span below it; without that, one that names its peer; and a span whose
    parent is of another service, as ddtrace makes them for databases.
    """
    spans = {span.span_id: span for span in trace.spans}
    answered: set[int] = set()
    for span in trace.spans:
        parent = spans.get(span.parent_id)
        if parent is None:
            continue
        if parent.kind in {"client", "producer"} and span.kind in {"server", "consumer"}:
            if parent.span_id not in answered:
                answered.add(parent.span_id)
                yield parent.service, span.service, parent
        elif parent.service != span.service:
            yield parent.service, span.service, span
    for span in trace.spans:
        if span.kind in {"client", "producer"} and span.span_id not in answered and "peer.service" in span.meta:
            yield span.service, span.meta["peer.service"], span


def _laid_out(nodes: list[Node], edges: list[Edge]) -> Map:
    """Put callers left of whom they call, and each service near its callers."""
    callers: dict[str, list[Node]] = defaultdict(list)
    for edge in _without_circles(nodes, edges):
        callers[edge.target.service].append(edge.source)
    depth = _depths(nodes, callers)
    columns: dict[int, list[Node]] = defaultdict(list)
    for node in sorted(nodes, key=lambda node: (depth[node.service], node.service)):
        columns[depth[node.service]].append(node)
    tallest = max((len(column) for column in columns.values()), default=0)
    above = LOOP if any(edge.source is edge.target for edge in edges) else 0
    gap = GAP_DOWN + above * 2 // 3
    height = tallest * (NODE_HEIGHT + gap) - gap
    for place in sorted(columns):
        column = columns[place]
        column.sort(key=lambda node: _mean([caller.y for caller in callers[node.service]]))
        used = len(column) * (NODE_HEIGHT + gap) - gap
        for row, node in enumerate(column):
            node.x = MARGIN + place * (NODE_WIDTH + GAP_ACROSS)
            node.y = MARGIN + above + (height - used) // 2 + row * (NODE_HEIGHT + gap)
    width = len(columns) * (NODE_WIDTH + GAP_ACROSS) - GAP_ACROSS
    backwards = any(edge.target is not edge.source and edge.target.x <= edge.source.x for edge in edges)
    below = 2 * LOOP if backwards else MARGIN
    return Map(nodes, edges, max(0, width) + 2 * MARGIN, max(0, height) + MARGIN + above + below)


def _mean(numbers: list[int]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


def _without_circles(nodes: list[Node], edges: list[Edge]) -> list[Edge]:
    """Return the edges without those that lead back to a service from which their source was reached."""
    leaving: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        leaving[edge.source.service].append(edge)
    called = {edge.target.service for edge in edges if edge.source is not edge.target}
    kept: list[Edge] = []
    done: set[str] = set()
    for start in sorted(nodes, key=lambda node: node.service in called):
        if start.service in done:
            continue
        way = [(start.service, iter(leaving[start.service]))]
        on_way = {start.service}
        while way:
            service, rest = way[-1]
            following = next(rest, None)
            if following is None:
                way.pop()
                on_way.discard(service)
                done.add(service)
            elif (target := following.target.service) not in on_way:
                kept.append(following)
                if target not in done:
                    on_way.add(target)
                    way.append((target, iter(leaving[target])))
    return kept


def _depths(nodes: list[Node], callers: dict[str, list[Node]]) -> dict[str, int]:
    """Return for each service the longest way of calls that leads to it; `callers` has no circle."""
    depth = {node.service: 0 for node in nodes}
    for _ in nodes:
        changed = False
        for node in nodes:
            least = max((depth[caller.service] + 1 for caller in callers[node.service]), default=0)
            changed |= least != depth[node.service]
            depth[node.service] = least
        if not changed:
            break
    return depth
