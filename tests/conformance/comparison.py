"""Compares the spans of two services attribute by attribute, without the values that differ from run to run.

Each span gets a label: its kind, which is usually its name, with a number from the second span of that kind on
(`request`, `websocket.send #2`). A reference to another span (parent, trace, links) is replaced by that span's label.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from running import Span

# The common kind of spans whose names differ between the integrations.
KINDS = {
    "asgi.request": "request",
    "fastapi.request": "request",
    "quart.background_task": "background task",
    "fastapi.background_task": "background task",
}
# Values that differ from process to process or from run to run. Only their presence is compared.
VARYING = {
    "_dd.appsec.waf.duration",
    "_dd.appsec.waf.duration_ext",
    "runtime-id",
    "process_id",
    "_dd.tags.process",
}
# A loopback address with its port: in a URL, or as a tuple in a message of asyncio.
PORT = re.compile(r"127\.0\.0\.1:\d+|'127\.0\.0\.1', \d+")
# A stack frame in the code of this folder. The group is the function's name.
FRAME = re.compile(r'File "[^"]*/(?:quart_app|fastapi_app|shared)\.py", line \d+, in (\w+)')
# The upper half of a trace id that ddtrace generated: the time in seconds, then zeros.
GENERATED = re.compile(r"[0-9a-f]{8}0{8}")

Attributes = dict[str, str]


@dataclass(frozen=True)
class Difference:
    """An attribute of a span that differs between the services. A value is None if that service lacks the attribute.

    If a service lacks the whole span, `attribute` is "span", and the other service's value is "present".
    """

    span: str
    attribute: str
    quart: str | None
    fastapi: str | None

    def __str__(self) -> str:
        return f"{self.span} · {self.attribute}: quart {self.quart!r}, fastapi {self.fastapi!r}"


def attributes_by_label(spans: Sequence[Span]) -> dict[str, Attributes]:
    """Return the attributes of every span by its label."""
    # With application security on, the tracer omits fields that are 0.
    complete = [{"parent_id": 0, "error": 0, **span} for span in spans]
    ordered = sorted(complete, key=lambda span: (span["start"], span["span_id"]))
    labels: dict[int, str] = {}
    kinds: Counter[str] = Counter()
    for span in ordered:
        kind: str = KINDS.get(span["name"]) or span["name"]
        if kind == "work":
            kind = f"work: {span['resource']}"
        elif kind == "websocket.receive" and "websocket.message.frames" not in span["metrics"]:
            kind = "websocket.receive of no message"  # ASGI's event that opens or closes the WebSocket
        kinds[kind] += 1
        labels[span["span_id"]] = kind if kinds[kind] == 1 else f"{kind} #{kinds[kind]}"
    traces: dict[int, str] = {}  # the label of each trace's first span
    for span in ordered:
        traces.setdefault(span["trace_id"], labels[span["span_id"]])
    return {labels[span["span_id"]]: _attributes(span, labels, traces) for span in ordered}


def compare(quart: Sequence[Span], fastapi: Sequence[Span]) -> list[Difference]:
    """Return every attribute that differs between the spans. A span that only one service has is one difference."""
    quart_spans, fastapi_spans = attributes_by_label(quart), attributes_by_label(fastapi)
    differences: list[Difference] = []
    for label in sorted({*quart_spans, *fastapi_spans}):
        if label not in fastapi_spans:
            differences.append(Difference(label, "span", quart="present", fastapi=None))
            continue
        if label not in quart_spans:
            differences.append(Difference(label, "span", quart=None, fastapi="present"))
            continue
        for name in sorted({*quart_spans[label], *fastapi_spans[label]}):
            quart_value, fastapi_value = quart_spans[label].get(name), fastapi_spans[label].get(name)
            if quart_value != fastapi_value:
                differences.append(Difference(label, name, quart=quart_value, fastapi=fastapi_value))
    return differences


def _attributes(span: Span, labels: Mapping[int, str], traces: Mapping[int, str]) -> Attributes:
    """Return all attributes of `span` by name.

    `labels` has the label of each span by span id, and `traces` the label of each trace's first span by trace id.
    """
    parent = span["parent_id"]
    # A trace is identified by its first span, unless its id is the caller's, which is the same on both sides.
    trace = f"that of {traces[span['trace_id']]}"
    trace_id_is_generated = GENERATED.fullmatch(span["meta"].get("_dd.p.tid", ""))
    if _has_remote_parent(span, labels) and not trace_id_is_generated:
        trace = f"{span['trace_id']:016x}"
    attributes = {
        "name": span["name"],
        "resource": span["resource"],
        "service": span["service"],
        "type": span["type"],
        "error": str(span["error"]),
        "parent": labels.get(parent, f"{parent:016x}") if parent else "none",
        "trace": trace,
        "links": "; ".join(_links(span, labels)),
    }
    for name, value in {**span["meta"], **span["metrics"]}.items():
        attributes[name] = _value(name, value)
    return attributes


def _has_remote_parent(span: Span, labels: Mapping[int, str]) -> bool:
    return bool(span["parent_id"]) and span["parent_id"] not in labels


def _links(span: Span, labels: Mapping[int, str]) -> list[str]:
    """Return a text for each link of `span`.

    ddtrace sends links in a field of the span or in a tag. The tag is removed, so that its links are compared once.
    """
    links: list[dict[str, Any]] = span.get("span_links") or json.loads(span["meta"].pop("_dd.span_links", "[]"))
    texts = []
    for link in links:
        # The field has the id as a number, and the tag has it as hexadecimal text.
        span_id = link["span_id"] if isinstance(link["span_id"], int) else int(link["span_id"], 16)
        attributes = json.dumps(link.get("attributes", {}), sort_keys=True)
        attributes = attributes.replace(f"{span_id:016x}", "its id")  # the ptr.hash of a WebSocket contains it
        texts.append(f"{labels.get(span_id, f'{span_id:016x}')} {attributes}")
    return texts


def _value(name: str, value: object) -> str:
    """Return the attribute's value as text, without the parts that differ from run to run or between the app files."""
    if name in VARYING:
        return "present"
    text = PORT.sub("127.0.0.1:port", str(value))
    if name == "_dd.p.tid" and GENERATED.fullmatch(text):
        return "generated"
    if name == "_dd.code_origin.frames.0.line":
        return "present"
    if name.startswith("_dd.code_origin.frames.0."):
        return text.replace("fastapi_app", "app").replace("quart_app", "app")
    if name == "error.stack":  # the functions of this folder, then the exception
        return " > ".join([*FRAME.findall(text), text.strip().splitlines()[-1]])
    return text
