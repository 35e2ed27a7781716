"""Tests of the page of one trace in Chromium. The traces come from requests or from spans sent to the agent."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from browser import CHROMIUM, open_before_script, opened
from failed_traces import CHECKOUT_ERRORS, CHECKOUT_ID, ERROR_TAGS, LARGE_ID, STACK_TRACE, checkout, large
from local_view import LocalView, running_local_view, trace_id
from playwright.sync_api import Locator, Page, expect
from running import eventually
from tracing_data import span
from websockets.sync.client import connect

from hello_service.localview.store import COLORS

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"),
]

CHECKOUT_PATH = f"/trace/{CHECKOUT_ID}"
# A desktop window, a phone, and the desktop window at 200% zoom, which halves both sides.
WINDOWS = [(1300, 850), (400, 800), (650, 425)]
# The ids of further traces that tests send to the agent.
FOLD_ID, TAG_ID, WRAPPED_ID, LIVE_ID, ESCAPE_ID = 0xC0, 0x7A6, 0xAA9, 0x11FE, 0xE51
# JavaScript: a row is in view if it is below the axis and inside the pane, and no other element covers its center.
IS_IN_VIEW = """row => {
    const pane = row.closest(".waterfall").getBoundingClientRect(), box = row.getBoundingClientRect();
    const axis = document.querySelector("#axis").getBoundingClientRect();
    const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
    const topmost = document.elementFromPoint(x, y);
    return box.top >= axis.bottom - 1 && box.bottom <= Math.min(pane.bottom, innerHeight) + 1 && row.contains(topmost);
}"""


@pytest.fixture(scope="module")
def local_view() -> Iterator[LocalView]:
    """Run `dev` and a browser, and send a trace with several errors and a large trace."""
    with running_local_view() as local_view:
        local_view.send(*checkout(), *large())
        wait_for_spans(local_view, LARGE_ID, 2000)
        yield local_view


@pytest.fixture
def page(local_view: LocalView) -> Iterator[Page]:
    """Open a window."""
    with opened(local_view.browser) as page:
        yield page


def wait_for_spans(local_view: LocalView, identity: str, count: int) -> None:
    """Wait until the page has `count` spans of the trace with the id `identity`."""
    url = f"{local_view.dev.page_url}/trace/{identity}/json"
    eventually(lambda: httpx.get(url).json().get("spans", []), lambda spans: len(spans) == count)


def wait_for_clipboard(page: Page, text: str) -> None:
    """Wait until `text` is in the clipboard."""
    eventually(lambda: page.evaluate("navigator.clipboard.readText()"), lambda content: content == text)


def visible_rows(page: Page) -> Locator:
    """Return the rows that are not hidden."""
    return page.locator("#spans > :not([hidden])")


def chosen_row(page: Page) -> Locator:
    """Return the row of the chosen span."""
    return page.locator("#spans > [aria-selected]")


@pytest.mark.parametrize(("identity", "resource"), [(CHECKOUT_ID, "POST bank"), (LARGE_ID, "GET /item/1200")])
@pytest.mark.parametrize(("width", "height"), WINDOWS)
def test_the_deepest_error_is_chosen_and_in_view(
    local_view: LocalView, identity: str, resource: str, width: int, height: int
) -> None:
    """This holds for traces of 39 and 2,000 spans, in windows of three sizes. The details of the span are open."""
    with opened(local_view.browser, width, height) as page:
        local_view.visit(page, f"/trace/{identity}")
        expect(chosen_row(page)).to_contain_text(resource)
        expect(page.locator("#detail .failure")).to_be_in_viewport()

        assert chosen_row(page).evaluate(IS_IN_VIEW)


@pytest.mark.parametrize(("width", "height"), WINDOWS)
@pytest.mark.parametrize("identity", [CHECKOUT_ID, LARGE_ID], ids=["with tags of services", "of one service"])
def test_rows_outside_the_window_have_the_height_of_the_others(
    local_view: LocalView, identity: str, width: int, height: int
) -> None:
    """The browser renders these rows later. If that changed their height, a row scrolled to would move away."""
    with opened(local_view.browser, width, height) as page:
        local_view.visit(page, f"/trace/{identity}")
        heights = visible_rows(page).evaluate_all("rows => rows.map((row) => row.getBoundingClientRect().height)")

    assert len(set(heights)) == 1, sorted(set(heights))


def test_the_span_of_the_address_is_chosen_and_in_view(local_view: LocalView, page: Page) -> None:
    """The address has the span's id in hexadecimal, as in headers and in the log lines of other services."""
    document = page.request.get(f"{local_view.dev.page_url}/trace/{LARGE_ID}/json").json()
    span_id = f"{document['spans'][-1]['span_id']:016x}"
    local_view.visit(page, f"/trace/{LARGE_ID}?span={span_id}")
    expect(page.locator("#span")).to_have_attribute("data-id", span_id)

    assert chosen_row(page).evaluate(IS_IN_VIEW)


def test_links_and_keys_lead_to_the_next_and_previous_error(local_view: LocalView, page: Page) -> None:
    """The keys are `]` and `[`. Each error is scrolled into view."""
    local_view.visit(page, CHECKOUT_PATH)
    pager = page.locator("#errors")
    expect(pager).to_contain_text(f"error 1 of {CHECKOUT_ERRORS}")
    pager.get_by_role("link", name="Next error").click()
    expect(pager).to_contain_text(f"error 2 of {CHECKOUT_ERRORS}")
    expect(chosen_row(page)).to_contain_text("POST /charge")
    for number in range(3, CHECKOUT_ERRORS + 1):
        page.keyboard.press("]")
        expect(pager).to_contain_text(f"error {number} of {CHECKOUT_ERRORS}")
        assert chosen_row(page).evaluate(IS_IN_VIEW)
    page.keyboard.press("]")  # has no effect after the last error
    page.keyboard.press("[")
    expect(pager).to_contain_text(f"error {CHECKOUT_ERRORS - 1} of {CHECKOUT_ERRORS}")
    page.get_by_role("row", name="GET auth").click()  # a span without an error

    expect(pager).to_contain_text(f"{CHECKOUT_ERRORS} errors")


def test_an_error_is_visible_at_a_glance(local_view: LocalView, page: Page) -> None:
    """Type, message and the project's last frame are on the screen. A click opens library frames or the raw text."""
    local_view.visit(page, CHECKOUT_PATH)
    failure = page.locator("#detail .failure")
    for text in ("shop.errors.CardDeclined", "card ending 4242 was declined", "payments/bank.py:88 in charge"):
        expect(failure.get_by_text(text).first).to_be_in_viewport()
    frames = failure.locator(".frames").first.locator("li")
    expect(frames).to_have_text([re.compile("bank.py:88 in charge"), re.compile("payments/routes.py:41 in work")])
    expect(failure.get_by_text("quart/app.py:1598")).to_be_hidden()
    failure.get_by_text("1 library frame").first.click()
    expect(failure.get_by_text("quart/app.py:1598")).to_be_visible()
    expect(failure.get_by_text("Caused by")).to_be_visible()
    expect(failure.locator("#stack-raw")).to_be_hidden()
    failure.get_by_text("Raw stack trace").click()
    expect(failure.locator("#stack-raw")).to_have_text(STACK_TRACE)
    failure.get_by_role("button", name="Copy stack").click()
    wait_for_clipboard(page, STACK_TRACE)
    box, window = failure.bounding_box(), page.viewport_size

    assert box
    assert window
    assert box["width"] > 0.9 * window["width"]


def test_the_stack_trace_of_a_real_error_is_shown_once(local_view: LocalView, page: Page) -> None:
    """Paths are relative to the project. The log line links to the error instead of repeating its stack trace."""
    identity = trace_id(local_view.dev.get("/api/faults/error"))
    wait_for_spans(local_view, identity, 1)
    local_view.visit(page, f"/trace/{identity}")
    # The text of a frame is its place, followed by its line of code.
    expect(page.locator(".frames li").first).to_have_text(
        re.compile(r"^hello_service/api/faults\.py:\d+ in failraise Fault\(")
    )
    expect(page.locator("#logs")).to_contain_text("Exception on request GET /api/faults/error")

    # `inner_text` has only visible text. `text_content` also has the raw stack trace, which is folded.
    assert page.locator("main").inner_text().count("Traceback") == 0
    assert str(page.locator("main").text_content()).count("Traceback (most recent call last)") == 1


def test_equal_siblings_are_one_row(local_view: LocalView, page: Page) -> None:
    """The siblings are 24 equal queries, an N+1 pattern. A click or a key expands the row."""
    local_view.visit(page, CHECKOUT_PATH)
    group = page.locator("#spans [id^=g]")  # the ids of groups begin with a g, those of spans with an s
    expect(group).to_contain_text("\N{MULTIPLICATION SIGN}24 postgres.query")
    expect(group).to_contain_text("216 ms")  # 24 times 9 ms
    collapsed_count = visible_rows(page).count()
    group.click()
    expect(visible_rows(page)).to_have_count(collapsed_count + 24)
    page.keyboard.press("ArrowLeft")
    expect(visible_rows(page)).to_have_count(collapsed_count)
    page.keyboard.press("ArrowRight")
    expect(visible_rows(page)).to_have_count(collapsed_count + 24)

    assert group.locator("rect").count() == 24


def test_subtrees_collapse_and_expand(local_view: LocalView, page: Page) -> None:
    """Keys, the arrow of a row and buttons collapse and expand. Live updates don't undo it."""
    root = span(trace=FOLD_ID, resource="root")
    child = span(root, resource="child")
    local_view.send(root, child, span(child, resource="grandchild"))
    wait_for_spans(local_view, f"{FOLD_ID:032x}", 3)
    local_view.visit(page, f"/trace/{FOLD_ID:032x}")
    rows = visible_rows(page)
    rows.first.focus()
    page.keyboard.press("ArrowLeft")  # collapses the root
    expect(rows).to_have_count(1)
    local_view.send(span(root, resource="late"))
    expect(page.locator(".title")).to_contain_text("4 spans")
    expect(rows).to_have_count(1)
    expect(rows.first).to_be_focused()
    page.get_by_role("button", name="Collapse to level 2").click()
    expect(rows).to_have_count(3)
    page.get_by_role("button", name="Expand all").click()
    expect(rows).to_have_count(4)
    rows.nth(1).locator("i").click()  # the arrow of the child
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_be_focused()
    page.keyboard.press("ArrowLeft")  # moves to the parent, because the child is already collapsed
    expect(rows.first).to_be_focused()
    page.keyboard.press("0")  # expands all
    page.keyboard.press("ArrowRight")  # moves to the first child, because the root is already expanded
    expect(rows.nth(1)).to_be_focused()


def test_a_row_shows_its_service_if_it_differs_from_the_row_above(local_view: LocalView, page: Page) -> None:
    """The full name of the span appears on hover."""
    local_view.visit(page, CHECKOUT_PATH)
    labels = visible_rows(page).evaluate_all(
        "rows => rows.map(row => row.querySelector('.of')?.textContent.trim() ?? '-')"  # '-': the row shows no service
    )
    links_with_full_name = page.locator("#spans a[title='postgres.query SELECT * FROM items WHERE id = ?']")

    assert labels == [
        "gateway",
        "-",
        "auth",
        "-",
        "orders",
        "db",
        "-",
        "payments",
        "bank",
        "risk",
        "ledger",
        "mail",
        "-",
        "-",
        "-",
        "-",
    ]
    assert links_with_full_name.count() == 25  # the row of the group and its 24 rows


def bar_colors(page: Page) -> dict[str, set[str]]:
    """Return the colors of the bars by service."""
    rows = page.locator("#spans > [role=row]").evaluate_all("""rows => rows.map(row => [
        row.querySelector(".of")?.textContent,
        getComputedStyle(row.querySelector("rect")).fill,
    ])""")
    colors: dict[str, set[str]] = {}
    for service, color in rows:
        if service:  # a row without a service belongs to that of the row above
            colors.setdefault(service, set()).add(color)
    return colors


# The local view still has the traces of the first scheme when the second one is tested, so the ids differ.
@pytest.mark.parametrize(("scheme", "large_id", "small_id"), [("light", 0xA100, 0xA101), ("dark", 0xA200, 0xA201)])
def test_nineteen_services_have_nineteen_colors(
    local_view: LocalView, scheme: str, large_id: int, small_id: int
) -> None:
    """Two services that have the same color in other views have different colors within a trace."""
    root = span(trace=large_id, service="edge", resource="GET /nineteen")
    names = [f"color-{number}" for number in range(18)]
    first_name, name_with_same_color = names[0], names[COLORS]  # other views have COLORS colors, used in turn
    local_view.send(root, *(span(root, service=name, resource=name) for name in names))
    local_view.send(
        span(trace=small_id, service=first_name),
        span(trace=small_id, service=name_with_same_color, parent_id=1),
    )
    wait_for_spans(local_view, f"{large_id:032x}", 19)
    wait_for_spans(local_view, f"{small_id:032x}", 2)
    with opened(local_view.browser, scheme=scheme) as page:
        local_view.visit(page, f"/trace/{large_id:032x}")
        colors_of_large_trace = bar_colors(page)
        expect(page.locator(".legend li")).to_have_count(19)
        local_view.visit(page, f"/trace/{small_id:032x}")
        colors_of_small_trace = bar_colors(page)

    assert len(colors_of_large_trace) == 19
    assert len(set().union(*colors_of_large_trace.values())) == 19
    assert colors_of_small_trace[first_name] != colors_of_small_trace[name_with_same_color]


def test_axis_and_legend_stay_visible_and_bars_get_half_of_the_width(local_view: LocalView) -> None:
    """Axis and legend stay visible when a trace is scrolled. The waterfall uses the full width of the window."""
    for width, height in [*WINDOWS, (1920, 1080)]:
        with opened(local_view.browser, width, height) as page:
            local_view.visit(page, f"/trace/{LARGE_ID}?span=none")
            page.locator("#spans > [role=row]").last.scroll_into_view_if_needed()

            expect(page.locator("#axis")).to_be_in_viewport(ratio=1)
            expect(page.locator(".legend a").first).to_be_in_viewport(ratio=1)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            waterfall = page.locator(".waterfall").bounding_box()
            column_of_bars = page.locator("#spans > [role=row] > :last-child").last.bounding_box()
            assert waterfall
            assert column_of_bars
            assert waterfall["width"] > width - 60  # the padding of <main> takes 40, and 20 are tolerance
            assert column_of_bars["width"] > 0.48 * waterfall["width"]  # about half


def test_self_time_is_beside_the_duration(local_view: LocalView, page: Page) -> None:
    """Self time is the part of the duration in which no child span runs."""
    local_view.visit(page, CHECKOUT_PATH)
    row = page.get_by_role("row", name="POST /charge")
    duration, self_time = row.get_by_role("gridcell").nth(1), row.get_by_role("gridcell").nth(2)

    expect(duration).to_have_text("100 ms")
    expect(self_time).to_have_text("50.0 ms")


def test_a_search_within_the_trace_marks_matches(local_view: LocalView, page: Page) -> None:
    """Other rows are dimmed, and Enter selects the next match. Tags and hidden rows also match."""
    local_view.visit(page, f"{CHECKOUT_PATH}?span=none&q=x")
    page.keyboard.press("/")
    page.keyboard.type("from items")
    matches = page.locator("#matches")
    expect(matches).to_have_text(re.compile("24 matches"))
    expect(page.locator("#spans .found")).to_have_count(25)  # the row of the group and its 24 rows
    # The search for traces, `q`, stays in the address.
    expect(page).to_have_url(re.compile(r"q=x.*find=from\+items|find=from\+items.*q=x"))
    page.keyboard.press("Enter")
    expect(matches).to_have_text(re.compile("match 1 of 24"))
    page.keyboard.press("Enter")
    expect(matches).to_have_text(re.compile("match 2 of 24"))
    page.keyboard.press("Shift+Enter")
    expect(matches).to_have_text(re.compile("match 1 of 24"))
    expect(page.locator("#find")).to_be_focused()
    assert chosen_row(page).evaluate(IS_IN_VIEW)
    page.fill("#find", "charge?card=4242")  # part of a tag of three spans
    expect(page.locator("#spans .found b:not(.mark)")).to_have_text(["asgi.request", "asgi.request", "http.request"])
    page.fill("#find", "")
    expect(page.locator("#spans .dim")).to_have_count(0)
    page.fill("#find", "nothing like it")

    expect(matches).to_have_text(re.compile("0 matches"))


def test_a_search_typed_before_the_script_runs_is_applied(local_view: LocalView, page: Page) -> None:
    """On a slow machine, a user may type as soon as the page is visible."""
    script = open_before_script(page, local_view.dev.page_url + CHECKOUT_PATH, "trace.js")
    page.fill("#find", "from items")
    script.continue_()

    expect(page.locator("#matches")).to_have_text(re.compile("24 matches"))


def test_a_click_in_the_legend_shows_a_single_service(local_view: LocalView, page: Page) -> None:
    """The ancestors of the service's spans stay visible. A second click shows all spans again."""
    local_view.visit(page, CHECKOUT_PATH)
    initial_count = visible_rows(page).count()
    page.locator(".legend a", has_text="payments").click()
    expect(visible_rows(page)).to_have_count(5)  # the span of payments and its four ancestors
    expect(visible_rows(page).locator(".of")).to_have_text(["gateway", "orders", "payments"])
    page.keyboard.press("0")  # expands all, also the group of 24 rows, but shows no other service
    expect(visible_rows(page)).to_have_count(5)
    page.locator(".legend a", has_text="payments").click()

    expect(visible_rows(page)).to_have_count(initial_count + 24)


def test_details_show_log_lines_before_tags(local_view: LocalView, page: Page) -> None:
    """Tags and metrics share one table. Those of the tracer and the process are folded. Ids are hexadecimal."""
    response = local_view.dev.get("/api/hello/Ada")
    identity, span_id = response.headers["traceresponse"].split("-")[1:3]
    wait_for_spans(local_view, identity, 1)
    local_view.visit(page, f"/trace/{identity}?span={span_id}")
    headings = page.locator("#span h3")
    expect(headings).to_have_text(["Log lines of this span", "Tags"])
    tags = page.locator("#span .tags")
    expect(tags).to_contain_text(f"span id{span_id}")
    expect(tags.get_by_text("_dd.top_level")).to_be_hidden()
    expect(tags.get_by_text("http.route")).to_be_visible()
    tags.locator("#tracer-tags > summary").click()
    for name in ("_dd.top_level", "process_id", "runtime-id", "_dd.tags.process"):
        expect(tags.get_by_text(name, exact=True)).to_be_visible()


def test_the_lines_of_a_long_tag_start_at_the_left(local_view: LocalView, page: Page) -> None:
    root = span(trace=WRAPPED_ID, meta={"a.tag": "word " * 100})
    local_view.send(root)
    wait_for_spans(local_view, f"{WRAPPED_ID:032x}", 1)
    local_view.visit(page, f"/trace/{WRAPPED_ID:032x}")
    value = page.locator("#span .value", has_text="word word")

    expect(value).to_have_css("text-align", "start")


def test_the_menu_of_a_tag_filters_excludes_and_copies_its_value(local_view: LocalView, page: Page) -> None:
    """This also works for values with spaces or quotation marks."""
    root = span(trace=TAG_ID, resource="GET /odd", meta={"db.statement": 'SELECT "a" FROM b', "a.tag": "some value"})
    local_view.send(root)
    wait_for_spans(local_view, f"{TAG_ID:032x}", 1)
    for value, term in (
        ("some value", '@a.tag:"some value"'),
        ('SELECT "a" FROM b', r'@db.statement:"SELECT \"a\" FROM b"'),
    ):
        local_view.visit(page, f"/trace/{TAG_ID:032x}")
        page.get_by_text(value, exact=True).click()
        page.get_by_role("button", name="Copy", exact=True).click()
        wait_for_clipboard(page, value)
        page.get_by_role("link", name="Only traces with this value").click()
        expect(page.locator("#q")).to_have_value(term)
        expect(page.locator("#rows li")).to_have_count(1)
        page.go_back()
        page.get_by_text(value, exact=True).click()
        page.get_by_role("link", name="Only traces without this value").click()
        expect(page.locator("#q")).to_have_value(f"-{term}")
        expect(page.locator("#rows a", has_text="GET /odd")).to_have_count(0)
        expect(page.locator("#rows li").first).to_be_visible()


def test_a_request_and_its_background_task_are_linked(local_view: LocalView, page: Page) -> None:
    """The links work in both directions. The page of the request shows the link when the task's trace arrives."""
    identity = trace_id(local_view.dev.get("/api/faults/background?seconds=0.5"))
    wait_for_spans(local_view, identity, 1)
    local_view.visit(page, f"/trace/{identity}")
    link = page.locator("#links a")
    expect(link).to_contain_text("quart.background_task")
    expect(page.locator("#links .status")).to_have_text("error")
    link.click()
    expect(page.locator(".frames li").first).to_contain_text(re.compile(r"faults\.py:\d+ in work"))
    link_back = page.locator("#links a")
    expect(link_back).to_contain_text("GET /api/faults/background")
    link_back.click()

    expect(page).to_have_url(re.compile(f"/trace/{identity}"))


def test_a_websocket_and_its_messages_are_linked(local_view: LocalView, page: Page) -> None:
    """The page of the handshake links to each message, and each message links to the handshake."""
    with connect(local_view.dev.url.replace("http", "ws") + "/api/hello/ws") as websocket:
        websocket.send("Ada")
        assert websocket.recv() == "Hello, Ada!"
    local_view.visit(page, '/?q=resource_name:"websocket /api/hello/ws" operation_name:asgi.request')
    page.locator("#rows a").first.click()
    links = page.locator("#links")
    for name in ("websocket.receive", "websocket.send"):
        expect(links).to_contain_text(name)
    links.get_by_role("link", name="websocket.receive").click()
    expect(page.locator("#links")).to_contain_text("asgi.request")


@pytest.mark.parametrize(("width", "height"), [(400, 800), (650, 425), (960, 540)])
def test_details_open_and_close_in_a_small_window(local_view: LocalView, width: int, height: int) -> None:
    """Two of the sizes are those of desktop windows at 200% zoom. A focused row is never covered."""
    with opened(local_view.browser, width, height) as page:
        local_view.visit(page, f"{CHECKOUT_PATH}?span=none")
        detail = page.locator("#detail")
        expect(detail).to_be_hidden()
        page.get_by_role("row", name="GET auth").click()
        expect(detail).to_be_visible()
        expect(detail.locator("h2").first).to_have_text("GET auth")
        rows = visible_rows(page)
        expect(rows.nth(1)).to_be_focused()
        for number in range(rows.count()):
            rows.nth(number).focus()
            assert rows.nth(number).evaluate(IS_IN_VIEW), number
        for _ in range(rows.count()):  # from the last row, which now has the focus, to the first
            assert page.evaluate(f"({IS_IN_VIEW})(document.activeElement)")
            page.keyboard.press("ArrowUp")
        page.get_by_role("link", name="Close the details").click()
        expect(detail).to_be_hidden()
        page.keyboard.press("Enter")
        expect(detail).to_be_visible()
        page.keyboard.press("Escape")
        expect(detail).to_be_hidden()
        page.reload()
        expect(detail).to_be_hidden()


def test_a_trace_without_an_error_shows_its_spans_in_a_small_window(local_view: LocalView) -> None:
    """The details stay closed, because they would cover the spans."""
    identity = trace_id(local_view.dev.get("/api/hello"))
    wait_for_spans(local_view, identity, 1)
    with opened(local_view.browser, 400, 800) as page:
        local_view.visit(page, f"/trace/{identity}")
        expect(visible_rows(page)).to_have_count(1)
        expect(page.locator("#detail")).to_be_hidden()


def test_new_spans_do_not_scroll_the_page(local_view: LocalView, page: Page) -> None:
    """The waterfall and the details keep their scroll positions, and expanded parts stay expanded."""
    long_tag = {"long": "x" * 20_000}  # so that the details can be scrolled
    root = span(trace=LIVE_ID, resource="GET /live", duration_ms=100, error=True, meta={**ERROR_TAGS, **long_tag})
    children = [span(root, resource=f"GET /{number}", start_ms=number) for number in range(60)]
    local_view.send(root, *children)
    wait_for_spans(local_view, f"{LIVE_ID:032x}", 61)
    local_view.visit(page, f"/trace/{LIVE_ID:032x}")
    page.get_by_role("row", name="GET /50").click()
    page.get_by_role("row", name="GET /live").first.click()
    page.get_by_text("Raw stack trace").click()
    page.locator("#detail").evaluate("pane => pane.scrollTop = 150")
    page.locator(".waterfall").evaluate("pane => pane.scrollTop = 300")
    local_view.send(span(root, resource="GET /late", start_ms=99))
    expect(page.locator("#title")).to_contain_text("62 spans")

    assert page.locator("#detail").evaluate("pane => pane.scrollTop") == 150
    assert page.locator(".waterfall").evaluate("pane => pane.scrollTop") == 300
    expect(page.locator("#stack-raw")).to_be_visible()


def test_the_back_button_returns_to_the_list(local_view: LocalView, page: Page) -> None:
    """The choice of a span or a service adds nothing to the browser's history."""
    local_view.visit(page, "/?q=POST")
    page.locator("#rows a", has_text="POST /checkout").click()
    expect(page.locator("#errors")).to_contain_text("error 1 of")
    page.wait_for_load_state()  # keys need the page's script
    for _ in range(3):
        page.keyboard.press("]")
    expect(page.locator("#errors")).to_contain_text("error 4 of")
    page.locator(".legend a").first.click()
    page.go_back()

    expect(page).to_have_url(f"{local_view.dev.page_url}/?q=POST")


def test_a_trace_works_without_javascript(local_view: LocalView) -> None:
    """Links and a form choose spans, errors, matches and services, expand rows, and close the details."""
    context = local_view.browser.new_context(java_script_enabled=False, viewport={"width": 1300, "height": 850})
    page = context.new_page()
    local_view.visit(page, CHECKOUT_PATH)
    expect(page.locator("#detail .failure")).to_contain_text("bank.py:88 in charge")
    page.get_by_role("link", name="Next error").click()
    expect(page.locator("#errors")).to_contain_text("error 2 of")
    expect(chosen_row(page)).to_be_in_viewport()
    page.get_by_role("row", name="GET auth").get_by_role("link").click()
    expect(page.locator("#span h2")).to_have_text("GET auth")
    collapsed_count = visible_rows(page).count()
    page.get_by_role("row", name="\N{MULTIPLICATION SIGN}24").get_by_role("link").click()
    expect(visible_rows(page)).to_have_count(collapsed_count + 24)
    page.fill("#find", "payments")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#matches")).to_contain_text("4")  # the call, and three spans with payments in the stack trace
    page.locator(".legend a", has_text="payments").click()
    expect(visible_rows(page)).to_have_count(5)
    page.get_by_role("link", name="Close the details").click()
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.get_by_role("button", name="Expand all")).to_be_hidden()
    context.close()


def test_invisible_characters_are_escaped(local_view: LocalView, page: Page) -> None:
    """Characters that control or reorder text are escaped in every part of a span, on every view."""
    text = "a\u202egnp.exe\x9b\x1b[2J"
    escaped = r"a\u202egnp.exe\x9b\x1b[2J"
    root = span(
        trace=ESCAPE_ID, resource=text, service=text, name=text, error=True, meta={text: text, "error.message": text}
    )
    local_view.send(root)
    wait_for_spans(local_view, f"{ESCAPE_ID:032x}", 1)
    for path in (f"/trace/{ESCAPE_ID:032x}", "/", "/map"):
        local_view.visit(page, path)
        expect(page.locator("main")).to_contain_text(escaped)
        html = re.sub('data-copy-value="[^"]*"', "", page.content())  # the button copies the value as it is
        assert [character for character in "\u202e\x9b\x1b" if character in html] == [], path


def test_the_keyboard_shortcuts_are_listed(local_view: LocalView, page: Page) -> None:
    """The key `?` and a button open the list of this view's keys."""
    local_view.visit(page, CHECKOUT_PATH)
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(keys).to_contain_text("next and previous error")
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    expect(page.locator("#detail")).to_be_visible()
    page.get_by_role("button", name="Keyboard shortcuts").click()

    expect(keys).to_be_visible()
