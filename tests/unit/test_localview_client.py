"""Tests of `hello-service traces` against a fake of the page of `dev` and `view`, and against other servers."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from click.testing import CliRunner, Result

from hello_service.__main__ import main
from hello_service.localview import client


@contextmanager
def responding(*responses: bytes) -> Iterator[str]:
    """Serve `responses` in order, one on each connection, and then close the port. Yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for number, response in enumerate(responses, 1):
                connection, _ = server.accept()
                with connection:
                    if number == len(responses):
                        server.close()  # before the response, so that the next connection is refused
                    connection.recv(65536)
                    connection.sendall(response)

        thread = Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def page_response(*traces: object, version: object = 1, status: int = 200, **other_fields: object) -> bytes:
    """Return the bytes of a response of the page with `traces`.

    Its field `kept` is the number of traces that the page keeps, whether they match the search or not.
    """
    body = json.dumps({"kept": 3, "version": version, "traces": traces, **other_fields}).encode()
    return b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def summary(number: int = 1, **other_fields: object) -> dict[str, object]:
    """Return a trace as the page lists it."""
    return {
        "trace_id": f"{number:032x}",
        "url": f"http://page/trace/{number}",
        "resource": "GET /",
        "status": "200",
        "start": None,
        "duration_ms": 1.5,
        "spans": 2,
        "services": ["web"],
        "error": None,
        **other_fields,
    }


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["traces", *arguments])


@pytest.mark.parametrize(
    "response",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",  # JSON, but not an object
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\xff\xfe{}}",  # neither UTF-8 nor UTF-16
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}",  # broken off
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 15\r\n\r\n{'error': 'no'}",  # not JSON
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000,  # nested too deeply for the JSON parser
        page_response({}),  # a trace without fields
        page_response(summary(status=200)),  # a number instead of text
        page_response(summary(duration_ms=float("inf"))),
        page_response(version="one"),
    ],
)
def test_a_server_that_is_not_the_page_is_reported(response: bytes) -> None:
    """The message states where to find the right address. There is no traceback."""
    with responding(response) as url:
        result = run("--url", url)

    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert url in result.stderr
    assert "is not the page of `dev` or `view`" in result.stderr
    assert "`View traces:`" in result.stderr
    assert result.stdout == ""


def test_a_closed_port_is_reported_with_the_command_that_starts_the_page() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_server:
        url = f"http://127.0.0.1:{closed_server.getsockname()[1]}"
    result = run("--url", url)

    assert result.exit_code == 1
    assert result.stderr.startswith(f"No page responds at {url}: Connection refused. Start `hello-service dev`")


def test_a_server_that_does_not_respond_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent_server:
        result = run("--url", f"http://127.0.0.1:{silent_server.getsockname()[1]}")

    assert result.exit_code == 1
    assert ": timed out. " in result.stderr


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8081", "https://127.0.0.1", "http://", "http://[::1", "http://a:b", "http://a/?q=status:error"]
)
def test_an_invalid_url_is_rejected(url: str) -> None:
    result = run("--url", url)

    assert result.exit_code == 2
    assert result.stderr.startswith(f"--url {url!r} ")


def test_an_invalid_search_gets_suggestions() -> None:
    with responding(page_response(status=400, error="No field x.", suggestions=["a:b", "c:d"])) as url:
        result = run("--url", url, "--query", "x:1")

    assert result.exit_code == 2
    assert result.stderr == "No field x. Did you mean a:b or c:d?\n"


@pytest.mark.parametrize(("kept", "sentence"), [(0, "No trace yet.\n"), (3, "No trace matches.\n")])
def test_an_empty_list_is_reported_on_standard_error(kept: int, sentence: str) -> None:
    with responding(page_response(kept=kept)) as url:
        result = run("--url", url)

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", sentence)


def test_a_trace_is_one_line_without_control_characters() -> None:
    with responding(page_response(summary(resource="GET /\x1b[2J\n", error="ValueError: \x9b no", spans=1))) as url:
        result = run("--url", url)

    assert result.stdout == (
        "no valid time  GET /\\x1b[2J\\n  200  1.50 ms  1 span  web  ValueError: \\x9b no  http://page/trace/1\n"
    )


def test_follow_lists_each_trace_once_when_it_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Existing traces are listed at once. A new trace is complete when the next response doesn't contain it.

    The page returns only the traces that changed since `version`. When the page stops, the command lists the remaining
    traces and exits.
    """
    monkeypatch.setattr(client, "POLL_SECONDS", 0)
    monkeypatch.setattr(client, "MAX_LISTED", 1)  # when trace 2 is listed, trace 1 is forgotten
    responses = (
        page_response(summary(1)),
        page_response(summary(2), summary(1, spans=9), version=2),  # trace 1 has been listed
        page_response(summary(2, spans=3), version=3),  # trace 2 has changed, so it is not complete
        page_response(version=4),  # trace 2 has not changed, so it is complete
        # Trace 2 has been listed, trace 3 has not, and trace 1 was forgotten, so it is listed again.
        page_response(summary(2, spans=4), summary(1, spans=10), summary(3), version=5),
    )
    with responding(*responses) as url:
        result = run("--url", url, "--follow", "--json")
        listed_traces = [json.loads(line) for line in result.stdout.splitlines()]
        numbers_and_spans = [(int(trace["trace_id"], 16), trace["spans"]) for trace in listed_traces]

    assert result.exit_code == 1
    assert numbers_and_spans == [(1, 2), (2, 3), (1, 10), (3, 2)]
    assert result.stderr == f"The page at {url} no longer responds.\n"


def test_ctrl_c_lists_the_pending_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command then exits without an error."""
    sleeps: list[float] = []

    def interrupt_second_sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt_second_sleep)
    with responding(page_response(), page_response(summary(2), version=2)) as url:
        result = run("--url", url, "--follow", "--json")

    assert result.exit_code == 0
    assert [json.loads(line)["trace_id"] for line in result.stdout.splitlines()] == [f"{2:032x}"]
    assert result.stderr == ""


def test_ctrl_c_before_the_first_response_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client.Page, "fetch", interrupt)
    result = run()

    assert (result.exit_code, result.output) == (0, "")
