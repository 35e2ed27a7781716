"""Tests of accessibility: axe-core's rules in all views, widths and colour schemes, and keyboard control."""

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

# The path of each view, by a description of its content.
VIEWS = {
    "a failed trace": f"/trace/{CHECKOUT_ID}",
    "a trace with its details closed": f"/trace/{CHECKOUT_ID}?span=none",
    "a search within a trace": f"/trace/{CHECKOUT_ID}?find=payments",
    "one service of a trace": f"/trace/{CHECKOUT_ID}?service=payments",
    "no such trace": "/trace/1",
}


@pytest.fixture(scope="module")
def local_view() -> Iterator[LocalView]:
    """Run `dev` with a failed trace that has all the features of the page, and a trace of another service."""
    with running_local_view() as local_view:
        local_view.send(*checkout(), span(service="other"))
        with opened(local_view.browser) as page:
            local_view.visit(page, f"/trace/{CHECKOUT_ID}")
            expect(page.locator("h1")).to_contain_text("POST /checkout")
        yield local_view


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [1300, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(local_view: LocalView, view: str, width: int, scheme: str) -> None:
    """The rules cover contrast, landmarks, names, roles and scrollable regions."""
    with opened(local_view.browser, width, scheme=scheme) as page:
        local_view.visit(page, VIEWS[view])
        expect(page.locator("main")).to_be_visible()

        assert violations(page) == []


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize("width", [1300, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_in_the_pages_of_the_service(
    local_view: LocalView, path: str, width: int, scheme: str
) -> None:
    with opened(local_view.browser, width, scheme=scheme) as page:
        page.goto(local_view.dev.url + path)
        expect(page.locator("main")).to_be_visible()

        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_finds_a_violation(local_view: LocalView) -> None:
    """This proves that the other tests can fail."""
    with opened(local_view.browser) as page:
        local_view.visit(page, VIEWS["a failed trace"])
        page.evaluate(
            "document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"/static/icon.svg\">')"
        )

        assert [each.split(":")[0] for each in violations(page)] == ["image-alt"]


def test_axe_finds_no_violation_with_everything_expanded(local_view: LocalView) -> None:
    """The folded tags, the menu of a tag, the library frames, the raw stack trace and the list of keys are open."""
    with opened(local_view.browser) as page:
        local_view.visit(page, VIEWS["a failed trace"])
        for summary in page.locator("details:not([open]):not(.value) > summary").all():
            if summary.is_visible():
                summary.click()
        page.locator("details.value summary").first.click()
        found = violations(page)
        page.keyboard.press("Escape")
        page.locator("#spans [role=row]").first.focus()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()

        assert found + violations(page) == []


def test_the_spans_are_a_single_tab_stop(local_view: LocalView) -> None:
    """Arrow keys move between the spans, and the next Tab leaves them."""
    with opened(local_view.browser) as page:
        local_view.visit(page, VIEWS["a trace with its details closed"])
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
        local_view.visit(page, VIEWS["a failed trace"])
        grid = page.get_by_role("treegrid", name="Spans over time")

        expect(grid.get_by_role("columnheader")).to_have_text(
            ["Span", "Duration", "Self", "Time0 ms105 ms210 ms315 ms420 ms"]
        )
        expect(grid.get_by_role("row", selected=True)).to_contain_text("POST bank")
        expect(grid.get_by_role("row", level=1)).to_contain_text("POST /checkout")
        expect(grid.get_by_role("row", expanded=False)).to_contain_text("\N{MULTIPLICATION SIGN}24")


def test_forced_colours_keep_services_and_selection_visible(local_view: LocalView) -> None:
    """Bars keep their colours, and the selected row has an outline."""
    with opened(local_view.browser) as page:
        page.emulate_media(forced_colors="active")
        local_view.visit(page, VIEWS["a failed trace"])
        fills = page.locator("#spans .span:not([hidden]) rect").evaluate_all(
            "bars => new Set(bars.map(bar => getComputedStyle(bar).fill)).size"
        )
        chosen, other = (
            page.locator(f"#spans {which}").first.evaluate("row => getComputedStyle(row).outlineStyle")
            for which in ("[aria-selected]", ".span:not([aria-selected])")
        )

        assert fills == 9  # one colour for each service that has a visible span
        assert (chosen, other) == ("solid", "none")
        assert violations(page) == []
