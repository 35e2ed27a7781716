"""The views of many traces: the list, its JSON, the log, the service map, performance, and the Clear button."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from markupsafe import Markup
from quart import Blueprint, Response, current_app, make_response, redirect, render_template, request

from hello_service.localview import charts, listing, logbook, map_layout, service_map
from hello_service.localview.listing import Listing, Search, SearchError
from hello_service.localview.performance import BUCKET_SECONDS, MINUTES, PERCENTILES
from hello_service.localview.spans import Trace
from hello_service.localview.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from hello_service.localview.page import View

lists = Blueprint("lists", __name__)

ROWS = 200  # shown of a list, unless the address has `all`
API_TRACES = 100  # in a response of `/api/traces`, unless the address has `limit`
WINDOWS = (1, 5, MINUTES)  # minutes
DEFAULT_MINUTES = 5
APDEX_SECONDS = 0.5  # the default threshold
MAX_APDEX_SECONDS = 3600  # also in performance.html
BUSIEST_FIRST = "-requests"
COOKIE_SECONDS = 365 * 24 * 3600


def current_view() -> View:
    """Return the data that the application of the current request shows."""
    view: View = current_app.extensions["view"]
    return view


def _now() -> datetime:
    return datetime.now().astimezone()


async def _render_with_version(template: str, **context: Any) -> str:
    """Render `template` with the store's version, read first: if spans arrive meanwhile, the page refreshes."""
    return await render_template(template, version=current_view().store.version, **context)


def pager(trace: Trace) -> listing.Pager:
    """Return the position of `trace` in the list from which its page was opened."""
    return listing.pager(current_view().store, request.args, trace)


@lists.get("/")
async def show_traces() -> str:
    """Show the traces that a search finds."""
    search, store = Search.from_arguments(request.args), current_view().store
    mistake: SearchError | None = None
    similar: list[tuple[str, int]] = []
    try:
        result = listing.listing(store, search, _now())
        if not result.found and len(store):
            mistake = listing.unfinished_field_error(search)
            similar = listing.alternatives(store, search)
    except SearchError as error:
        result, mistake = Listing(search=search, rows=[], found=0, facets=[]), error
    rows = result.rows if search.show_all else result.rows[:ROWS]
    # Synchronously, because a thousand rows then take half the time.
    template = current_app.extensions["synchronous_jinja"].get_template("rows.html")
    rendered_rows = template.render(rows=rows, query=search.address(""))
    return await _render_with_version(
        "traces.html",
        search=search,
        result=result,
        rows=rows,
        rendered_rows=Markup(rendered_rows),  # noqa: S704 - Jinja has escaped the values
        mistake=mistake,
        similar=similar,
        minutes=listing.MINUTES,
    )


@lists.get("/api/traces")
async def traces_json() -> Any:
    """Return the traces that a search finds as JSON, in the format of docs/local-view.md."""
    search, store = Search.from_arguments(request.args), current_view().store
    limit, since = request.args.get("limit", API_TRACES, int), request.args.get("since", 0, int)
    version = store.version
    try:
        traces = listing.select(store, search, _now())
    except SearchError as error:
        return {"error": str(error), "suggestions": list(error.suggestions)}, 400
    changed_traces = [trace for trace in traces if trace.version > since]
    body = {
        "query": search.q,
        "found": len(traces),
        "kept": len(store),
        "dropped": store.dropped,
        "version": version,
        "traces": [_summary(trace) for trace in changed_traces[: max(0, limit)]],
    }
    return Response(json.dumps(body, indent=2), content_type="application/json")


def _summary(trace: Trace) -> dict[str, Any]:
    """Return the fields of a trace in the JSON list."""
    root = trace.root
    is_start_valid = abs(trace.start) < 2**62  # before the year 2116; a tracer may send any number
    failed_span = next((span for span in trace.spans if span.error and "error.type" in span.meta), None)
    error = None
    if failed_span is not None:
        error = f"{failed_span.meta['error.type']}: {failed_span.meta.get('error.message', '')}"
    return {
        "trace_id": trace.id,
        "url": f"{request.scheme}://{request.host}/trace/{trace.id}",
        "start": datetime.fromtimestamp(trace.start / SECOND, UTC).isoformat() if is_start_valid else None,
        "duration_ms": round(trace.duration / MILLISECOND, 3),
        "service": root.service,
        "services": sorted({span.service for span in trace.spans}),
        "operation": root.name,
        "resource": root.resource,
        "http_url": root.meta.get("http.url"),
        "status": root.status,
        "spans": len(trace.spans),
        "errors": trace.errors,
        "error": error,
    }


@lists.post("/clear")
async def clear() -> Any:
    """Forget all traces, log lines and figures. Requests from other sites are rejected."""
    if not _is_from_own_page():
        return "Requests from other sites can't clear this page.", 403
    view = current_view()
    view.store.clear()
    view.performance.clear(monotonic())
    back = request.args.get("back", "/")
    is_own_path = back.startswith("/") and back[1:2] not in {"/", "\\"}  # //host and /\host are other sites
    return redirect(back if is_own_path else "/", 303)


def _is_from_own_page() -> bool:
    """Return whether the current request comes from this page, or not from a web page at all."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site == "same-origin"
    # A browser that doesn't send Sec-Fetch-Site sends Origin. A request with neither is not from a web page.
    return not origin or urlsplit(origin).netloc == request.host


@lists.get("/logs")
async def show_logs() -> str:
    """Show the lines of the service's log, with or without a trace."""
    log = logbook.read(current_view().store, request.args)
    rows = log.entries if log.show_all else log.entries[:ROWS]
    return await _render_with_version("logs.html", log=log, rows=rows, levels=logbook.LEVELS)


@lists.get("/map")
async def show_map() -> str:
    """Draw the calls between services. With many services, draw the neighbors of one."""
    whole_map = service_map.service_map(current_view().store.newest())
    drawn_map, drawing = map_layout.draw(whole_map, request.args.get("service"))
    can_draw_whole = map_layout.can_draw_whole(whole_map)
    return await _render_with_version("map.html", map=drawn_map, drawing=drawing, can_draw_whole=can_draw_whole)


@lists.get("/performance")
async def show_performance() -> Any:
    """Show the figures of each service in the last `minutes`, with Apdex for the threshold `apdex` in seconds.

    Cookies remember the choices for the next visit.
    """
    minutes = _choice("minutes", int, DEFAULT_MINUTES)
    if minutes not in WINDOWS:
        minutes = DEFAULT_MINUTES
    threshold = _choice("apdex", float, APDEX_SECONDS)
    if not 0 < threshold <= MAX_APDEX_SECONDS:
        threshold = APDEX_SECONDS
    sort = _choice("sort", str, BUSIEST_FIRST)
    if sort.removeprefix("-") not in charts.COLUMNS:
        sort = BUSIEST_FIRST
    now = monotonic()
    # The start of the current time bucket, which is the last one of each chart.
    last_start = datetime.fromtimestamp(time.time() - now % BUCKET_SECONDS).astimezone()
    body = await _render_with_version(
        "performance.html",
        reports=current_view().performance.reports(minutes, now),
        minutes=minutes,
        windows=WINDOWS,
        percentiles=PERCENTILES,
        threshold=threshold,
        sort=sort,
        last_start=last_start,
    )
    response = await make_response(body)
    for name, value in (("minutes", minutes), ("apdex", f"{threshold:g}"), ("sort", sort)):
        if name in request.args:
            response.set_cookie(
                f"performance_{name}", str(value), max_age=COOKIE_SECONDS, httponly=True, samesite="Strict"
            )
    return response


def _choice(name: str, convert: Any, default: Any) -> Any:
    """Return the value of `name` from the address, else from the cookie of an earlier choice, else the default."""
    for text in (request.args.get(name), request.cookies.get(f"performance_{name}")):
        if text is not None:
            try:
                return convert(text)
            except ValueError:
                return default
    return default
