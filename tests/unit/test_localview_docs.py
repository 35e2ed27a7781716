"""Tests that docs/local-view.md matches the program."""

from __future__ import annotations

import re
from pathlib import Path

import click

from hello_service import __main__ as command_line
from hello_service.localview import lists, query, spans, store

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "local-view.md").read_text()


def option_rows(heading: str) -> list[list[str]]:
    """Return the cells of each row about an option, in the section whose heading begins with `heading`."""
    (section,) = [section for section in PAGE.split("\n## ") if section.startswith(heading)]
    return [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `--")]


def test_the_options_of_the_traces_command_are_described() -> None:
    described_options = {cells[0].strip(" `") for cells in option_rows("In the terminal")}

    assert described_options == {option.opts[0] for option in command_line.traces.params}


def test_every_option_of_dev_is_described_with_its_default() -> None:
    """No other options are described."""
    rows = option_rows("Options of")
    described_options = {name for cells in rows for name in re.findall(r"`(--[a-z-]+)`", cells[0])}
    descriptions = " ".join(cells[1] for cells in rows)
    options = [option for option in command_line.dev.params if isinstance(option, click.Option)]

    assert described_options == {option.opts[0] for option in options}
    for option in options:
        if not option.is_flag and not option.multiple:
            assert str(option.default) in descriptions


def test_the_options_of_view_are_listed() -> None:
    """Every option of `view` is also an option of `dev`."""
    (sentence,) = [line for line in PAGE.splitlines() if line.startswith("`view` has ")]
    options_of_view = {option.opts[0] for option in command_line.view.params}
    options_of_dev = {option.opts[0] for option in command_line.dev.params}

    assert set(re.findall(r"`(--[a-z-]+)`", sentence)) == options_of_view
    assert options_of_view <= options_of_dev


def test_every_documented_search_is_valid() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") and not line.startswith("| `--")]
    first_cells = [row.strip("|").split("|")[0] for row in rows]
    searches = [search for cell in first_cells for search in re.findall(r"`([^`]+)`", cell)]

    assert len(searches) >= 10  # the patterns above still match the tables
    for search in searches:
        with_whole_trace_id = search.replace("6b03…", "6b0370720000000000000000000000aa")
        assert query.parse(with_whole_trace_id).text


def test_documented_limits_match_the_program() -> None:
    """The limits are the numbers of spans kept in total and of one trace, and the time windows in minutes."""
    *shorter_windows, longest_window = lists.WINDOWS

    for number in (store.SPANS, spans.SPANS_OF_A_TRACE):
        assert f"{number:,}" in PAGE
    assert f"last {', '.join(map(str, shorter_windows))} or {longest_window} minutes" in PAGE


def test_the_pictures_of_the_page_exist() -> None:
    for picture in re.findall(r"\]\(([^)]+\.png)\)", PAGE):
        assert (DOCS / picture).is_file()
