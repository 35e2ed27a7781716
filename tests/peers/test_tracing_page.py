"""Tests of docs/tracing.md: each of its three ways, followed exactly, prints the tree that the page shows."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from developing import READY, VIEW, launched
from running import BIN, QUIET, ROOT, clean_environment, eventually, free_port, started

PAGE = (ROOT / "docs" / "tracing.md").read_text()
WAYS = ("This service", "Use tracing.py in your own service", "A service that you don't change")
# The text that differs from run to run: durations, bars and links.
VARIABLE = re.compile(r"\d[\d.]* (?:ms|µs|s)\b|[█·]+|http://127\.0\.0\.1:\d+/trace/[0-9a-f]{32}")


def blocks(way: str, language: str) -> list[str]:
    """Return the code blocks in `language` of the page's section `way`."""
    section = PAGE.split(f"### {way}\n")[1].split("\n#")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def stable_lines(text: str) -> list[str]:
    """Return the lines of `text` without the parts that differ from run to run."""
    return [" ".join(VARIABLE.sub(" ", line).split()) for line in text.splitlines()]


def accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("way", WAYS)
def test_the_commands_print_the_tree_of_the_page(way: str, tmp_path: Path) -> None:
    """Only the ports differ. The commands refer to files that have the names and the code of the page."""
    (commands,), (tree,) = blocks(way, "bash"), blocks(way, "text")
    port = free_port()
    # The first command starts the service, the second sends a request.
    serve, request = re.sub(r"localhost:\d+", f"127.0.0.1:{port}", commands).splitlines()
    # A way with its own application shows the code of each module that the first command serves.
    for code, name in zip(blocks(way, "python"), re.findall(r"(\w+):app", serve), strict=True):
        assert f"`{name}.py`" in PAGE
        (tmp_path / f"{name}.py").write_text(code)
        if "import tracing" in code:
            shutil.copy(ROOT / "hello_service" / "observability" / "tracing.py", tmp_path)
    with launched(command=VIEW) as view:
        view.wait_for(READY)
        settings = {"PORT": str(port), "HOST": "127.0.0.1", "DD_TRACE_AGENT_URL": view.agent_url}
        environment = clean_environment({**QUIET, **settings, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"})
        with started(["sh", "-c", f"exec env {serve}"], environment, cwd=tmp_path):
            eventually(lambda: accepts_connections(port), timeout=60)
            subprocess.run(["sh", "-c", request], env=environment, check=True, capture_output=True, timeout=60)
            expected = stable_lines(tree)
            printed = eventually(lambda: stable_lines(view.output), lambda lines: expected[-1] in lines, timeout=60)
    begin = printed.index(expected[0])

    assert printed[begin : begin + len(expected)] == expected


def test_the_page_has_no_other_way() -> None:
    assert re.findall(r"^### (.+)$", PAGE, re.MULTILINE) == list(WAYS)
