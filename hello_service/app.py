"""create_app(settings): the endpoints, the resources that stay open while the app serves, and the error handlers."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from time import monotonic
from typing import Any, cast

import structlog
from quart import Blueprint, Quart
from quart_schema import Info, QuartSchema

from hello_service import contract
from hello_service.api.faults import faults
from hello_service.api.greetings import greeting
from hello_service.api.info import ecs_task, info
from hello_service.api.openapi import ProblemOpenAPIProvider
from hello_service.api.pages import pages
from hello_service.api.probes import probes
from hello_service.api.relay import relay
from hello_service.api.services import Services
from hello_service.asgi import ASGIApp
from hello_service.clients.upstream import Limits, Upstream
from hello_service.middleware.in_flight import Lifecycle
from hello_service.middleware.security_headers import SecurityHeaders
from hello_service.middleware.websocket_bound import bound_websockets
from hello_service.observability import environment, logs, status, trace_loss, tracing
from hello_service.problems import register_problem_handlers
from hello_service.settings import BACKGROUND_SECONDS, Settings

WITHOUT_SERVE_WARNING = (
    "Not started by `hello-service serve`: there is no drain, no shutdown deadline, and no timeout for request bodies "
    "and responses. The server's own limits apply to request heads, idle connections and WebSocket messages, and it "
    "may accept malformed requests."
)

# This service's own endpoints. `create_app` adds `pages`, `probes` and `info`, and `faults` if FAULTS=true.
ENDPOINTS = (
    greeting,
    relay,
)


def create_app(
    settings: Settings | None = None,
    environ: Mapping[str, str] | None = None,
    broken: Mapping[str, Sequence[str]] | None = None,
    *,
    endpoints: Sequence[Blueprint] | None = None,
) -> Quart:
    """Return a new app. It is traced if `tracing.active()` is true, unless the settings disable tracing.

    Args:
        settings: the operator's settings. With None, as when Hypercorn calls this factory, they are read from
            `environ`, and logging is set up.
        environ: None: the process's environment.
        broken: the result of `contract.check()`. The app logs it, and leaves out the parts "fast_span", "WebSocket bound"
            and "trace loss" if they are in it. With None, this function calls `contract.check()` if `settings` is None;
            otherwise the app has every part.
        endpoints: None: `ENDPOINTS`, and `faults` if the settings enable it.

    Raises:
        SettingsError: a variable of `environ` has an invalid value.
    """
    environ = os.environ if environ is None else environ
    start_warnings: list[str] = []
    if settings is None:
        settings = Settings.from_environment(environ)
        logs.configure(settings, tracing.log_ids)
        broken = contract.check() if broken is None else broken
        start_warnings.append(WITHOUT_SERVE_WARNING)
    broken = broken or {}
    start_warnings += [" ".join(sentences) for sentences in broken.values()]

    app = Quart(__name__)
    if "WebSocket bound" not in broken:
        bound_websockets(app)
    app.config["MAX_CONTENT_LENGTH"] = settings.body_bytes
    # Quart's limits are for a whole body; the server limits the time without progress.
    app.config["BODY_TIMEOUT"] = app.config["RESPONSE_TIMEOUT"] = None
    app.url_map.merge_slashes = False  # //info is not /info
    app.config["BACKGROUND_TASK_SHUTDOWN_TIMEOUT"] = BACKGROUND_SECONDS
    lifecycle = Lifecycle(cast("ASGIApp", app.asgi_app), tracing.trace_id)
    asgi_app: Any = logs.RequestLog(SecurityHeaders(lifecycle), app, settings.probe_paths, tracing.log_ids)
    app.asgi_app = asgi_app  # type: ignore[method-assign]  # Quart documents this assignment
    # No rejection is counted until the server replaces `dict` with a function that returns its counts by reason.
    app.extensions.update(lifecycle=lifecycle, rejected_requests=dict)
    QuartSchema(
        app,
        info=Info(title="hello_service", version=settings.dd_version or "unset"),
        openapi_provider_class=ProblemOpenAPIProvider,
        swagger_ui_path=None,
        redoc_ui_path=None,
        scalar_ui_path=None,
    )

    if endpoints is None:
        endpoints = (*ENDPOINTS, faults) if settings.faults else ENDPOINTS
    for blueprint in (pages, *endpoints, probes, info):
        app.register_blueprint(blueprint)

    register_problem_handlers(app, tracing.trace_id)

    limits = Limits(
        timeout_seconds=settings.upstream_timeout_seconds,
        connections=settings.upstream_connections,
        waiting=settings.upstream_waiting,
        body_bytes=settings.upstream_body_bytes,
    )

    @app.while_serving
    async def open_services() -> AsyncGenerator[None, None]:
        async with (
            Upstream(limits, on_request=tracing.name_client_span) as upstream,
        ):
            app.extensions["services"] = Services(
                settings=settings,
                lifecycle=lifecycle,
                upstream=upstream,
                tracing_status=lambda: {
                    **status.status(settings.agent_url, settings.dd_trace_enabled, environ),
                    **trace_loss.current.status(),
                },
                rejected_requests=app.extensions["rejected_requests"],
                ecs=await ecs_task(environ),
                started=monotonic(),
            )
            log = structlog.stdlib.get_logger("hello_service")
            log.info("settings", **settings.public())
            for warning in [*environment.configuration_warnings(environ, settings), *start_warnings]:
                log.warning(warning)
            yield

    if settings.dd_trace_enabled and tracing.active():
        middleware: Any = None  # ddtrace's own
        if "fast_span" not in broken:
            from hello_service.observability.fast_span import FastSpan  # noqa: PLC0415 - not importable if broken

            middleware = FastSpan
        tracing.trace(app, settings.probe_paths, settings.dd_service, middleware)
        if "trace loss" not in broken:
            trace_loss.watch()
    return app
