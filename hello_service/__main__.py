"""The `hello-service` command line: serve, trace, dev, view, traces, doctor."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import click
from click.core import ParameterSource

from hello_service.serving import launch
from hello_service.settings import SettingsError

PORT = click.IntRange(0, 65535)
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - compared, not bound
OPTIONS_BEFORE_COMMAND = {"allow_interspersed_args": False}  # options after COMMAND belong to COMMAND


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="hello-service", message="%(package)s %(version)s")
def main() -> None:
    """An async Python service under Datadog APM."""


@main.command(short_help="Serve in production, under ddtrace-run.")
def serve() -> None:
    """Serve under ddtrace-run, configured by the environment alone (docs/settings.md lists the variables)."""
    try:
        launch.serve(os.environ)
    except SettingsError as error:
        click.echo(f"The service can't start with this environment:\n{error}", err=True)
        sys.exit(1)


@main.command(short_help="Run another Quart service, unchanged and traced.", context_settings=OPTIONS_BEFORE_COMMAND)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def trace(command: tuple[str, ...]) -> None:
    """Run COMMAND, such as `hypercorn app:app`, under ddtrace-run, and trace each Quart application in it.

    The application needs no change, but ddtrace 4.5 or newer must be installed in its environment.
    """
    try:
        launch.trace(command, os.environ)
    except (SettingsError, launch.LaunchError) as error:
        click.echo(error, err=True)
        sys.exit(1)


# Options that `dev` and `view` share.
agent_port_option = click.option(
    "--agent-port",
    type=PORT,
    default=8126,
    show_default=True,
    help="Port of the embedded trace agent; 0 picks a free port.",
)
view_port_option = click.option(
    "--view-port", type=PORT, default=8081, show_default=True, help="Port of the page; 0 picks a free port."
)
allow_host_option = click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Another host name that tracers use for the embedded agent. Can be repeated.",
)
open_option = click.option("--open", "open_browser", is_flag=True, help="Open the page in a browser.")
tree_option = click.option(
    "--tree",
    type=click.Choice(["all", "errors", "slow", "off"]),
    default="all",
    show_default=True,
    help="Traces to draw in the terminal. `slow` means longer than 0.5 s. `all` shortens a repeated trace to one line.",
)
traces_option = click.option(
    "--traces", type=click.IntRange(1), default=1000, show_default=True, help="Number of traces that the page keeps."
)


@main.command(short_help="Serve on a laptop and show every trace.", context_settings=OPTIONS_BEFORE_COMMAND)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--host",
    envvar="HOST",
    show_envvar=True,
    default="127.0.0.1",
    show_default=True,
    help="Address that the service listens on.",
)
@click.option(
    "--port",
    envvar="PORT",
    show_envvar=True,
    type=PORT,
    default=8080,
    show_default=True,
    help="Port that the service listens on; 0 picks a free port.",
)
@agent_port_option
@click.option(
    "--no-embedded-agent",
    is_flag=True,
    help="Send traces to the agent that the environment variables configure; show no traces.",
)
@view_port_option
@click.option("--no-view", is_flag=True, help="Don't serve the page.")
@allow_host_option
@open_option
@tree_option
@traces_option
def dev(agent_port: int, no_embedded_agent: bool, view_port: int, no_view: bool, **rest: Any) -> None:
    """Serve with an embedded trace agent, and show the trace of every request in the terminal and on a page.

    With COMMAND, such as `-- hypercorn app:app`, run that service instead of this one, unchanged, as
    `hello-service trace` does.
    """
    context = click.get_current_context()
    for name in ("host", "port"):
        if rest["command"] and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} does not apply to another service. Give COMMAND its own option instead.")
    _develop(agent_port=None if no_embedded_agent else agent_port, view_port=None if no_view else view_port, **rest)


@main.command(short_help="Show the traces of services that run elsewhere.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address that the agent and the page listen on; change it only in a container.",
)
@agent_port_option
@view_port_option
@allow_host_option
@open_option
@tree_option
@traces_option
def view(**options: Any) -> None:
    """Run an embedded trace agent and the page, to show the traces of services that run elsewhere."""
    _develop(port=None, **options)


def _develop(**options: Any) -> None:
    """Run `dev` or `view`, or exit with the reason why this isn't possible."""
    names = ["port", "agent_port", "view_port"]
    # The agent and the page of `dev` listen on 127.0.0.1, so the service on another address may have the same port.
    # COMMAND has a port of its own.
    if options.get("command") or options["host"] not in {"127.0.0.1", "localhost", ANY_ADDRESS, "::"}:
        names.remove("port")
    option_by_port: dict[int, str] = {}
    for name in names:
        port, option = options[name], f"--{name.replace('_', '-')}"
        if port in option_by_port:
            raise click.UsageError(f"{option_by_port[port]} and {option} are both {port}. Choose different ports.")
        if port:  # 0 is any free port
            option_by_port[port] = option
    try:
        from hello_service.localview import dev as development  # noqa: PLC0415 - production does not install its dependencies
    except ModuleNotFoundError as error:
        click.echo(f"Package {error.name} of the dev group is not installed. scripts/dev installs it.", err=True)
        sys.exit(1)
    sys.exit(development.run(development.Options(**options), os.environ))


@main.command(short_help="List the traces that a running dev or view has received.")
@click.option("--query", default="", help="A search, as on the page; default: all traces.")
@click.option(
    "--url", default="http://127.0.0.1:8081", show_default=True, help="Address of the page of a running dev or view."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per trace, each on its own line.")
@click.option("--follow", is_flag=True, help="Keep running, and list traces as they arrive.")
def traces(query: str, url: str, as_json: bool, follow: bool) -> None:
    """List the traces that a running `dev` or `view` has received, oldest first.

    Exit code 0: success, even without a trace; 1: no page of `dev` or `view` responds at --url; 2: invalid --query or --url.
    """
    from hello_service.localview import client  # noqa: PLC0415 - no other command needs it

    try:
        client.run(client.Page(url), query, as_json=as_json, follow=follow)
    except client.PageError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


@main.command(short_help="Find out why no trace arrives.")
@click.option(
    "--url", help="URL of a running server; default: the server at HOST and PORT, or one started for the check."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of lines.")
def doctor(url: str | None, as_json: bool) -> None:
    """Find out why no trace arrives, and what to do about it. This takes at most ten seconds and changes nothing.

    Exit code 0: traces would arrive; 1: they would not; 2: undetermined.
    """
    from hello_service.doctor import context, examine, finding  # noqa: PLC0415 - no other command needs it

    if url is not None and not (url.startswith("http") and context.Address(url=url, variables=()).usable):
        raise click.BadParameter("must be a URL like http://host:port", param_hint="--url")
    # Unlike SIGTERM's default action, SystemExit runs the cleanup that ends the child processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results = list(examine(os.environ, url))
    click.echo(json.dumps(finding.document(results), indent=2) if as_json else finding.report(results))
    sys.exit(finding.exit_code(results))


if __name__ == "__main__":
    main()
