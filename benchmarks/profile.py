"""`scripts/profile`: show where the CPU time of a request goes under load, by layer and by function.

py-spy samples the stack 500 times a second. A sample counts for the innermost layer on the stack, so time in the
standard library counts for the layer that called it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks import measure, process
from benchmarks.candidates import BIN, CANDIDATES, HELLO, RELAY, THIS_SERVICE, Point

SAMPLES_PER_SECOND = 500
SECONDS = 20
WARM_UP_SECONDS = 1
# A frame in the output of py-spy, such as `handle (quart/app.py:118)`.
FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]*?)(?::\d+)?\)$")
# The innermost frame with one of these prefixes gets the sample. Longer prefixes come first.
LAYERS = {
    "ddtrace/contrib/": "ddtrace: integrations",
    "ddtrace/internal/writer/": "ddtrace: writer",
    "ddtrace/propagation/": "ddtrace: propagation",
    "ddtrace/": "ddtrace: spans",
    "hello_service/serving/server.py": "asyncio",  # it starts the event loop, so it is below every other frame
    "hello_service/observability/logs.py": "hello_service: log line",
    "hello_service/observability/tracing.py": "hello_service: tracing.py",
    "hello_service/observability/fast_span.py": "hello_service: tracing.py",
    "hello_service/serving/": "hello_service: HTTP/1.1",
    "hello_service/": "hello_service: all else",
    "structlog/": "hello_service: log line",
    "httpx/": "httpx",
    "aiohttp/": "aiohttp",
    "yarl/": "aiohttp",
    "quart_schema/": "quart-schema, pydantic",
    "pydantic/": "quart-schema, pydantic",
    "werkzeug/": "Werkzeug",
    "flask/": "Quart",  # Quart's base classes
    "quart/": "Quart",
    "hypercorn/": "Hypercorn",
}


def frames(stack: str) -> list[tuple[str, str]]:
    """Return the frames of a collapsed stack as (file, function), the outermost first."""
    result = []
    for part in stack.split(";"):
        if match := FRAME.match(part):
            # Keep only the part of the path below site-packages, as in an import, or below this repository.
            file = match["file"].rpartition("site-packages/")[2].removeprefix(f"{process.ROOT}/")
            result.append((file, match["function"]))
    return result


def layer_of(stack_frames: list[tuple[str, str]]) -> str:
    """Return the layer that a stack's sample counts for."""
    for file, _ in reversed(stack_frames):
        for prefix, name in LAYERS.items():
            if file.startswith(prefix) or f"/{prefix}" in file:
                return name
    return "asyncio"  # no frame has a layer, so this is the event loop itself


def count_samples(lines: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Count the samples in py-spy's output by layer and by function. A function's count includes all that it calls.

    Samples without a Python frame aren't counted.
    """
    layers: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if stack_frames := frames(stack):
            layers[layer_of(stack_frames)] += int(count)
            functions.update({f"{file} {function}": int(count) for file, function in stack_frames})
    return layers, functions


def record(point: Point, seconds: int) -> list[str]:
    """Send the requests of `point` to this service, and return the collapsed stacks that py-spy recorded.

    A point is a path and a number of clients.
    """
    candidate = CANDIDATES[THIS_SERVICE]
    with (
        measure.running_backend() as backend,
        measure.running_candidate(candidate, backend) as (port, process_tree),
        tempfile.TemporaryDirectory() as folder,
    ):
        process.wait_until_responding(port, process_tree, HELLO.path)
        measure.run_wrk(port, point, WARM_UP_SECONDS)
        stacks = Path(folder, "stacks")
        command = [str(BIN / "py-spy"), "record", "--rate", str(SAMPLES_PER_SECOND), "--duration", str(seconds)]
        serving_pid = process_tree.pids()[-1]  # any ancestor only starts it
        command += ["--format", "raw", "--output", str(stacks), "--pid", str(serving_pid)]
        profiler = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        measure.run_wrk(port, point, seconds + 1)  # a little longer than py-spy records
        if profiler.wait() != 0:
            sys.exit("py-spy failed: to read other processes it needs root, or ptrace_scope 0")
        return stacks.read_text().splitlines()


def main() -> None:
    """Profile both endpoints, or only the one in the arguments."""
    points = {"hello": HELLO, "relay": RELAY}
    parser = argparse.ArgumentParser(prog="scripts/profile", description=__doc__)
    parser.add_argument("endpoint", nargs="?", choices=points, help="default: both")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"for each endpoint; default: {SECONDS}")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="also list the N costliest functions")
    options = parser.parse_args()
    for endpoint, point in points.items():
        if options.endpoint and options.endpoint != endpoint:
            continue
        layers, functions = count_samples(record(point, options.seconds))
        print(f"{point.path}, {layers.total():,} samples")
        for name, count in [*layers.most_common(), *functions.most_common(options.functions)]:
            print(f"  {count / layers.total():6.1%}  {name}")


if __name__ == "__main__":
    main()
