"""The rows of the list of traces. The messages of a WebSocket are below its handshake."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from hello_service.localview.spans import Span, Trace
from hello_service.localview.units import quantity


@dataclass
class Row:
    """A row of the list. The row of a WebSocket has the rows of its messages and of its close in `messages`."""

    trace: Trace
    messages: list[Row] = field(default_factory=list)

    @property
    def path(self) -> str:
        return path_of(self.trace.root)

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


def path_of(span: Span) -> str:
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
        key = trace.key
        # The parent of a close is a message, whose parent is the handshake. A parent starts earlier, so the loop ends.
        while key in parents:
            key = parents[key]
        if key != trace.key:
            rows[key].messages.append(rows[trace.key])
    for row in rows.values():
        row.messages.sort(key=lambda message: message.trace.start)
    return [row for row in rows.values() if row.trace.key not in parents]


def traces_of(rows: Iterable[Row]) -> list[Trace]:
    """Return the traces of `rows` and of the messages below them, in the order of the page."""
    return [listed_row.trace for row in rows for listed_row in (row, *row.messages)]


def _websocket_parents(traces: Sequence[Trace]) -> dict[int, int]:
    """Return the parent of each WebSocket message or close: its handshake or an earlier message, all as trace keys."""
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
    closed_keys: set[int] = set()
    for message in messages:
        if message.key in parents or message.root.name != "websocket.receive":
            continue
        open_handshakes = [
            handshake
            for handshake in handshakes
            if handshake.key not in closed_keys
            and handshake.start <= message.start
            and _endpoint(handshake.root) == _endpoint(message.root)
        ]
        if len(open_handshakes) == 1:
            parents[message.key] = open_handshakes[0].key
            closed_keys.add(open_handshakes[0].key)
    return parents


def _endpoint(span: Span) -> tuple[str, str, str | None]:
    """Return the values that identify the endpoint of a span and its process."""
    return span.service, span.resource, span.meta.get("runtime-id")
