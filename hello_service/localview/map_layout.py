"""Computes the positions of services, calls and labels in the drawing of the service map. No two labels overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hello_service.localview.service_map import Edge, Map, Node, choose

NODE_WIDTH, NODE_HEIGHT = 176, 74
GAP_ACROSS, GAP_DOWN = 120, 40
LOOP_GAP = 76  # additional gap between rows if a service calls itself
WIDE_GAP = 230  # beside a chosen service, so that two labels fit side by side
MARGIN, LOOP = 24, 58
LABEL_WIDTH, LABEL_HEIGHT = 92, 54
MAX_COLUMNS = 5  # with more, the text would be too small

Box = tuple[float, float, float, float]  # left, top, right, bottom
Point = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """A service with the position of its upper left corner."""

    node: Node
    x: int
    y: int

    @property
    def box(self) -> Box:
        return self.x, self.y, self.x + NODE_WIDTH, self.y + NODE_HEIGHT


@dataclass(frozen=True)
class Line:
    """A call with its curve as an SVG path. `label` is the center of its label, None if there is no room for it."""

    edge: Edge
    path: str
    label: tuple[int, int] | None


@dataclass(frozen=True)
class Drawing:
    """The drawing: positions of services and lines of calls, in a picture of `width` by `height`."""

    places: list[Place]
    lines: list[Line]
    width: int
    height: int

    @property
    def unlabeled(self) -> int:
        return sum(line.label is None for line in self.lines)


def draw(whole: Map, service: str | None) -> tuple[Map, Drawing]:
    """Return the map with its chosen service, and the drawing."""
    shown = choose(whole, service)
    columns = _columns(*shown.drawn())
    if shown.chosen is None and len(columns) > MAX_COLUMNS:  # a chain of calls is too long
        shown = choose(whole, whole.most_connected().service)
    if shown.chosen is not None:
        columns = _around(shown.chosen, *shown.drawn())
    return shown, _drawing(columns, shown.drawn()[1], shown.chosen)


def _drawing(columns: Sequence[Sequence[Node]], edges: Sequence[Edge], chosen: Node | None) -> Drawing:
    across = WIDE_GAP if chosen else GAP_ACROSS
    loops = any(edge.source is edge.target for edge in edges)
    above = LOOP_GAP if loops else 0
    gap = GAP_DOWN + above
    tallest = max((len(column) for column in columns), default=0)
    height = max(0, tallest * (NODE_HEIGHT + gap) - gap)
    places: dict[str, Place] = {}
    for number, column in enumerate(columns):
        column_height = len(column) * (NODE_HEIGHT + gap) - gap
        for row, node in enumerate(column):
            y = MARGIN + above + (height - column_height) // 2 + row * (NODE_HEIGHT + gap)
            places[node.service] = Place(node, MARGIN + number * (NODE_WIDTH + across), y)
    curves = [(edge, _curve(places[edge.source.service], places[edge.target.service], chosen)) for edge in edges]
    taken = [place.box for place in places.values()]
    lines = []
    for edge, curve in curves:
        near = 0.5
        if chosen is not None:
            near = 0.88 if edge.source is chosen else 0.12  # close to the neighbor
        label = next((position for position in _label_positions(curve, near) if _is_free(position, taken)), None)
        if label is not None:
            taken.append(_label_box(label))
        path = "M{:.0f},{:.0f} C{:.0f},{:.0f} {:.0f},{:.0f} {:.0f},{:.0f}".format(
            *(coordinate for point in curve for coordinate in point)
        )
        lines.append(Line(edge, path, None if label is None else (round(label[0]), round(label[1]))))
    width = max(0, len(columns) * (NODE_WIDTH + across) - across)
    bottom = max(
        [height + MARGIN + above, *(int(box[3]) for box in taken), *(int(_bottom(curve)) for _, curve in curves)]
    )
    return Drawing(list(places.values()), lines, width + 2 * MARGIN, bottom + MARGIN)


def _curve(source: Place, target: Place, chosen: Node | None) -> tuple[Point, Point, Point, Point]:
    """Return the Bézier curve of a call. It connects the sides of two services, or is a loop above a single one.

    Beside a chosen service, the curve is horizontal near the neighbor, so that the labels there don't overlap.
    """
    middle = source.y + NODE_HEIGHT / 2
    if source is target:
        x = source.x + NODE_WIDTH / 2
        return (x + 36, source.y), (x + 60, source.y - LOOP), (x - 60, source.y - LOOP), (x - 36, source.y)
    begin, end, target_middle = source.x + NODE_WIDTH, target.x, target.y + NODE_HEIGHT / 2
    if end > begin:
        if chosen is None:
            first = last = (begin + end) / 2
        elif target.node is chosen:
            first = last = end - (end - begin) / 4
        else:
            first = last = begin + (end - begin) / 4
        return (begin, middle), (first, middle), (last, target_middle), (end, target_middle)
    # A call back to the left starts lower than the calls from there. Services in the same column never call each other.
    begin, end = source.x, target.x + NODE_WIDTH
    bend = (begin - end) / 2
    y, target_y = middle + 22, target_middle + 22
    return (begin, y), (begin - bend, y), (end + bend, target_y), (end, target_y)


def _at(curve: tuple[Point, Point, Point, Point], t: float) -> Point:
    """Return the point of a Bézier curve at `t`, between 0 and 1."""
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    x, y = (sum(weight * point[axis] for weight, point in zip(weights, curve, strict=True)) for axis in (0, 1))
    return x, y


def _bottom(curve: tuple[Point, Point, Point, Point]) -> float:
    """Return the greatest y of the curve, computed at eleven points."""
    return max(_at(curve, step / 10)[1] for step in range(11))


def _label_positions(curve: tuple[Point, Point, Point, Point], near: float) -> Iterator[Point]:
    """Yield the candidate positions of a label: along its curve, beginning at `near`, then beside the curve."""
    along = [_at(curve, t) for t in sorted((near, 0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2), key=lambda t: abs(t - near))]
    for offset in (0, -24, 24, -44, 44):
        for x, y in along:
            yield x, y + offset


def _label_box(center: Point) -> Box:
    x, y = center
    return x - LABEL_WIDTH / 2, y - LABEL_HEIGHT / 2, x + LABEL_WIDTH / 2, y + LABEL_HEIGHT / 2


def _is_free(center: Point, taken: Sequence[Box]) -> bool:
    left, top, right, bottom = _label_box(center)
    if left < 0 or top < 0:
        return False
    return not any(left < box[2] and box[0] < right and top < box[3] and box[1] < bottom for box in taken)


def _around(chosen: Node, nodes: Sequence[Node], edges: Sequence[Edge]) -> list[list[Node]]:
    """Return three columns: the callers of `chosen`, `chosen`, and the services that it calls."""
    called = {edge.target.service for edge in edges if edge.source is chosen} - {chosen.service}
    others = [node for node in nodes if node is not chosen]
    callers = [node for node in others if node.service not in called]
    return [column for column in (callers, [chosen], [node for node in others if node.service in called]) if column]


def _columns(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[list[Node]]:
    """Return the columns: callers are left of the services that they call, and close to them."""
    callers: dict[str, list[str]] = defaultdict(list)
    for edge in _without_cycles(nodes, edges):
        callers[edge.target.service].append(edge.source.service)
    depth = _depths(nodes, callers)
    columns: dict[int, list[Node]] = defaultdict(list)
    for node in sorted(nodes, key=lambda node: (depth[node.service], node.service)):
        columns[depth[node.service]].append(node)
    row: dict[str, float] = {}  # position of each service in its column, from 0 to less than 1
    for number in sorted(columns):
        columns[number].sort(key=lambda node: _mean([row[caller] for caller in callers[node.service]]))
        row |= {node.service: index / len(columns[number]) for index, node in enumerate(columns[number])}
    return [columns[number] for number in sorted(columns)]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


def _without_cycles(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[Edge]:
    """Return the edges of a depth-first search, without those that close a cycle."""
    outgoing: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        outgoing[edge.source.service].append(edge)
    called = {edge.target.service for edge in edges if edge.source is not edge.target}
    kept: list[Edge] = []
    done: set[str] = set()
    for start in sorted(nodes, key=lambda node: node.service in called):  # services without a caller first
        if start.service in done:
            continue
        path = [(start.service, iter(outgoing[start.service]))]
        on_path = {start.service}
        while path:
            service, remaining_edges = path[-1]
            next_edge = next(remaining_edges, None)
            if next_edge is None:
                path.pop()
                on_path.discard(service)
                done.add(service)
            elif (target := next_edge.target.service) not in on_path:
                kept.append(next_edge)
                if target not in done:
                    on_path.add(target)
                    path.append((target, iter(outgoing[target])))
    return kept


def _depths(nodes: Sequence[Node], callers: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the length of the longest chain of calls to each service. `callers` has no cycle."""
    depth = {node.service: 0 for node in nodes}
    for _ in nodes:
        changed = False
        for node in nodes:
            longest = max((depth[caller] + 1 for caller in callers.get(node.service, ())), default=0)
            changed |= longest != depth[node.service]
            depth[node.service] = longest
        if not changed:
            break
    return depth
