"""The list of traces: its search, time range, order and facets, according to the page's address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from hello_service.localview import hints, query, terms
from hello_service.localview.rows import Row, group_websockets, path_of, traces_of
from hello_service.localview.spans import Span, Trace
from hello_service.localview.store import Store
from hello_service.localview.units import SECOND, quantity

NEWEST_FIRST = "-time"
FACET_VALUES = 8  # per field
MINUTES = (1, 5, 15, 60)  # the values of `last` in an address
COLUMNS: dict[str, Callable[[Trace], Any]] = {  # the value by which each column sorts
    "time": lambda trace: trace.start,
    "request": lambda trace: (trace.root.resource, path_of(trace.root)),
    "service": lambda trace: trace.root.service,
    "status": lambda trace: trace.root.status,
    "duration": lambda trace: trace.duration,
    "spans": lambda trace: len(trace.spans),
}
# Maps the title of a facet to its field in a search, and to a function that returns a span's value of it, or None.
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
        """Return the search for these query parameters of an address. An invalid `sort` or `last` is ignored."""
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
        search = replace(self, **changes)
        arguments = {
            "q": search.q,
            "last": search.last,
            "from": search.begin,
            "to": search.end,
            "sort": "" if search.sort == NEWEST_FIRST else search.sort,
            "all": "1" if search.show_all else "",
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
        return not (self.q.strip() or self.last or self.begin or self.end)


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
    """The result of a search. `found` counts all traces, including those grouped below other rows."""

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
    return Listing(search, rows, found=len(matches), facets=_facets(parsed, search, matches))


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


def unfinished_field_error(search: Search) -> SearchError | None:
    """Return an error if a search that found nothing ends with the beginning of a field's name."""
    word = search.q.rpartition(" ")[2].lstrip("-(")  # without a negation and parentheses
    name = next((name for name in (*terms.FIELDS, "@duration") if word and name.startswith(word)), None)
    if name is None:
        return None
    return SearchError(
        f"No trace contains the text {word}. To search a field, add a colon and a value: {name}:", unfinished=True
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
        listed_traces = traces_of(group_websockets(select(store, search, now or datetime.now().astimezone())))
    except SearchError:
        listed_traces = []
    index = next((index for index, candidate in enumerate(listed_traces) if candidate.key == trace.key), None)
    list_address = search.address("/")
    if index is None:
        return Pager(list_address, position=0, total=len(listed_traces), previous="", next="")

    def address_at(index: int) -> str:
        """Return the address of the trace at `index` of the list, empty if the list doesn't reach that far."""
        return search.address(f"/trace/{listed_traces[index].id}") if 0 <= index < len(listed_traces) else ""

    return Pager(
        list_address,
        position=index + 1,
        total=len(listed_traces),
        previous=address_at(index - 1),
        next=address_at(index + 1),
    )


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
    if search.sort != NEWEST_FIRST:  # the order of `store.newest()`
        matches.sort(key=lambda match: COLUMNS[column](match[0]), reverse=search.sort.startswith("-"))
    return parsed, matches


def _facets(
    parsed: query.Query, search: Search, matches: Sequence[tuple[Trace, Sequence[Span]]]
) -> list[tuple[str, list[Facet]]]:
    """Return each facet field with its values in the matching spans, most frequent first.

    The count of a value is the number of traces that a click on it finds, unless the value is chosen: then the click
    removes it from the search.
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
            values.append(Facet(value, count, address=search.address(q=q), is_chosen=is_chosen))
        # A single value can't narrow the search, so it is shown only if it is chosen, because a click then removes it.
        # The single value of Status, `error`, can narrow the search.
        if values and (len(values) > 1 or values[0].is_chosen or name == "status"):
            facets.append((title, values))
    return facets


def time_range(search: Search, now: datetime) -> tuple[float, float]:
    """Return the start and the end of the search's time range, in nanoseconds since the epoch.

    Raises:
        SearchError: a time is invalid, or the range is empty.
    """
    last, begin, end = float("-inf"), float("-inf"), float("inf")
    begins_yesterday = False
    if search.last:
        last = (now - timedelta(minutes=int(search.last))).timestamp() * SECOND
    if search.begin:
        moment, is_time_of_day = _parse_time("from", search.begin, now)
        # A time of day in the future means yesterday, unless it is so close that only the clocks differ.
        if is_time_of_day and moment > now + timedelta(minutes=1):
            moment -= timedelta(days=1)
            begins_yesterday = True
        begin = moment.timestamp() * SECOND
    if search.end:
        moment, is_time_of_day = _parse_time("to", search.end, now)
        end = moment.timestamp() * SECOND
        if begins_yesterday and is_time_of_day and moment > now:
            # The end means yesterday, too, if that is after the begin. In from=23:00&to=01:00 it isn't.
            day_before = (moment - timedelta(days=1)).timestamp() * SECOND
            if day_before > begin:
                end = day_before
        if end <= begin:
            raise SearchError(f"The time range is empty: from={search.begin} is not before to={search.end}.")
        if end <= last:
            minutes = quantity(int(search.last), "minute")
            raise SearchError(f"The time range is empty: to={search.end} is before the last {minutes}.")
    return max(last, begin), end


def _parse_time(name: str, text: str, now: datetime) -> tuple[datetime, bool]:
    """Return the time in `text`, and whether it is a time of day. Otherwise it is a date, with or without a time.

    The formats are those of ISO 8601. A time of day means today.
    """
    with suppress(ValueError):
        time_of_day = time.fromisoformat(text)
        return datetime.combine(now.date(), time_of_day, time_of_day.tzinfo or now.tzinfo), True
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        example = f"{now:%H:%M:%S} or {now:%Y-%m-%dT%H:%M:%S}"
        raise SearchError(f"{name}={text} is not a time. Write it like {example}.", unfinished=True) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo), False
