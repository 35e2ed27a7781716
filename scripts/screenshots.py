"""Take the screenshots of the local view in docs/, with three real services, real requests and a real browser.

`--seconds` sets how long requests are sent before the screenshots are taken.
"""

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
WIDTH, HEIGHT = 1300, 700
PAUSE_SECONDS = 0.11  # the average time between two requests
REQUESTS = {  # each path with its weight
    "/api/hello?name=Ada": 5,
    "/api/hello/Grace": 4,
    "/api/relay?count=2": 4,
    "/api/faults/slow?seconds=0.12": 1,
    "/api/faults/error": 0.5,
    "/api/faults/status/503": 0.3,
    "/no/such/page": 0.5,
}


def main() -> None:
    """Run the services, send requests, take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=75)
    parser.add_argument("--to", type=Path, default=DOCS)
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("Chromium is not installed: apt-get install chromium")
    options.to.mkdir(exist_ok=True)
    with ExitStack() as stack:
        dev = _services(stack)
        trace_id = _send(dev, options.seconds)
        browser = stack.enter_context(chromium())
        for name, path, scheme in (
            ("traces", "/", "light"),
            ("trace", f"/trace/{trace_id}", "light"),
            ("trace-dark", f"/trace/{trace_id}", "dark"),
            ("map", "/map", "light"),
            ("performance", "/performance?minutes=1", "light"),
        ):
            with opened(browser, WIDTH, HEIGHT, scheme) as page:
                _shoot(page, dev.page_url + path, options.to / f"{name}.png")


def _services(stack: ExitStack) -> Dev:
    """Start three services that call each other, and return the first. All send their traces to its agent."""
    agent_port = free_port()
    agent_url = f"http://127.0.0.1:{agent_port}"
    names = stack.enter_context(service(agent_url, {"DD_SERVICE": "names", "DD_ENV": "dev"}))
    calls = {"UPSTREAM_URL": f"{names.url}/api/hello", "UPSTREAM_SERVICE": "names"}
    greeter = stack.enter_context(service(agent_url, {"DD_SERVICE": "greeter", "DD_ENV": "dev", **calls}))
    calls = {"UPSTREAM_URL": f"{greeter.url}/api/relay?count=2", "UPSTREAM_SERVICE": "greeter"}
    return stack.enter_context(developing("--agent-port", str(agent_port), environment=calls))


def _send(dev: Dev, seconds: float) -> str:
    """Send requests for `seconds`. Return the id of a complete trace through all services."""
    rng = random.Random(7)  # noqa: S311 - it selects requests, not secrets
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        dev.get(rng.choices([*REQUESTS], [*REQUESTS.values()])[0])
        time.sleep(rng.expovariate(1 / PAUSE_SECONDS))
    for path in REQUESTS:  # so that each of them is among the newest traces
        dev.get(path)
    trace_id = dev.get("/api/relay?count=2").headers["traceresponse"].split("-")[1]

    def spans() -> int:
        return len(httpx.get(f"{dev.page_url}/trace/{trace_id}/json").json().get("spans", []))

    # The relay's span, and for each of its 2 calls: the client's and the server's span, and those of 2 further calls.
    eventually(spans, lambda number: number == 1 + 2 * (2 + 2 * 2))
    return trace_id


def _shoot(page: Page, url: str, to: Path) -> None:
    page.goto(url)
    page.screenshot(path=to)
    print(f"{to} ({to.stat().st_size // 1024} KiB)")


if __name__ == "__main__":
    main()
