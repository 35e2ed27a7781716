"""Tests of the local view's lists in Chromium, with many traces of a real service through the real agent."""

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
from playwright.sync_api import Browser, Locator, Page, expect
from running import eventually
from tracing_data import START, span, wire_format

from hello_service.localview.spans import Span

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"),
]

SERVICES = [f"service-{number:02}" for number in range(19)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run a browser for all tests of this module."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """Run a `dev` for all tests that can share one."""
    with developing() as dev:
        yield dev


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open a window."""
    with opened(browser) as page:
        yield page


def send(dev: Dev, *spans: Span) -> None:
    """Send `spans` to the agent, as a tracer of another service would, and wait until the page has them."""
    chunks: dict[int, list[dict[str, object]]] = {}
    for each in spans:
        chunks.setdefault(each.trace_id, []).append(wire_format(each))
    response = httpx.put(f"{dev.agent_url}/v0.4/traces", json=list(chunks.values()), timeout=60)
    assert response.status_code == 200, response.text
    for each in spans:
        wait_for_trace(dev, f"{each.trace_id:032x}")


def wait_for_trace(dev: Dev, identity: str) -> str:
    """Wait until the page has the trace with the id `identity`, and return that id."""
    eventually(lambda: httpx.get(f"{dev.page_url}/trace/{identity}/json").status_code, lambda status: status == 200)
    return identity


def send_request(dev: Dev, path: str) -> str:
    """Send a request to the service, wait for its trace, and return the trace's id."""
    return wait_for_trace(dev, dev.get(path).headers["traceresponse"].split("-")[1])


def now(seconds_ago: float = 0) -> float:
    """Return the present or an earlier time in the form that `span()` expects: milliseconds since START."""
    return (time.time() - seconds_ago) * 1000 - START / 1_000_000  # START is in nanoseconds


def rows(page: Page) -> Locator:
    """Return the rows of the list."""
    return page.locator("#rows > li")


def row(page: Page, identity: str) -> Locator:
    """Return the row of a trace."""
    return page.locator(f'#rows a.row[href*="/trace/{identity}"]')


def test_requests_with_status_404_show_their_paths(dev: Dev, page: Page) -> None:
    """They all have the resource `GET 404`."""
    first, second = send_request(dev, "/.env"), send_request(dev, "/wp-login.php")
    page.goto(dev.page_url)

    for identity, path in ((first, "/.env"), (second, "/wp-login.php")):
        expect(row(page, identity).locator(".resource")).to_have_text("GET 404")
        expect(row(page, identity).locator(".path")).to_have_text(path)
    expect(row(page, send_request(dev, "/api/hello")).locator(".path")).to_have_count(0)


def test_a_failed_background_task_is_listed_with_its_operation_name_and_log_line(dev: Dev, page: Page) -> None:
    """A click on the log line opens its trace."""
    send_request(dev, "/api/faults/background?seconds=0")
    page.goto(f"{dev.page_url}/?q=operation_name:quart.background_task")
    expect(rows(page).first.locator(".kind")).to_have_text("quart.background_task")
    page.get_by_role("link", name="Logs").click()
    line = page.locator("#rows li", has_text="this background task always fails").first
    expect(line).to_contain_text("error")
    line.locator("summary").click()
    expect(line.locator("pre")).to_contain_text("Traceback")
    line.locator(".of a").click()

    expect(page.locator("h1")).to_contain_text("fail_later.<locals>.work")


def test_the_log_has_lines_with_and_without_a_trace(dev: Dev, page: Page) -> None:
    """The log updates live, can be filtered, and explains where the lines of other services are."""
    page.goto(f"{dev.page_url}/logs")
    expect(page.locator("#rows li", has_text="Running on")).to_be_visible()
    assert page.locator("#rows li", has_text="Running on").locator(".of a").count() == 0
    identity = send_request(dev, "/api/hello/Logged")
    line = page.locator("#rows li", has_text="path=/api/hello/Logged")
    expect(line.locator(".of a")).to_have_attribute("href", re.compile(f"^/trace/{identity}"))
    send(dev, span(at=now(), service="elsewhere"))
    expect(page.locator("#elsewhere")).to_contain_text("elsewhere")
    expect(page.locator("#elsewhere")).to_contain_text("in the terminal or the log file of")
    page.fill("#q", "/api/hello/logged")
    expect(rows(page)).to_have_count(1)
    page.fill("#q", "")
    page.get_by_label("without a trace").check()
    expect(line).to_have_count(0)
    expect(page.locator("#rows li", has_text="Running on")).to_be_visible()
    page.get_by_label("without a trace").uncheck()
    page.get_by_label("Level").select_option("error")

    expect(page.locator("#rows li", has_text="Running on")).to_have_count(0)


def test_view_explains_that_it_has_no_log_lines(browser: Browser) -> None:
    """`view` starts no service."""
    with developing(command=VIEW) as view, opened(browser) as page:
        page.goto(f"{view.page_url}/logs")

        expect(page.locator("#elsewhere")).to_contain_text("each service writes them to its own terminal or log file")


def test_a_websocket_is_one_row_with_its_messages_below(dev: Dev, page: Page) -> None:
    """The messages stay expanded while other traces arrive."""

    async def greet() -> None:
        url = dev.url.replace("http", "ws") + "/api/hello/ws"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            for name in ("Ada", "Grace"):
                await socket.send_str(name)
                assert await socket.receive_str() == f"Hello, {name}!"

    greeting = threading.Thread(target=lambda: asyncio.run(greet()))  # this thread already runs Playwright's event loop
    greeting.start()
    greeting.join()
    page.goto(f'{dev.page_url}/?q=resource_name:"websocket /api/hello/ws"')
    below = page.locator("#rows details.below")
    expect(below.locator("summary")).to_have_text("3 messages, close")  # two greetings and the disconnect
    expect(rows(page)).to_have_count(1)
    below.locator("summary").click()
    expect(below.locator("a.row")).to_have_count(4)
    expect(below.locator(".kind").last).to_have_text("websocket.close")
    send(dev, span(at=now(), resource="websocket /api/hello/ws"))
    expect(rows(page)).to_have_count(2)
    expect(below.locator("a.row").first).to_be_visible()
    below.locator("a.row").nth(1).click()

    expect(page.locator(".pager .place")).to_have_text("4 of 6")


def test_facets_sort_and_time_range_work_by_clicks(dev: Dev, page: Page) -> None:
    """The number of traces behind each facet equals its count, and the browser's Back button returns to all traces."""
    for number in range(12):
        root = span(at=now(number), ms=10 * number + 5, service="gate", resource=f"GET /{number:02}")
        send(dev, root, span(root, at=now(number), service="shop" if number % 3 else "cart", error=number % 4 == 0))
    send(dev, span(at=now(7200), ms=1, service="gate", resource="GET /old"))
    page.goto(f"{dev.page_url}/?q=service:gate")
    expect(rows(page)).to_have_count(13)
    page.goto(f"{dev.page_url}/?q=service:(gate OR shop OR cart)")
    for name, number in (("shop", 8), ("cart", 4), ("errors", 3)):
        facet = page.locator(".facets a", has_text=re.compile(f"^{name} "))
        expect(facet).to_have_text(f"{name} {number}")
        facet.click()
        expect(page.locator("#matching")).to_have_text(str(number))
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
    page.get_by_label("Time").select_option("5")
    expect(rows(page)).to_have_count(12)
    expect(rows(page).first).to_contain_text("GET /00")
    page.get_by_label("Time").select_option("")
    expect(rows(page)).to_have_count(13)
    page.get_by_label("to", exact=True).fill(time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 3600)))
    expect(rows(page)).to_have_count(1)
    page.get_by_label("to", exact=True).fill("later")

    expect(page.get_by_role("alert")).to_contain_text("to=later is not a time.")


def test_a_trace_leads_back_to_its_search_and_to_its_neighbours(dev: Dev, page: Page) -> None:
    """The page of the trace shows its position in the search, for example `14 of 47`."""
    send(dev, *[span(at=now(), ms=number + 1, service="paged", resource=f"GET /{number}") for number in range(47)])
    page.goto(f"{dev.page_url}/?q=service:paged&sort=-duration")
    rows(page).nth(13).locator("a").click()
    place = page.locator(".pager .place")
    expect(place).to_have_text("14 of 47")
    expect(page.locator("h1")).to_have_text("GET /33")
    page.get_by_role("link", name="Next trace").click()
    expect(place).to_have_text("15 of 47")
    expect(page.locator("h1")).to_have_text("GET /32")
    for _ in range(2):
        page.get_by_role("link", name="Previous trace").click()
    expect(place).to_have_text("13 of 47")
    page.locator("#pager-back").click()

    expect(page.locator("#q")).to_have_value("service:paged")
    expect(rows(page).first).to_contain_text("GET /46")


def test_a_mistake_is_shown_after_the_last_key_press_with_suggestions(dev: Dev, page: Page) -> None:
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
    page.wait_for_load_state()  # searching as one types needs the page's script
    page.fill("#q", "service:hello-servise")
    suggestion = page.locator("#found a", has_text="service:hello-service")
    suggestions = eventually(lambda: suggestion.count() and page.locator(".empty").inner_text())
    suggestion.first.click()

    count = re.search(r"service:hello-service \((\d+) trace", str(suggestions))
    assert count
    expect(page.locator("#matching")).to_have_text(re.compile(r"\d+"))
    assert int(page.locator("#matching").inner_text().replace(",", "")) >= int(count[1])


def test_a_field_changed_before_the_script_runs_is_applied(dev: Dev, page: Page) -> None:
    """A person on a slow machine may type as soon as the page is visible."""
    identity = send_request(dev, "/api/hello/Early")
    script = open_before_script(page, dev.page_url, "lists.js")
    page.fill("#q", "/api/hello/Early")
    script.continue_()
    expect(rows(page)).to_have_count(1)
    expect(row(page, identity)).to_be_visible()
    expect(page).to_have_url(re.compile(r"\?q=%2Fapi%2Fhello%2FEarly$"))
    script = open_before_script(page, f"{dev.page_url}/logs", "lists.js")
    page.get_by_label("without a trace").check()
    script.continue_()

    expect(page).to_have_url(re.compile("traceless=1"))


def test_a_pasted_url_finds_its_requests(dev: Dev, page: Page) -> None:
    """This works for the URL of a request, and for the URL of a trace's page in the local view."""
    identity = send_request(dev, "/api/hello/Pasted?x=1")
    page.goto(dev.page_url)
    for text in (f"{dev.url}/api/hello/Pasted?x=1#top", f"{dev.page_url}/trace/{identity}?q=a"):
        page.fill("#q", text)
        expect(rows(page)).to_have_count(1)
        expect(row(page, identity)).to_be_visible()


def test_everything_can_be_cleared(browser: Browser) -> None:
    """Traces, log lines and figures are cleared, and later traces are shown."""
    with developing() as own_dev, opened(browser) as page:
        send_request(own_dev, "/api/hello")
        page.goto(f"{own_dev.page_url}/?q=service:hello-service")
        expect(rows(page)).to_have_count(1)
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#found")).to_contain_text("No trace yet")
        expect(page).to_have_url(f"{own_dev.page_url}/?q=service%3Ahello-service")
        page.goto(f"{own_dev.page_url}/logs")
        expect(page.locator("#matching")).to_have_text("0")
        page.goto(f"{own_dev.page_url}/performance")
        expect(page.locator("#reports")).to_contain_text("No request in the last 5 minutes")
        page.goto(own_dev.page_url)
        send_request(own_dev, "/api/hello")
        expect(rows(page)).to_have_count(1)


def test_a_stopped_server_is_reported(browser: Browser) -> None:
    """The content of the page is kept."""
    with opened(browser) as page:
        with developing() as own_dev:
            send_request(own_dev, "/api/hello")
            page.goto(own_dev.page_url)
            expect(rows(page)).to_have_count(1)
        expect(page.get_by_role("status")).to_contain_text("Disconnected")
        expect(page.locator("#live")).to_have_text("Disconnected")
        expect(rows(page)).to_have_count(1)


Box = tuple[float, float, float, float]  # left, top, right, bottom


def boxes(texts: Locator) -> list[Box]:
    """Return the positions of all texts on the screen."""
    visible = [box for each in texts.all() if (box := each.bounding_box())]
    return [(box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]) for box in visible]


def overlapping(all_boxes: list[Box]) -> list[tuple[Box, Box]]:
    """Return the pairs of boxes that overlap by more than a pixel."""
    return [
        (one, other)
        for one, other in itertools.combinations(all_boxes, 2)
        if min(one[2], other[2]) - max(one[0], other[0]) > 1 and min(one[3], other[3]) - max(one[1], other[1]) > 1
    ]


def send_hub(dev: Dev) -> None:
    """Send traces of 19 services. The first calls all others, the second of them twice. The last calls the second."""
    root = span(at=now(), service=SERVICES[0], meta={"span.kind": "server"})
    spans = [root]
    for number, name in enumerate(SERVICES[1:]):
        call = span(root, service=SERVICES[0], ms=5, error=number == 3, meta={"span.kind": "client"})
        spans += [call, span(call, service=name, ms=4, meta={"span.kind": "server"})]
    spans.append(span(spans[-1], service=SERVICES[1], meta={"span.kind": "server"}))
    send(dev, *spans)
    again = span(at=now(), service=SERVICES[0])
    call = span(again, service=SERVICES[0], ms=5, meta={"span.kind": "client"})
    send(dev, again, call, span(call, service=SERVICES[1], ms=4, meta={"span.kind": "server"}))


@pytest.mark.parametrize("width", [1300, 1920])
def test_the_map_of_19_services_fits_without_overlaps(browser: Browser, width: int) -> None:
    """It shows the neighbours of the busiest or of a chosen service. Nodes and edges link to their traces."""
    with developing() as own_dev, opened(browser, width) as page:
        send_hub(own_dev)
        page.goto(f"{own_dev.page_url}/map")
        expect(page.locator("svg.map .node")).to_have_count(19)
        expect(page.locator("svg.map .node.chosen .name")).to_have_text(SERVICES[0])
        card, drawing = page.locator(".drawing").bounding_box(), page.locator("svg.map").bounding_box()
        assert card
        assert drawing
        assert drawing["x"] >= card["x"]
        assert drawing["x"] + drawing["width"] <= card["x"] + card["width"]
        texts = boxes(page.locator("svg.map text"))
        assert len(texts) == 3 * (19 + 18)  # three lines for each of 19 nodes and 18 edges
        assert overlapping(texts) == []
        assert (
            page.locator("svg.map text").evaluate_all(
                "all => Math.min(...all.map(e => e.getBoundingClientRect().height))"
            )
            > 9
        )
        page.get_by_role("link", name=f"{SERVICES[0]} to {SERVICES[1]}: 2 requests").click()
        expect(rows(page)).to_have_count(2)
        page.go_back()
        page.get_by_role("link", name=re.compile(f"^{SERVICES[2]}: 1 request,")).click()
        expect(rows(page)).to_have_count(1)
        page.go_back()
        page.locator(".services a", has_text=SERVICES[18]).click()
        expect(page.locator("svg.map .node")).to_have_count(3)
        expect(page.locator("svg.map .node.chosen .name")).to_have_text(SERVICES[18])
        page.locator("#map table tr", has_text=SERVICES[4]).get_by_role("link", name="1 error").click()
        expect(rows(page)).to_have_count(1)


def test_charts_show_their_values_and_have_gaps(browser: Browser) -> None:
    """Values appear on hover and by keyboard, and keep their time. A line has a gap where there was no request."""
    with developing(measured=False) as own_dev, opened(browser) as page:
        send_request(own_dev, "/api/hello")
        page.goto(f"{own_dev.page_url}/performance?minutes=1")
        buckets = page.locator("#latency-1 .bucket")
        expect(buckets).to_have_count(1)
        eventually(  # until the request's bucket has moved left, so that an empty one follows it
            lambda: httpx.get(f"{own_dev.page_url}/performance?minutes=1").text.rpartition('class="bucket" x="')[2][:3],
            lambda x: float(x.split('"')[0]) <= 270,
            timeout=30,
        )
        send_request(own_dev, "/api/hello")
        expect(buckets).to_have_count(2)
        expect(page.locator("#latency-1 polyline.p50")).to_have_count(2)
        chart, value = page.locator("#requests-1"), page.locator("output[for=requests-1]")
        box = page.locator("#requests-1 .bucket").first.bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
        expect(value).to_have_text(re.compile(r"^\d\d:\d\d:\d\d: 1 request, 0 errors, p50 .* p95 .* p99 .*"))
        page.mouse.move(5, 5)
        expect(value).to_have_text("")
        expect(chart.locator("xpath=..").locator(".y span")).to_have_text(["1", "", "0"])
        chart.focus()
        page.keyboard.press("Home")
        expect(value).to_have_text(re.compile(": no request$"))
        values = []
        for _ in range(11):
            page.keyboard.press("ArrowRight")
            values.append(chart.get_attribute("aria-valuetext") or "")
        assert sum("1 request" in each for each in values) == 2
        expect(page.locator("#reports")).to_be_visible()
        page.keyboard.press("ArrowLeft")
        before = value.inner_text()
        send_request(own_dev, "/api/hello/again")  # refreshes the page
        expect(page.locator("tr", has_text="/api/hello/<name>")).to_be_visible()
        expect(chart).to_be_focused()
        assert value.inner_text()[:8] == before[:8]


def test_performance_remembers_order_and_choices(browser: Browser) -> None:
    """Services are sorted by name, resources by any column. Time window, threshold and order are remembered."""
    with developing() as own_dev, opened(browser) as page:
        send(own_dev, span(at=now(), service="zoo", ms=5), span(at=now(), service="ape", ms=5))
        for path in ("/api/hello", "/api/hello", "/api/faults/slow?seconds=2"):
            send_request(own_dev, path)
        page.goto(f"{own_dev.page_url}/performance")
        expect(page.locator(".report h2")).to_have_text(["ape", "hello-service", "zoo"])
        table = page.locator(".report", has_text="hello-service").locator("tbody tr")
        expect(table.first).to_contain_text("GET /api/hello")
        page.locator(".report", has_text="hello-service").get_by_role("link", name="p99").click()
        expect(table.first).to_contain_text("GET /api/faults/slow")
        page.wait_for_load_state()  # the choices need the page's script
        page.select_option("[name=minutes]", "15")
        page.fill("[name=apdex]", "0.05")
        expect(page).to_have_url(re.compile("apdex=0.05"))
        expect(page.locator("#reports")).to_contain_text("T = 0.05 s")
        page.get_by_role("link", name="Traces").click()
        page.get_by_role("link", name="Performance").click()
        expect(page).to_have_url(f"{own_dev.page_url}/performance")
        expect(page.locator("[name=minutes]")).to_have_value("15")
        expect(page.locator("[name=apdex]")).to_have_value("0.05")
        expect(table.first).to_contain_text("GET /api/faults/slow")
        table.first.locator("a").click()
        expect(rows(page)).to_have_count(1)


def test_all_lists_work_without_javascript(dev: Dev, browser: Browser) -> None:
    """They need only links and forms."""
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
def populated(dev: Dev) -> Dev:
    """Return a `dev` with data on every view."""
    send_hub(dev)
    for path in ("/api/hello/Ada", "/.env", "/api/faults/error", "/api/faults/background?seconds=0"):
        dev.get(path)
    send_request(dev, "/api/relay?count=2")
    return dev


VIEWS = ["/", "/?q=status:error&sort=-duration", "/?q=foo:bar", "/?q=status:", "/?q=service:hello-servise", "/logs"]
VIEWS += ["/map", f"/map?service={SERVICES[2]}", "/performance?minutes=1"]


@pytest.mark.parametrize("width", [1300, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_on_any_list(populated: Dev, browser: Browser, width: int, scheme: str) -> None:
    """Also, nothing is wider than the window."""
    with opened(browser, width, scheme=scheme) as page:
        for path in VIEWS:
            page.goto(populated.page_url + path)
            expect(page.locator("#kept")).to_be_visible()
            found = violations(page)

            assert found == [], path
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
