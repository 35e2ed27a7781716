"""Tests of the local view under 200 requests a second: it keeps up, and its memory levels off.

PAGE_LOAD_SECONDS sets the duration of the load. The default is 15 seconds.
"""

from __future__ import annotations

import asyncio
import os
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
TRACES = 1000
MAX_LAG_SECONDS = 5.0  # from a response to its row, on the machine that also generates the load
MAX_GROWTH = 1.1  # of memory once the store is full

pytestmark = [
    pytest.mark.once,
    pytest.mark.serial,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"),
    pytest.mark.timeout(SECONDS + 180),
]


class Load(threading.Thread):
    """Sends `RATE` requests a second for `SECONDS`, however slow the responses are."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.statuses: list[int] = []

    def run(self) -> None:
        asyncio.run(self._send())

    async def _send(self) -> None:
        async with aiohttp.ClientSession(self.url) as session, asyncio.TaskGroup() as requests:
            begin = asyncio.get_running_loop().time()
            for number in range(RATE * SECONDS):
                await asyncio.sleep(begin + number / RATE - asyncio.get_running_loop().time())
                requests.create_task(self._request(session, "/api/relay?count=1" if number % 10 == 0 else "/api/hello"))

    async def _request(self, session: aiohttp.ClientSession, path: str) -> None:
        async with session.get(path) as response:
            await response.read()
            self.statuses.append(response.status)


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def growth(samples: list[int]) -> float:
    """Return the mean of the last quarter of `samples` divided by that of the second quarter."""
    quarter = len(samples) // 4
    return mean(samples[-quarter:]) / mean(samples[quarter : 2 * quarter])


def received_traces(dev: Dev) -> int:
    """Return how many traces the page has received: the sum of those kept and those dropped."""
    # For example "1,000 traces kept, 2,000 dropped".
    counts = httpx.get(f"{dev.page_url}/map").text.split('id="kept" data-live>')[1].split("<")[0]
    return sum(int(word) for word in counts.replace(",", "").split() if word.isdigit())


def test_the_page_keeps_up_and_memory_levels_off() -> None:
    """Every response is a 200, every trace arrives, new ones are soon on the page, and it keeps no more than it may."""
    with developing("--traces", str(TRACES)) as dev, chromium() as browser, opened(browser) as page:
        pids = {"dev": dev.process("hello-service dev"), "agent": dev.process("localview.agent")}
        memory: dict[str, list[int]] = {name: [] for name in pids}
        lags: list[float] = []
        page.goto(f"{dev.page_url}/?q=/api/hello/<name>")  # lists the requests below, but not those of the load
        load = Load(dev.url)
        load.start()
        while load.is_alive():
            for name, pid in pids.items():
                memory[name].append(resident_kib(pid))
            identity = httpx.get(f"{dev.url}/api/hello/Ada").headers["traceresponse"].split("-")[1]
            began = time.monotonic()
            page.wait_for_function(
                "id => document.querySelector(`#rows a[href^='/trace/${id}']`)", arg=identity, timeout=30_000
            )
            lags.append(time.monotonic() - began)
        load.join()
        total = RATE * SECONDS + len(lags)
        eventually(lambda: received_traces(dev), lambda number: number == total)
        expect(page.locator("#kept")).to_contain_text(f"{TRACES:,} traces kept, {total - TRACES:,} dropped")
        figures = [f"{RATE} requests/s for {SECONDS} s: a row after {median(lags):.2f} s (at most {max(lags):.2f} s)"]
        for name, samples in memory.items():
            bounds = f"{min(samples) // 1024} to {max(samples) // 1024} MiB"
            figures.append(f"{name}: {bounds}, the last quarter {growth(samples):.3f} times the second")
        print("\n".join(["", *figures]))  # noqa: T201 - shown with pytest -s

        assert set(load.statuses) == {200}
        assert len(load.statuses) == RATE * SECONDS
        assert median(lags) < MAX_LAG_SECONDS
        assert {name: growth(samples) for name, samples in memory.items() if growth(samples) > MAX_GROWTH} == {}
