"""Tests of `hello-service traces` against a running `dev` or `view`."""

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
    """Yield a running `dev` that several tests share."""
    with developing() as dev:
        yield dev


def send_request(dev: Dev, path: str) -> str:
    """Send a request, wait until its trace is on the page, and return the trace id."""
    trace_id = dev.get(path).headers["traceresponse"].split("-")[1]
    eventually(lambda: httpx.get(f"{dev.page_url}/trace/{trace_id}").status_code == 200)
    return trace_id


def list_traces(dev: Dev, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `hello-service traces` with the page of `dev`."""
    command = [*TRACES, "--url", dev.page_url, *options]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)


def test_matching_traces_are_listed_oldest_first(dev: Dev) -> None:
    """Each is a line of text, or of JSON with the fields of `GET /api/traces`."""
    first_id, failed_id = send_request(dev, "/api/hello/First"), send_request(dev, "/api/faults/error")
    lines = list_traces(dev).stdout.splitlines()
    listed_errors = list_traces(dev, "--query", "status:error", "--json")
    (listed_error,) = [json.loads(line) for line in listed_errors.stdout.splitlines()]
    (error_from_api,) = httpx.get(f"{dev.page_url}/api/traces", params={"q": "status:error"}).json()["traces"]

    # Each line ends with the URL of the trace. Earlier lines are those of other tests.
    assert lines[-2].endswith(f"/{first_id}")
    assert lines[-1].endswith(f"/{failed_id}")
    assert "  GET /api/faults/error  500  " in lines[-1]
    assert "hello_service.api.faults.Fault: this endpoint always fails" in lines[-1]
    assert listed_error == error_from_api
    assert listed_error["trace_id"] == failed_id
    assert listed_errors.returncode == 0


def test_an_invalid_search_exits_with_code_2(dev: Dev) -> None:
    process = list_traces(dev, "--query", "servic:web")

    assert process.returncode == 2
    assert "Did you mean" in process.stderr
    assert "service:web" in process.stderr


def test_the_url_of_the_agent_is_rejected(dev: Dev) -> None:
    command = [*TRACES, "--url", dev.agent_url]
    process = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)

    assert process.returncode == 1
    assert "is not the page of `dev` or `view`" in process.stderr


def test_the_option_follow_lists_each_trace_as_it_arrives(dev: Dev) -> None:
    """Each trace is listed once, and Ctrl-C ends the list."""
    send_request(dev, "/api/hello/Before")
    command = [*TO_STDERR, *TRACES, "--url", dev.page_url, "--follow"]
    with started(command, clean_environment()) as process:
        eventually(lambda: process.lines)  # waits until the earlier trace is listed
        first_id = send_request(dev, "/api/hello/First")
        eventually(lambda: [line for line in process.lines if first_id in line])
        last_id = send_request(dev, "/api/hello/Last")
        eventually(lambda: [line for line in process.lines if last_id in line])
        exit_code = process.stop(signal.SIGINT)

    assert exit_code == 0
    assert len([line for line in process.lines if first_id in line]) == 1
    assert [line for line in process.lines if "Traceback" in line] == []


def test_the_option_follow_ends_when_the_page_stops() -> None:
    """A message reports that, and the exit code is 1."""
    with developing(command=VIEW) as view:
        url = view.page_url
        command = [*TO_STDERR, *TRACES, "--url", url, "--follow"]
        span = {"trace_id": 7, "span_id": 8, "name": "job", "resource": "a job", "start": 1, "duration": 1}
        with started(command, clean_environment()) as process:
            httpx.put(f"{view.agent_url}/v0.3/traces", json=[[span]])
            eventually(lambda: process.lines)
            view.running.stop(signal.SIGINT)
            exit_code = process.wait()

    assert exit_code == 1
    assert "  a job  ok  " in process.lines[0]
    assert process.lines[1:] == [f"The page at {url} no longer responds."]
