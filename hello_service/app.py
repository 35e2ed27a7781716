"""create_app(settings): what is served, what is held open, how errors answer."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from time import monotonic

import structlog
from quart import Quart
from quart_schema import Info, QuartSchema

from hello_service.api.faults import faults
from hello_service.api.greetings import greeting
from hello_service.api.openapi import Described
from hello_service.api.pages import pages
from hello_service.api.probes import ecs_task, probes
from hello_service.api.relay import relay
from hello_service.application import Application
from hello_service.clients.upstream import Upstream
from hello_service.middleware.in_flight import Lifecycle
from hello_service.observability import environment, logs, trace_loss, tracing
from hello_service.problems import answer_problems
from hello_service.settings import BACKGROUND_SECONDS, Settings


def create_app(settings: Settings | None = None, environ: Mapping[str, str] | None = None) -> Quart:
    """Return a fresh app, traced when this process was started under ddtrace-run.

    Args:
        settings: what the operator decided. None, as when Hypercorn calls this factory: read from `environ`, and
            logging is set up, too.
        environ: None: the process's own.

    Raises:
        SettingsError: when a variable of `environ` is not usable.
    """
    environ = os.environ if environ is None else environ
    if settings is None:
        settings = Settings.from_environment(environ)
        logs.configure(settings, tracing.log_ids)

    app = Application(__name__)
    app.config["MAX_CONTENT_LENGTH"] = settings.body_bytes
    app.config["BODY_TIMEOUT"] = app.config["RESPONSE_TIMEOUT"] = (
        None  # of all of it; the server's are without progress
    )
    app.url_map.merge_slashes = False  # //info is not /info
    app.config["BACKGROUND_TASK_SHUTDOWN_TIMEOUT"] = BACKGROUND_SECONDS
    app.extensions.update(
        settings=settings,
        lifecycle=Lifecycle(app, tracing.trace_id),
        rejected_requests=dict,  # the server's count by reason, where it has one
        tracing_status=lambda: {
            **tracing.status(settings.agent_url, settings.dd_trace_enabled, environ),
            **trace_loss.current.status(),
        },
    )
    QuartSchema(
        app,
        info=Info("hello_service", settings.dd_version or "unset"),
        openapi_provider_class=Described,
        swagger_ui_path=None,
        redoc_ui_path=None,
        scalar_ui_path=None,
    )

    for blueprint in (pages, greeting, relay, probes, *([faults] if settings.faults else [])):
        app.register_blueprint(blueprint)

    answer_problems(app, tracing.trace_id)

    @app.while_serving
    async def held_open() -> AsyncGenerator[None, None]:
        async with Upstream(settings, tracing.name_client_span) as upstream:
            app.extensions.update(upstream=upstream, ecs=await ecs_task(environ), started=monotonic())
            log = structlog.stdlib.get_logger("hello_service")
            log.info("settings", **settings.public())
            for remark in environment.remarks(environ, settings):
                log.warning(remark)
            yield

    logs.log_requests(app, settings.probe_paths, tracing.log_ids)
    if settings.dd_trace_enabled and tracing.active():
        tracing.trace(app, settings.probe_paths, settings.dd_service)
        trace_loss.watch()
    return app
