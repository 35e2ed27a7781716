"""`hello-service traces`: lists the traces of a running `dev` or `view`, through `GET /api/traces` of its page."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlencode, urlsplit

from hello_service.localview.text import escape_hidden
from hello_service.localview.units import MILLISECOND, duration, quantity

TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.3
LIMIT = 10**9  # traces in a response; more than a page keeps, so that the response has all of them
MAX_RESPONSE_BYTES = 2**28  # a longer response is cut, and then rejected because it is not valid JSON
MAX_LISTED = 100_000  # listed traces that --follow remembers, so that it doesn't list them again
BAD_REQUEST = 400  # the status of the response to an invalid search

Summary = dict[str, Any]


class PageError(Exception):
    """The page's traces can't be read. `str()` is the message to show; `exit_code` is the exit code of the command."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Page:
    """The page of a running `dev` or `view`.

    Raises:
        PageError: `url` can't be the address of a page.
    """

    def __init__(self, url: str) -> None:
        invalid_url = PageError(f"--url {url!r} must be an address like http://127.0.0.1:8081.", exit_code=2)
        try:
            parts = urlsplit(url)
            port = parts.port or 80
        except ValueError:
            raise invalid_url from None
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise invalid_url
        self.url = url
        self._address = parts.hostname, port

    def fetch(self, query: str, since: int = 0) -> dict[str, Any]:
        """Return the page's response: the traces that match `query` and changed after `since`, oldest first.

        `since` is the `version` in an earlier response; 0 returns all traces that match.

        Raises:
            PageError: no server responds, the server is not the page, or the query is invalid.
        """
        parameters = urlencode({"q": query, "since": since, "limit": LIMIT, "sort": "time"})
        connection = HTTPConnection(*self._address, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", f"/api/traces?{parameters}")
            with connection.getresponse() as response:
                status, body = response.status, response.read(MAX_RESPONSE_BYTES)
        except OSError as error:
            reason = error.strerror or str(error)
            raise PageError(
                f"No page responds at {self.url}: {reason}. Start `hello-service dev` or `hello-service view`, or use "
                "--url with the address of a page that is running."
            ) from error
        except HTTPException as error:
            raise self._wrong_server("the response is not HTTP") from error
        finally:
            connection.close()
        return self._parse_response(status, body)

    def _parse_response(self, status: int, body: bytes) -> dict[str, Any]:
        """Return the document in a response of the page, or raise the error to report."""
        try:
            document = json.loads(body)
            if status == BAD_REQUEST:
                similar = " or ".join(document["suggestions"])
                question = f" Did you mean {similar}?" if similar else ""
                raise PageError(escape_hidden(document["error"] + question), exit_code=2)
            # These lines only check the document: they raise an exception if it is not the page's.
            for trace in document["traces"]:
                _line(trace)
            document["version"] + 0  # fails unless the version is a number
        except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise self._wrong_server(f"GET /api/traces returned status {status} and no list of traces") from error
        response: dict[str, Any] = document
        return response

    def _wrong_server(self, reason: str) -> PageError:
        """Return the error for a server that is not the page."""
        return PageError(
            f"The server at {self.url} is not the page of `dev` or `view`: {reason}. "
            "Both print the address of their page after `View traces:`. Use it with --url."
        )


def run(page: Page, query: str, *, as_json: bool, follow: bool) -> None:
    """Print the traces of `page` that match `query`. With `follow`, continue until Ctrl-C.

    Raises:
        PageError: see `Page.fetch`; with `follow`, also if the page stops responding.
    """
    try:
        response = page.fetch(query)
        for trace in response["traces"]:
            _print(trace, as_json=as_json)
        if follow:
            for trace in _follow(page, query, response):
                _print(trace, as_json=as_json)
        elif not response["traces"]:
            sys.stderr.write("No trace matches.\n" if response["kept"] else "No trace yet.\n")
    except KeyboardInterrupt:
        return


def _follow(page: Page, query: str, last: dict[str, Any]) -> Iterator[Summary]:
    """Yield each trace that arrives after the response `last`, as soon as it has not changed between two polls.

    Each trace is yielded only once.
    """
    # A dict, because it keeps the order: the ids listed first are forgotten first.
    listed_ids = dict.fromkeys(trace["trace_id"] for trace in last["traces"])
    pending: dict[str, Summary] = {}
    while True:
        try:
            time.sleep(POLL_SECONDS)
            response = page.fetch(query, last["version"])
        except PageError as error:
            yield from pending.values()
            raise PageError(f"The page at {page.url} no longer responds.", exit_code=error.exit_code) from error
        except KeyboardInterrupt:
            yield from pending.values()
            return
        changed_traces = {
            trace["trace_id"]: trace for trace in response["traces"] if trace["trace_id"] not in listed_ids
        }
        complete_ids = [trace_id for trace_id in pending if trace_id not in changed_traces]
        for trace_id in complete_ids:
            listed_ids[trace_id] = None
            yield pending.pop(trace_id)
        pending.update(changed_traces)
        while len(listed_ids) > MAX_LISTED:
            del listed_ids[next(iter(listed_ids))]
        last = response


def _print(trace: Summary, *, as_json: bool) -> None:
    sys.stdout.write((json.dumps(trace) if as_json else _line(trace)) + "\n")
    sys.stdout.flush()


def _line(trace: Summary) -> str:
    """Return one line with the time, resource, status, duration, spans, services, error and URL of a trace."""
    moment = datetime.fromisoformat(trace["start"]).astimezone() if trace["start"] else None
    parts = [
        f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}" if moment else "no valid time",
        trace["resource"],
        trace["status"],
        duration(trace["duration_ms"] * MILLISECOND),
        quantity(trace["spans"], "span"),
        ", ".join(trace["services"]),
        trace["error"],
        trace["url"],
    ]
    return "  ".join(escape_hidden(part, one_line=True) for part in parts if part)
