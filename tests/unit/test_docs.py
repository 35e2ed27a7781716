"""Tests of the documentation: every link has a target, every command and option exists, and the README is short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hello_service.__main__ import main

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("tests/*/README.md")]
)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a Markdown page.

    GitHub changes a heading to lower case, removes punctuation except - and _, and replaces spaces with hyphens.
    """
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def relative_path(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=relative_path)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())  # the target in [text](target)
    broken_links = []
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken_links.append(link)

    assert broken_links == []


@pytest.mark.parametrize("page", PAGES, ids=relative_path)
def test_every_script_on_a_page_exists(page: Path) -> None:
    # The lookbehind excludes the end of a longer path.
    script_path = r"(?<![\w/.-])(scripts/[a-z-]+|deploy/[a-z_]+\.py|deploy/deploy|\.ci/run)\b"
    scripts = set(re.findall(script_path, page.read_text()))

    assert {script for script in scripts if not (ROOT / script).is_file()} == set()


def test_the_readme_is_short() -> None:
    """Reading 900 words takes about four minutes. Code blocks don't count."""
    prose = re.sub(r"^```.*?^```", "", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)

    assert len(prose.split()) <= 900


# A command and its arguments, up to the end of the line or of the code span.
COMMAND = re.compile(r"(?:scripts/|hello-service )(dev|view|doctor|traces|trace|serve)\b([^`\n]*)")


@pytest.mark.parametrize("page", PAGES, ids=relative_path)
def test_every_option_on_a_page_exists(page: Path) -> None:
    """The commands are `hello-service` and the scripts that start it. Options after `--` belong to another program."""
    unknown_options = []
    for command, arguments in COMMAND.findall(page.read_text()):
        existing_options = {option for parameter in main.commands[command].params for option in parameter.opts}
        options = re.findall(r"(?<!\S)--[a-z][a-z-]*", arguments.partition(" -- ")[0])
        unknown_options += [f"{command} {option}" for option in options if option not in existing_options]

    assert unknown_options == []
