"""The endurance test and the overload test of this service.

One process serves 100,000 requests at four fifths of its maximum rate, to show whether its memory grows. Another gets
twice the maximum rate for 60 s, to show whether requests fail or spans are lost.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks import measure, process
from benchmarks.candidates import CANDIDATES, HELLO, THIS_SERVICE
from benchmarks.offer import DROP, SEND

SECONDS = (1, 4)  # of warm-up and of measurement, to determine the maximum rate
SUSTAINED_FACTOR, OVERLOAD_FACTOR = 0.8, 2.0  # multiples of the maximum rate
OVERLOAD_SECONDS = 60
REQUESTS = 100_000
OVERLOAD_CONNECTIONS = 1024  # so many that the service always has a request to serve


def run(backend: measure.Backend) -> dict[str, Any]:
    """Return the results of both tests: the maximum rate, the memory, and the counts of the overload test.

    The memory is measured before, halfway through and after the 100,000 requests.
    """
    candidate = CANDIDATES[THIS_SERVICE]
    with measure.running_candidate(candidate, backend) as (port, process_tree):
        process.wait_until_responding(port, process_tree, HELLO.path)
        rate = measure.sample(candidate, HELLO, (port, process_tree), backend, SECONDS).per_second
        rss = [process_tree.resident_mib()]
        for _ in range(2):
            offer_load(port, SUSTAINED_FACTOR * rate, count=REQUESTS // 2, connections=HELLO.clients, ending=SEND)
            rss.append(process_tree.resident_mib())
    with measure.running_candidate(candidate, backend) as (port, process_tree):
        process.wait_until_responding(port, process_tree, HELLO.path)
        # The spans of the first request must not count.
        backend.settle(expected_spans=None, cpu_seconds=process_tree.cpu_seconds)
        backend.clear()
        overload_rate = OVERLOAD_FACTOR * rate
        count = int(overload_rate * OVERLOAD_SECONDS)
        overload = offer_load(port, overload_rate, count, connections=OVERLOAD_CONNECTIONS, ending=DROP)
        spans = backend.settle(overload["sent"], process_tree.cpu_seconds)  # one span for each request
        info = json.loads(process.get(port, "/info")[1])
    return {"rate": rate, "rss_mib": rss, **overload, "spans": spans, "lost": info["tracing"].get("traces_lost")}


def offer_load(port: int, rate: float, count: int, connections: int, ending: str) -> dict[str, Any]:
    """Run benchmarks/offer.py on the other core, and return its results."""
    command = ["taskset", "--cpu-list", str(process.OTHER_CORE), sys.executable, "-m", "benchmarks.offer"]
    command += [str(port), HELLO.path, str(rate), str(count), str(connections), ending]
    completed = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(completed.stdout)
    return result
