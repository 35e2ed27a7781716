"""The page of a trace: the rows of the waterfall, the chosen span and its details, and the search within the trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlencode

from markupsafe import Markup

from hello_service.localview import stack, units
from hello_service.localview.spans import LINKS_TAG, Link, Span, Trace
from hello_service.localview.store import Line, Store, trace_key
from hello_service.localview.terms import exact

MAX_INDENT = 16  # levels; a row with a larger indent shows it as a number
FOLD_FROM = 4  # this many equal siblings, or more, become one row
MAX_BARS = 200  # drawn of a folded row
MIN_BAR_PERCENT = 0.15  # of the width; a narrower bar would be invisible
TICKS = (0, 25, 50, 75, 100)  # percent
COLORS = 24  # defined in page.css and trace.css; a 25th service has the first color and another shape
ERROR_TAGS = ("error.type", "error.message", "error.stack")
PROCESS_TAGS = {"language", "process_id", "runtime-id", "system.pid", "thread.id", "thread.name"}


@dataclass(frozen=True)
class Selection:
    """The query of the page's address.

    Attributes:
        span: id of the chosen span; `none` closes the details.
        find: text to search for within the trace.
        service: the only service to show; empty for all.
        open: id of the row of folded siblings that is open; `all` if all such rows are open.
        rest: the other parameters, which belong to other views. Every link keeps them.
    """

    span: str = ""
    find: str = ""
    service: str = ""
    open: str = ""
    rest: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_arguments(cls, arguments: Iterable[tuple[str, str]]) -> Selection:
        """Return the selection in the query of an address."""
        pairs = list(arguments)
        fields = {name: value for name, value in pairs if name in {"span", "find", "service", "open"}}
        return cls(**fields, rest=tuple((name, value) for name, value in pairs if name not in fields))

    def address(self, **changes: str) -> str:
        """Return the query of the address of this selection with `changes`."""
        fields = {"find": self.find, "service": self.service, "open": self.open, "span": self.span, **changes}
        nonempty = [(name, value) for name, value in fields.items() if value]
        return "?" + urlencode([*self.rest, *nonempty])


@dataclass(eq=False)
class _Node:
    """A span with its place in the tree."""

    span: Span
    depth: int
    parent: _Node | None
    children: list[_Node] = field(default_factory=list)
    has_error: bool = False  # the span or one of its descendants has an error
    fold_key: tuple[str, str, str, bool] = ("", "", "", False)  # the same for siblings that fold into one row


@dataclass(frozen=True)
class Row:
    """A row of the waterfall: a span, or a fold of equal siblings, whose rows follow one level deeper.

    Attributes:
        id: the id of the row's HTML element, which never changes.
        level: the depth in the tree, from 1.
        bars: (left, width) in percent of the trace's duration.
        self_time: nanoseconds in which no child ran.
        service: the service if it differs from the parent's, else empty.
        address: the address of the page with this span chosen, or with this fold open.
        expanded: whether the rows below this one are shown; None if there are no rows below it.
        fold_size: the number of spans in a fold; 1 for a single span.
        hidden: whether the row is in a closed fold.
        filtered_out: whether the row is left out because the page shows only another service.
        orphan: whether the parent of the span is missing.
    """

    id: str
    span: Span
    level: int
    bars: Sequence[tuple[float, float]]
    duration: int
    self_time: int
    service: str
    address: str
    classes: str
    expanded: bool | None
    fold_size: int = 1
    chosen: bool = False
    hidden: bool = False
    filtered_out: bool = False
    orphan: bool = False

    @property
    def indent(self) -> int:
        return min(self.level - 1, MAX_INDENT)

    # Rendering these in the template would take twice as long, which is noticeable with 2,000 rows.
    @property
    def duration_cells(self) -> Markup:
        """The cells of duration and self time."""
        cells = (f'<span role="gridcell">{units.duration(time)}</span>' for time in (self.duration, self.self_time))
        return Markup("".join(cells))  # noqa: S704 - only numbers and units

    @property
    def rects(self) -> Markup:
        """The bars as SVG elements."""
        return Markup("".join(f'<rect x="{x}%" width="{width}%"/>' for x, width in self.bars))  # noqa: S704 - numbers


def hexadecimal(number: int) -> str:
    """Return a span id as in the `traceresponse` header: 16 hexadecimal characters."""
    return f"{number:016x}"


class TraceView:
    """A trace with the selection of its address, for the templates."""

    def __init__(self, trace: Trace, store: Store, selection: Selection) -> None:
        self.trace = trace
        self.store = store
        self.selection = selection
        self._nodes = _tree(trace)
        failed_nodes = [node for node in self._nodes if node.span.error]
        # The deepest first, because the failure began there.
        self.errors = [node.span for node in sorted(failed_nodes, key=lambda node: -node.depth)]
        self.span = self._choose_span()
        self._color_numbers = color_numbers(trace, store)
        self._has_search = bool(selection.find.strip())
        self.matches: list[Span] = []
        if self._has_search:
            self.matches = [node.span for node in self._nodes if _contains(node.span, selection.find)]
        self._match_ids = {id(span) for span in self.matches}
        without_span = selection.address(span="")
        # The part of each span's address before the parameter `span`.
        self._prefix = without_span if without_span == "?" else f"{without_span}&"

    @property
    def details(self) -> str:
        """Return `open`, `closed` or `auto`: with `auto`, the details are open if the window has room."""
        if self.selection.span == "none":
            return "closed"
        return "open" if self.selection.span or self.errors else "auto"

    def _choose_span(self) -> Span:
        """Return the span in the address, else the deepest error, else the root."""
        span_id = trace_key(self.selection.span)  # a span id may be written like a trace id
        for span in self.trace.spans:
            if span.span_id == span_id:
                return span
        return self.errors[0] if self.errors else self.trace.root

    def link(self, span: Span) -> str:
        """Return the address of this page with `span` chosen. Its fragment scrolls to the row without JavaScript."""
        span_id = hexadecimal(span.span_id)
        return f"{self._prefix}span={span_id}#s{span_id}"

    def color(self, service: str) -> str:
        """Return the CSS classes of the color of `service` in this trace."""
        number = self._color_numbers.get(service, 0)
        return f"s{number % COLORS}" + (f" shape{number // COLORS % 3}" if number >= COLORS else "")

    @property
    def services(self) -> list[tuple[str, int]]:
        """Return each service with the number of its spans, in the order of their first spans."""
        by_start = sorted(self.trace.spans, key=lambda span: span.start)
        return list(Counter(span.service for span in by_start).items())

    @property
    def ticks(self) -> list[tuple[int, str]]:
        """Return the labels of the time axis, each with its position in percent."""
        return [(tick, units.duration(self.trace.duration * tick / 100)) for tick in TICKS]

    def pager(self, spans: Sequence[Span]) -> tuple[int, Span | None, Span | None]:
        """Return the position of the chosen span in `spans`, from 1, and the spans before and after it.

        If the chosen span is not in `spans`, return 0, None and the first of `spans`.
        """
        index = next((index for index, span in enumerate(spans) if span is self.span), None)
        if index is None:
            first = spans[0] if spans else None
            return 0, None, first
        before = spans[index - 1] if index > 0 else None
        after = spans[index + 1] if index + 1 < len(spans) else None
        return index + 1, before, after

    def rows(self) -> Iterator[Row]:
        """Yield the rows: parents before children, and equal siblings folded into one row."""
        # The chosen span, the matches, and the ancestors of all of them. A fold that contains one of these is open.
        revealed = {id(span) for span in [self.span, *self.matches]}
        # If the page shows only one service: the ancestors of its spans, which are shown, too, but dimmed.
        context: set[int] = set()
        for node in reversed(self._nodes):  # children before parents
            if node.parent and id(node.span) in revealed:
                revealed.add(id(node.parent.span))
            if node.parent and (node.span.service == self.selection.service or id(node) in context):
                context.add(id(node.parent))
        present_ids = {node.span.span_id for node in self._nodes}
        id_uses: Counter[str] = Counter()  # of each row id, because a tracer may send two spans with the same id
        # A stack of rows to yield: (siblings in the row, level, whether the row is hidden).
        pending: list[tuple[list[_Node], int, bool]] = []

        def push(groups: Sequence[list[_Node]], level: int, *, hidden: bool) -> None:
            pending.extend((group, level, hidden) for group in reversed(groups))

        push(_fold([node for node in self._nodes if node.parent is None]), 1, hidden=False)
        while pending:
            group, level, hidden = pending.pop()
            node, span = group[0], group[0].span
            is_fold = len(group) > 1
            row_id = f"{'g' if is_fold else 's'}{hexadecimal(span.span_id)}"  # g: a group, s: a single span
            id_uses[row_id] += 1
            if id_uses[row_id] > 1:
                row_id += f"-{id_uses[row_id]}"
            expanded = True if node.children else None
            if is_fold:
                is_open = self.selection.open in {row_id, "all"}
                expanded = is_open or any(id(member.span) in revealed for member in group)
            is_context = any(id(member) in context for member in group)
            is_other_service = bool(self.selection.service) and span.service != self.selection.service
            yield Row(
                id=row_id,
                span=span,
                level=level,
                bars=[self._bar(member.span) for member in group[:MAX_BARS]],
                duration=sum(member.span.duration for member in group),
                self_time=sum(map(_self_time, group)),
                service=span.service if node.parent is None or node.parent.span.service != span.service else "",
                address=f"{self.selection.address(open=row_id)}#{row_id}" if is_fold else self.link(span),
                classes=self._classes(group, dim=is_other_service and is_context),
                expanded=expanded,
                fold_size=len(group),
                chosen=span is self.span and not is_fold,
                hidden=hidden,
                filtered_out=is_other_service and not is_context,
                orphan=span.parent_id != 0 and span.parent_id not in present_ids,
            )
            if is_fold:
                push([[member] for member in group], level + 1, hidden=hidden or not expanded)
            else:
                push(_fold(node.children), level + 1, hidden=hidden)

    def _classes(self, group: Sequence[_Node], *, dim: bool) -> str:
        """Return the CSS classes of a row: its color, `error`, and `found` or `dim`."""
        span = group[0].span
        classes = f"span {self.color(span.service)}" + (" error" if span.error else "")
        if any(id(member.span) in self._match_ids for member in group):
            return f"{classes} found"
        return f"{classes} dim" if dim or self._has_search else classes

    def _bar(self, span: Span) -> tuple[float, float]:
        """Return the left end and the width of the bar of `span`, in percent."""
        left = min(100 * (span.start - self.trace.start) / self.trace.duration, 100 - MIN_BAR_PERCENT)
        width = max(MIN_BAR_PERCENT, 100 * span.duration / self.trace.duration)
        return round(left, 2), round(min(width, 100 - left), 2)

    def parent(self, span: Span) -> Span | None:
        """Return the parent of `span` if it has arrived."""
        return next((candidate for candidate in self.trace.spans if candidate.span_id == span.parent_id), None)

    @cached_property
    def self_time(self) -> int:
        """The nanoseconds of the chosen span in which no child ran."""
        return next(_self_time(node) for node in self._nodes if node.span is self.span)

    @cached_property
    def failures(self) -> list[stack.Failure]:
        """Return the exceptions of the chosen span."""
        return stack.failures(self.span.meta.get("error.stack", ""), Path.cwd())

    @cached_property
    def lines(self) -> list[Line]:
        """Return the log lines written within the chosen span."""
        return [line for line in self.store.lines(self.trace) if str(line.get("dd.span_id")) == str(self.span.span_id)]

    @cached_property
    def _spans_by_id(self) -> dict[str, Span]:
        return {str(span.span_id): span for span in self.trace.spans}

    def writer(self, line: Line) -> Span | None:
        """Return the span within which `line` was written, None if it is unknown."""
        return self._spans_by_id.get(str(line.get("dd.span_id")))

    @cached_property
    def _errors_by_last_line(self) -> dict[str, Span]:
        """The spans with an error by the last line of their stack trace: the deepest, if several have the same line."""
        return {_last_line(span.meta.get("error.stack", "")): span for span in reversed(self.errors)}

    def exception_span(self, line: Line) -> Span | None:
        """Return the span whose error is the exception of `line`, if any. The page shows the stack trace only there."""
        last_line = _last_line(str(line.get("exception") or ""))
        if not last_line:
            return None
        writer = self.writer(line)
        if writer and last_line == _last_line(writer.meta.get("error.stack", "")):
            return writer
        return self._errors_by_last_line.get(last_line)

    @cached_property
    def links(self) -> list[ResolvedLink]:
        """Return the span links from the chosen span, then those to it."""
        links_from = [ResolvedLink(link, "to", *self._resolve(link)) for link in self.span.links]
        links_to = [ResolvedLink(link, "from", *self._resolve(link)) for link in self.store.links_to(self.span)]
        return links_from + links_to

    def _resolve(self, link: Link) -> tuple[Trace | None, Span | None]:
        """Return the trace and the span of `link`, None for each that is not kept."""
        trace = self.store.find(str(link.trace_id))
        if trace is None:
            return None, None
        return trace, next((span for span in trace.spans if span.span_id == link.span_id), None)

    @cached_property
    def tags(self) -> tuple[list[Tag], list[Tag]]:
        """Return the chosen span's own tags and metrics, and those about tracer and process, each sorted by name."""
        own_tags: list[Tag] = []
        process_tags: list[Tag] = []
        values: Mapping[str, str | float] = {**self.span.meta, **self.span.metrics}
        for name in sorted(values):
            if (name in ERROR_TAGS and self.span.error) or name == LINKS_TAG:
                continue
            value = values[name]
            text = value if isinstance(value, str) else f"{value:.15g}"
            if name.startswith("_") or name in PROCESS_TAGS:
                process_tags.append(Tag(name, text))
            else:
                own_tags.append(Tag(name, text))
        return own_tags, process_tags


@dataclass(frozen=True)
class ResolvedLink:
    """A span link with the trace and the span at its other end, if they are kept. `direction` is `to` or `from`."""

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
        """The search term for this tag, empty for a tag without a value, because the page shows nothing to click."""
        return exact(f"@{self.name}", self.value) if self.value else ""


def color_numbers(trace: Trace, store: Store) -> dict[str, int]:
    """Return a color number for each service of `trace`, all different, and the same as in other views if possible."""
    numbers: dict[str, int] = {}
    taken_numbers: set[int] = set()
    for service in dict.fromkeys(span.service for span in trace.spans):
        number = store.color(service)
        if number in taken_numbers:
            number = next(candidate for candidate in range(len(taken_numbers) + 1) if candidate not in taken_numbers)
        numbers[service] = number
        taken_numbers.add(number)
    return numbers


def _tree(trace: Trace) -> list[_Node]:
    """Return a node for each span of `trace`, parents before children."""
    nodes: list[_Node] = []
    ancestors: list[_Node] = []
    for depth, _, span in trace.walk():
        del ancestors[depth:]
        node = _Node(span, depth, ancestors[-1] if ancestors else None)
        ancestors.append(node)
        nodes.append(node)
        if node.parent:
            node.parent.children.append(node)
    for node in reversed(nodes):  # children before parents
        node.has_error = node.span.error or any(child.has_error for child in node.children)
        node.fold_key = (node.span.service, node.span.name, node.span.resource, node.has_error)
    return nodes


def _fold(nodes: Sequence[_Node]) -> list[list[_Node]]:
    """Return groups of equal siblings, each at the position of its first span. Small groups are not folded."""
    groups: dict[tuple[str, str, str, bool], list[_Node]] = {}
    for node in nodes:
        groups.setdefault(node.fold_key, []).append(node)
    folded = []
    for node in nodes:
        group = groups[node.fold_key]
        if len(group) < FOLD_FROM:
            folded.append([node])
        elif group[0] is node:
            folded.append(group)
    return folded


def _self_time(node: _Node) -> int:
    """Return the nanoseconds of a span in which none of its children ran."""
    remaining, covered = node.span.duration, node.span.start
    for child in node.children:  # sorted by start
        begin, end = max(child.span.start, covered), min(child.span.end, node.span.end)
        if end > begin:
            remaining -= end - begin
            covered = end
    return remaining


def _contains(span: Span, text: str) -> bool:
    searched_text = text.strip().lower()
    span_texts = (span.name, span.resource, span.service, hexadecimal(span.span_id), *span.meta.values())
    return any(searched_text in span_text.lower() for span_text in span_texts)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
