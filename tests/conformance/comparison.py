"""Compare the spans of two services attribute by attribute, without the values that differ by chance.

Each span has a label: its kind and a number (`request`, `work: gather 1`, `websocket.send 2`). A reference to another
span (parent, trace, links) is the label in place of the id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from running import Span

# One thing, named by each framework after itself.
KINDS = {
    "asgi.request": "request",
    "fastapi.request": "request",
    "quart.background_task": "background task",
    "fastapi.background_task": "background task",
}
CHANCE = {
    "_dd.appsec.waf.duration",
    "_dd.appsec.waf.duration_ext",
    "runtime-id",
    "process_id",
    "_dd.tags.process",
}  # of the process: present on both or on none
PORT = re.compile(r"127\.0\.0\.1:\d+|'127\.0\.0\.1', \d+")
FRAME = re.compile(r'File "[^"]*/(?:quart_app|fastapi_app|outside)\.py", line \d+, in (\w+)')
GENERATED = re.compile(r"[0-9a-f]{8}0{8}")  # the upper half of a trace id that ddtrace made: the time, then zeros

Attributes = dict[str, str]


@dataclass(frozen=True)
class Difference:
    """One attribute of one span that differs between the sides; a value is None where a side lacks the attribute."""

    span: str
    attribute: str
    quart: str | None
    fastapi: str | None

    def __str__(self) -> str:
        return f"{self.span} · {self.attribute}: quart {self.quart!r}, fastapi {self.fastapi!r}"


def describe(spans: Sequence[Span]) -> dict[str, Attributes]:
    """Return the attributes of every span by its label."""
    # Application security has the tracer leave out what is 0.
    ordered = sorted(
        ({"parent_id": 0, "error": 0, **span} for span in spans), key=lambda span: (span["start"], span["span_id"])
    )
    labels: dict[int, str] = {}
    for span in ordered:
        kind: str = KINDS.get(span["name"]) or span["name"]
        if kind == "work":
            kind = f"work: {span['resource']}"
        elif kind == "websocket.receive" and "websocket.message.frames" not in span["metrics"]:
            kind = "websocket.receive of no message"  # the message opens or closes the socket
        number = sum(label.partition(" #")[0] == kind for label in labels.values()) + 1
        labels[span["span_id"]] = kind if number == 1 else f"{kind} #{number}"
    traces: dict[int, str] = {}
    for span in ordered:
        traces.setdefault(span["trace_id"], labels[span["span_id"]])
    return {labels[span["span_id"]]: _attributes(span, labels, traces) for span in ordered}


def compare(quart: Sequence[Span], fastapi: Sequence[Span]) -> list[Difference]:
    """Return every attribute in which two sets of spans differ; a span that only one side has is one difference."""
    ours, theirs = describe(quart), describe(fastapi)
    found: list[Difference] = []
    for label in sorted({*ours, *theirs}):
        if label not in ours or label not in theirs:
            present = {True: "present", False: None}
            found.append(Difference(label, "span", present[label in ours], present[label in theirs]))
            continue
        for name in sorted({*ours[label], *theirs[label]}):
            values = ours[label].get(name), theirs[label].get(name)
            if values[0] != values[1]:
                found.append(Difference(label, name, *values))
    return found


def _attributes(span: Span, labels: Mapping[int, str], traces: Mapping[int, str]) -> Attributes:
    made = GENERATED.fullmatch(span["meta"].get("_dd.p.tid", ""))
    parent = span["parent_id"]
    attributes = {
        "name": span["name"],
        "resource": span["resource"],
        "service": span["service"],
        "type": span["type"],
        "error": str(span["error"]),
        "parent": labels.get(parent, f"{parent:016x}") if parent else "none",
        "trace": f"that of {traces[span['trace_id']]}"
        if made or not _remote(span, labels)
        else f"{span['trace_id']:016x}",
        "links": "; ".join(_links(span, labels)),
    }
    for name, value in {**span["meta"], **span["metrics"]}.items():
        attributes[name] = _value(name, value)
    return attributes


def _remote(span: Span, labels: Mapping[int, str]) -> bool:
    return bool(span["parent_id"]) and span["parent_id"] not in labels


def _links(span: Span, labels: Mapping[int, str]) -> list[str]:
    links: list[dict[str, Any]] = span.get("span_links") or json.loads(span["meta"].pop("_dd.span_links", "[]"))
    lines = []
    for link in links:
        identity = link["span_id"] if isinstance(link["span_id"], int) else int(link["span_id"], 16)
        attributes = json.dumps(link.get("attributes", {}), sort_keys=True)
        attributes = attributes.replace(f"{identity:016x}", "its id")
        lines.append(f"{labels.get(identity, f'{identity:016x}')} {attributes}")
    return lines


def _value(name: str, value: object) -> str:
    if name in CHANCE:
        return "present"
    text = PORT.sub("127.0.0.1:port", str(value))
    if name == "_dd.p.tid" and GENERATED.fullmatch(text):
        return "generated"
    if name == "_dd.code_origin.frames.0.line":
        return "present"
    if name.startswith("_dd.code_origin.frames.0."):
        return text.replace("fastapi_app", "app").replace("quart_app", "app")
    if name == "error.stack":
        return " > ".join([*FRAME.findall(text), text.strip().splitlines()[-1]])
    return text
