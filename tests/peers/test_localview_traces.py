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


def listed(dev: Dev, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*TRACES, "--url", dev.page_url, *options]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)


def test_the_traces_that_match_are_listed_oldest_first(dev: Dev) -> None:
    """The format is lines of text, or JSON with the fields of `GET /api/traces`."""
    first, failed = request(dev, "/api/hello/First"), request(dev, "/api/faults/error")
    lines = listed(dev).stdout.splitlines()
    errors = listed(dev, "--query", "status:error", "--json")
    (error,) = [json.loads(line) for line in errors.stdout.splitlines()]
    (again,) = httpx.get(f"{dev.page_url}/api/traces", params={"q": "status:error"}).json()["traces"]

    assert [line.rpartition("/")[2] for line in lines][-2:] == [first, failed]
    assert "  GET /api/faults/error  500  " in lines[-1]
    assert "hello_service.api.faults.Fault: this endpoint always fails" in lines[-1]
    assert error == again
    assert error["trace_id"] == failed
    assert errors.returncode == 0


def test_an_invalid_search_is_exit_code_2(dev: Dev) -> None:
    done = listed(dev, "--query", "servic:web")

    assert done.returncode == 2
    assert "Did you mean" in done.stderr
    assert "service:web" in done.stderr


def test_the_url_of_the_agent_is_an_error(dev: Dev) -> None:
    command = [*TRACES, "--url", dev.agent_url]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "is not the page of `dev` or `view`" in done.stderr


def test_it_follows_until_ctrl_c(dev: Dev) -> None:
    """Each trace is listed once, as it arrives."""
    request(dev, "/api/hello/Before")
    command = ["/bin/sh", "-c", 'exec "$@" 1>&2', "sh", *TRACES, "--url", dev.page_url, "--follow"]
    with started(command, clean_environment()) as following:
        eventually(lambda: following.lines)
        later = request(dev, "/api/hello/Later")
        eventually(lambda: [line for line in following.lines if later in line])
        last = request(dev, "/api/hello/Last")
        eventually(lambda: [line for line in following.lines if last in line])
        code = following.stop(signal.SIGINT)

    assert code == 0
    assert sum(later in line for line in following.lines) == 1
    assert not any("Traceback" in line for line in following.lines)


def test_it_exits_when_the_page_stops() -> None:
    """There is a message, and the exit code is 1."""
    with developing(command=VIEW) as view:
        url = view.page_url
        command = ["/bin/sh", "-c", 'exec "$@" 1>&2', "sh", *TRACES, "--url", url, "--follow"]
        sent = {"trace_id": 7, "span_id": 8, "name": "job", "resource": "a job", "start": 1, "duration": 1}
        with started(command, clean_environment()) as following:
            httpx.put(f"{view.agent_url}/v0.3/traces", json=[[sent]])
            eventually(lambda: following.lines)
            view.running.stop(signal.SIGINT)
            code = following.wait()

    assert code == 1
    assert "  a job  ok  " in following.lines[0]
    assert following.lines[1:] == [f"The page at {url} no longer responds."]
