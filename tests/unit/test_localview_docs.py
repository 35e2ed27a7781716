"""Tests that docs/local-view.md matches the program."""

from __future__ import annotations

import re
from pathlib import Path

import click

from hello_service import __main__ as command_line
from hello_service.localview import lists, query, spans, store
from hello_service.localview.performance import MINUTES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "local-view.md").read_text()


def option_rows(section: str) -> list[list[str]]:
    """Return the cells of each row about an option, in the section whose heading begins with `section`."""
    (text,) = [text for text in PAGE.split("\n## ") if text.startswith(section)]
    return [line.split("|") for line in text.splitlines() if line.startswith("| `--")]


def test_the_options_of_traces_are_described() -> None:
    described = {row[1].strip(" `") for row in option_rows("In the terminal")}

    assert described == {each.opts[0] for each in command_line.traces.params}


def test_every_option_of_dev_is_described_with_its_default() -> None:
    """No other options are described."""
    rows = option_rows("Options of")
    described = {name for row in rows for name in re.findall(r"`(--[a-z-]+)`", row[1])}
    text = " ".join(row[2] for row in rows)
    options = [each for each in command_line.dev.params if isinstance(each, click.Option)]

    assert described == {each.opts[0] for each in options}
    for each in options:
        if not each.is_flag and not each.multiple:
            assert str(each.default) in text


def test_the_options_of_view_are_listed() -> None:
    """Every option of `view` is also an option of `dev`."""
    (sentence,) = [line for line in PAGE.splitlines() if line.startswith("`view` has ")]

    assert set(re.findall(r"`(--[a-z-]+)`", sentence)) == {each.opts[0] for each in command_line.view.params}
    assert {each.opts[0] for each in command_line.view.params} <= {each.opts[0] for each in command_line.dev.params}


def test_every_documented_search_is_valid() -> None:
    table = [line for line in PAGE.splitlines() if line.startswith("| `") and not line.startswith("| `--")]
    searches = [term for line in table for term in re.findall(r"`([^`]+)`", line.split("|")[1])]

    assert len(searches) >= 10
    for search in searches:
        assert query.parse(search.replace("6b03…", "6b0370720000000000000000000000aa")).text


def test_documented_limits_match_the_program_and_pictures_exist() -> None:
    """The limits are the number of spans, the number of spans in a trace, and the number of minutes."""
    for number in (store.SPANS, spans.SPANS_OF_A_TRACE):
        assert f"{number:,}" in PAGE
    assert f"last {', '.join(map(str, lists.WINDOWS[:-1]))} or {MINUTES} minutes" in PAGE
    for picture in re.findall(r"\]\(([^)]+\.png)\)", PAGE):
        assert (DOCS / picture).is_file()
