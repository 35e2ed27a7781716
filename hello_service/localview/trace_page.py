"""One trace as its page shows it: the rows of the waterfall, what is chosen and found in it, and a span's details."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlencode

from markupsafe import Markup

from hello_service.localview import stack, units
from hello_service.localview.spans import LINKS_TAG, Link, Span, Trace
from hello_service.localview.store import Line, Store, trace_key

DEEPEST = 16  # steps to the right; what is deeper shows its depth
FOLD_FROM = 4  # equal siblings become one row
DRAWN_BARS = 200  # of a folded row
THINNEST = 0.15  # per cent of the width
TICKS = (0, 25, 50, 75, 100)  # per cent
COLOURS = 24  # in trace.css; a 25th service gets the first one with another shape
ERROR_TAGS = ("error.type", "error.message", "error.stack")
PROCESS_TAGS = {"language", "process_id", "runtime-id", "system.pid", "thread.id", "thread.name"}
SEARCHABLE = re.compile(r"[A-Za-z_][\w.\-]*")  # names of tags in the search language
NO_WORD = re.compile(r"[^\w.:/@-]+")


@dataclass(frozen=True)
class Asked:
    """The query of the page's address; what belongs to others in it is kept in every link.

    Attributes:
        span: id of the chosen span; `none` closes the details.
        find: text to search for within the trace.
        service: the only service to show, all where it is empty.
        open: id of a folded row that is open, `all` for each.
    """

    span: str = ""
    find: str = ""
    service: str = ""
    open: str = ""
    rest: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, arguments: Iterable[tuple[str, str]]) -> Asked:
        """Read the query of an address."""
        given = list(arguments)
        own = {name: value for name, value in given if name in {"span", "find", "service", "open"}}
        return cls(**own, rest=tuple(each for each in given if each[0] not in own))

    def at(self, **changes: str) -> str:
        """Return the query of the same page with `changes`."""
        own = {"find": self.find, "service": self.service, "open": self.open, "span": self.span, **changes}
        return "?" + urlencode([*self.rest, *((name, value) for name, value in own.items() if value)])


@dataclass(eq=False)
class _Node:
    span: Span
    depth: int
    parent: _Node | None
    children: list[_Node] = field(default_factory=list)
    failed: bool = False  # it, or a span below it
    alike: tuple[str, str, str, bool] = ("", "", "", False)


@dataclass(frozen=True)
class Row:
    """A row of the waterfall: a span, or a fold of equal siblings, whose rows follow one level deeper.

    Attributes:
        id: of the element, stable as long as the trace lives.
        bars: (left, width) in per cent of the trace's time.
        own: nanoseconds in which no child ran.
        service: shown where it is another than the parent's.
        address: of the page with this span chosen, or with this fold open.
        expanded: None where nothing is below it.
        hidden: it is in a fold that is closed.
        out: it is of another service than the one that is shown.
    """

    id: str
    span: Span
    level: int
    bars: Sequence[tuple[float, float]]
    duration: int
    own: int
    service: str
    address: str
    classes: str
    expanded: bool | None
    times: int = 1
    chosen: bool = False
    hidden: bool = False
    out: bool = False
    orphan: bool = False

    @property
    def indent(self) -> int:
        return min(self.level - 1, DEEPEST)

    # The template would take twice as long for these, 2,000 times.
    @property
    def times_taken(self) -> Markup:
        """The cells of duration and self time."""
        cells = (f'<span role="gridcell">{units.duration(time)}</span>' for time in (self.duration, self.own))
        return Markup("".join(cells))  # noqa: S704 - numbers alone

    @property
    def rects(self) -> Markup:
        """The bars."""
        return Markup("".join(f'<rect x="{x}%" width="{width}%"/>' for x, width in self.bars))  # noqa: S704 - the same


def hexadecimal(number: int) -> str:
    """Return an id as in the headers: 16 hexadecimal characters."""
    return f"{number:016x}"


class Shown:
    """A trace and what its address selects, for the templates."""

    def __init__(self, trace: Trace, store: Store, asked: Asked) -> None:
        self.trace = trace
        self.store = store
        self.asked = asked
        self._nodes = _tree(trace)
        failed = [node for node in self._nodes if node.span.error]
        # The deepest first: a failure begins there.
        self.errors = [node.span for node in sorted(failed, key=lambda node: -node.depth)]
        self.span = self._chosen()
        self.colours = colours(trace, store)
        self._found = (
            {id(node.span) for node in self._nodes if _finds(asked.find, node.span)} if asked.find.strip() else None
        )
        self.matches = [node.span for node in self._nodes if self._found and id(node.span) in self._found]
        self._prefix = asked.at(span="") + ("&" if asked.at(span="") != "?" else "")

    @property
    def details(self) -> str:
        """Return whether the details are `open`, `closed`, or `auto`: open where there is room."""
        if self.asked.span == "none":
            return "closed"
        return "open" if self.asked.span or self.errors else "auto"

    def _chosen(self) -> Span:
        """Return the span that was asked for; else the deepest error, which is where a failure began; else the root."""
        wanted = trace_key(self.asked.span)
        for span in self.trace.spans:
            if span.span_id == wanted:
                return span
        return self.errors[0] if self.errors else self.trace.root

    def link(self, span: Span) -> str:
        """Return the address of this page with `span` chosen, and in view without JavaScript, too."""
        number = hexadecimal(span.span_id)
        return f"{self._prefix}span={number}#s{number}"

    def colour(self, service: str) -> str:
        """Return the classes of a service's colour: of its own in this trace."""
        number = self.colours.get(service, 0)
        return f"s{number % COLOURS}" + (f" shape{number // COLOURS % 3}" if number >= COLOURS else "")

    @property
    def services(self) -> list[tuple[str, int]]:
        """Return the services with the number of their spans, in the order of their first."""
        numbers: dict[str, int] = {}
        for span in sorted(self.trace.spans, key=lambda span: span.start):
            numbers[span.service] = numbers.get(span.service, 0) + 1
        return list(numbers.items())

    @property
    def ticks(self) -> list[tuple[int, str]]:
        """Return what stands at the time axis, with its place in per cent."""
        return [(tick, units.duration(self.trace.duration * tick / 100)) for tick in TICKS]

    def pager(self, spans: Sequence[Span]) -> tuple[int, Span | None, Span | None]:
        """Return the number of the chosen span among `spans`, 0 for none, and the ones before and after it."""
        places = [place for place, span in enumerate(spans) if span is self.span]
        if not places:
            return 0, None, spans[0] if spans else None
        (place,) = places
        return place + 1, spans[place - 1] if place else None, spans[place + 1] if place + 1 < len(spans) else None

    def rows(self) -> Iterator[Row]:
        """Yield the rows, parents before children, equal siblings folded."""
        way = {id(span) for span in [self.span, *self.matches]}  # what is looked for, and what leads to it
        context: set[int] = set()
        for node in reversed(self._nodes):  # children before parents
            if node.parent and id(node.span) in way:
                way.add(id(node.parent.span))
            if node.parent and (node.span.service == self.asked.service or id(node) in context):
                context.add(id(node.parent))
        present = {node.span.span_id for node in self._nodes}
        used: dict[str, int] = {}
        waiting: list[tuple[list[_Node], int, bool]] = []

        def push(groups: Sequence[list[_Node]], level: int, *, hidden: bool) -> None:
            waiting.extend((group, level, hidden) for group in reversed(groups))

        push(_folded([node for node in self._nodes if node.parent is None]), 1, hidden=False)
        while waiting:
            group, level, hidden = waiting.pop()
            node, times = group[0], len(group)
            span = node.span
            name = f"{'g' if times > 1 else 's'}{hexadecimal(span.span_id)}"
            used[name] = used.get(name, 0) + 1
            name += f"-{used[name]}" if used[name] > 1 else ""
            expanded = True if node.children else None
            if times > 1:
                expanded = self.asked.open in {name, "all"} or any(id(each.span) in way for each in group)
            leads = any(id(each) in context for each in group)
            other = bool(self.asked.service) and span.service != self.asked.service
            yield Row(
                id=name,
                span=span,
                level=level,
                bars=[self._bar(each.span) for each in group[:DRAWN_BARS]],
                duration=sum(each.span.duration for each in group),
                own=sum(map(_own_time, group)),
                service=span.service if node.parent is None or node.parent.span.service != span.service else "",
                address=f"{self.asked.at(open=name)}#{name}" if times > 1 else self.link(span),
                classes=self._classes(group, dim=other and leads),
                expanded=expanded,
                times=times,
                chosen=span is self.span and times == 1,
                hidden=hidden,
                out=other and not leads,
                orphan=span.parent_id != 0 and span.parent_id not in present,
            )
            if times > 1:
                push([[each] for each in group], level + 1, hidden=hidden or not expanded)
            else:
                push(_folded(node.children), level + 1, hidden=hidden)

    def _classes(self, group: Sequence[_Node], *, dim: bool) -> str:
        """Return the classes of a row: colour, error, and whether the search within the trace finds it."""
        span = group[0].span
        classes = f"span {self.colour(span.service)}" + (" error" if span.error else "")
        if self._found is not None and any(id(each.span) in self._found for each in group):
            return f"{classes} found"
        return f"{classes} dim" if dim or self._found is not None else classes

    def _bar(self, span: Span) -> tuple[float, float]:
        whole = self.trace.duration
        x = min(100 * (span.start - self.trace.start) / whole, 100 - THINNEST)
        return round(x, 2), round(min(max(THINNEST, 100 * span.duration / whole), 100 - x), 2)

    def parent(self, span: Span) -> Span | None:
        """Return the parent of `span` if it has come."""
        return next((each for each in self.trace.spans if each.span_id == span.parent_id), None)

    @cached_property
    def own(self) -> int:
        """Nanoseconds of the chosen span in which no child ran."""
        return next(_own_time(node) for node in self._nodes if node.span is self.span)

    @cached_property
    def failures(self) -> list[stack.Failure]:
        """Return the exceptions of the chosen span."""
        return stack.failures(self.span.meta.get("error.stack", ""), Path.cwd())

    @cached_property
    def lines(self) -> list[Line]:
        """Return the log lines that were written within the chosen span."""
        return [line for line in self.store.lines(self.trace) if str(line.get("dd.span_id")) == str(self.span.span_id)]

    @cached_property
    def _writers(self) -> dict[str, Span]:
        return {str(span.span_id): span for span in self.trace.spans}

    def writer(self, line: Line) -> Span | None:
        """Return the span within which `line` was written."""
        return self._writers.get(str(line.get("dd.span_id")))

    @cached_property
    def _stacks(self) -> dict[str, Span]:
        return {_last_line(span.meta.get("error.stack", "")): span for span in reversed(self.errors)}

    def shows_stack(self, line: Line) -> Span | None:
        """Return the span whose error is the exception of `line`: it is shown there, and not again."""
        last = _last_line(str(line.get("exception") or ""))
        own = self.writer(line)
        if own and last and last == _last_line(own.meta.get("error.stack", "")):
            return own
        return self._stacks.get(last) if last else None

    @cached_property
    def linked(self) -> list[Linked]:
        """Return the spans that the chosen one has a link to, and those that have one to it."""
        there = [Linked(each, "to", *self._at(each)) for each in self.span.links]
        return there + [Linked(each, "from", *self._at(each)) for each in self.store.linked(self.span)]

    def _at(self, link: Link) -> tuple[Trace | None, Span | None]:
        trace = self.store.find(str(link.trace_id))
        return trace, next((span for span in trace.spans if span.span_id == link.span_id), None) if trace else None

    @cached_property
    def tags(self) -> tuple[list[Tag], list[Tag]]:
        """Return the tags and metrics of the chosen span by name: those of its work, and those of tracer and process."""
        own: list[Tag] = []
        other: list[Tag] = []
        values: Mapping[str, str | float] = {**self.span.meta, **self.span.metrics}
        for name in sorted(values):
            if name in ERROR_TAGS or name == LINKS_TAG:
                continue
            value = values[name]
            text = value if isinstance(value, str) else f"{value:.15g}"
            (other if name.startswith("_") or name in PROCESS_TAGS else own).append(Tag(name, text))
        return own, other


@dataclass(frozen=True)
class Linked:
    """A span link, with the trace and the span at its other end if they are kept; `direction` is `to` or `from`."""

    link: Link
    direction: str
    trace: Trace | None
    span: Span | None


@dataclass(frozen=True)
class Tag:
    """A tag or a metric as text."""

    name: str
    value: str

    @property
    def term(self) -> str:
        """The term that searches for it, empty where the search language has none."""
        if not SEARCHABLE.fullmatch(self.name) or not self.value:
            return ""
        if '"' in self.value:
            words = NO_WORD.sub("*", self.value).strip("*")
            return f"@{self.name}:*{words}*" if words else ""
        return f'@{self.name}:"{self.value}"'


def colours(trace: Trace, store: Store) -> dict[str, int]:
    """Return a number for each service of `trace`, no two alike: the one that it has elsewhere, where it is free."""
    given: dict[str, int] = {}
    taken: set[int] = set()
    for service in dict.fromkeys(span.service for span in trace.spans):
        number = store.colour(service)
        if number in taken:
            number = next(free for free in range(len(taken) + 1) if free not in taken)
        given[service] = number
        taken.add(number)
    return given


def _tree(trace: Trace) -> list[_Node]:
    nodes: list[_Node] = []
    way: list[_Node] = []
    for depth, _, span in trace.walk():
        del way[depth:]
        node = _Node(span, depth, way[-1] if way else None)
        way.append(node)
        nodes.append(node)
        if node.parent:
            node.parent.children.append(node)
    for node in reversed(nodes):
        node.failed = node.span.error or any(child.failed for child in node.children)
        node.alike = (node.span.service, node.span.name, node.span.resource, node.failed)
    return nodes


def _folded(nodes: Sequence[_Node]) -> list[list[_Node]]:
    """Return siblings in groups of equal ones, each in the place of its first; few equal ones stay on their own."""
    groups: dict[tuple[str, str, str, bool], list[_Node]] = {}
    for node in nodes:
        groups.setdefault(node.alike, []).append(node)
    found = []
    for node in nodes:
        group = groups[node.alike]
        if len(group) < FOLD_FROM:
            found.append([node])
        elif group[0] is node:
            found.append(group)
    return found


def _own_time(node: _Node) -> int:
    """Return the nanoseconds of a span in which none of its children ran."""
    own, covered = node.span.duration, node.span.start
    for child in node.children:  # by start
        begin, end = max(child.span.start, covered), min(child.span.end, node.span.end)
        if end > begin:
            own -= end - begin
            covered = end
    return own


def _finds(text: str, span: Span) -> bool:
    words = text.strip().lower()
    texts = (span.name, span.resource, span.service, hexadecimal(span.span_id), *span.meta.values())
    return any(words in each.lower() for each in texts)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
