"""The list of traces: searching, sorting, grouping and counting facets, according to the page's address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from hello_service.localview import hints, query, terms
from hello_service.localview.spans import Span, Trace
from hello_service.localview.store import Store
from hello_service.localview.units import SECOND, quantity

NEWEST_FIRST = "-time"
FACET_VALUES = 8  # per field
MINUTES = (1, 5, 15, 60)
COLUMNS: dict[str, Callable[[Trace], Any]] = {
    "time": lambda trace: trace.start,
    "request": lambda trace: (trace.root.resource, path(trace.root)),
    "service": lambda trace: trace.root.service,
    "status": lambda trace: trace.root.status,
    "duration": lambda trace: trace.duration,
    "spans": lambda trace: len(trace.spans),
}
# By title: the field to search, and the function that returns its value in a span, None if it has no value.
FACETS: dict[str, tuple[str, Callable[[Span], str | None]]] = {
    "Service": ("service", lambda span: span.service),
    "Status": ("status", lambda span: "error" if span.error else None),
    "HTTP status": ("@http.status_code", lambda span: span.meta.get("http.status_code")),
    "Operation": ("operation_name", lambda span: span.name),
}


class SearchError(ValueError):
    """The address has an invalid search or time range. `str()` is the message to show.

    Attributes:
        suggestions: valid searches that may have been meant.
        unfinished: whether the search may become valid when more characters are typed.
    """

    def __init__(self, message: str, suggestions: Sequence[str] = (), *, unfinished: bool = False) -> None:
        super().__init__(message)
        self.suggestions = tuple(suggestions)
        self.unfinished = unfinished


@dataclass(frozen=True)
class Search:
    """The parameters of the list: search, time range and order. The page's address contains all of them.

    Attributes:
        q: the text of the search.
        last: a number of minutes, as text; empty for no limit.
        begin, end: times as typed, either times of day or ISO 8601; empty for no limit.
        sort: a column; with `-` before it, in descending order.
        show_all: whether the page shows all rows, not only the first ones.
    """

    q: str = ""
    last: str = ""
    begin: str = ""
    end: str = ""
    sort: str = NEWEST_FIRST
    show_all: bool = False

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, str]) -> Search:
        """Return the search of an address with these arguments. Invalid values of `sort` and `last` are ignored."""
        sort = arguments.get("sort", NEWEST_FIRST)
        last = arguments.get("last", "")
        return cls(
            q=arguments.get("q", ""),
            last=last if last in map(str, MINUTES) else "",
            begin=arguments.get("from", "").strip(),
            end=arguments.get("to", "").strip(),
            sort=sort if sort.removeprefix("-") in COLUMNS else NEWEST_FIRST,
            show_all="all" in arguments,
        )

    def address(self, path: str = "/", **changes: Any) -> str:
        """Return the address of this search with `changes`."""
        changed = replace(self, **changes)
        arguments = {
            "q": changed.q,
            "last": changed.last,
            "from": changed.begin,
            "to": changed.end,
            "sort": "" if changed.sort == NEWEST_FIRST else changed.sort,
            "all": "1" if changed.show_all else "",
        }
        nonempty = {name: value for name, value in arguments.items() if value}
        return f"{path}?{urlencode(nonempty)}" if nonempty else path

    def sort_after_click(self, column: str) -> str:
        """Return the value of `sort` after a click on the header of `column`."""
        descending_first = column in {"time", "duration", "spans", "status"}
        first, second = (f"-{column}", column) if descending_first else (column, f"-{column}")
        return second if self.sort == first else first

    @property
    def finds_all_traces(self) -> bool:
        """Whether the search finds all traces."""
        return not (self.q.strip() or self.last or self.begin or self.end)


@dataclass
class Row:
    """A row of the list. The row of a WebSocket has the rows of its messages and of its close in `messages`."""

    trace: Trace
    messages: list[Row] = field(default_factory=list)

    @property
    def path(self) -> str:
        return path(self.trace.root)

    @property
    def kind(self) -> str:
        """The name of the operation if the trace is not a request, else empty."""
        root = self.trace.root
        is_request = root.kind == "server" or "http.method" in root.meta or "http.url" in root.meta
        return "" if is_request else root.name

    @property
    def messages_summary(self) -> str:
        """A summary of `messages`, such as `3 messages, close`."""
        names = [row.trace.root.name for row in self.messages]
        closes = names.count("websocket.close")
        messages = len(names) - closes
        parts = []
        if messages:
            parts.append(quantity(messages, "message"))
        if closes:
            parts.append("close")
        return ", ".join(parts)


@dataclass(frozen=True)
class Facet:
    """A value of a field, the number of traces found that have it, and the address that narrows the search to them.

    If the value `is_chosen`, it is a part of the search, and the address removes it.
    """

    value: str
    count: int
    address: str
    is_chosen: bool


@dataclass
class Listing:
    """The result of a search. `found` counts all traces, including those below other rows."""

    search: Search
    rows: list[Row]
    found: int
    facets: list[tuple[str, list[Facet]]]


def listing(store: Store, search: Search, now: datetime) -> Listing:
    """Return the result of `search`.

    Raises:
        SearchError: the search or its time range is invalid.
    """
    parsed, matches = _find_matches(store, search, now)
    rows = group_websockets([trace for trace, _ in matches])
    return Listing(search, rows, len(matches), _facets(parsed, search, matches))


def select(store: Store, search: Search, now: datetime) -> list[Trace]:
    """Return the traces that `search` finds, sorted but not grouped.

    Raises:
        SearchError: the search or its time range is invalid.
    """
    _, matches = _find_matches(store, search, now)
    return [trace for trace, _ in matches]


def alternatives(store: Store, search: Search) -> list[tuple[str, int]]:
    """Return searches similar to one that found nothing, each with the number of traces that it finds."""
    return hints.alternatives(query.parse(search.q), store.newest())


def unfinished_field(search: Search) -> SearchError | None:
    """Return an error if a search that found nothing ends with the beginning of a field's name."""
    word = search.q.rpartition(" ")[2].lstrip("-(")  # without a negation and parentheses
    field = next((name for name in (*terms.FIELDS, "@duration") if word and name.startswith(word)), None)
    if field is None:
        return None
    return SearchError(
        f"No trace contains the text {word}. To search a field, add a colon and a value: {field}:", unfinished=True
    )


@dataclass(frozen=True)
class Pager:
    """The position of a trace in the list, as in "14 of 47", and the addresses of the list and the adjacent traces."""

    list_address: str
    position: int
    total: int
    previous: str
    next: str


def pager(store: Store, arguments: Mapping[str, str], trace: Trace, now: datetime | None = None) -> Pager:
    """Return the position of `trace` in the list from which it was opened; 0 if the list doesn't contain it."""
    search = Search.from_arguments(arguments)
    try:
        listed = _traces_in(group_websockets(select(store, search, now or datetime.now().astimezone())))
    except SearchError:
        listed = []
    index = next((index for index, candidate in enumerate(listed) if candidate.key == trace.key), None)
    list_address = search.address("/")
    if index is None:
        return Pager(list_address, 0, len(listed), "", "")

    def address(index: int) -> str:
        """Return the address of the trace at `index` of the list, empty if the list doesn't reach that far."""
        return search.address(f"/trace/{listed[index].id}") if 0 <= index < len(listed) else ""

    return Pager(list_address, index + 1, len(listed), address(index - 1), address(index + 1))


def path(span: Span) -> str:
    """Return the path of a request if its resource does not end with it, else an empty text."""
    url = span.meta.get("http.url", "")
    try:
        url_path = unquote(urlsplit(url).path) if url else ""
    except ValueError:
        return ""
    return "" if url_path == span.resource.rpartition(" ")[2] else url_path


def group_websockets(traces: Sequence[Trace]) -> list[Row]:
    """Return the rows of `traces` in the same order, with the messages of a WebSocket below its handshake."""
    rows = {trace.key: Row(trace) for trace in traces}
    parents = _websocket_parents(traces)
    for trace in traces:
        top = trace.key
        # The parent of a close is a message, whose parent is the handshake. A parent starts earlier, so the loop ends.
        while top in parents:
            top = parents[top]
        if top != trace.key:
            rows[top].messages.append(rows[trace.key])
    for row in rows.values():
        row.messages.sort(key=lambda message: message.trace.start)
    return [row for row in rows.values() if row.trace.key not in parents]


def _traces_in(rows: Iterable[Row]) -> list[Trace]:
    """Return the traces of `rows` and of the messages below them, in the order of the page."""
    return [listed_row.trace for row in rows for listed_row in (row, *row.messages)]


def _websocket_parents(traces: Sequence[Trace]) -> dict[int, int]:
    """Return the parent of each WebSocket message or close: its handshake or an earlier message. All are trace keys."""
    messages = [trace for trace in traces if trace.root.name.startswith("websocket.")]
    messages.sort(key=lambda message: message.start)
    if not messages:
        return {}
    starts = {trace.key: trace.start for trace in traces}
    parents = {}
    for message in messages:
        target = message.root.links[0].trace_id if message.root.links else None
        # Two traces that are linked to each other may have the same start. Then their keys decide which is the parent.
        if target in starts and (starts[target], target) < (message.start, message.key):
            parents[message.key] = target
    # ddtrace does not link the last receive, which returns the disconnect. If it can belong to only one open WebSocket,
    # that is its parent.
    handshakes = [trace for trace in traces if trace.root.meta.get("http.upgraded") == "websocket"]
    closed: set[int] = set()
    for message in messages:
        if message.key in parents or message.root.name != "websocket.receive":
            continue
        open_handshakes = [
            handshake
            for handshake in handshakes
            if handshake.key not in closed
            and handshake.start <= message.start
            and _endpoint(handshake.root) == _endpoint(message.root)
        ]
        if len(open_handshakes) == 1:
            parents[message.key] = open_handshakes[0].key
            closed.add(open_handshakes[0].key)
    return parents


def _endpoint(span: Span) -> tuple[str, str, str | None]:
    """Return the values that identify the endpoint of a span and its process."""
    return span.service, span.resource, span.meta.get("runtime-id")


def _find_matches(
    store: Store, search: Search, now: datetime
) -> tuple[query.Query, list[tuple[Trace, Sequence[Span]]]]:
    """Return the parsed search, and the traces that it finds, sorted, each with its matching spans."""
    try:
        parsed = query.parse(search.q)
    except query.QueryError as error:
        raise SearchError(str(error), error.suggestions, unfinished=error.unfinished) from error
    begin, end = time_range(search, now)
    in_range = (trace for trace in store.newest() if begin <= trace.start < end)
    matches = [(trace, spans) for trace in in_range if (spans := parsed.spans(trace))]
    column = search.sort.removeprefix("-")
    if search.sort != NEWEST_FIRST:
        matches.sort(key=lambda match: COLUMNS[column](match[0]), reverse=search.sort.startswith("-"))
    return parsed, matches


def _facets(
    parsed: query.Query, search: Search, matches: Sequence[tuple[Trace, Sequence[Span]]]
) -> list[tuple[str, list[Facet]]]:
    """Return each facet field with its values in the matching spans, most frequent first.

    The count of a value is the number of traces that a click on it finds.
    """
    facets = []
    for title, (name, value_of) in FACETS.items():
        trace_counts: Counter[str] = Counter()
        for _, spans in matches:
            trace_counts.update({value for span in spans if (value := value_of(span)) is not None})
        most_frequent = sorted(trace_counts.items(), key=lambda item: (-item[1], item[0]))[:FACET_VALUES]
        values = []
        for value, count in most_frequent:
            term = terms.exact(name, value)
            is_chosen = term in parsed.pieces
            q = parsed.without_term(term) if is_chosen else parsed.with_term(term)
            values.append(Facet(value, count, search.address(q=q), is_chosen))
        # A single value is not offered, unless it can be removed, or is the status, which never has another value here.
        if values and (len(values) > 1 or values[0].is_chosen or name == "status"):
            facets.append((title, values))
    return facets


def time_range(search: Search, now: datetime) -> tuple[float, float]:
    """Return the start and the end of the search's time range, in nanoseconds since the epoch.

    Raises:
        SearchError: a time is invalid, or the range is empty.
    """
    begin, end = float("-inf"), float("inf")
    if search.last:
        begin = (now - timedelta(minutes=int(search.last))).timestamp() * SECOND
    if search.begin:
        moment = _parse_time("from", search.begin, now)
        is_time_of_day = len(search.begin) <= len("23:59:59.999")  # a date with a time is longer
        if is_time_of_day and moment > now + timedelta(minutes=1):
            moment -= timedelta(days=1)  # a time of day in the future means yesterday
        begin = max(begin, moment.timestamp() * SECOND)
    if search.end:
        moment = _parse_time("to", search.end, now)
        end = moment.timestamp() * SECOND
        if end <= begin:
            raise SearchError(f"The time range is empty: from={search.begin} is not before to={search.end}.")
    return begin, end


def _parse_time(name: str, text: str, now: datetime) -> datetime:
    """Return the time in `text`: a time of day, which means today, or a date in ISO 8601, with or without a time."""
    with suppress(ValueError):
        return datetime.combine(now.date(), time.fromisoformat(text), now.tzinfo)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        example = f"{now:%H:%M:%S} or {now:%Y-%m-%dT%H:%M:%S}"
        raise SearchError(f"{name}={text} is not a time. Write it like {example}.", unfinished=True) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)
