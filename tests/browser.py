"""Runs the installed Chromium, headless, through Playwright. No browser is downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright
from running import eventually

TIMEOUT_MS = 20_000  # the machine may be busy
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
# The sandbox does not work as root, a test needs no GPU, and only the tested page should use the network.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, width: int = 1300, height: int = 850, scheme: str = "light", scale: float = 1
) -> Iterator[Page]:
    """Open a page until the block ends. An uncaught script error, a console error or a dialog fails the test."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",  # its type is a Literal, so mypy rejects `scheme`
        device_scale_factor=scale,
        permissions=["clipboard-read", "clipboard-write"],
    )
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    expect.set_options(timeout=TIMEOUT_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    try:
        yield page
    finally:
        context.close()
    # Chromium also reports each response with status 404 as a console error, and some tests expect such responses.
    assert [error for error in errors if "404" not in error] == []


def open_before_script(page: Page, url: str, script: str) -> Route:
    """Open `url`, and delay the file `script` until `continue_` of the returned route is called."""
    routes: list[Route] = []
    page.route(f"**/{script}", lambda route: routes.append(route))  # noqa: PLW0108 - Playwright rejects built-ins
    page.goto(url, wait_until="commit")
    # Playwright runs the route's handler only while one of its own functions is called. `evaluate` is such a function.
    eventually(lambda: page.evaluate("document.readyState") and routes)
    return routes[0]


def violations(page: Page) -> list[str]:
    """Return the violations that axe-core reports for the page."""
    page.evaluate(AXE)
    results: dict[str, Any] = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        f"{rule['id']}: {rule['help']}: {node['target']} {node['html'][:150]} {node['failureSummary'][:300]}"
        for rule in results["violations"]
        for node in rule["nodes"]
    ]
