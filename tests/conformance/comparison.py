"""Compares the spans of two services attribute by attribute, without the values that differ from run to run.

Each span gets a label: its kind, with a number from the second span of that kind on (`request`, `websocket.send #2`).
A reference to another span (parent, trace, links) is replaced by that span's label.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from running import Span

# Kinds of spans that each integration names after its framework.
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
PORT = re.compile(r"127\.0\.0\.1:\d+|'127\.0\.0\.1', \d+")
# A stack frame in the code of this folder; its group is the function.
FRAME = re.compile(r'File "[^"]*/(?:quart_app|fastapi_app|shared)\.py", line \d+, in (\w+)')
# The upper half of a trace id that ddtrace generated: the time, then zeros.
GENERATED = re.compile(r"[0-9a-f]{8}0{8}")

Attributes = dict[str, str]


@dataclass(frozen=True)
class Difference:
    """One attribute of one span that differs between the sides. A value is None if that side lacks the attribute."""

    span: str
    attribute: str
    quart: str | None
    fastapi: str | None

    def __str__(self) -> str:
        return f"{self.span} · {self.attribute}: quart {self.quart!r}, fastapi {self.fastapi!r}"


def describe(spans: Sequence[Span]) -> dict[str, Attributes]:
    """Return the attributes of every span by its label."""
    # With application security on, the tracer omits fields that are 0.
    ordered = sorted(
        ({"parent_id": 0, "error": 0, **span} for span in spans), key=lambda span: (span["start"], span["span_id"])
    )
    labels: dict[int, str] = {}
    for span in ordered:
        kind: str = KINDS.get(span["name"]) or span["name"]
        if kind == "work":
            kind = f"work: {span['resource']}"
        elif kind == "websocket.receive" and "websocket.message.frames" not in span["metrics"]:
            kind = "websocket.receive of no message"  # ASGI's event that opens or closes the WebSocket
        number = sum(label.partition(" #")[0] == kind for label in labels.values()) + 1
        labels[span["span_id"]] = kind if number == 1 else f"{kind} #{number}"
    traces: dict[int, str] = {}
    for span in ordered:
        traces.setdefault(span["trace_id"], labels[span["span_id"]])
    return {labels[span["span_id"]]: _attributes(span, labels, traces) for span in ordered}


def compare(quart: Sequence[Span], fastapi: Sequence[Span]) -> list[Difference]:
    """Return every attribute in which two sets of spans differ; a span that only one side has is one difference."""
    ours, theirs = describe(quart), describe(fastapi)
    differences: list[Difference] = []
    for label in sorted({*ours, *theirs}):
        if label not in theirs:
            differences.append(Difference(label, "span", "present", None))
            continue
        if label not in ours:
            differences.append(Difference(label, "span", None, "present"))
            continue
        for name in sorted({*ours[label], *theirs[label]}):
            values = ours[label].get(name), theirs[label].get(name)
            if values[0] != values[1]:
                differences.append(Difference(label, name, *values))
    return differences


def _attributes(span: Span, labels: Mapping[int, str], traces: Mapping[int, str]) -> Attributes:
    """Return all attributes of `span` by name. `traces` has the label of each trace's first span by trace id."""
    parent = span["parent_id"]
    trace = f"that of {traces[span['trace_id']]}"
    has_generated_id = GENERATED.fullmatch(span["meta"].get("_dd.p.tid", ""))
    if _has_remote_parent(span, labels) and not has_generated_id:
        trace = f"{span['trace_id']:016x}"  # the caller's id, which is the same on both sides
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
    """Return a text for each link of `span`. Links in a tag are removed from there, so that they're compared once."""
    links: list[dict[str, Any]] = span.get("span_links") or json.loads(span["meta"].pop("_dd.span_links", "[]"))
    lines = []
    for link in links:
        span_id = link["span_id"] if isinstance(link["span_id"], int) else int(link["span_id"], 16)
        attributes = json.dumps(link.get("attributes", {}), sort_keys=True)
        attributes = attributes.replace(f"{span_id:016x}", "its id")
        lines.append(f"{labels.get(span_id, f'{span_id:016x}')} {attributes}")
    return lines


def _value(name: str, value: object) -> str:
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
