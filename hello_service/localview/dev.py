"""`hello-service dev`: runs the service, an embedded trace agent and the views of its traces until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import sys
import webbrowser
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import aiohttp
from rich.console import Console

from hello_service.doctor.context import HOST_VARIABLES, PORT_VARIABLES, agent_address
from hello_service.localview import page, processes, terminal
from hello_service.localview.feed import Feed
from hello_service.localview.performance import Performance
from hello_service.localview.processes import LOOPBACK, StartError
from hello_service.localview.spans import read_spans
from hello_service.localview.store import Store, trace_key
from hello_service.localview.text import escape_hidden
from hello_service.serving import launch
from hello_service.settings import SettingsError, mask_credentials

LAST_DRAIN_SECONDS = 5.0  # timeout of a request to the agent that is in flight when dev stops
POLL_SECONDS = 0.2  # between two requests to the agent

# Defaults for a developer's machine. Environment variables override them. `SERVICE_DEFAULTS` are settings of this
# service, `DEFAULTS` are for any service.
SERVICE_DEFAULTS = {"DRAIN_SECONDS": "0", "GRACEFUL_SECONDS": "5", "FAULTS": "true", "INFO_DETAILS": "true"}
DEFAULTS = {
    "PYTHONUNBUFFERED": "1",  # because standard output is a pipe
    "DD_ENV": "dev",
    "DD_TRACE_WRITER_INTERVAL_SECONDS": "0.2",  # ddtrace's default of a second would delay the display
    # Telemetry and remote configuration are of use only with Datadog's backend.
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CODE_ORIGIN_FOR_SPANS_ENABLED": "false",  # otherwise ddtrace warns about the test agent's version
}
AGENT_ADDRESS_VARIABLES = ("DD_TRACE_AGENT_URL", *HOST_VARIABLES, *PORT_VARIABLES)


@dataclass(frozen=True)
class Options:
    """The options of `dev` or `view`.

    Attributes:
        host: the address on which the service listens; for `view`, the address of the agent and the page.
        port: the service's port; None if there is no service, as in `view`.
        agent_port: the port of the embedded agent; None if there is no embedded agent, and so no traces are shown.
        view_port: the page's port; None if there is no page.
        traces: how many traces are kept.
        allowed_hosts: names that the embedded agent accepts in the Host header, in addition to this machine's own.
        tree: which traces the terminal shows: `all`, `errors`, `slow` or `off`.
        command: the command line of another service to run instead of this one.
    """

    host: str
    port: int | None
    agent_port: int | None
    view_port: int | None = None
    traces: int = 1000
    open_browser: bool = False
    allowed_hosts: Sequence[str] = ()
    tree: str = "all"
    command: Sequence[str] = ()


def run(options: Options, environ: Mapping[str, str]) -> int:
    """Run until Ctrl-C or until the service exits, and return the exit code."""
    try:
        return asyncio.run(Development(options, environ, terminal.make_console()).run())
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        return 1


class Development:
    """One run of `dev` or `view`."""

    def __init__(self, options: Options, environ: Mapping[str, str], console: Console) -> None:
        self.options = options
        self.environ = {**DEFAULTS, **environ}
        if not options.command:
            required = {"LOG_FORMAT": "json", "HOST": options.host, "PORT": str(options.port)}
            self.environ = {**SERVICE_DEFAULTS, **self.environ, **required}
        # The address on which the agent and the page listen.
        self.listen_host = LOOPBACK if options.port is not None else options.host
        # Without the embedded agent, no traces arrive, so no log line should wait for its trace.
        self.feed = Feed(console, options.tree if options.agent_port is not None else "off")
        program = "dev" if options.port is not None else "view"
        self.view = page.View(Store(options.traces), Performance(monotonic()), program=program)
        self.stop = asyncio.Event()

    async def run(self) -> int:
        """Start everything, wait until Ctrl-C or until the service exits, stop everything, and return the exit code."""
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(signum, self.stop.set)
        if self.options.port is not None and not self.options.command:
            # Reports a port in use before anything is started.
            processes.bind(self.options.host, self.options.port, "--port").close()
        developing = asyncio.create_task(self._develop())
        stopping = asyncio.create_task(self.stop.wait())
        await asyncio.wait({developing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not developing.done():
            developing.cancel()
            await asyncio.wait({developing})
            return 0
        return developing.result()

    async def _develop(self) -> int:
        """Start the agent, the views and the service, print their addresses, and wait until the service exits."""
        async with AsyncExitStack() as stack:
            agent = None
            if self.options.agent_port is not None:
                agent = await self._start_agent(stack, self.options.agent_port)
            service = None
            if self.options.command:
                service = await self._run_command(stack)
            elif self.options.port is not None:
                service, url = await stack.enter_async_context(processes.service(self.environ, self._on_service_line))
                self.view.service_url = url
                self.feed.print(f"Service: {url}", "bold")
            if agent is None:
                address = agent_address(self.environ)
                self.feed.print(f"Traces go to {address.masked_url}{_origin(address.variables)}.")
            else:
                await agent.wait_until_ready()
                hint = " (other services may send to it too)" if service else ""
                self.feed.print(f"Trace agent: {agent.url}{hint}")
            if self.feed.page_url:
                self.feed.print(f"View traces: {self.feed.page_url}", "bold")
            self.feed.print("Press Ctrl-C to stop.\n")
            if self.feed.page_url and self.options.open_browser:
                await asyncio.to_thread(webbrowser.open, self.feed.page_url)
            return await self._wait_for_exit(service, agent.process if agent else None)

    async def _start_agent(self, stack: AsyncExitStack, agent_port: int) -> _Agent:
        """Start the agent and the views of its traces, and add their addresses to the service's environment."""
        agent_listener = processes.bind(self.listen_host, agent_port, "--agent-port")
        stack.callback(agent_listener.close)
        if self.options.view_port is not None:
            listener = processes.bind(self.listen_host, self.options.view_port, "--view-port")
            self.feed.page_url = processes.url(listener)
            self.environ["LOCAL_VIEW_URL"] = self.feed.page_url
            await stack.enter_async_context(page.serving(self.view, listener))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        process, url = await stack.enter_async_context(processes.agent(agent_listener, self.options.allowed_hosts))
        if self.options.port is not None:
            self._warn_about_environment()
        self.environ["DD_TRACE_AGENT_URL"] = self.view.agent_url = url
        await stack.enter_async_context(self._polling(session, url))
        return _Agent(session, process, url)

    def _warn_about_environment(self) -> None:
        """Print a message if tracing is disabled. Remove variables that set another agent, with a message for each."""
        # The values that Pydantic, and so the settings, read as false.
        if (value := self.environ.get("DD_TRACE_ENABLED", "")).lower() in {"false", "0", "no", "off", "n", "f"}:
            self.feed.print(
                f"DD_TRACE_ENABLED={value}, so the service sends no traces. Unset it to see them.", "yellow"
            )
        for name in AGENT_ADDRESS_VARIABLES:
            if value := self.environ.pop(name, ""):
                self.feed.print(
                    f"{name}={mask_credentials(value)} is ignored. Use --no-embedded-agent to send traces there.",
                    "yellow",
                )

    async def _run_command(self, stack: AsyncExitStack) -> Process:
        """Run the command under ddtrace."""
        try:
            _, arguments, environ = launch.traced_command(self.options.command, self.environ)
        except (launch.LaunchError, SettingsError) as error:
            raise StartError(str(error)) from error
        self.feed.print(escape_hidden(f"Command: {shlex.join(self.options.command)}", one_line=True), "bold")
        return await stack.enter_async_context(
            processes.command(arguments, environ, self._on_command_line, self._on_command_url)
        )

    def _on_command_url(self, url: str) -> None:
        """Show the URL on which the command listens."""
        self.view.service_url, self.view.example_path = url, "/"  # the default path exists only in this service
        self.feed.print(f"Service: {url}", "bold")

    def _on_command_line(self, line: str) -> None:
        """Keep a line of the command's output for the page. Print it: a warning or an error after its trace."""
        entry = _parse_entry(line)
        # The page shows the field `event`. Other services may call it `message`, or write plain text.
        self.view.store.add_line({"event": entry.get("message") or line, **entry})
        key = trace_key(str(entry.get("dd.trace_id", "")))
        if key and _is_warning_or_worse(entry):
            self.feed.print_after_trace(line, key, monotonic())
        else:
            self.feed.print(escape_hidden(line))

    async def _wait_for_exit(self, service: Process | None, agent: Process | None) -> int:
        """Wait until the service exits, or the agent if there is no service, and return the exit code of `dev`."""
        never = asyncio.Event()
        service_exit = asyncio.create_task(service.wait() if service else never.wait())
        agent_exit = asyncio.create_task(agent.wait() if agent else never.wait())
        try:
            await asyncio.wait({service_exit, agent_exit}, return_when=asyncio.FIRST_COMPLETED)
            if not service_exit.done():
                self.feed.print("The embedded trace agent has exited, so no more traces are shown.", "yellow")
            if service is None:
                return 1
            await service_exit
        finally:
            service_exit.cancel()
            agent_exit.cancel()
        program = "command" if self.options.command else "service"
        self.feed.print(f"The {program} has exited with code {service.returncode}.", "yellow")
        return 1 if service.returncode else 0

    def _on_service_line(self, line: str) -> None:
        """Keep a line of the service's output for the page. Print it, except a log line below the level warning."""
        entry = _parse_entry(line)
        self.view.store.add_line(entry or {"event": line})
        if not entry:
            self.feed.print(escape_hidden(line))
        elif _is_warning_or_worse(entry):
            key = trace_key(str(entry.get("dd.trace_id", "")))
            self.feed.print_after_trace(f"{entry['level']}: {entry.get('event')}", key, monotonic())

    @asynccontextmanager
    async def _polling(self, session: aiohttp.ClientSession, agent_url: str) -> AsyncIterator[None]:
        """Fetch the agent's new traces regularly while the block runs, and once more at its end."""

        async def drain() -> None:
            try:
                async with session.get(f"{agent_url}/drain") as response:
                    self._add_traces(await response.json())
            except (aiohttp.ClientError, TimeoutError):
                return  # the agent isn't up yet or has exited; `wait_until_ready` and `_wait_for_exit` report that

        stopping = asyncio.Event()

        async def poll() -> None:
            while not stopping.is_set():
                await drain()
                self.feed.flush(monotonic())
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), POLL_SECONDS)

        polling = asyncio.create_task(poll())
        try:
            yield
        finally:
            # A request in flight may finish: the agent forgets traces as it sends them, so canceling would lose them.
            stopping.set()
            await asyncio.wait({polling}, timeout=LAST_DRAIN_SECONDS)
            polling.cancel()
            await asyncio.wait({polling})
            await drain()
            self.feed.flush(monotonic(), end=True)

    def _add_traces(self, chunks: Any) -> None:
        """Add the traces of a response from `/drain` to the views."""
        spans, now = read_spans(chunks), monotonic()
        self.view.performance.add(spans, now)
        self.feed.add(self.view.store.add(spans), now)


@dataclass(frozen=True)
class _Agent:
    session: aiohttp.ClientSession
    process: Process
    url: str

    async def wait_until_ready(self) -> None:
        await processes.wait_for_response(self.session, f"{self.url}/info", self.process)


def _origin(variables: Sequence[str]) -> str:
    """Return, in parentheses, the variables from which an address was read, or that it is the default."""
    return f" ({', '.join(variables)})" if variables else " (the default)"


def _is_warning_or_worse(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("level")).lower() in {"warning", "error", "critical"}


def _parse_entry(line: str) -> dict[str, Any]:
    """Return the fields of a JSON log line; an empty dict if `line` is not a JSON object."""
    try:
        entry = json.loads(line)
    except (RecursionError, ValueError):
        return {}
    return entry if isinstance(entry, dict) else {}
