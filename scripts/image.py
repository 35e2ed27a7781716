"""Print the size and the start time of an image of the service: `python scripts/image.py IMAGE`.

The start time is the time from the start of the process to its log line with the address on which it listens. Both
times come from the container engine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime
from statistics import median
from typing import Any

STARTS = 5
DEADLINE_SECONDS = 60
LISTENING = "Running on"  # in a line of the service's log
# Options as in compose.yaml, but without an agent: nothing listens on port 1.
OPTIONS = ["--detach", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "256m"]
OPTIONS += ["--env", "DD_TRACE_AGENT_URL=http://127.0.0.1:1", "--env", "DD_INSTRUMENTATION_TELEMETRY_ENABLED=false"]


def docker(*arguments: str) -> str:
    """Run docker, and return its standard output and standard error together."""
    return subprocess.run(
        ["docker", *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout.strip()


def inspect(name: str) -> dict[str, Any]:
    """Return the result of `docker inspect` for an image or container."""
    result: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return result


def start_seconds(image: str) -> float:
    """Start `image` once, and return the seconds until the service listens."""
    container = docker("run", *OPTIONS, image)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            log = docker("logs", "--timestamps", container)
            listening_lines = [line for line in log.splitlines() if LISTENING in line]
            if listening_lines:
                break
            if time.monotonic() > deadline:
                sys.exit(f"{image} did not listen within {DEADLINE_SECONDS} s:\n{docker('logs', container)}")
            time.sleep(0.1)
        started = datetime.fromisoformat(inspect(container)["State"]["StartedAt"])
        listening = datetime.fromisoformat(listening_lines[0].split()[0])  # docker puts a timestamp before each line
        return (listening - started).total_seconds()
    finally:
        docker("rm", "--force", container)


def main() -> None:
    """Measure the image given on the command line."""
    if len(sys.argv) != 2:
        sys.exit("Usage: scripts/image IMAGE")
    image = sys.argv[1]
    base = inspect(image)["Config"]["Labels"]["org.opencontainers.image.base.name"]
    size, base_size = inspect(image)["Size"], inspect(base)["Size"]
    print(f"size: {size / 1e6:.0f} MB, {(size - base_size) / 1e6:.0f} MB of it on top of {base}")
    times = sorted(start_seconds(image) for _ in range(STARTS))
    print(f"start time until it listens: {median(times):.1f} s (median of {STARTS}, {times[0]:.1f} to {times[-1]:.1f})")


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError:
        sys.exit("The command docker was not found: install Docker.")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd)} failed: {error.stdout.strip()}")
