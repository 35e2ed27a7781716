"""Tests of deploy/monitors.py: it creates each object once, in a form that Datadog's API accepts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import monitors
import pytest
from datadog_api_client.api_client import ApiClient
from datadog_api_client.configuration import Configuration
from datadog_api_client.model_utils import validate_and_convert_types
from datadog_api_client.v1.model.dashboard import Dashboard
from datadog_api_client.v1.model.monitor import Monitor
from fake_http import served
from running import ROOT

pytestmark = pytest.mark.deployment

COMMAND = [sys.executable, str(ROOT / "deploy" / "monitors.py")]


def as_model(document: dict[str, Any], model: type) -> Any:
    """Return `document` as a model of Datadog's API client. The model is marked if the API would reject it."""
    configuration = Configuration()
    with ApiClient(configuration):
        return validate_and_convert_types(document, (model,), ["document"], True, True, configuration)


def test_the_api_accepts_monitors_and_dashboard() -> None:
    """Datadog's own client checks types, enumerations and required fields."""
    staging_monitors, dashboard = monitors.monitors_and_dashboard("staging")

    for monitor in staging_monitors:
        assert not as_model(monitor, Monitor)._unparsed
        assert "env:staging" in monitor["query"]
    assert not as_model(dashboard, Dashboard)._unparsed
    assert "${" not in json.dumps([staging_monitors, dashboard])


def test_the_client_detects_a_wrong_value() -> None:
    """Otherwise the test above could not fail."""
    (first, *_), dashboard = monitors.monitors_and_dashboard("staging")
    dashboard["widgets"][0]["definition"]["type"] = "timeserious"

    assert as_model({**first, "type": "query alarm"}, Monitor)._unparsed
    assert as_model(dashboard, Dashboard)._unparsed


def run(*arguments: str, **keys: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DD_")}
    return subprocess.run(
        [*COMMAND, *arguments], env={**environment, **keys}, capture_output=True, text=True, check=False
    )


def test_without_keys_the_objects_are_printed() -> None:
    result = run("--env", "staging")

    assert result.returncode == 0
    assert [each["name"] for each in json.loads(result.stdout)["monitors"]] == [
        "hello-service staging: too many errors",
        "hello-service staging: slow responses",
        "hello-service staging: no traces arrive",
    ]
    assert "set DD_API_KEY and DD_APP_KEY" in result.stderr


def test_a_malformed_option_is_rejected() -> None:
    for option in (["--env", "Staging"], ["--site", "app.datadoghq.com"]):
        result = run(*option)

        assert (result.returncode, " ".join(option) in result.stderr) == (1, True)


class _Datadog(BaseHTTPRequestHandler):
    """A fake of Datadog's API for monitors and dashboards."""

    monitors: list[dict[str, Any]]
    dashboards: list[dict[str, Any]]
    keys: set[str]

    def _respond(self) -> None:
        kind = self.monitors if "monitor" in self.path else self.dashboards
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
        type(self).keys.add(self.headers["DD-APPLICATION-KEY"])
        if self.headers["DD-API-KEY"] != "good":
            self.send_error(403)
            return
        if self.command == "POST":
            kind.append({**body, "id": len(kind)})
        if self.command == "PUT":
            kind[int(self.path.rpartition("/")[2])].update(body)
        response = json.dumps(self.monitors if "monitor" in self.path else {"dashboards": self.dashboards}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(response)))
        self.end_headers()
        self.wfile.write(response)

    do_GET = do_POST = do_PUT = _respond  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def datadog() -> Iterator[str]:
    """Serve an empty fake of Datadog's API."""
    _Datadog.monitors, _Datadog.dashboards, _Datadog.keys = [], [], set()
    with served(ThreadingHTTPServer(("127.0.0.1", 0), _Datadog)) as url:
        yield url


def test_with_keys_the_objects_are_created_and_then_replaced(datadog: str) -> None:
    """A second run updates the existing objects instead of adding more."""
    for word in ("created", "replaced"):
        result = run("--api-url", datadog, DD_API_KEY="good", DD_APP_KEY="app")

        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.count(word) == 4
    assert (len(_Datadog.monitors), len(_Datadog.dashboards), _Datadog.keys) == (3, 1, {"app"})


def test_a_rejected_key_is_reported(datadog: str) -> None:
    result = run("--api-url", datadog, DD_API_KEY="bad", DD_APP_KEY="app")

    assert result.returncode == 1
    assert "Datadog responds with 403. Check both keys and --site." in result.stderr
