"""The `hello-service` command line: serve, dev, view, doctor."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import click

from hello_service.serving import launch
from hello_service.settings import SettingsError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """An async Python service under Datadog APM."""


@main.command()
def serve() -> None:
    """Serve under ddtrace-run, configured by the environment alone (docs/settings.md lists the variables)."""
    try:
        launch.serve(os.environ)
    except SettingsError as error:
        click.echo(f"The service can't start with this environment:\n{error}", err=True)
        sys.exit(1)


PORT = click.IntRange(0, 65535)


AGENT_PORT = click.option(
    "--agent-port", type=PORT, default=8126, show_default=True, help="Port of the embedded trace agent."
)
VIEW_PORT = click.option(
    "--view-port", type=PORT, default=8081, show_default=True, help="Port of the page that shows the traces."
)
OPEN = click.option("--open", "open_browser", is_flag=True, help="Open the page in a browser.")
TRACES = click.option(
    "--traces", type=click.IntRange(1), default=1000, show_default=True, help="Traces that are kept for the page."
)


@main.command()
@click.option(
    "--host", envvar="HOST", default="127.0.0.1", show_default=True, help="Address that the service listens on."
)
@click.option(
    "--port", envvar="PORT", type=PORT, default=8080, show_default=True, help="Its port; 0 takes a free one, as below."
)
@AGENT_PORT
@click.option("--no-embedded-agent", is_flag=True, help="Send to the agent that the environment names; show no traces.")
@VIEW_PORT
@click.option("--no-view", is_flag=True, help="Leave the page out.")
@OPEN
@TRACES
def dev(agent_port: int, no_embedded_agent: bool, view_port: int, no_view: bool, **rest: Any) -> None:
    """Serve beside an embedded trace agent, and show the trace of every request: as a tree, and on a page."""
    _develop(agent_port=None if no_embedded_agent else agent_port, view_port=None if no_view else view_port, **rest)


@main.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address of agent and page; another only in a container."
)
@AGENT_PORT
@VIEW_PORT
@OPEN
@TRACES
def view(**options: Any) -> None:
    """Show the traces of services that run elsewhere: an embedded trace agent and the page, without this service."""
    _develop(port=None, **options)


def _develop(**options: Any) -> None:
    try:
        from hello_service.localview import dev as development  # noqa: PLC0415 - production does not install its needs
    except ModuleNotFoundError as error:
        click.echo(f"This needs the dev group, and {error.name} is missing: scripts/dev installs it", err=True)
        sys.exit(1)
    sys.exit(development.run(development.Options(**options), os.environ))


@main.command()
@click.option("--url", help="A server that runs; else the one that the environment names, or one started for this.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def doctor(url: str | None, as_json: bool) -> None:
    """Say why no trace arrives, and what to type; in ten seconds, changing nothing.

    Exit code 0: traces would arrive; 1: they would not; 2: it could not be told.
    """
    from hello_service.doctor import case, examine, finding  # noqa: PLC0415 - nothing else pays for it

    if url is not None and not (url.startswith("http") and case.Address(url, ()).usable):
        raise click.BadParameter("must be a URL like http://host:port", param_hint="--url")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what was started, too
    results = []
    for result in examine(os.environ, url):
        results.append(result)
        if not as_json:
            click.echo(finding.lines(result))
    code = finding.exit_code(results)
    click.echo(json.dumps(finding.document(results), indent=2) if as_json else f"\n{finding.VERDICTS[code]}")
    sys.exit(code)


if __name__ == "__main__":
    main()
