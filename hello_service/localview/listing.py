"""The list of traces: searching, sorting, grouping and counting facets, according to the page's address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from hello_service.localview import hints, query, terms
from hello_service.localview.spans import Span, Trace
from hello_service.localview.store import Store
from hello_service.localview.units import SECOND, count

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
        all: whether the page shows all rows, not only the first ones.
    """

    q: str = ""
    last: str = ""
    begin: str = ""
    end: str = ""
    sort: str = NEWEST_FIRST
    all: bool = False

    @classmethod
    def read(cls, arguments: Mapping[str, str]) -> Search:
        """Return the search of an address with these arguments. Invalid values of `sort` and `last` are ignored."""
        sort = arguments.get("sort", NEWEST_FIRST)
        last = arguments.get("last", "")
        return cls(
            q=arguments.get("q", ""),
            last=last if last in map(str, MINUTES) else "",
            begin=arguments.get("from", "").strip(),
            end=arguments.get("to", "").strip(),
            sort=sort if sort.removeprefix("-") in COLUMNS else NEWEST_FIRST,
            all="all" in arguments,
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
            "all": "1" if changed.all else "",
        }
        nonempty = {name: value for name, value in arguments.items() if value}
        return f"{path}?{urlencode(nonempty)}" if nonempty else path

    def sorted_by(self, column: str) -> str:
        """Return the `sort` that a click on the header of `column` selects."""
        descending_first = column in {"time", "duration", "spans", "status"}
        first, second = (f"-{column}", column) if descending_first else (column, f"-{column}")
        return second if self.sort == first else first

    @property
    def is_everything(self) -> bool:
        """Whether the search finds all traces."""
        return not (self.q.strip() or self.last or self.begin or self.end)


@dataclass
class Row:
    """A row of the list. The row of a WebSocket has the traces of its messages and of its close in `below`."""

    trace: Trace
    below: list[Row] = field(default_factory=list)

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
    def below_summary(self) -> str:
        """A summary of `below`, such as `3 messages, close`."""
        names = [each.trace.root.name for each in self.below]
        closes = names.count("websocket.close")
        messages = len(names) - closes
        parts = [count(messages, "message") if messages else "", "close" if closes else ""]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Facet:
    """A value of a field, the number of traces found that have it, and the address that narrows the search to them.

    If the value is `chosen`, it is a part of the search, and the address removes it.
    """

    value: str
    number: int
    address: str
    chosen: bool


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
    parsed, matches = _matches(store, search, now)
    rows = grouped([trace for trace, _ in matches])
    return Listing(search, rows, len(matches), _facets(parsed, search, matches))


def select(store: Store, search: Search, now: datetime) -> list[Trace]:
    """Return the traces that `search` finds, sorted but not grouped.

    Raises:
        SearchError: the search or its time range is invalid.
    """
    _, matches = _matches(store, search, now)
    return [trace for trace, _ in matches]


def alternatives(store: Store, search: Search) -> list[tuple[str, int]]:
    """Return searches similar to one that found nothing, each with the number of traces that it finds."""
    return hints.alternatives(query.parse(search.q), store.newest())


def unfinished(search: Search) -> SearchError | None:
    """Return an error if the last word of `search` is the beginning of a field's name. The search has found nothing."""
    word = search.q.rpartition(" ")[2].lstrip("-(")
    field = next((name for name in (*terms.FIELDS, "@duration") if word and name.startswith(word)), None)
    if field is None:
        return None
    return SearchError(
        f"No trace contains the text {word}. To search a field, add a colon and a value: {field}:", unfinished=True
    )


@dataclass(frozen=True)
class Pager:
    """The position of a trace in the list, as in "14 of 47", with the addresses of the list and of the adjacent traces."""

    back: str
    number: int
    of: int
    previous: str
    next: str


def pager(store: Store, arguments: Mapping[str, str], trace: Trace, now: datetime | None = None) -> Pager:
    """Return the position of `trace` in the list from which it was opened; number 0 if the list doesn't contain it."""
    search = Search.read(arguments)
    try:
        listed = _flat(grouped(select(store, search, now or datetime.now().astimezone())))
    except SearchError:
        listed = []
    index = next((index for index, each in enumerate(listed) if each.key == trace.key), None)
    back = search.address("/")
    if index is None:
        return Pager(back, 0, len(listed), "", "")

    def address(index: int) -> str:
        return search.address(f"/trace/{listed[index].id}") if 0 <= index < len(listed) else ""

    return Pager(back, index + 1, len(listed), address(index - 1), address(index + 1))


def path(span: Span) -> str:
    """Return the path of a request if its resource does not contain it, else an empty text."""
    url = span.meta.get("http.url", "")
    try:
        url_path = unquote(urlsplit(url).path) if url else ""
    except ValueError:
        return ""
    return "" if url_path == span.resource.rpartition(" ")[2] else url_path


def grouped(traces: Sequence[Trace]) -> list[Row]:
    """Return the rows of `traces` in the same order, with the messages of a WebSocket below its handshake."""
    rows = {trace.key: Row(trace) for trace in traces}
    parents = _parents(traces)
    for trace in traces:
        top = trace.key
        # A close leads to a message, a message to its handshake. The loop ends because a parent always began earlier.
        while top in parents:
            top = parents[top]
        if top != trace.key:
            rows[top].below.append(rows[trace.key])
    below = {each.trace.key for row in rows.values() for each in row.below}
    for row in rows.values():
        row.below.sort(key=lambda each: each.trace.start)
    return [row for row in rows.values() if row.trace.key not in below]


def _flat(rows: Iterable[Row]) -> list[Trace]:
    return [each.trace for row in rows for each in (row, *row.below)]


def _parents(traces: Sequence[Trace]) -> dict[int, int]:
    """Return, by trace key, the key of the handshake or message to which each trace of a WebSocket message belongs."""
    messages = sorted((each for each in traces if each.root.name.startswith("websocket.")), key=lambda each: each.start)
    if not messages:
        return {}
    starts = {trace.key: trace.start for trace in traces}
    parents = {}
    for each in messages:
        target = each.root.links[0].trace_id if each.root.links else None
        # The keys are compared too, because two traces that are linked to each other may have the same start.
        if target in starts and (starts[target], target) < (each.start, each.key):
            parents[each.key] = target
    # ddtrace does not link the last receive, which returns the disconnect. If it can belong to only one open WebSocket,
    # that is its parent.
    sockets = [each for each in traces if each.root.meta.get("http.upgraded") == "websocket"]
    closed: set[int] = set()
    for each in messages:
        if each.key in parents or each.root.name != "websocket.receive":
            continue
        candidates = [
            socket
            for socket in sockets
            if socket.key not in closed and socket.start <= each.start and _is_same_endpoint(socket.root, each.root)
        ]
        if len(candidates) == 1:
            parents[each.key] = candidates[0].key
            closed.add(candidates[0].key)
    return parents


def _is_same_endpoint(one: Span, other: Span) -> bool:
    """Return whether two spans belong to the same endpoint of the same process."""
    return (one.service, one.resource, one.meta.get("runtime-id")) == (
        other.service,
        other.resource,
        other.meta.get("runtime-id"),
    )


def _matches(store: Store, search: Search, now: datetime) -> tuple[query.Query, list[tuple[Trace, Sequence[Span]]]]:
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

    The number of a value is the number of traces that a click on it finds.
    """
    facets = []
    for title, (name, value_of) in FACETS.items():
        numbers: Counter[str] = Counter()
        for _, spans in matches:
            numbers.update({value for span in spans if (value := value_of(span)) is not None})
        values = []
        for value, number in sorted(numbers.items(), key=lambda each: (-each[1], each[0]))[:FACET_VALUES]:
            term = terms.exact(name, value)
            chosen = term in parsed.pieces
            q = parsed.without_term(term) if chosen else parsed.with_term(term)
            values.append(Facet(value, number, search.address(q=q), chosen))
        # A single value is not offered, unless it can be removed, or is the status, which never has another value here.
        if values and (len(values) > 1 or values[0].chosen or name == "status"):
            facets.append((title, values))
    return facets


def time_range(search: Search, now: datetime) -> tuple[float, float]:
    """Return the begin and the end of the search's time range, in nanoseconds since the epoch.

    Raises:
        SearchError: a time is invalid, or the range is empty.
    """
    begin, end = float("-inf"), float("inf")
    if search.last:
        begin = (now - timedelta(minutes=int(search.last))).timestamp() * SECOND
    if search.begin:
        moment = _moment("from", search.begin, now)
        is_time_of_day = len(search.begin) <= len("23:59:59.999")
        if is_time_of_day and moment > now + timedelta(minutes=1):
            moment -= timedelta(days=1)  # a time of day in the future means yesterday
        begin = max(begin, moment.timestamp() * SECOND)
    if search.end:
        moment = _moment("to", search.end, now)
        end = moment.timestamp() * SECOND
        if end <= begin:
            raise SearchError(f"The time range is empty: from={search.begin} is not before to={search.end}.")
    return begin, end


def _moment(name: str, text: str, now: datetime) -> datetime:
    try:
        try:
            return datetime.combine(now.date(), time.fromisoformat(text), now.tzinfo)
        except ValueError:
            moment = datetime.fromisoformat(text)
            return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)
    except ValueError:
        example = f"{now:%H:%M:%S} or {now:%Y-%m-%dT%H:%M:%S}"
        raise SearchError(f"{name}={text} is not a time. Write it like {example}.", unfinished=True) from None
