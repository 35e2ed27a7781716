"""The endurance and the overload test of this service.

One process serves 100,000 requests at four fifths of its maximum rate. Another gets twice that rate for 60 s.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks import measure, process
from benchmarks.contest import ALL, HELLO, OURS_NAME
from benchmarks.offer import ASK, DROP

WARM_UP_SECONDS, SECONDS = 1, 4  # to find the maximum rate
EASY, OVERLOAD = 0.8, 2.0  # of the maximum rate
OVERLOAD_SECONDS = 60
REQUESTS = 100_000
MANY = 1024  # connections; enough that a request is always waiting


def run(behind: measure.Backend) -> dict[str, Any]:
    """Return the memory before, halfway through and after 100,000 requests, and the results of the overload test."""
    contestant = ALL[OURS_NAME]
    with measure.started(contestant, behind) as (port, tree):
        process.start_seconds(port, tree, HELLO.path)
        point = (WARM_UP_SECONDS, SECONDS)
        rate = measure.sample(contestant, HELLO, (port, tree), behind, point).per_second
        rss = [tree.resident_mib()]
        for _ in range(2):
            offer(port, EASY * rate, REQUESTS // 2, HELLO.clients, ASK)
            rss.append(tree.resident_mib())
    with measure.started(contestant, behind) as (port, tree):
        process.start_seconds(port, tree, HELLO.path)
        behind.settle(None, tree.cpu_seconds)
        behind.clear()
        overload = offer(port, OVERLOAD * rate, int(OVERLOAD * rate * OVERLOAD_SECONDS), MANY, DROP)
        spans = behind.settle(overload["sent"], tree.cpu_seconds)
        info = json.loads(process.get(port, "/info")[1])
    return {"rate": rate, "rss_mib": rss, **overload, "spans": spans, "lost": info["tracing"].get("traces_lost")}


def offer(port: int, rate: float, count: int, connections: int, ending: str) -> dict[str, Any]:
    """Run benchmarks.offer on the other core and return its results."""
    command = ["taskset", "--cpu-list", str(process.OTHER_CORE), sys.executable, "-m", "benchmarks.offer"]
    command += [str(port), HELLO.path, str(rate), str(count), str(connections), ending]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(ended.stdout)
    return result
