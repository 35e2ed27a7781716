"""Runs `dev`, another service and a browser for tests of the local view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from browser import chromium
from developing import Dev, developing
from playwright.sync_api import Browser, Page
from running import Running, reserved_port, service
from tracing_data import wire_format

from hello_service.localview.spans import Span


@dataclass
class LocalView:
    """`dev`, a service that it calls, and a browser. Both services send their traces to the embedded agent."""

    dev: Dev
    greeter: Running
    browser: Browser

    def visit(self, page: Page, path: str = "/") -> None:
        """Open `path` of the local view in `page`."""
        page.goto(self.dev.page_url + path)

    def send(self, *spans: Span) -> None:
        """Send `spans` to the agent of `dev`."""
        send_spans(self.dev.agent_url, spans)


def send_spans(agent_url: str, spans: Sequence[Span]) -> None:
    """Send `spans` to the agent, as the tracer of another service does."""
    chunks: dict[int, list[dict[str, object]]] = {}
    for span in spans:
        chunks.setdefault(span.trace_id, []).append(wire_format(span))
    response = httpx.put(f"{agent_url}/v0.4/traces", json=list(chunks.values()), timeout=60)
    assert response.status_code == 200, response.text


@contextmanager
def running_local_view() -> Iterator[LocalView]:
    """Run `dev`, a service that it calls, and a browser.

    Coverage is not measured, because it takes most of a request's time, and other tests cover the same code.
    """
    with (
        reserved_port() as agent_port,  # the greeter starts before the agent
        service(
            f"http://127.0.0.1:{agent_port}", {"DD_SERVICE": "greeter", "DD_ENV": "dev"}, measured=False
        ) as greeter,
        developing(
            "--agent-port", str(agent_port), environment={"UPSTREAM_URL": f"{greeter.url}/api/hello"}, measured=False
        ) as dev,
        chromium() as browser,
    ):
        yield LocalView(dev, greeter, browser)


def trace_id(response: httpx.Response) -> str:
    return response.headers["traceresponse"].split("-")[1]
