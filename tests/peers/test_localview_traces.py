"""Tests of `hello-service traces` against a running `dev`."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from developing import VIEW, Dev, developing
from running import BIN, clean_environment, eventually, started

TRACES = [str(BIN / "hello-service"), "traces"]
# Redirects standard output to standard error, because `started` reads only the latter.
TO_STDERR = ["/bin/sh", "-c", 'exec "$@" 1>&2', "sh"]


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """A `dev` shared by several tests."""
    with developing() as dev:
        yield dev


def request(dev: Dev, path: str) -> str:
    """Send a request, wait until its trace is on the page, and return the trace id."""
    identity = dev.get(path).headers["traceresponse"].split("-")[1]
    eventually(lambda: httpx.get(f"{dev.page_url}/trace/{identity}").status_code == 200)
    return identity


def list_traces(dev: Dev, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `hello-service traces` with the page of `dev`."""
    command = [*TRACES, "--url", dev.page_url, *options]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)


def test_matching_traces_are_listed_oldest_first(dev: Dev) -> None:
    """Each is a line of text, or of JSON with the fields of `GET /api/traces`."""
    first, failed = request(dev, "/api/hello/First"), request(dev, "/api/faults/error")
    lines = list_traces(dev).stdout.splitlines()
    errors = list_traces(dev, "--query", "status:error", "--json")
    (error,) = [json.loads(line) for line in errors.stdout.splitlines()]
    (from_api,) = httpx.get(f"{dev.page_url}/api/traces", params={"q": "status:error"}).json()["traces"]

    assert [line.rpartition("/")[2] for line in lines][-2:] == [first, failed]
    assert "  GET /api/faults/error  500  " in lines[-1]
    assert "hello_service.api.faults.Fault: this endpoint always fails" in lines[-1]
    assert error == from_api
    assert error["trace_id"] == failed
    assert errors.returncode == 0


def test_an_invalid_search_exits_with_code_2(dev: Dev) -> None:
    done = list_traces(dev, "--query", "servic:web")

    assert done.returncode == 2
    assert "Did you mean" in done.stderr
    assert "service:web" in done.stderr


def test_the_url_of_the_agent_is_rejected(dev: Dev) -> None:
    command = [*TRACES, "--url", dev.agent_url]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "is not the page of `dev` or `view`" in done.stderr


def test_the_option_follow_lists_each_trace_as_it_arrives(dev: Dev) -> None:
    """Each trace is listed once, and Ctrl-C ends the list."""
    request(dev, "/api/hello/Before")
    command = [*TO_STDERR, *TRACES, "--url", dev.page_url, "--follow"]
    with started(command, clean_environment()) as following:
        eventually(lambda: following.lines)
        first = request(dev, "/api/hello/First")
        eventually(lambda: [line for line in following.lines if first in line])
        last = request(dev, "/api/hello/Last")
        eventually(lambda: [line for line in following.lines if last in line])
        code = following.stop(signal.SIGINT)

    assert code == 0
    assert sum(first in line for line in following.lines) == 1
    assert not any("Traceback" in line for line in following.lines)


def test_the_option_follow_ends_when_the_page_stops() -> None:
    """A message reports it, and the exit code is 1."""
    with developing(command=VIEW) as view:
        url = view.page_url
        command = [*TO_STDERR, *TRACES, "--url", url, "--follow"]
        span = {"trace_id": 7, "span_id": 8, "name": "job", "resource": "a job", "start": 1, "duration": 1}
        with started(command, clean_environment()) as following:
            httpx.put(f"{view.agent_url}/v0.3/traces", json=[[span]])
            eventually(lambda: following.lines)
            view.running.stop(signal.SIGINT)
            code = following.wait()

    assert code == 1
    assert "  a job  ok  " in following.lines[0]
    assert following.lines[1:] == [f"The page at {url} no longer responds."]
