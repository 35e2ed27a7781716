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
    """Return `document` as a model of Datadog's API client. Its `_unparsed` is true if the API would reject it."""
    configuration = Configuration()
    with ApiClient(configuration):
        return validate_and_convert_types(
            document,
            (model,),
            ["document"],
            spec_property_naming=True,  # the document has the API's names, not those of Python attributes
            check_type=True,
            configuration=configuration,
        )


def test_the_api_accepts_monitors_and_dashboard() -> None:
    """Datadog's own client checks types, enumerations and required fields."""
    documents, dashboard = monitors.monitors_and_dashboard("staging")

    for document in documents:
        assert not as_model(document, Monitor)._unparsed
        assert "env:staging" in document["query"]
    assert not as_model(dashboard, Dashboard)._unparsed
    assert "${" not in json.dumps([documents, dashboard])  # no placeholder is left


def test_the_client_detects_a_wrong_value() -> None:
    """Otherwise the test above could not fail."""
    documents, dashboard = monitors.monitors_and_dashboard("staging")
    dashboard["widgets"][0]["definition"]["type"] = "timeserious"

    assert as_model({**documents[0], "type": "query alarm"}, Monitor)._unparsed
    assert as_model(dashboard, Dashboard)._unparsed


def run_monitors(*arguments: str, **keys: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DD_")}
    return subprocess.run(
        [*COMMAND, *arguments], env={**environment, **keys}, capture_output=True, text=True, check=False
    )


def test_without_keys_the_objects_are_printed() -> None:
    result = run_monitors("--env", "staging")

    assert result.returncode == 0
    assert [monitor["name"] for monitor in json.loads(result.stdout)["monitors"]] == [
        "hello-service staging: too many errors",
        "hello-service staging: slow responses",
        "hello-service staging: no traces arrive",
    ]
    assert "set DD_API_KEY and DD_APP_KEY" in result.stderr


# Datadog stores an environment in lower case. `app.datadoghq.com` is the host of its web application, not a site.
@pytest.mark.parametrize("option", [["--env", "Staging"], ["--site", "app.datadoghq.com"]], ids="=".join)
def test_a_malformed_option_is_rejected(option: list[str]) -> None:
    result = run_monitors(*option)

    assert result.returncode == 1
    assert " ".join(option) in result.stderr


class _FakeDatadog(BaseHTTPRequestHandler):
    """A fake of Datadog's API for monitors and dashboards."""

    monitors: list[dict[str, Any]]
    dashboards: list[dict[str, Any]]
    application_keys: set[str]

    def _respond(self) -> None:
        objects = self.monitors if "monitor" in self.path else self.dashboards
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
        self.application_keys.add(self.headers["DD-APPLICATION-KEY"])
        if self.headers["DD-API-KEY"] != "valid":
            self.send_error(403)
            return
        if self.command == "POST":
            objects.append({**body, "id": len(objects)})
        if self.command == "PUT":
            objects[int(self.path.rpartition("/")[2])].update(body)
        response = json.dumps(self.monitors if "monitor" in self.path else {"dashboards": self.dashboards}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(response)))
        self.end_headers()
        self.wfile.write(response)

    do_GET = do_POST = do_PUT = _respond  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def api_url() -> Iterator[str]:
    """Run a fake of Datadog's API that has no objects yet, and yield its URL."""
    _FakeDatadog.monitors, _FakeDatadog.dashboards, _FakeDatadog.application_keys = [], [], set()
    with served(ThreadingHTTPServer(("127.0.0.1", 0), _FakeDatadog)) as url:
        yield url


def test_with_keys_the_objects_are_created_and_then_replaced(api_url: str) -> None:
    """A second run updates the existing objects instead of adding more."""
    for word in ("created", "replaced"):
        result = run_monitors("--api-url", api_url, DD_API_KEY="valid", DD_APP_KEY="app")

        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.count(word) == 4  # three monitors and a dashboard
    assert (len(_FakeDatadog.monitors), len(_FakeDatadog.dashboards)) == (3, 1)
    assert _FakeDatadog.application_keys == {"app"}


def test_a_rejected_key_is_reported(api_url: str) -> None:
    result = run_monitors("--api-url", api_url, DD_API_KEY="invalid", DD_APP_KEY="app")

    assert result.returncode == 1
    assert "Datadog responds with 403. Check both keys and --site." in result.stderr
