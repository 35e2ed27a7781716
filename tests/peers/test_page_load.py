"""Tests of the local view under load, 200 requests a second: it keeps up, and its memory levels off.

PAGE_LOAD_SECONDS sets the duration of the load. The default is 15 seconds.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from pathlib import Path
from statistics import mean, median

import aiohttp
import httpx
import pytest
from browser import CHROMIUM, chromium, opened
from developing import Dev, developing
from playwright.sync_api import expect
from running import eventually

SECONDS = int(os.environ.get("PAGE_LOAD_SECONDS", "15"))
RATE = 200  # requests per second
TRACES = 1000  # the most that the page keeps
MAX_LAG_SECONDS = 5.0  # the median time from a response to its row, on the machine that also generates the load
MAX_GROWTH = 1.1  # the factor by which memory may grow from the second to the last quarter of the load

pytestmark = [
    pytest.mark.once,
    pytest.mark.serial,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"),
    pytest.mark.timeout(SECONDS + 180),  # 180 for the start, and for the last traces to arrive
]


class Load(threading.Thread):
    """Sends `RATE` requests a second for `SECONDS`, without waiting for earlier responses."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.statuses: list[int] = []

    def run(self) -> None:
        asyncio.run(self._send())

    async def _send(self) -> None:
        async with aiohttp.ClientSession(self.url) as session, asyncio.TaskGroup() as requests:
            loop = asyncio.get_running_loop()
            begin = loop.time()
            for number in range(RATE * SECONDS):
                due = begin + number / RATE
                await asyncio.sleep(due - loop.time())
                # Every tenth trace has several spans.
                path = "/api/relay?count=1" if number % 10 == 0 else "/api/hello"
                requests.create_task(self._request(session, path))

    async def _request(self, session: aiohttp.ClientSession, path: str) -> None:
        async with session.get(path) as response:
            await response.read()
            self.statuses.append(response.status)


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]  # "VmRSS:  12345 kB"
    return int(line.split()[1])


def growth(samples: list[int]) -> float:
    """Return by what factor memory grew: the mean of the last quarter of `samples` over that of the second quarter.

    The first quarter does not count, because the page has few traces then.
    """
    quarter = len(samples) // 4
    return mean(samples[-quarter:]) / mean(samples[quarter : 2 * quarter])


def received_traces(dev: Dev) -> int:
    """Return how many traces the page has received: the sum of kept and dropped traces."""
    html = httpx.get(f"{dev.page_url}/map").text
    text = html.split('id="kept" data-live>')[1].split("<")[0]  # for example "1,000 traces kept, 2,000 dropped"
    return sum(int(number) for number in re.findall(r"\d+", text.replace(",", "")))


def test_the_page_keeps_up_and_memory_levels_off() -> None:
    """Every response is a 200, every trace arrives and is soon on the page, and the page keeps at most `TRACES`."""
    with developing("--traces", str(TRACES), measured=False) as dev, chromium() as browser, opened(browser) as page:
        pids = {"dev": dev.process_id("hello-service dev"), "agent": dev.process_id("localview.agent")}
        memory: dict[str, list[int]] = {name: [] for name in pids}
        lags: list[float] = []
        # This search matches the requests whose lag is measured, but not those of the load.
        page.goto(f"{dev.page_url}/?q=/api/hello/<name>")
        load = Load(dev.url)
        load.start()
        while load.is_alive():
            for name, pid in pids.items():
                memory[name].append(resident_kib(pid))
            trace_id = httpx.get(f"{dev.url}/api/hello/Ada").headers["traceresponse"].split("-")[1]
            responded = time.monotonic()
            page.wait_for_function(
                "id => document.querySelector(`#rows a[href^='/trace/${id}']`)", arg=trace_id, timeout=30_000
            )
            lags.append(time.monotonic() - responded)
        load.join()
        total = RATE * SECONDS + len(lags)
        eventually(lambda: received_traces(dev), lambda number: number == total)
        expect(page.locator("#kept")).to_contain_text(f"{TRACES:,} traces kept, {total - TRACES:,} dropped")
        summary = [f"{RATE} requests/s for {SECONDS} s: a row after {median(lags):.2f} s (at most {max(lags):.2f} s)"]
        for name, samples in memory.items():
            memory_range = f"{min(samples) // 1024} to {max(samples) // 1024} MiB"
            summary.append(f"{name}: {memory_range}, the last quarter {growth(samples):.3f} times the second")
        print("\n".join(["", *summary]))  # noqa: T201 - shown with pytest -s

        assert set(load.statuses) == {200}
        assert len(load.statuses) == RATE * SECONDS
        assert median(lags) < MAX_LAG_SECONDS
        assert growth(memory["dev"]) <= MAX_GROWTH
        assert growth(memory["agent"]) <= MAX_GROWTH
