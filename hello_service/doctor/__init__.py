"""`hello-service doctor`: the checks that a person makes when no trace arrives, all at once, in ten seconds.

It changes nothing, shows no secret, and ends in time whatever hangs. `CHECKS` is what it looks at, in the order in
which a person wants to read it; one small function each. Nothing of the service imports this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from hello_service.doctor import agent, environment, fargate, server
from hello_service.doctor.case import SECONDS, Case
from hello_service.doctor.finding import Finding, Redaction, Result, unknown
from hello_service.doctor.wire import in_background


@dataclass(frozen=True)
class Check:
    """A question and the function that answers it."""

    name: str
    ask: Callable[[Case], Finding]


CHECKS = (
    Check("settings", environment.settings),
    Check("ddtrace", environment.installed),
    Check("tracing on", environment.switched_on),
    Check("server", server.active),
    Check("agent address", agent.address),
    Check("agent variables", agent.agreement),
    Check("proxy", agent.proxy),
    Check("agent", agent.answers),
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
    environ: Mapping[str, str], url: str | None = None, checks: Sequence[Check] = CHECKS, seconds: float = SECONDS
) -> Iterator[Result]:
    """Make all `checks` at once and yield their results in order, the last one after `seconds` at most.

    Args:
        environ: what a server would be started with.
        url: a running server; None: the one that the settings name, or else one that is started for this.
    """
    redact = Redaction(environ)
    with Case(environ, url, seconds) as case:
        asked = [(check, in_background(partial(check.ask, case))) for check in checks]
        for check, future in asked:
            try:
                finding = future.result(case.remaining)
            except TimeoutError:
                finding = unknown(f"no answer within {seconds:g} s")
            except Exception as error:  # noqa: BLE001 - one broken check must not take the others with it
                finding = unknown(f"this check broke off: {type(error).__name__}")
            yield redact.result(Result(check.name, finding))
