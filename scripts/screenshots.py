"""Take the screenshots of the local view for docs/, with three real services, real requests and a real browser."""

from __future__ import annotations

import argparse
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
from browser import CHROMIUM, chromium, opened
from developing import Dev, developing
from playwright.sync_api import Page
from running import eventually, free_port, service

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH, HEIGHT = 1300, 700  # pixels
PAUSE_SECONDS = 0.11  # the average time between two requests
# Each path, and how often it is requested in relation to the others.
REQUEST_WEIGHTS = {
    "/api/hello?name=Ada": 5,
    "/api/hello/Grace": 4,
    "/api/relay?count=2": 4,
    "/api/faults/slow?seconds=0.12": 1,
    "/api/faults/error": 0.5,
    "/api/faults/status/503": 0.3,
    "/no/such/page": 0.5,
}


def main() -> None:
    """Run the services, send requests, and take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    # The default is longer than the minute that the page of service performance shows.
    parser.add_argument("--seconds", type=float, default=75, help="how long to send requests first; default: 75")
    parser.add_argument("--to", type=Path, default=DOCS, help="the folder of the screenshots; default: docs")
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("Chromium is not installed: apt-get install chromium")
    options.to.mkdir(exist_ok=True)
    with ExitStack() as stack:
        dev = _start_services(stack)
        trace_id = _send_requests(dev, options.seconds)
        browser = stack.enter_context(chromium())
        for name, path, scheme in (
            ("traces", "/", "light"),
            ("trace", f"/trace/{trace_id}", "light"),
            ("trace-dark", f"/trace/{trace_id}", "dark"),
            ("map", "/map", "light"),
            ("performance", "/performance?minutes=1", "light"),
        ):
            with opened(browser, WIDTH, HEIGHT, scheme) as page:
                _take_screenshot(page, dev.page_url + path, options.to / f"{name}.png")


def _start_services(stack: ExitStack) -> Dev:
    """Start three services that call each other, and return the first. All three send their traces to its agent."""
    agent_port = free_port()
    agent_url = f"http://127.0.0.1:{agent_port}"
    names = stack.enter_context(service(agent_url, {"DD_SERVICE": "names", "DD_ENV": "dev"}))
    upstream = {"UPSTREAM_URL": f"{names.url}/api/hello", "UPSTREAM_SERVICE": "names"}
    greeter = stack.enter_context(service(agent_url, {"DD_SERVICE": "greeter", "DD_ENV": "dev", **upstream}))
    upstream = {"UPSTREAM_URL": f"{greeter.url}/api/relay?count=2", "UPSTREAM_SERVICE": "greeter"}
    return stack.enter_context(developing("--agent-port", str(agent_port), environment=upstream))


def _send_requests(dev: Dev, seconds: float) -> str:
    """Send requests for `seconds`. Return the id of a complete trace through all services."""
    rng = random.Random(7)  # noqa: S311 - any fixed seed: it selects requests, not secrets
    paths, weights = list(REQUEST_WEIGHTS), list(REQUEST_WEIGHTS.values())
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        (path,) = rng.choices(paths, weights)
        dev.get(path)
        time.sleep(rng.expovariate(1 / PAUSE_SECONDS))
    for path in paths:  # again, so that each path is among the newest traces
        dev.get(path)
    trace_id = dev.get("/api/relay?count=2").headers["traceresponse"].split("-")[1]

    def span_count() -> int:
        return len(httpx.get(f"{dev.page_url}/trace/{trace_id}/json").json().get("spans", []))

    # The relay has 1 span. Each of its 2 calls has a client's and a server's span, and leads to 2 more such calls.
    eventually(span_count, lambda count: count == 1 + 2 * (2 + 2 * 2))
    return trace_id


def _take_screenshot(page: Page, url: str, file: Path) -> None:
    page.goto(url)
    page.screenshot(path=file)
    print(f"{file} ({file.stat().st_size // 1024} KiB)")


if __name__ == "__main__":
    main()
