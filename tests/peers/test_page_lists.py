"""Tests of the local view's lists in Chromium. The traces come from requests or from spans sent to the agent."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from collections.abc import Iterator

import aiohttp
import httpx
import pytest
from browser import CHROMIUM, chromium, open_before_script, opened, violations
from developing import VIEW, Dev, developing
from local_view import send_spans
from playwright.sync_api import Browser, Locator, Page, expect
from running import eventually
from tracing_data import START, span

from hello_service.localview.spans import Span

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"),
]

# More than MAX_SERVICES in map_layout.py, so a map draws only a chosen service and its neighbors.
SERVICES = [f"service-{number:02}" for number in range(19)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run a browser for all tests of this module."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """Run `dev` for all tests that can share one."""
    with developing(measured=False) as dev:
        yield dev


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open a window."""
    with opened(browser) as page:
        yield page


def send(dev: Dev, *spans: Span) -> None:
    """Send `spans` to the agent, and wait until the page has them."""
    send_spans(dev.agent_url, spans)
    for number in {sent_span.trace_id for sent_span in spans}:
        wait_for_trace(dev, f"{number:032x}")


def wait_for_trace(dev: Dev, trace_id: str) -> str:
    """Wait until the page has the trace, and return the trace id."""
    eventually(lambda: httpx.get(f"{dev.page_url}/trace/{trace_id}/json").status_code, lambda status: status == 200)
    return trace_id


def send_request(dev: Dev, path: str) -> str:
    """Send a request to the service, wait for its trace, and return the trace's id."""
    response = dev.get(path)
    return wait_for_trace(dev, response.headers["traceresponse"].split("-")[1])


def now(seconds_ago: float = 0) -> float:
    """Return the current or an earlier time in the form that `span()` expects: milliseconds since START."""
    return (time.time() - seconds_ago) * 1000 - START / 1_000_000  # START is in nanoseconds


def rows(page: Page) -> Locator:
    """Return the rows of the list."""
    return page.locator("#rows > li")


def row(page: Page, trace_id: str) -> Locator:
    """Return the row of a trace."""
    return page.locator(f'#rows a.row[href*="/trace/{trace_id}"]')


def test_requests_with_status_404_show_their_paths(dev: Dev, page: Page) -> None:
    """All such requests have the resource `GET 404`, so only their paths distinguish them."""
    first, second = send_request(dev, "/.env"), send_request(dev, "/wp-login.php")
    page.goto(dev.page_url)

    for trace_id, path in ((first, "/.env"), (second, "/wp-login.php")):
        expect(row(page, trace_id).locator(".resource")).to_have_text("GET 404")
        expect(row(page, trace_id).locator(".path")).to_have_text(path)
    expect(row(page, send_request(dev, "/api/hello")).locator(".path")).to_have_count(0)


def test_a_failed_background_task_is_listed_with_its_operation_name_and_log_line(dev: Dev, page: Page) -> None:
    """The log line links to the trace."""
    send_request(dev, "/api/faults/background?seconds=0")
    page.goto(f"{dev.page_url}/?q=operation_name:quart.background_task")
    expect(rows(page).first.locator(".kind")).to_have_text("quart.background_task")
    page.get_by_role("link", name="Logs").click()
    line = page.locator("#rows li", has_text="this background task always fails").first
    expect(line).to_contain_text("error")
    line.locator("summary").click()
    expect(line.locator("pre")).to_contain_text("Traceback")
    line.locator(".of a").click()  # the link to the trace

    expect(page.locator("h1")).to_contain_text("fail_later.<locals>.work")


def test_the_log_has_lines_with_and_without_a_trace(dev: Dev, page: Page) -> None:
    """The log updates live, can be filtered, and explains where the lines of other services are."""
    page.goto(f"{dev.page_url}/logs")
    startup_line = page.locator("#rows li", has_text="Running on")
    expect(startup_line).to_be_visible()
    assert startup_line.locator(".of a").count() == 0  # no link to a trace
    trace_id = send_request(dev, "/api/hello/Logged")
    request_line = page.locator("#rows li", has_text="path=/api/hello/Logged")
    expect(request_line.locator(".of a")).to_have_attribute("href", re.compile(f"^/trace/{trace_id}"))
    send(dev, span(start_ms=now(), service="elsewhere"))
    expect(page.locator("#elsewhere")).to_contain_text("elsewhere")
    expect(page.locator("#elsewhere")).to_contain_text("in the terminal or the log file of")
    page.fill("#q", "/api/hello/logged")
    expect(rows(page)).to_have_count(1)
    page.fill("#q", "")
    page.get_by_label("without a trace").check()
    expect(request_line).to_have_count(0)
    expect(startup_line).to_be_visible()
    page.get_by_label("without a trace").uncheck()
    page.get_by_label("Level").select_option("error")

    expect(startup_line).to_have_count(0)


def test_view_explains_that_it_has_no_log_lines(browser: Browser) -> None:
    """The reason is that `view` starts no service."""
    with developing(command=VIEW) as view, opened(browser) as page:
        page.goto(f"{view.page_url}/logs")

        expect(page.locator("#elsewhere")).to_contain_text("each service writes them to its own terminal or log file")


def test_a_websocket_is_one_row_with_its_messages_below(dev: Dev, page: Page) -> None:
    """The messages stay expanded while other traces arrive."""

    async def exchange_greetings() -> None:
        url = dev.url.replace("http", "ws") + "/api/hello/ws"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as websocket:
            for name in ("Ada", "Grace"):
                await websocket.send_str(name)
                assert await websocket.receive_str() == f"Hello, {name}!"

    # It runs in another thread, because this one already runs Playwright's event loop.
    client = threading.Thread(target=lambda: asyncio.run(exchange_greetings()))
    client.start()
    client.join()
    page.goto(f'{dev.page_url}/?q=resource_name:"websocket /api/hello/ws"')
    messages = page.locator("#rows details.below")
    expect(messages.locator("summary")).to_have_text("3 messages, close")  # two greetings and the disconnect
    expect(rows(page)).to_have_count(1)
    messages.locator("summary").click()
    expect(messages.locator("a.row")).to_have_count(4)
    expect(messages.locator(".kind").last).to_have_text("websocket.close")
    send(dev, span(start_ms=now(), resource="websocket /api/hello/ws"))
    expect(rows(page)).to_have_count(2)
    expect(messages.locator("a.row").first).to_be_visible()
    messages.locator("a.row").nth(1).click()

    # The six traces are the new one, the handshake and its four messages.
    expect(page.locator(".pager .place")).to_have_text("4 of 6")


def test_facets_sorting_and_time_range_work_by_clicks(dev: Dev, page: Page) -> None:
    """A facet shows as many traces as it counts, and the browser's Back button returns to all traces."""
    # Twelve traces of the last seconds: 8 call shop, 4 call cart, and 3 have an error. One trace is two hours old.
    for number in range(12):
        root = span(start_ms=now(number), duration_ms=10 * number + 5, service="gate", resource=f"GET /{number:02}")
        callee = "cart" if number % 3 == 0 else "shop"
        send(dev, root, span(root, start_ms=now(number), service=callee, error=number % 4 == 0))
    send(dev, span(start_ms=now(7200), duration_ms=1, service="gate", resource="GET /old"))
    page.goto(f"{dev.page_url}/?q=service:gate")
    expect(rows(page)).to_have_count(13)
    page.goto(f"{dev.page_url}/?q=service:(gate OR shop OR cart)")
    for name, count in (("shop", 8), ("cart", 4), ("errors", 3)):
        facet = page.locator(".facets a", has_text=re.compile(f"^{name} "))
        expect(facet).to_have_text(f"{name} {count}")
        facet.click()
        expect(page.locator("#matching")).to_have_text(str(count))
        expect(page.locator(".facets a[aria-current]", has_text=name)).to_be_visible()
        page.go_back()
        expect(page.locator("#matching")).to_have_text("13")
    page.locator("#head").get_by_text("Duration").click()
    expect(rows(page).first).to_contain_text("GET /11")
    widths = [box["width"] for bar in page.locator("#rows .took rect").all() if (box := bar.bounding_box())]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 2 * widths[-1]
    page.locator("#head").get_by_text("Duration").click()
    expect(rows(page).first).to_contain_text("GET /old")
    page.wait_for_load_state()  # the choice needs the page's script
    page.get_by_label("Time").select_option("5")  # the last 5 minutes
    expect(rows(page)).to_have_count(12)
    expect(rows(page).first).to_contain_text("GET /00")
    page.get_by_label("Time").select_option("")  # any time
    expect(rows(page)).to_have_count(13)
    an_hour_ago = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 3600))
    page.get_by_label("to", exact=True).fill(an_hour_ago)
    expect(rows(page)).to_have_count(1)
    page.get_by_label("to", exact=True).fill("later")

    expect(page.get_by_role("alert")).to_contain_text("to=later is not a time.")


def test_a_trace_links_to_its_search_and_its_neighbors(dev: Dev, page: Page) -> None:
    """The page of the trace shows its position in the search, for example `14 of 47`."""
    # Trace N lasts N + 1 ms, so the longest, number 46, comes first.
    send(
        dev,
        *(
            span(start_ms=now(), duration_ms=number + 1, service="paged", resource=f"GET /{number}")
            for number in range(47)
        ),
    )
    page.goto(f"{dev.page_url}/?q=service:paged&sort=-duration")
    rows(page).nth(13).locator("a").click()
    position = page.locator(".pager .place")
    expect(position).to_have_text("14 of 47")
    expect(page.locator("h1")).to_have_text("GET /33")
    page.get_by_role("link", name="Next trace").click()
    expect(position).to_have_text("15 of 47")
    expect(page.locator("h1")).to_have_text("GET /32")
    for _ in range(2):
        page.get_by_role("link", name="Previous trace").click()
    expect(position).to_have_text("13 of 47")
    page.locator("#pager-back").click()

    expect(page.locator("#q")).to_have_value("service:paged")
    expect(rows(page).first).to_contain_text("GET /46")


def test_a_mistake_in_a_search_is_reported_with_suggestions(dev: Dev, page: Page) -> None:
    """The rows stay while a term is incomplete, and a click on a suggestion searches for it."""
    send_request(dev, "/api/hello")
    page.goto(dev.page_url)
    expect(rows(page).first).to_be_visible()
    page.locator("#q").press_sequentially("status:", delay=30)
    expect(page.locator("#mistake")).to_contain_text("status: needs a value, ok or error.")
    assert rows(page).count() > 0
    page.locator("#q").press_sequentially("ok", delay=30)
    expect(page.locator("#mistake")).to_have_count(0)
    page.fill("#q", "operation_n")
    expect(page.locator("#mistake")).to_contain_text("operation_name:")
    assert rows(page).count() > 0
    page.fill("#q", 'resource:"GET /api/hello"')
    expect(page.get_by_role("alert")).to_contain_text('Unknown field "resource".')
    expect(rows(page)).to_have_count(0)
    page.get_by_role("alert").get_by_text('resource_name:"GET /api/hello"', exact=True).click()
    expect(page.locator("#q")).to_have_value('resource_name:"GET /api/hello"')
    expect(rows(page).first).to_contain_text("GET /api/hello")
    page.wait_for_load_state()  # the search while typing needs the page's script
    page.fill("#q", "service:hello-servise")
    suggestion = page.locator("#found a", has_text="service:hello-service")
    message = eventually(lambda: suggestion.count() and page.locator(".empty").inner_text())
    suggestion.first.click()

    suggested_count = re.search(r"service:hello-service \((\d+) trace", str(message))
    assert suggested_count
    expect(page.locator("#matching")).to_have_text(re.compile(r"\d+"))
    matches = int(page.locator("#matching").inner_text().replace(",", ""))
    assert matches >= int(suggested_count[1])  # more if a trace has arrived since


def test_a_field_changed_before_the_script_runs_is_applied(dev: Dev, page: Page) -> None:
    """On a slow machine, a user may type as soon as the page is visible."""
    trace_id = send_request(dev, "/api/hello/Early")
    script = open_before_script(page, dev.page_url, "lists.js")
    page.fill("#q", "/api/hello/Early")
    script.continue_()
    expect(rows(page)).to_have_count(1)
    expect(row(page, trace_id)).to_be_visible()
    expect(page).to_have_url(re.compile(r"\?q=%2Fapi%2Fhello%2FEarly$"))
    script = open_before_script(page, f"{dev.page_url}/logs", "lists.js")
    page.get_by_label("without a trace").check()
    script.continue_()

    expect(page).to_have_url(re.compile("traceless=1"))


def test_a_pasted_url_finds_its_request(dev: Dev, page: Page) -> None:
    """This works for the URL of a request, and for the URL of a trace's page in the local view."""
    trace_id = send_request(dev, "/api/hello/Pasted?x=1")
    page.goto(dev.page_url)
    for text in (f"{dev.url}/api/hello/Pasted?x=1#top", f"{dev.page_url}/trace/{trace_id}?q=a"):
        page.fill("#q", text)
        expect(rows(page)).to_have_count(1)
        expect(row(page, trace_id)).to_be_visible()


def test_everything_can_be_cleared(browser: Browser) -> None:
    """The button removes traces, log lines and figures. Later traces are shown."""
    with developing(measured=False) as fresh_dev, opened(browser) as page:
        send_request(fresh_dev, "/api/hello")
        page.goto(f"{fresh_dev.page_url}/?q=service:hello-service")
        expect(rows(page)).to_have_count(1)
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#found")).to_contain_text("No trace yet")
        expect(page).to_have_url(f"{fresh_dev.page_url}/?q=service%3Ahello-service")
        page.goto(f"{fresh_dev.page_url}/logs")
        expect(page.locator("#matching")).to_have_text("0")
        page.goto(f"{fresh_dev.page_url}/performance")
        expect(page.locator("#reports")).to_contain_text("No request in the last 5 minutes")
        page.goto(fresh_dev.page_url)
        send_request(fresh_dev, "/api/hello")
        expect(rows(page)).to_have_count(1)


def test_a_stopped_server_is_reported(browser: Browser) -> None:
    """The page keeps its content."""
    with opened(browser) as page:
        with developing(measured=False) as fresh_dev:
            send_request(fresh_dev, "/api/hello")
            page.goto(fresh_dev.page_url)
            expect(rows(page)).to_have_count(1)
        expect(page.get_by_role("status")).to_contain_text("Disconnected")
        expect(page.locator("#live")).to_have_text("Disconnected")
        expect(rows(page)).to_have_count(1)


Box = tuple[float, float, float, float]  # left, top, right, bottom


def visible_boxes(elements: Locator) -> list[Box]:
    """Return the positions of the visible elements on the screen."""
    boxes = [box for element in elements.all() if (box := element.bounding_box())]
    return [(box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]) for box in boxes]


def overlap(first: Box, second: Box) -> bool:
    """Return whether two boxes overlap by more than a pixel."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return width > 1 and height > 1


def send_hub(dev: Dev) -> None:
    """Send traces of 19 services. Service 0 calls all others, and service 1 twice. Service 18 also calls service 1.

    The call to service 4 has an error.
    """
    root = span(start_ms=now(), service=SERVICES[0], meta={"span.kind": "server"})
    spans = [root]
    for callee in SERVICES[1:]:
        call = span(root, service=SERVICES[0], duration_ms=5, error=callee == SERVICES[4], meta={"span.kind": "client"})
        spans += [call, span(call, service=callee, duration_ms=4, meta={"span.kind": "server"})]
    request_in_last_service = spans[-1]
    spans.append(span(request_in_last_service, service=SERVICES[1], meta={"span.kind": "server"}))
    send(dev, *spans)
    second_root = span(start_ms=now(), service=SERVICES[0])
    call = span(second_root, service=SERVICES[0], duration_ms=5, meta={"span.kind": "client"})
    send(dev, second_root, call, span(call, service=SERVICES[1], duration_ms=4, meta={"span.kind": "server"}))


@pytest.mark.parametrize("width", [1300, 1920])
def test_the_map_of_19_services_fits_without_overlaps(browser: Browser, width: int) -> None:
    """The map shows a service, at first the most connected one, and its neighbors. Nodes and edges link to traces."""
    with developing(measured=False) as fresh_dev, opened(browser, width) as page:
        send_hub(fresh_dev)
        page.goto(f"{fresh_dev.page_url}/map")
        expect(page.locator("svg.map .node")).to_have_count(19)
        expect(page.locator("svg.map .node.chosen .name")).to_have_text(SERVICES[0])
        card, drawing = page.locator(".drawing").bounding_box(), page.locator("svg.map").bounding_box()
        assert card
        assert drawing
        assert drawing["x"] >= card["x"]
        assert drawing["x"] + drawing["width"] <= card["x"] + card["width"]
        texts = visible_boxes(page.locator("svg.map text"))
        assert len(texts) == 3 * (19 + 18)  # three lines for each node, and for each edge of service 0
        assert [pair for pair in itertools.combinations(texts, 2) if overlap(*pair)] == []
        assert min(bottom - top for _, top, _, bottom in texts) > 9  # in pixels, so the texts are readable
        page.get_by_role("link", name=f"{SERVICES[0]} to {SERVICES[1]}: 2 requests").click()
        expect(rows(page)).to_have_count(2)
        page.go_back()
        page.get_by_role("link", name=re.compile(f"^{SERVICES[2]}: 1 request,")).click()
        expect(rows(page)).to_have_count(1)
        page.go_back()
        page.locator(".services a", has_text=SERVICES[18]).click()
        expect(page.locator("svg.map .node")).to_have_count(3)  # service 18, its caller and its callee
        expect(page.locator("svg.map .node.chosen .name")).to_have_text(SERVICES[18])
        page.locator("#map table tr", has_text=SERVICES[4]).get_by_role("link", name="1 error").click()
        expect(rows(page)).to_have_count(1)


def test_charts_show_their_values_and_have_gaps(browser: Browser) -> None:
    """Values appear on hover and by keyboard, and a refresh keeps the chosen time.

    A line has a gap where there was no request.
    """
    with developing(measured=False) as fresh_dev, opened(browser) as page:
        send_request(fresh_dev, "/api/hello")
        page.goto(f"{fresh_dev.page_url}/performance?minutes=1")
        buckets = page.locator("#latency-1 .bucket")  # each is five seconds long
        expect(buckets).to_have_count(1)

        def last_bucket_position() -> float:
            """Return the x coordinate of the last bucket that has a request."""
            html = httpx.get(f"{fresh_dev.page_url}/performance?minutes=1").text
            return float(re.findall(r'class="bucket" x="([\d.]+)"', html)[-1])

        # The twelve buckets are 30 wide. At 270, two follow: an empty one, and the one for the next request.
        eventually(last_bucket_position, lambda x: x <= 270, timeout=30)
        send_request(fresh_dev, "/api/hello")
        expect(buckets).to_have_count(2)
        expect(page.locator("#latency-1 polyline.p50")).to_have_count(2)
        chart, value = page.locator("#requests-1"), page.locator("output[for=requests-1]")
        box = page.locator("#requests-1 .bucket").first.bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
        expect(value).to_have_text(re.compile(r"^\d\d:\d\d:\d\d: 1 request, 0 errors, p50 .* p95 .* p99 .*"))
        page.mouse.move(5, 5)  # away from the chart
        expect(value).to_have_text("")
        expect(chart.locator("xpath=..").locator(".y span")).to_have_text(["1", "", "0"])  # the labels of the axis
        chart.focus()
        page.keyboard.press("Home")
        expect(value).to_have_text(re.compile(": no request$"))
        values = []
        for _ in range(11):  # to the last of the twelve buckets of a minute
            page.keyboard.press("ArrowRight")
            values.append(chart.get_attribute("aria-valuetext") or "")
        assert len([text for text in values if "1 request" in text]) == 2
        expect(page.locator("#reports")).to_be_visible()
        page.keyboard.press("ArrowLeft")
        time_before = value.inner_text()[: len("HH:MM:SS")]
        send_request(fresh_dev, "/api/hello/again")  # refreshes the page
        expect(page.locator("tr", has_text="/api/hello/<name>")).to_be_visible()
        expect(chart).to_be_focused()
        assert value.inner_text().startswith(time_before)


def test_the_performance_view_remembers_order_and_choices(browser: Browser) -> None:
    """Services are sorted by name, resources by any column. Time window, threshold and order are remembered."""
    with developing(measured=False) as fresh_dev, opened(browser) as page:
        send(
            fresh_dev,
            span(start_ms=now(), service="zoo", duration_ms=5),
            span(start_ms=now(), service="ape", duration_ms=5),
        )
        for path in ("/api/hello", "/api/hello", "/api/faults/slow?seconds=2"):
            send_request(fresh_dev, path)
        page.goto(f"{fresh_dev.page_url}/performance")
        expect(page.locator(".report h2")).to_have_text(["ape", "hello-service", "zoo"])
        report = page.locator(".report", has_text="hello-service")
        first_resource = report.locator("tbody tr").first
        expect(first_resource).to_contain_text("GET /api/hello")
        report.get_by_role("link", name="p99").click()
        expect(first_resource).to_contain_text("GET /api/faults/slow")
        page.wait_for_load_state()  # the choices need the page's script
        page.select_option("[name=minutes]", "15")
        page.fill("[name=apdex]", "0.05")
        expect(page).to_have_url(re.compile("apdex=0.05"))
        expect(page.locator("#reports")).to_contain_text("T = 0.05 s")
        page.get_by_role("link", name="Traces").click()
        page.get_by_role("link", name="Performance").click()
        expect(page).to_have_url(f"{fresh_dev.page_url}/performance")
        expect(page.locator("[name=minutes]")).to_have_value("15")
        expect(page.locator("[name=apdex]")).to_have_value("0.05")
        expect(first_resource).to_contain_text("GET /api/faults/slow")
        first_resource.locator("a").click()
        expect(rows(page)).to_have_count(1)


def test_all_lists_work_without_javascript(dev: Dev, browser: Browser) -> None:
    """Links and forms are enough."""
    send_request(dev, "/api/hello/Plain")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(dev.page_url)
    page.fill("#q", "/api/hello/Plain")
    page.get_by_role("button", name="Search").click()
    expect(rows(page)).to_have_count(1)
    page.locator("#head").get_by_text("Spans").click()
    expect(rows(page)).to_have_count(1)
    rows(page).locator("a").click()
    expect(page.locator(".pager .place")).to_have_text("1 of 1")
    for name in ("Logs", "Service map", "Performance"):
        page.get_by_role("navigation", name="Views").get_by_role("link", name=name).click()
        expect(page.locator("h1")).to_be_visible()
    context.close()


@pytest.fixture(scope="module")
def populated_dev(dev: Dev) -> Dev:
    """Return `dev` with data on every view."""
    send_hub(dev)
    for path in ("/api/hello/Ada", "/.env", "/api/faults/error", "/api/faults/background?seconds=0"):
        dev.get(path)
    send_request(dev, "/api/relay?count=2")
    return dev


# Three of the searches are mistakes: an unknown field, a term without a value, and a value that no trace has.
PATHS = ["/", "/?q=status:error&sort=-duration", "/?q=foo:bar", "/?q=status:", "/?q=service:hello-servise"]
PATHS += ["/logs", "/map", f"/map?service={SERVICES[2]}", "/performance?minutes=1"]


@pytest.mark.parametrize("width", [1300, 400])  # pixels: a window on a desktop and on a phone
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_on_any_list(populated_dev: Dev, browser: Browser, width: int, scheme: str) -> None:
    """Also, nothing is wider than the window."""
    with opened(browser, width, scheme=scheme) as page:
        for path in PATHS:
            page.goto(populated_dev.page_url + path)
            expect(page.locator("#kept")).to_be_visible()  # the number of traces, on every page

            assert violations(page) == [], path
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
