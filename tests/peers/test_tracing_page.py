"""Tests of docs/tracing.md: for each way to use tracing, the commands print the tree that the page shows."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from developing import VIEW, developing
from running import BIN, QUIET, ROOT, clean_environment, eventually, free_port, started

pytestmark = pytest.mark.once

PAGE = (ROOT / "docs" / "tracing.md").read_text()
WAYS = ("This service", "Use tracing.py in your own service", "A service that you don't change")
# The text that differs between runs: durations, bars and links.
VARIABLE_TEXT = re.compile(r"\d[\d.]* (?:ms|µs|s)\b|[█·]+|http://127\.0\.0\.1:\d+/trace/[0-9a-f]{32}")


def code_blocks(way: str, language: str) -> list[str]:
    """Return the code blocks in `language` of the page's section `way`."""
    section = PAGE.split(f"### {way}\n")[1].split("\n#")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def stable_lines(text: str) -> list[str]:
    """Return the lines of `text` without the parts that differ between runs, and with single spaces."""
    return [" ".join(VARIABLE_TEXT.sub(" ", line).split()) for line in text.splitlines()]


def accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("way", WAYS)
def test_the_commands_print_the_tree_of_the_page(way: str, tmp_path: Path) -> None:
    """Only the ports differ. The applications have the file names and the code that the page gives them."""
    (commands,) = code_blocks(way, "bash")
    (tree,) = code_blocks(way, "text")
    port = free_port()
    serve, send_request = re.sub(r"localhost:\d+", f"localhost:{port}", commands).splitlines()
    # Except for this service, the page shows the code of the application: for `copied:app`, that is copied.py.
    for code, name in zip(code_blocks(way, "python"), re.findall(r"(\w+):app", serve), strict=True):
        assert f"`{name}.py`" in PAGE
        (tmp_path / f"{name}.py").write_text(code)
        if "import tracing" in code:
            shutil.copy(ROOT / "hello_service" / "observability" / "tracing.py", tmp_path)
    with developing(command=VIEW) as view:
        settings = {"PORT": str(port), "HOST": "127.0.0.1", "DD_TRACE_AGENT_URL": view.agent_url}
        environment = clean_environment({**QUIET, **settings, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"})
        # `env` lets `exec` run a command that begins with variables.
        with started(["sh", "-c", f"exec env {serve}"], environment, cwd=tmp_path):
            eventually(lambda: accepts_connections(port), timeout=60)
            subprocess.run(["sh", "-c", send_request], env=environment, check=True, capture_output=True, timeout=60)
            expected_lines = stable_lines(tree)
            lines = eventually(
                lambda: stable_lines(view.output), lambda printed: expected_lines[-1] in printed, timeout=60
            )
    begin = lines.index(expected_lines[0])

    assert lines[begin : begin + len(expected_lines)] == expected_lines


def test_every_way_of_the_page_is_tested() -> None:
    assert re.findall(r"^### (.+)$", PAGE, re.MULTILINE) == list(WAYS)
