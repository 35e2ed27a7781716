"""`hello-service dev`: an embedded trace agent, the service beside it, and what shows its traces; all ended together."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import webbrowser
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import aiohttp
from rich.console import Console
from rich.text import Text

from hello_service.doctor.case import agent_address
from hello_service.localview import page, processes, terminal
from hello_service.localview.performance import Performance
from hello_service.localview.processes import LOOPBACK, StartError
from hello_service.localview.spans import Trace, read
from hello_service.localview.store import Store
from hello_service.localview.text import visible
from hello_service.settings import mask_credentials

POLL_SECONDS = 0.2
SETTLE_SECONDS = 0.6  # a trace is drawn in the terminal when nothing more of it has come for so long

# What is right on a person's own machine. The environment wins here, too.
DEFAULTS = {
    "DD_ENV": "dev",
    "DRAIN_SECONDS": "0",
    "GRACEFUL_SECONDS": "5",
    "FAULTS": "true",
    "INFO_DETAILS": "true",
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
    """

    host: str
    port: int | None
    agent_port: int | None
    view_port: int | None = None
    traces: int = 1000
    open_browser: bool = False
    allowed_hosts: Sequence[str] = ()


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
        self.environ = {**DEFAULTS, **environ, "LOG_FORMAT": "json"}
        self.environ |= {"HOST": options.host, "PORT": str(options.port)}
        self.listen = LOOPBACK if options.port is not None else options.host
        self.on = on
        self.view = page.View(Store(options.traces), Performance(monotonic()))
        self.page_url: str | None = None
        self.stop = asyncio.Event()
        self._open: dict[int, tuple[float, Trace]] = {}  # traces that are not drawn yet, and when something came last

    async def run(self) -> int:
        """Start everything, wait for Ctrl-C or for the service to end by itself, end everything."""
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(signum, self.stop.set)
        if self.options.port is not None:
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
            if self.options.port is not None:
                service, url = await stack.enter_async_context(processes.service(self.environ, self._hear))
                self.view.service_url = url
                self._say(f"Service: {url}", "bold")
            if agent is None:
                address = agent_address(self.environ)
                self._say(f"Traces go to {address.shown}{_named(address.variables)}.")
            else:
                await agent.ready()
                others = " (other services may send to it too)" if service else ""
                self._say(f"Trace agent: {agent.url}{others}")
            if self.page_url:
                self._say(f"View traces: {self.page_url}", "bold")
            self._say("Press Ctrl-C to stop.\n")
            if self.page_url and self.options.open_browser:
                await asyncio.to_thread(webbrowser.open, self.page_url)
            return await self._end_of(service, agent.process if agent else None)

    async def _receive(self, stack: AsyncExitStack, agent_port: int) -> _Agent:
        """Start the agent and what shows its traces; the service's environment names them afterwards."""
        processes.listen(self.listen, agent_port, "--agent-port").close()
        if self.options.view_port is not None:
            listener = processes.listen(self.listen, self.options.view_port, "--view-port")
            self.page_url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
            self.environ["LOCAL_VIEW_URL"] = self.page_url
            await stack.enter_async_context(page.serving(self.view, listener))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        process, url = await stack.enter_async_context(
            processes.agent(self.listen, agent_port, self.options.allowed_hosts)
        )
        for name in AGENT_VARIABLES if self.options.port is not None else ():
            if value := self.environ.pop(name, ""):
                self._say(f"{name}={mask_credentials(value)} is set aside: --no-embedded-agent sends there.", "yellow")
        self.environ["DD_TRACE_AGENT_URL"] = url
        await stack.enter_async_context(self._following(session, url))
        return _Agent(session, process, url)

    async def _end_of(self, service: Process | None, agent: Process | None) -> int:
        """Wait for the service to end by itself, or for the agent where there is no service."""
        ended = asyncio.create_task(service.wait() if service else asyncio.Event().wait())
        lost = asyncio.create_task(agent.wait() if agent else asyncio.Event().wait())
        try:
            await asyncio.wait({ended, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._say("The embedded trace agent has ended: no more traces are shown.", "yellow")
            if service is None:
                return 1
            await ended
        finally:
            ended.cancel()
            lost.cancel()
        self._say(f"The service has ended by itself, exit code {service.returncode}.", "yellow")
        return 1 if service.returncode else 0

    def _say(self, text: str, style: str = "") -> None:
        self.on.print(Text(text, style), soft_wrap=True)

    def _hear(self, line: str) -> None:
        """Show what the service says, but for its lines of requests: their traces are shown."""
        entry = _entry(line)
        self.view.store.add_line(entry or {"event": line})
        if not entry:
            self._say(visible(line))
        elif entry.get("level") in {"warning", "error", "critical"}:
            self._say(visible(f"{entry['level']}: {entry.get('event')}", one_line=True), "yellow")

    @asynccontextmanager
    async def _following(self, session: aiohttp.ClientSession, agent_url: str) -> AsyncIterator[None]:
        """Take the traces that the agent receives; at the end also those that came last."""

        async def take() -> None:
            try:
                async with session.get(f"{agent_url}/drain") as answer:
                    self._take(await answer.json())
            except (aiohttp.ClientError, TimeoutError):
                return  # not up yet, or gone: whoever waits for it says so

        async def follow() -> None:
            while True:
                await take()
                self._draw(monotonic() - SETTLE_SECONDS)
                await asyncio.sleep(POLL_SECONDS)

        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.wait({following})
            await take()
            self._draw(monotonic())

    def _take(self, chunks: Any) -> None:
        spans, now = read(chunks), monotonic()
        self.view.performance.add(spans, now)
        for trace in self.view.store.add(spans):
            self._open[trace.key] = (now, trace)

    def _draw(self, before: float) -> None:
        """Draw each trace of which nothing more has come since `before`."""
        done = [key for key, (last, _) in self._open.items() if last <= before]
        for trace in sorted((self._open.pop(key)[1] for key in done), key=lambda trace: trace.start):
            terminal.draw(trace, self.on, self.page_url)


@dataclass(frozen=True)
class _Agent:
    session: aiohttp.ClientSession
    process: Process
    url: str

    async def ready(self) -> None:
        await processes.answers(self.session, f"{self.url}/info", self.process)


def _named(variables: Sequence[str]) -> str:
    return f" ({', '.join(variables)})" if variables else " (the default)"


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
