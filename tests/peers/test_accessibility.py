"""Tests of accessibility: axe-core's rules in several window widths and both color schemes, and keyboard control."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import CHROMIUM, opened, violations
from failed_traces import CHECKOUT_ID, checkout
from local_view import LocalView, running_local_view
from playwright.sync_api import expect
from tracing_data import span

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"),
]

# The path of each variant of the trace page.
PATHS = {
    "a failed trace": f"/trace/{CHECKOUT_ID}",
    "a trace with its details closed": f"/trace/{CHECKOUT_ID}?span=none",
    "a search within a trace": f"/trace/{CHECKOUT_ID}?find=payments",
    "one service of a trace": f"/trace/{CHECKOUT_ID}?service=payments",
    "an unknown trace": "/trace/1",
}


@pytest.fixture(scope="module")
def local_view() -> Iterator[LocalView]:
    """Run `dev` with a failed trace of nine services, and with a second trace, to which the page of the first links."""
    with running_local_view() as local_view:
        local_view.send(*checkout(), span(service="other"))
        with opened(local_view.browser) as page:
            local_view.visit(page, f"/trace/{CHECKOUT_ID}")
            expect(page.locator("h1")).to_contain_text("POST /checkout")  # waits until the trace has arrived
        yield local_view


@pytest.mark.parametrize("variant", PATHS)
@pytest.mark.parametrize("width", [1300, 400])  # pixels: a window on a desktop and on a phone
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_on_the_trace_page(local_view: LocalView, variant: str, width: int, scheme: str) -> None:
    """The rules cover contrast, landmarks, names, roles and scrollable regions."""
    with opened(local_view.browser, width, scheme=scheme) as page:
        local_view.visit(page, PATHS[variant])
        expect(page.locator("main")).to_be_visible()

        assert violations(page) == []


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize("width", [1300, 400])  # pixels: a window on a desktop and on a phone
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_on_the_pages_of_the_service(
    local_view: LocalView, path: str, width: int, scheme: str
) -> None:
    """Also, nothing is wider than the window."""
    with opened(local_view.browser, width, scheme=scheme) as page:
        page.goto(local_view.dev.url + path)
        expect(page.locator("main")).to_be_visible()

        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_finds_an_image_without_a_text_alternative(local_view: LocalView) -> None:
    """This proves that the other tests can fail."""
    with opened(local_view.browser) as page:
        local_view.visit(page, PATHS["a failed trace"])
        page.evaluate(
            "document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"/static/icon.svg\">')"
        )

        (violation,) = violations(page)
        assert violation.startswith("image-alt:")


def test_axe_finds_no_violation_with_everything_expanded(local_view: LocalView) -> None:
    """The folded tags, the menu of a tag, the library frames, the raw stack trace and the list of keys are open."""
    with opened(local_view.browser) as page:
        local_view.visit(page, PATHS["a failed trace"])
        # The menus of tags (`details.value`) are left out, because only one of them can be open at a time.
        for summary in page.locator("details:not([open]):not(.value) > summary").all():
            if summary.is_visible():
                summary.click()
        page.locator("details.value summary").first.click()
        violations_with_menu = violations(page)
        page.keyboard.press("Escape")  # closes the menu
        page.locator("#spans [role=row]").first.focus()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()

        assert violations_with_menu + violations(page) == []


def test_the_spans_are_a_single_tab_stop(local_view: LocalView) -> None:
    """Tab leaves the spans, and Shift+Tab returns to them. Home, End, `j` and `k` move between them."""
    with opened(local_view.browser) as page:
        local_view.visit(page, PATHS["a trace with its details closed"])
        rows = page.locator("#spans [role=row]")
        assert page.locator("#spans [tabindex='0']").count() == 1
        page.locator("#spans [tabindex='0']").focus()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('#spans')") is None
        page.keyboard.press("Shift+Tab")
        assert page.evaluate("Boolean(document.activeElement.closest('#spans'))")
        page.keyboard.press("Home")
        expect(rows.first).to_be_focused()
        page.keyboard.press("j")
        expect(rows.nth(1)).to_be_focused()
        page.keyboard.press("k")
        expect(rows.first).to_be_focused()
        page.keyboard.press("End")
        expect(rows.last).to_be_focused()

        assert page.locator("#spans [tabindex='0']").count() == 1


def test_the_waterfall_is_a_treegrid(local_view: LocalView) -> None:
    """The rows have levels, an expanded state and a selected state."""
    with opened(local_view.browser) as page:
        local_view.visit(page, PATHS["a failed trace"])
        grid = page.get_by_role("treegrid", name="Spans over time")

        # The header "Time" contains the labels of the axis.
        expect(grid.get_by_role("columnheader")).to_have_text(
            ["Span", "Duration", "Self", "Time0 ms105 ms210 ms315 ms420 ms"]
        )
        expect(grid.get_by_role("row", selected=True)).to_contain_text("POST bank")
        expect(grid.get_by_role("row", level=1)).to_contain_text("POST /checkout")
        expect(grid.get_by_role("row", expanded=False)).to_contain_text("\N{MULTIPLICATION SIGN}24")  # folded queries


def test_services_and_selection_are_visible_in_forced_colors_mode(local_view: LocalView) -> None:
    """Bars keep their colors, and the selected row has an outline."""
    outline_style = "row => getComputedStyle(row).outlineStyle"
    with opened(local_view.browser) as page:
        page.emulate_media(forced_colors="active")
        local_view.visit(page, PATHS["a failed trace"])
        number_of_colors = page.locator("#spans .span:not([hidden]) rect").evaluate_all(
            "bars => new Set(bars.map(bar => getComputedStyle(bar).fill)).size"
        )
        selected_row = page.locator("#spans [aria-selected]").first
        unselected_row = page.locator("#spans .span:not([aria-selected])").first

        assert number_of_colors == 9  # one for each service that has a visible span
        assert selected_row.evaluate(outline_style) == "solid"
        assert unselected_row.evaluate(outline_style) == "none"
        assert violations(page) == []
