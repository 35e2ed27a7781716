"""`hello-service doctor`: checks for all known causes of missing traces, concurrently and within ten seconds.

It changes nothing, shows no secret, and ends in time even if the agent or the server hangs. `CHECKS` lists the checks,
one small function each, in the order of the JSON output; the text output has the failures first. Nothing that serves in
production imports this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from hello_service.doctor import agent, environment, fargate, server
from hello_service.doctor.context import TOTAL_SECONDS, CheckContext
from hello_service.doctor.finding import Finding, Redaction, Result, unknown
from hello_service.doctor.wire import in_background


@dataclass(frozen=True)
class Check:
    """A check's name and the function that runs it."""

    name: str
    run: Callable[[CheckContext], Finding]


CHECKS = (
    Check("settings", environment.settings),
    Check("ddtrace", environment.installed),
    Check("tracing on", environment.switched_on),
    Check("server", server.active),
    Check("agent address", agent.address),
    Check("agent variables", agent.agreement),
    Check("proxy", agent.proxy),
    Check("agent", agent.reachable),
    Check("trace format", agent.trace_format),
    Check("test span", agent.span),
    Check("clock", agent.clock),
    Check("service, env, version", environment.names),
    Check("sampling", environment.sampling),
    Check("API key", environment.api_key),
    Check("ECS task", fargate.task),
    Check("old settings", environment.old_settings),
    Check("gevent", environment.gevent),
    Check("started once", environment.started_once),
)


def examine(
    environ: Mapping[str, str], url: str | None = None, checks: Sequence[Check] = CHECKS, seconds: float = TOTAL_SECONDS
) -> Iterator[Result]:
    """Run all `checks` concurrently, and yield their results in order within `seconds`.

    Args:
        environ: the environment that a server would be started with.
        url: a running server; None: the server at HOST and PORT, or a new one if none runs there.
    """
    redact = Redaction(environ)
    with CheckContext(environ, url, seconds) as context:
        futures = [(check, in_background(partial(check.run, context))) for check in checks]
        for check, future in futures:
            try:
                finding = future.result(context.remaining)
            except TimeoutError:
                finding = unknown(f"no result within {seconds:g} s")
            except Exception as error:  # noqa: BLE001 - a broken check must not end the others
                finding = unknown(f"this check failed with {type(error).__name__}")
            yield redact.result(Result(check.name, finding))
