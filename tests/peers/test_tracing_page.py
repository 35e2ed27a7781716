"""docs/tracing.md, done as it stands: each of the three ways prints the tree that the page shows."""

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
DIFFERS = re.compile(  # from run to run
    r"\d[\d.]* (?:ms|µs|s)\b|[█·]+|http://127\.0\.0\.1:\d+/trace/[0-9a-f]{32}"
)


def blocks(way: str, language: str) -> list[str]:
    """Return the code blocks in `language` of the page's section `way`."""
    section = PAGE.split(f"### {way}\n")[1].split("\n#")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def stable(printed: str) -> list[str]:
    """Return the lines of `printed` without what differs from run to run."""
    return [" ".join(DIFFERS.sub(" ", line).split()) for line in printed.splitlines()]


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("way", WAYS)
def test_a_reader_sees_the_tree_of_the_page(way: str, tmp_path: Path) -> None:
    """Only the ports are others. The files are those that the commands name."""
    (commands,), (tree,) = blocks(way, "bash"), blocks(way, "text")
    port = free_port()
    serve, request = re.sub(r"localhost:\d+", f"127.0.0.1:{port}", commands).splitlines()
    for code, name in zip(blocks(way, "python"), re.findall(r"(\w+):app", serve), strict=True):
        assert f"`{name}.py`" in PAGE
        (tmp_path / f"{name}.py").write_text(code)
        if "import tracing" in code:
            shutil.copy(ROOT / "hello_service" / "observability" / "tracing.py", tmp_path)
    with launched(command=VIEW) as view:
        view.wait_for(READY)
        here = {"PORT": str(port), "HOST": "127.0.0.1", "DD_TRACE_AGENT_URL": view.agent_url}
        environment = clean_environment({**QUIET, **here, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"})
        with started(["sh", "-c", f"exec env {serve}"], environment, cwd=tmp_path):
            eventually(lambda: listens(port), timeout=60)
            subprocess.run(["sh", "-c", request], env=environment, check=True, capture_output=True, timeout=60)
            expected = stable(tree)
            printed = eventually(lambda: stable(view.output), lambda lines: expected[-1] in lines, timeout=60)
    begin = printed.index(expected[0])

    assert printed[begin : begin + len(expected)] == expected


def test_the_page_has_no_other_way() -> None:
    assert re.findall(r"^### (.+)$", PAGE, re.MULTILINE) == list(WAYS)
