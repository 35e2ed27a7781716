"""`hello-service dev`: an embedded trace agent, the service beside it, and what shows its traces; all ended together."""

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

from hello_service.doctor.case import agent_address
from hello_service.localview import page, processes, terminal
from hello_service.localview.feed import Feed
from hello_service.localview.performance import Performance
from hello_service.localview.processes import LOOPBACK, StartError
from hello_service.localview.spans import read
from hello_service.localview.store import Store, trace_key
from hello_service.localview.text import visible
from hello_service.serving import launch
from hello_service.settings import SettingsError, mask_credentials

LAST_SECONDS = 5.0  # for a request to the agent that is under way at the end
POLL_SECONDS = 0.2

# What is right on a person's own machine. The environment wins here, too.
OWN_DEFAULTS = {"DRAIN_SECONDS": "0", "GRACEFUL_SECONDS": "5", "FAULTS": "true", "INFO_DETAILS": "true"}
DEFAULTS = {
    "PYTHONUNBUFFERED": "1",  # a pipe takes its output
    "DD_ENV": "dev",
    "DD_TRACE_WRITER_INTERVAL_SECONDS": "0.2",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CODE_ORIGIN_FOR_SPANS_ENABLED": "false",  # else ddtrace complains of the test agent's version
}
AGENT_VARIABLES = ("DD_TRACE_AGENT_URL", "DD_AGENT_HOST", "DD_TRACE_AGENT_PORT")


@dataclass(frozen=True)
class Options:
    """What `dev` or `view` was asked for.

    Attributes:
        host: address that the service listens on; of `view`, which has no service, that of agent and page.
        port: its port. None: no service, as in `view`.
        agent_port: None: no embedded agent, so no traces.
        view_port: None: no page.
        allowed_hosts: names in the Host header that the embedded agent accepts beside this machine's own.
        tree: which traces the terminal shows: `all`, `errors`, `slow` or `off`.
        command: of another service, which runs in the place of this one.
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
    """Run until Ctrl-C; return the exit code."""
    try:
        return asyncio.run(Development(options, environ, terminal.console()).run())
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        return 1


class Development:
    """One run of `dev`."""

    def __init__(self, options: Options, environ: Mapping[str, str], on: Console) -> None:
        self.options = options
        self.environ = {**DEFAULTS, **environ}
        if not options.command:
            own = {"LOG_FORMAT": "json", "HOST": options.host, "PORT": str(options.port)}
            self.environ = {**OWN_DEFAULTS, **self.environ, **own}
        self.listen = LOOPBACK if options.port is not None else options.host
        self.feed = Feed(on, options.tree if options.agent_port is not None else "off")
        program = "dev" if options.port is not None else "view"
        self.view = page.View(Store(options.traces), Performance(monotonic()), program=program)
        self.stop = asyncio.Event()

    async def run(self) -> int:
        """Start everything, wait for Ctrl-C or for the service to end by itself, end everything."""
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(signum, self.stop.set)
        if self.options.port is not None and not self.options.command:
            processes.listen(self.options.host, self.options.port, "--port").close()
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
        async with AsyncExitStack() as stack:
            agent = None
            if self.options.agent_port is not None:
                agent = await self._receive(stack, self.options.agent_port)
            service = None
            if self.options.command:
                service = await self._run_command(stack)
            elif self.options.port is not None:
                service, url = await stack.enter_async_context(processes.service(self.environ, self._hear))
                self.view.service_url = url
                self.feed.say(f"Service: {url}", "bold")
            if agent is None:
                address = agent_address(self.environ)
                self.feed.say(f"Traces go to {address.shown}{_named(address.variables)}.")
            else:
                await agent.ready()
                others = " (other services may send to it too)" if service else ""
                self.feed.say(f"Trace agent: {agent.url}{others}")
            if self.feed.page_url:
                self.feed.say(f"View traces: {self.feed.page_url}", "bold")
            self.feed.say("Press Ctrl-C to stop.\n")
            if self.feed.page_url and self.options.open_browser:
                await asyncio.to_thread(webbrowser.open, self.feed.page_url)
            return await self._end_of(service, agent.process if agent else None)

    async def _receive(self, stack: AsyncExitStack, agent_port: int) -> _Agent:
        """Start the agent and what shows its traces; the service's environment names them afterwards."""
        processes.listen(self.listen, agent_port, "--agent-port").close()
        if self.options.view_port is not None:
            listener = processes.listen(self.listen, self.options.view_port, "--view-port")
            self.feed.page_url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
            self.environ["LOCAL_VIEW_URL"] = self.feed.page_url
            await stack.enter_async_context(page.serving(self.view, listener))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        process, url = await stack.enter_async_context(
            processes.agent(self.listen, agent_port, self.options.allowed_hosts)
        )
        for name in AGENT_VARIABLES if self.options.port is not None else ():
            if value := self.environ.pop(name, ""):
                self.feed.say(
                    f"{name}={mask_credentials(value)} is set aside: --no-embedded-agent sends there.", "yellow"
                )
        self.environ["DD_TRACE_AGENT_URL"] = self.view.agent_url = url
        await stack.enter_async_context(self._following(session, url))
        return _Agent(session, process, url)

    async def _run_command(self, stack: AsyncExitStack) -> Process:
        try:
            _, arguments, environ = launch.traced(self.options.command, self.environ)
        except (launch.LaunchError, SettingsError) as error:
            raise StartError(str(error)) from error
        self.feed.say(visible(f"Command: {shlex.join(self.options.command)}", one_line=True), "bold")
        return await stack.enter_async_context(processes.command(arguments, environ, self._show, self._listens))

    def _listens(self, url: str) -> None:
        """Show where the command listens."""
        self.view.service_url, self.view.example = url, "/"
        self.feed.say(f"Service: {url}", "bold")

    def _show(self, line: str) -> None:
        """Show a line of the command, after its trace where it is an error of one."""
        entry = _entry(line)
        self.view.store.add_line({"event": entry.get("message") or line, **entry})
        key = trace_key(str(entry.get("dd.trace_id", "")))
        if key and _matters(entry):
            self.feed.warn(line, key, monotonic())
        else:
            self.feed.say(visible(line))

    async def _end_of(self, service: Process | None, agent: Process | None) -> int:
        """Wait for the service to end by itself, or for the agent where there is no service."""
        ended = asyncio.create_task(service.wait() if service else asyncio.Event().wait())
        lost = asyncio.create_task(agent.wait() if agent else asyncio.Event().wait())
        try:
            await asyncio.wait({ended, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self.feed.say("The embedded trace agent has ended: no more traces are shown.", "yellow")
            if service is None:
                return 1
            await ended
        finally:
            ended.cancel()
            lost.cancel()
        what = "command" if self.options.command else "service"
        self.feed.say(f"The {what} has ended by itself, exit code {service.returncode}.", "yellow")
        return 1 if service.returncode else 0

    def _hear(self, line: str) -> None:
        """Show what the service says, but for its lines of requests: their traces are shown."""
        entry = _entry(line)
        self.view.store.add_line(entry or {"event": line})
        if not entry:
            self.feed.say(visible(line))
        elif _matters(entry):
            key = trace_key(str(entry.get("dd.trace_id", "")))
            self.feed.warn(f"{entry['level']}: {entry.get('event')}", key, monotonic())

    @asynccontextmanager
    async def _following(self, session: aiohttp.ClientSession, agent_url: str) -> AsyncIterator[None]:
        """Take the traces that the agent receives; at the end also those that came last."""

        async def take() -> None:
            try:
                async with session.get(f"{agent_url}/drain") as answer:
                    self._take(await answer.json())
            except (aiohttp.ClientError, TimeoutError):
                return  # not up yet, or gone: whoever waits for it says so

        ending = asyncio.Event()

        async def follow() -> None:
            while not ending.is_set():
                await take()
                self.feed.flush(monotonic())
                with suppress(TimeoutError):
                    await asyncio.wait_for(ending.wait(), POLL_SECONDS)

        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            ending.set()  # a request that is cancelled would lose the traces that the agent has just handed over
            await asyncio.wait({following}, timeout=LAST_SECONDS)
            following.cancel()
            await asyncio.wait({following})
            await take()
            self.feed.flush(monotonic(), end=True)

    def _take(self, chunks: Any) -> None:
        spans, now = read(chunks), monotonic()
        self.view.performance.add(spans, now)
        self.feed.add(self.view.store.add(spans), now)


@dataclass(frozen=True)
class _Agent:
    session: aiohttp.ClientSession
    process: Process
    url: str

    async def ready(self) -> None:
        await processes.answers(self.session, f"{self.url}/info", self.process)


def _named(variables: Sequence[str]) -> str:
    return f" ({', '.join(variables)})" if variables else " (the default)"


def _matters(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("level")).lower() in {"warning", "error", "critical"}


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
