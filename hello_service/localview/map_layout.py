"""Computes the positions of services, calls and labels in the drawing of the service map. No two labels overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hello_service.localview.service_map import Edge, Map, Node

# Sizes are in SVG units.
NODE_WIDTH, NODE_HEIGHT = 176, 74  # also in map.html
GAP_ACROSS, GAP_DOWN = 120, 40  # between columns and between rows
LOOP_GAP = 76  # additional gap between rows if a service calls itself
WIDE_GAP = 230  # between columns beside a chosen service, so that two labels fit side by side
MARGIN = 24  # around the drawing
LOOP_HEIGHT = 58  # of the loop above a service that calls itself
RETURN_OFFSET = 22  # how far below the middle of its services a call to the left starts and ends
LABEL_WIDTH, LABEL_HEIGHT = 92, 54  # map.html draws a label in 92 by 52, so one below another doesn't touch it
# With more services or columns, only one service and its neighbors are drawn, because the text would be too small.
MAX_SERVICES = 12
MAX_COLUMNS = 5

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
    """The positions of services and the lines of calls, in a drawing of `width` by `height`."""

    places: list[Place]
    lines: list[Line]
    width: int
    height: int

    @property
    def unlabeled(self) -> int:
        return sum(line.label is None for line in self.lines)


def draw(whole_map: Map, service: str | None) -> tuple[Map, Drawing]:
    """Return the map with its chosen service, and the drawing.

    The chosen service is `service`, or the most connected one if there is no such service and the map is too large.
    """
    chosen = next((node for node in whole_map.nodes if node.service == service), None)
    if chosen is None and not can_draw_whole(whole_map):
        chosen = whole_map.most_connected()
    chosen_map = Map(whole_map.nodes, whole_map.edges, chosen)
    nodes, edges = chosen_map.parts_to_draw()
    columns = _columns(nodes, edges) if chosen is None else _columns_around(chosen, nodes, edges)
    return chosen_map, _drawing(columns, edges, chosen)


def can_draw_whole(whole_map: Map) -> bool:
    """Return whether the drawing of all services is small enough."""
    nodes, edges = whole_map.nodes, whole_map.edges
    return len(nodes) <= MAX_SERVICES and len(_columns(nodes, edges)) <= MAX_COLUMNS


def _drawing(columns: Sequence[Sequence[Node]], edges: Sequence[Edge], chosen: Node | None) -> Drawing:
    """Place the services of `columns`, connect them with a curve for each call, and label the curves."""
    gap_across = WIDE_GAP if chosen else GAP_ACROSS
    has_loops = any(edge.source is edge.target for edge in edges)
    loop_gap = LOOP_GAP if has_loops else 0
    gap_down = GAP_DOWN + loop_gap
    longest_column = max((len(column) for column in columns), default=0)
    height = max(0, longest_column * (NODE_HEIGHT + gap_down) - gap_down)
    places: dict[str, Place] = {}
    for number, column in enumerate(columns):
        x = MARGIN + number * (NODE_WIDTH + gap_across)
        column_height = len(column) * (NODE_HEIGHT + gap_down) - gap_down
        column_top = MARGIN + loop_gap + (height - column_height) // 2  # all columns have the same middle
        for row, node in enumerate(column):
            places[node.service] = Place(node, x, column_top + row * (NODE_HEIGHT + gap_down))
    curves = [(edge, _curve(places[edge.source.service], places[edge.target.service], chosen)) for edge in edges]
    occupied = [place.box for place in places.values()]
    lines = []
    for edge, curve in curves:
        preferred_t = 0.5  # the middle of the curve
        if chosen is not None:
            preferred_t = 0.88 if edge.source is chosen else 0.12  # close to the neighbor
        positions = _label_positions(curve, preferred_t)
        label = next((position for position in positions if _is_free(position, occupied)), None)
        if label is not None:
            occupied.append(_label_box(label))
        begin, control_1, control_2, end = (f"{x:.0f},{y:.0f}" for x, y in curve)
        path = f"M{begin} C{control_1} {control_2} {end}"
        lines.append(Line(edge, path, label=None if label is None else (round(label[0]), round(label[1]))))
    width = max(0, len(columns) * (NODE_WIDTH + gap_across) - gap_across)
    box_bottoms = [int(bottom) for _, _, _, bottom in occupied]
    curve_bottoms = [int(_bottom(curve)) for _, curve in curves]
    lowest = max([height + MARGIN + loop_gap, *box_bottoms, *curve_bottoms])
    return Drawing(places=list(places.values()), lines=lines, width=width + 2 * MARGIN, height=lowest + MARGIN)


def _curve(source: Place, target: Place, chosen: Node | None) -> tuple[Point, Point, Point, Point]:
    """Return the Bézier curve of a call. It connects the sides of two services, or is a loop above a single one.

    Beside a chosen service, the curve is horizontal near the neighbor, so that the labels there don't overlap.
    """
    middle = source.y + NODE_HEIGHT / 2
    if source is target:
        # The loop begins and ends 36 from the middle of the upper side. The control points, 60 from it, make it round.
        x, top = source.x + NODE_WIDTH / 2, source.y - LOOP_HEIGHT
        return (x + 36, source.y), (x + 60, top), (x - 60, top), (x - 36, source.y)
    begin, end, target_middle = source.x + NODE_WIDTH, target.x, target.y + NODE_HEIGHT / 2
    if end > begin:
        if chosen is None:
            bend = (begin + end) / 2
        elif target.node is chosen:
            bend = end - (end - begin) / 4
        else:
            bend = begin + (end - begin) / 4
        return (begin, middle), (bend, middle), (bend, target_middle), (end, target_middle)
    # A call to the left is drawn lower than the calls to the right, so that they don't coincide. Services in the same
    # column never call each other.
    begin, end = source.x, target.x + NODE_WIDTH
    half_distance = (begin - end) / 2
    y, target_y = middle + RETURN_OFFSET, target_middle + RETURN_OFFSET
    return (begin, y), (begin - half_distance, y), (end + half_distance, target_y), (end, target_y)


def _point_at(curve: tuple[Point, Point, Point, Point], t: float) -> Point:
    """Return the point of a Bézier curve at `t`, between 0 and 1."""
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    weighted_points = list(zip(weights, curve, strict=True))
    x = sum(weight * point_x for weight, (point_x, _) in weighted_points)
    y = sum(weight * point_y for weight, (_, point_y) in weighted_points)
    return x, y


def _bottom(curve: tuple[Point, Point, Point, Point]) -> float:
    """Return the greatest y of the curve, approximately: the greatest at eleven of its points."""
    return max(_point_at(curve, step / 10)[1] for step in range(11))


def _label_positions(curve: tuple[Point, Point, Point, Point], preferred_t: float) -> Iterator[Point]:
    """Yield candidate positions of a label: on its curve, the closest to `preferred_t` first, then beside the curve."""
    candidates = (preferred_t, 0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2)
    closest_first = sorted(candidates, key=lambda t: abs(t - preferred_t))
    points = [_point_at(curve, t) for t in closest_first]
    for offset in (0, -24, 24, -44, 44):  # the smallest first
        for x, y in points:
            yield x, y + offset


def _label_box(center: Point) -> Box:
    x, y = center
    return x - LABEL_WIDTH / 2, y - LABEL_HEIGHT / 2, x + LABEL_WIDTH / 2, y + LABEL_HEIGHT / 2


def _is_free(center: Point, occupied: Sequence[Box]) -> bool:
    """Return whether a label at `center` is within the drawing and overlaps none of the `occupied` boxes.

    Only the left and upper edges are checked: curves end at services, and the drawing is as high as its labels need.
    """
    left, top, right, bottom = _label_box(center)
    if left < 0 or top < 0:
        return False
    return not any(
        left < box_right and box_left < right and top < box_bottom and box_top < bottom
        for box_left, box_top, box_right, box_bottom in occupied
    )


def _columns_around(chosen: Node, nodes: Sequence[Node], edges: Sequence[Edge]) -> list[list[Node]]:
    """Return up to three columns: the callers of `chosen`, `chosen`, and the services that it calls."""
    called_services = {edge.target.service for edge in edges if edge.source is chosen} - {chosen.service}
    others = [node for node in nodes if node is not chosen]
    callers = [node for node in others if node.service not in called_services]
    callees = [node for node in others if node.service in called_services]
    return [column for column in (callers, [chosen], callees) if column]


def _columns(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[list[Node]]:
    """Return the columns: callers are left of the services that they call, and close to them."""
    callers: dict[str, list[str]] = defaultdict(list)
    for edge in _without_cycles(nodes, edges):
        callers[edge.target.service].append(edge.source.service)
    depths = _depths(nodes, callers)
    columns: dict[int, list[Node]] = defaultdict(list)
    for node in sorted(nodes, key=lambda node: (depths[node.service], node.service)):
        columns[depths[node.service]].append(node)
    positions: dict[str, float] = {}  # position of each service in its column, from 0 (top) to less than 1
    for number in sorted(columns):
        columns[number].sort(key=lambda node: _mean([positions[caller] for caller in callers[node.service]]))
        positions |= {node.service: index / len(columns[number]) for index, node in enumerate(columns[number])}
    return [columns[number] for number in sorted(columns)]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


def _without_cycles(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[Edge]:
    """Return the edges of a depth-first search, without those that close a cycle."""
    outgoing: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        outgoing[edge.source.service].append(edge)
    called_services = {edge.target.service for edge in edges if edge.source is not edge.target}
    acyclic_edges: list[Edge] = []
    finished_services: set[str] = set()
    for start in sorted(nodes, key=lambda node: node.service in called_services):  # services without a caller first
        if start.service in finished_services:
            continue
        path = [(start.service, iter(outgoing[start.service]))]
        on_path = {start.service}
        while path:
            service, remaining_edges = path[-1]
            next_edge = next(remaining_edges, None)
            if next_edge is None:
                path.pop()
                on_path.discard(service)
                finished_services.add(service)
            elif (target := next_edge.target.service) not in on_path:
                acyclic_edges.append(next_edge)
                if target not in finished_services:
                    on_path.add(target)
                    path.append((target, iter(outgoing[target])))
    return acyclic_edges


def _depths(nodes: Sequence[Node], callers: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the length of the longest chain of calls to each service. `callers` has no cycle."""
    depth = {node.service: 0 for node in nodes}
    for _ in nodes:  # enough rounds, because no chain has more services than there are nodes
        changed = False
        for node in nodes:
            longest = max((depth[caller] + 1 for caller in callers.get(node.service, ())), default=0)
            if longest != depth[node.service]:
                depth[node.service] = longest
                changed = True
        if not changed:
            break
    return depth
