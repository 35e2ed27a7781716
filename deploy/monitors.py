"""Print or post Datadog monitors and a dashboard for the service: `python deploy/monitors.py --env production`.

If DD_API_KEY and DD_APP_KEY are set, this posts monitors.json and dashboard.json to Datadog, and replaces monitors and
dashboards that have the same names. Otherwise it prints both.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import options as command_line
from aws_cli import Failure, echo
from definition import fill

HERE = Path(__file__).resolve().parent


def monitors_and_dashboard(environment: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the monitors and the dashboard of `environment`, from their files."""
    values = {"ENVIRONMENT": environment}
    monitors = json.loads(fill((HERE / "monitors.json").read_text(), values))
    return monitors, json.loads(fill((HERE / "dashboard.json").read_text(), values))


class Datadog:
    """Datadog's API at `url`."""

    def __init__(self, url: str, api_key: str, app_key: str) -> None:
        self._url = url
        self._headers = {"DD-API-KEY": api_key, "DD-APPLICATION-KEY": app_key, "Content-Type": "application/json"}

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a request and return the JSON of its response.

        Raises:
            Failure: when Datadog rejects the request or can't be reached.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}{path}", data, self._headers, method=method)  # noqa: S310 - https, or a test's server
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - the same
                return json.load(response)
        except urllib.error.HTTPError as error:
            is_denied = error.code in {401, 403}
            detail = "Check both keys and --site." if is_denied else error.read(500).decode(errors="replace")
            raise Failure(f"{method} {self._url}{path}: Datadog responds with {error.code}. {detail}") from None
        except (OSError, ValueError) as error:
            raise Failure(f"{method} {self._url}{path}: {error}. Check --site and the network.") from None

    def put_monitor(self, monitor: dict[str, Any]) -> None:
        """Create `monitor`, or replace the monitor with the same name."""
        tags = ",".join(monitor["tags"])
        existing = self.send("GET", f"/api/v1/monitor?monitor_tags={tags}")
        ids = [other["id"] for other in existing if other["name"] == monitor["name"]]
        self._put("/api/v1/monitor", ids, monitor, monitor["name"])

    def put_dashboard(self, dashboard: dict[str, Any]) -> None:
        """Create `dashboard`, or replace the dashboard with the same title."""
        existing = self.send("GET", "/api/v1/dashboard")["dashboards"]
        ids = [other["id"] for other in existing if other["title"] == dashboard["title"]]
        self._put("/api/v1/dashboard", ids, dashboard, dashboard["title"])

    def _put(self, path: str, ids: list[Any], body: dict[str, Any], name: str) -> None:
        """Replace the first of `ids`, the existing objects named `name`, or create one if there are none."""
        if ids:
            self.send("PUT", f"{path}/{ids[0]}", body)
            echo(f"replaced: {name}")
        else:
            self.send("POST", path, body)
            echo(f"created: {name}")


def main() -> int:
    """Print or post the monitors and the dashboard; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="production", help="DD_ENV of the service")
    parser.add_argument("--site", default=os.environ.get("DD_SITE", "datadoghq.com"), help="Datadog site")
    parser.add_argument("--api-url", help=argparse.SUPPRESS)  # for tests
    options = parser.parse_args()
    api_key, app_key = os.environ.get("DD_API_KEY", ""), os.environ.get("DD_APP_KEY", "")
    try:
        command_line.check_patterns(options)
        monitors, dashboard = monitors_and_dashboard(options.env)
        if not api_key or not app_key:
            echo(json.dumps({"monitors": monitors, "dashboard": dashboard}, indent=2))
            sys.stderr.write("Nothing was posted: set DD_API_KEY and DD_APP_KEY to post these.\n")
            return 0
        datadog = Datadog(options.api_url or f"https://api.{options.site}", api_key, app_key)
        for monitor in monitors:
            datadog.put_monitor(monitor)
        datadog.put_dashboard(dashboard)
    except Failure as failure:
        sys.stderr.write(f"monitors: {failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
