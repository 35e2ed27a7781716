"""Tests of the app without a server: rejected input, headers, probes, `/info`, pages, the API document, the factory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
from fake_http import fake_http
from in_process import problem, serving
from quart import Blueprint, Quart, Response
from quart.testing import WebsocketResponseError
from quart.typing import TestClientProtocol as Client  # pytest would collect a class whose name starts with "Test"
from quart_schema import validate_querystring, validate_request
from routes import ENDPOINTS, CountQuery, NameRequest
from werkzeug.exceptions import HTTPException, Unauthorized

from hello_service import api
from hello_service.api.openapi import example, problems, response
from hello_service.app import WITHOUT_SERVE_WARNING, create_app
from hello_service.problems import MEDIA_TYPE, UpstreamFailed, UpstreamTimeout
from hello_service.settings import Settings

# Settings that enable the endpoints that are off by default. If the demo has been deleted, the variable FAULTS is ignored,
# but `Settings(faults=True)` would fail.
ALL_ENABLED = Settings.from_environment({"FAULTS": "true"})


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client of the app, in which the endpoints of routes.py replace the demo's."""
    async with serving(Settings(), ENDPOINTS) as client:
        client.app.testing = False  # errors become responses, as in production
        yield client


@pytest.mark.parametrize(
    "path",
    [
        "/api/hello?name=",
        "/api/hello?name=" + "x" * 201,  # the limit is 200 characters
        "/api/hello?name=a&name=b",  # two values
        "/api/hello/a%07",  # a control character
        "/api/hello/stream?count=abc",
        "/api/relay?count=0",
        "/api/relay?count=21",  # the limit is 20
        "/api/faults/slow?seconds=-1",
        "/api/faults/status/299",  # not an error status
    ],
)
async def test_an_invalid_value_is_422(client: Client, path: str) -> None:
    """The problem document contains the invalid field and the reason."""
    response = await client.get(path)
    document = await response.get_json(force=True)

    assert problem(response, document) == (422, "invalid")
    (error,) = document["errors"]
    assert error["field"] in {"name", "count", "seconds", "code"}
    assert error["reason"]


@pytest.mark.parametrize(
    ("body", "media_type", "status_and_code"),
    [
        (b"{", "application/json", (400, "bad-request")),
        (b"\xff", "application/json", (400, "bad-request")),  # not UTF-8
        (b"[1]", "application/json", (422, "invalid")),
        (b"null", "application/json", (422, "invalid")),
        (b'{"name": 1}', "application/json", (422, "invalid")),
        (b"{}", "application/json", (422, "invalid")),
        (b'{"name": "\\u0000"}', "application/json", (422, "invalid")),  # a control character
        (b'{"name": "\\ud800"}', "application/json", (422, "invalid")),  # half of a surrogate pair
        (b"name=Ada", "application/x-www-form-urlencoded", (415, "unsupported-media-type")),
        (b'{"name": "Ada"}', "text/plain", (415, "unsupported-media-type")),
        (b'{"name": "' + b"x" * 65_536 + b'"}', "application/json", (413, "too-large")),  # the limit is 65,536 bytes
    ],
)
async def test_each_kind_of_bad_body_has_its_own_status_and_code(
    client: Client, body: bytes, media_type: str, status_and_code: tuple[int, str]
) -> None:
    response = await client.post("/api/hello", data=body, headers={"content-type": media_type})

    assert problem(response, await response.get_json(force=True)) == status_and_code


@pytest.mark.parametrize(
    ("path", "status_and_code"),
    [
        ("/search?count=0", (422, "invalid")),  # the query is invalid, and no body is expected
        ("/item", (415, "unsupported-media-type")),  # the client sends no Content-Type
    ],
)
async def test_a_body_that_is_not_declared_as_json_is_415_where_json_is_expected(
    path: str, status_and_code: tuple[int, str]
) -> None:
    items = Blueprint("items", __name__)

    @items.put("/search")
    @validate_querystring(CountQuery)
    async def search(query_args: CountQuery) -> str:
        raise AssertionError(query_args)

    @items.put("/item")
    @validate_request(NameRequest)
    async def replace(data: NameRequest) -> str:
        raise AssertionError(data)

    async with serving(Settings(), (items,)) as client:
        response = await client.put(path, data=b"name=Ada")

    assert problem(response, await response.get_json(force=True)) == status_and_code


async def test_an_unknown_route_is_404(client: Client) -> None:
    response = await client.get("/nope")

    assert problem(response, await response.get_json(force=True)) == (404, "not-found")


SECURITY_HEADERS = {
    "X-Content-Type-Options": ["nosniff"],
    "Cache-Control": ["no-store"],
    "Content-Security-Policy": [
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ],
}


def security_headers(response: Response) -> dict[str, list[str]]:
    return {name: response.headers.getlist(name) for name in SECURITY_HEADERS}


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/api/hello", "/health", "/nope", "/api/faults/error", "/api/hello/stream"]
)
async def test_every_response_has_the_security_headers(client: Client, path: str) -> None:
    assert security_headers(await client.get(path)) == SECURITY_HEADERS


@pytest.mark.parametrize("name", SECURITY_HEADERS)
@pytest.mark.parametrize("change_case", [str.title, str.lower, str.upper])
async def test_a_handler_overrides_a_security_header(
    client: Client, name: str, change_case: Callable[[str], str]
) -> None:
    """This holds for a returned response and for the response of an `HTTPException`. The other headers stay.

    The case of the header's name does not matter.
    """
    app: Quart = client.app

    @app.get("/accept")
    async def accept() -> tuple[str, dict[str, str]]:
        return "accepted", {change_case(name): "mine"}

    @app.get("/reject")
    async def reject() -> str:
        raise HTTPException(response=Response("rejected", 403, {change_case(name): "mine"}))

    for path in ("/accept", "/reject"):
        assert security_headers(await client.get(path)) == {**SECURITY_HEADERS, name: ["mine"]}


async def test_a_rejected_websocket_has_the_security_headers(client: Client) -> None:
    """A rejected handshake has an ordinary HTTP response."""
    async with client.websocket("/nope") as socket:
        with pytest.raises(WebsocketResponseError) as error:
            await socket.receive()

    assert security_headers(error.value.response) == SECURITY_HEADERS


async def test_a_wrong_method_is_405_with_the_allowed_methods(client: Client) -> None:
    response = await client.delete("/api/hello")

    assert problem(response, await response.get_json(force=True)) == (405, "method-not-allowed")
    assert {"GET", "POST"} <= set(response.headers["Allow"].split(", "))


async def test_an_unlisted_http_error_is_a_problem(client: Client) -> None:
    """If HTTP_ERRORS of problems.py lacks the status, the code is derived from the exception's name."""
    app: Quart = client.app

    @app.get("/secret")
    async def secret() -> str:
        raise Unauthorized(description="Log in first.")

    response = await client.get("/secret")

    assert problem(response, await response.get_json(force=True)) == (401, "unauthorized")


async def test_an_unhandled_exception_is_500_without_its_text(client: Client) -> None:
    """The cause goes only to the span and the log."""
    response = await client.get("/api/faults/error")
    document = await response.get_json(force=True)

    assert problem(response, document) == (500, "internal-error")
    assert "always fails" not in str(document)  # a part of the exception's text


async def test_a_stopping_process_is_alive_but_not_ready(client: Client) -> None:
    app: Quart = client.app
    ready_before = await client.get("/ready")
    app.extensions["lifecycle"].stopping = True
    ready = await client.get("/ready")
    health = await client.get("/health")

    assert (ready_before.status_code, ready.status_code, health.status_code) == (200, 503, 200)


async def info_for(client: Client, host: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the document that `/info` sends to a caller on `host`."""
    response = await client.get("/info", headers=headers, scope_base={"client": (host, 50000)})  # any port
    document: dict[str, Any] = await response.get_json()
    return document


PUBLIC_INFO: dict[str, Any] = {
    "service": "hello-service",
    "env": None,
    "version": None,
    "tracing": {"active": False, "reason": "not started under ddtrace-run", "traces_lost": None},
}


@pytest.mark.parametrize("host", ["10.0.0.7", "203.0.113.9", "2001:db8::1", "::ffff:10.0.0.7", "", "/run/socket"])
async def test_info_shows_no_details_to_a_caller_on_another_host(client: Client, host: str) -> None:
    """A caller whose address is unknown, as with a Unix socket, counts as one on another host."""
    assert await info_for(client, host) == PUBLIC_INFO


@pytest.mark.parametrize(
    "name",
    ["Forwarded", "X-Forwarded-For", "x-forwarded-proto", "X-FORWARDED-ANYTHING", "X-Forwarded", "X-Real-IP", "Via"],
)
async def test_info_shows_no_details_through_a_proxy_on_this_host(client: Client, name: str) -> None:
    """The presence of a proxy's header is enough, even if its value is empty."""
    assert await info_for(client, "127.0.0.1", {name: ""}) == PUBLIC_INFO


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
async def test_info_shows_details_to_a_caller_on_this_host(client: Client, host: str) -> None:
    """A header that doesn't indicate a proxy, such as X-Request-Id, changes nothing."""
    info = await info_for(client, host, {"X-Request-Id": "1"})

    assert info.keys() > PUBLIC_INFO.keys()
    assert info["tracing"].keys() > PUBLIC_INFO["tracing"].keys()


async def test_info_shows_details_to_anyone_if_the_operator_enables_them() -> None:
    async with serving(Settings(info_details=True)) as client:
        assert (await info_for(client, "203.0.113.9", {"Via": "1.1 proxy"}))["settings"]["INFO_DETAILS"] is True


async def test_info_shows_versions_tracing_and_settings(client: Client) -> None:
    """Outside ECS, `/info` shows no ECS task."""
    info = await info_for(client, "127.0.0.1")

    assert info["service"] == "hello-service"
    assert set(info["packages"]) == {"quart", "hypercorn", "ddtrace", "httpx"}
    assert info["in_flight"] == 1  # the request for `/info` itself
    assert info["tasks"] >= 1  # asyncio tasks
    assert info["tracing"]["active"] is False
    assert info["tracing"]["reason"] == "not started under ddtrace-run"
    assert info["tracing"]["agent_error"] is None
    assert info["ecs"] is None
    assert info["settings"]["PORT"] == 8080


async def test_info_shows_why_tracing_is_off() -> None:
    """The reason contains the setting to change."""
    async with serving(Settings(dd_trace_enabled=False)) as client:
        info = await (await client.get("/info")).get_json()
        assert info["tracing"]["reason"] == "DD_TRACE_ENABLED is false"


@pytest.mark.parametrize("accept", ["*/*", "application/json", None])
async def test_the_index_is_json_for_a_program(client: Client, accept: str | None) -> None:
    """curl sends `Accept: */*`."""
    response = await client.get("/", headers={"accept": accept} if accept else {})
    document = await response.get_json()

    assert "/api/relay?count=3" in document["links"]
    assert "/api/faults/error" in document["links"]
    assert "traces" not in document


async def test_the_index_is_a_page_for_a_browser() -> None:
    """The page links to the traces when a trace view is configured."""
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    async with serving(Settings(local_view_url="http://127.0.0.1:8081"), ENDPOINTS) as client:
        page = await (await client.get("/", headers={"accept": accept})).get_data(as_text=True)
        document = await (await client.get("/")).get_json()

        assert '<a href="http://127.0.0.1:8081">view the traces</a>' in page
        assert "/api/relay?count=3" in page
        assert "<code>POST /api/hello</code>" in page
        assert "<code>WebSocket /api/hello/ws</code>" in page
        assert document["traces"] == "http://127.0.0.1:8081"


async def test_the_documentation_lists_every_route_and_needs_no_network(client: Client) -> None:
    """The usual documentation pages load scripts from other sites, so the service has a page of its own."""
    page = await (await client.get("/docs")).get_data(as_text=True)
    page_without_quotes = page.replace("&#39;", "")  # shell commands on the page quote their arguments
    document = await (await client.get("/openapi.json")).get_json()

    assert {"/api/hello", "/api/relay", "/health", "/info"} <= set(document["paths"])
    assert all(path in page for path in document["paths"])
    assert "<code>count</code> in the query: integer, 1 to 20; default <code>3</code>" in page
    assert "<code>name</code> in the body, <code>application/json</code>: string, 1 to 200 characters" in page
    assert "<td>413</td><td>The body is too large.</td><td><code>application/problem+json</code></td>" in page
    assert "<td><code>trace_id</code></td>" in page
    assert "curl localhost/api/hello?name=World" in page_without_quotes
    assert "-d {&#34;name&#34;: &#34;name&#34;} localhost/api/hello" in page_without_quotes
    assert "ws://localhost/api/hello/ws" in page
    assert "http://" not in page
    assert "https://" not in page
    responses = document["paths"]["/api/hello"]["post"]["responses"]
    # Only 200 is declared. The others can be the response to any request with a body.
    assert set(responses) == {"200", "400", "408", "413", "414", "415", "422", "431", "500", "503"}
    for operations in document["paths"].values():
        assert all(response["description"] for response in operations["get"]["responses"].values())


PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}


async def test_a_route_is_described_by_its_handlers_declarations(client: Client) -> None:
    """The OpenAPI document, the documentation page and the links of `/` are built from the routes alone."""
    team = Blueprint("team", __name__)

    @team.get("/team/<name>")
    @example(name="ada", full="true")
    @response({"text/csv": {"type": "string"}})
    @problems(UpstreamFailed, UpstreamTimeout)
    async def member(name: str) -> str:
        """Show a member."""
        return name

    @team.get("/team")
    @response(
        {"application/json": {"type": "object", "properties": {"failed": {"type": "array", "items": PROBLEM_REF}}}}
    )
    async def members() -> str:
        """List the problems of the members that failed."""
        return ""

    @team.get("/team/hidden/<name>")
    async def without_example(name: str) -> str:
        """Get no link, because the route has a variable and no example."""
        return name

    @team.websocket("/team/news")
    async def news() -> None:
        """Send news."""

    app: Quart = client.app
    app.register_blueprint(team)
    links = (await (await client.get("/")).get_json())["links"]
    page = await (await client.get("/docs")).get_data(as_text=True)
    document = await (await client.get("/openapi.json")).get_json()
    responses = document["paths"]["/team/{name}"]["get"]["responses"]

    assert links["/team/ada?full=true"] == "Show a member."
    assert not any("hidden" in link for link in links)
    assert "/team/news" not in links
    assert "WebSocket /team/news" in page
    assert "Send news." in page
    # The page shows an example, in which PROBLEM_REF is resolved.
    assert '"failed": [\n    {\n      "detail": "text"' in page
    assert "/team/{name}" in page
    assert set(responses["200"]["content"]) == {"text/csv"}
    # 502 and 504 are declared by `problems`. The other errors can happen on any route with a variable.
    assert set(responses) == {"200", "400", "404", "414", "422", "431", "500", "502", "503", "504"}
    assert set(responses["504"]["content"]) == {MEDIA_TYPE}


async def test_every_blueprint_of_the_api_is_registered() -> None:
    """app.py needs a line for each new file in api/."""
    app = create_app(ALL_ENABLED, environ={})
    blueprints: set[Blueprint] = set()
    for module_info in iter_modules(api.__path__):
        module = import_module(f"{api.__name__}.{module_info.name}")
        blueprints |= {value for value in vars(module).values() if isinstance(value, Blueprint)}

    assert blueprints == set(app.blueprints.values())


async def test_every_operation_declares_its_response() -> None:
    """A handler declares its response with a model or with `response`. A handler that only fails uses
    `problems(Problem)`, which adds the response "default".
    """

    def declares_response(operation: dict[str, Any]) -> bool:
        responses = operation["responses"]
        successes = [response for status, response in responses.items() if status[0] in "123"]
        return "default" in responses or any(success["content"] for success in successes)

    async with serving(ALL_ENABLED) as client:
        document = await (await client.get("/openapi.json")).get_json()

    operations = [operation for methods in document["paths"].values() for operation in methods.values()]

    assert operations
    assert [operation["operationId"] for operation in operations if not declares_response(operation)] == []


async def test_every_route_has_a_docstring() -> None:
    """The docstring is the route's description in the API document."""
    app = create_app(ALL_ENABLED, environ={})
    views = [view for view in app.view_functions.values() if view.__module__.startswith("hello_service")]

    assert views
    assert all(view.__doc__ for view in views)


async def test_a_factory_without_settings_reads_the_environment(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Hypercorn's command passes no settings. The factory then sets up logging, and warns that `serve` wasn't used."""
    monkeypatch.setenv("DD_SERVICE", "orders")
    async with create_app().test_app() as app:
        info = await (await app.test_client().get("/info")).get_json()

    assert info["service"] == "orders"
    assert WITHOUT_SERVE_WARNING in capfd.readouterr().err


@pytest.fixture
def metadata_url() -> Iterator[str]:
    """Run a fake of ECS's task metadata endpoint. It responds to `/missing/task` with 404."""
    task = {"Cluster": "c", "TaskARN": "arn:t", "Family": "hello-service", "Revision": "7", "Secret": "x"}
    with fake_http(task) as server:
        server.missing_paths.add("/missing/task")
        yield server.url


async def test_info_shows_the_ecs_task(metadata_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/info` leaves out other fields, such as `Secret`. The request to the endpoint bypasses any proxy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nothing listens there
    app = create_app(Settings(info_details=True), environ={"ECS_CONTAINER_METADATA_URI_V4": f"{metadata_url}/v4/1"})
    async with app.test_app() as serving_app:
        info = await (await serving_app.test_client().get("/info")).get_json()

    assert info["ecs"] == {
        "Cluster": "c",
        "TaskARN": "arn:t",
        "Family": "hello-service",
        "Revision": "7",
        "LaunchType": None,  # the fake's document lacks this field and the next
        "AvailabilityZone": None,
    }


@pytest.mark.parametrize(
    ("metadata", "headers", "error"),
    [(["no object"], {}, "TypeError"), ({}, {"Content-Length": "1000"}, "IncompleteRead")],
)
async def test_info_shows_that_the_ecs_metadata_cannot_be_used(
    metadata: object, headers: dict[str, str], error: str
) -> None:
    """The service starts whatever the endpoint responds."""
    with fake_http(metadata, headers=headers) as server:
        app = create_app(Settings(info_details=True), environ={"ECS_CONTAINER_METADATA_URI_V4": server.url})
        async with app.test_app() as serving_app:
            info = await (await serving_app.test_client().get("/info")).get_json()

    assert info["ecs"] == {"error": f"no usable response from the task metadata endpoint: {error}"}


async def test_info_shows_that_the_ecs_metadata_endpoint_fails(metadata_url: str) -> None:
    """The service starts even if the metadata endpoint fails."""
    app = create_app(Settings(info_details=True), environ={"ECS_CONTAINER_METADATA_URI_V4": f"{metadata_url}/missing"})
    async with app.test_app() as serving_app:
        info = await (await serving_app.test_client().get("/info")).get_json()

    assert info["ecs"] == {"error": "no usable response from the task metadata endpoint: HTTPError"}
