"""Applies the changes of docs/make-it-yours.md to a copy of this repository, and tests the copy."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from copies import GUIDE, apply_section, copy_to, environment, run, run_unit_tests
from fake_upstream import fake_upstream
from running import BIN, QUIET, SERVE, Agent, Running, started

pytestmark = pytest.mark.once

TOKEN = "marked-7d1f"  # a text that nothing else contains


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return copy_to(tmp_path)


@contextmanager
def service_of(copy: Path, agent: Agent, **settings: str) -> Iterator[Running]:
    """Run the service of the copy on a free port, and wait until it listens."""
    defaults = {"HOST": "127.0.0.1", "PORT": "0", "DRAIN_SECONDS": "0", "DD_TRACE_AGENT_URL": agent.url}
    with started(SERVE, {**environment(copy), **QUIET, **defaults, **settings}, cwd=copy) as running:
        running.wait_until_running()
        yield running


def failed_checks(copy: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run checks that every change must pass, and return the failed ones."""
    tests = ("tests/unit/test_app.py", "tests/unit/test_settings.py", "tests/unit/test_environment.py")
    commands = (
        ("ruff", "check"),
        ("ruff", "format", "--check"),
        ("lint-imports",),
        (str(BIN / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests),
    )
    results = [run(copy, *command) for command in commands]
    return [result for result in results if result.returncode != 0]


@pytest.mark.timeout(900)
def test_unit_tests_pass_in_a_renamed_copy_without_the_demo(copy: Path) -> None:
    """No test imports the demo, except the demo's own tests, which are deleted with it."""
    adopted = run(copy, "scripts/adopt", "my-orders")
    assert adopted.returncode == 0, adopted.stderr
    apply_section(copy, "Delete the demo")
    for paths in re.findall(r"^\$ rm (.+)$", (copy / GUIDE).read_text(), re.MULTILINE):
        for path in paths.split():
            (copy / path).unlink()

    assert run(copy, "ruff", "check").stdout == "All checks passed!\n"
    assert run(copy, "ruff", "format", "--check").returncode == 0
    pytest_in_copy = (str(BIN / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider")
    collected = run(copy, *pytest_in_copy, "--collect-only", "tests")
    assert collected.returncode == 0, collected.stdout
    tests = run_unit_tests(copy, "tests/unit", "tests/protocol/test_service.py")
    assert tests.returncode == 0, tests.stdout


@pytest.mark.timeout(300)
async def test_a_second_upstream_receives_a_post_with_a_token(copy: Path, agent: Agent) -> None:
    """The POST is sent once, and the token isn't in traces, logs or `/info`."""
    apply_section(copy, "Call another service, with a POST and a token")
    async with fake_upstream() as fake:
        with service_of(copy, agent, STOCK_URL=f"{fake.url}/json", STOCK_TOKEN=TOKEN) as running:
            async with httpx.AsyncClient(base_url=running.url) as client:
                response = await client.post("/api/reservations", json={"article": "a", "count": 2})
                document = (await client.get("/openapi.json")).json()
                info = await client.get("/info")
            running.stop()
    (call,) = [span for span in agent.spans() if span["name"] == "http.request"]

    assert response.json() == {"status": 200, "body": {"message": 1}}
    assert fake.bodies == [b'{"article":"a","count":2}']
    assert f"authorization: Bearer {TOKEN}" in fake.heads[0]
    assert call["resource"] == "POST inventory/json"
    assert call["meta"]["peer.service"] == "inventory"
    assert {"502", "503", "504"} <= set(document["paths"]["/api/reservations"]["post"]["responses"])
    assert TOKEN not in str(agent.traces()) + "\n".join(running.lines) + info.text
    assert failed_checks(copy) == []


@pytest.mark.timeout(300)
async def test_a_query_span_is_a_child_of_its_request_span(copy: Path, agent: Agent) -> None:
    """No query starts a trace of its own."""
    apply_section(copy, "Query a database")
    with service_of(copy, agent) as running:
        async with httpx.AsyncClient(base_url=running.url) as client:
            visits = [(await client.post("/api/visits/Ada")).json() for _ in range(2)]
        running.stop()
    traces = agent.traces()

    assert visits == [{"name": "Ada", "count": 1}, {"name": "Ada", "count": 2}]
    assert len(traces) == 2
    for trace in traces:
        request, insert, select = sorted(trace, key=lambda span: span["start"])
        assert request["resource"] == "POST /api/visits/<name>"
        assert insert["resource"] == "INSERT INTO visits (name) VALUES (?)"
        assert select["resource"] == "SELECT count(*) FROM visits WHERE name = ?"
        for query in (insert, select):
            assert query["parent_id"] == request["span_id"]
            assert (query["name"], query["service"]) == ("sqlite.query", "visits-db")
            assert query["meta"]["span.kind"] == "client"
            assert "Ada" not in str(query)
        assert select["metrics"]["db.row_count"] == 1
    assert agent.failures() == ""
    assert failed_checks(copy) == []


@pytest.mark.timeout(300)
def test_the_service_does_not_start_with_a_setting_outside_its_bounds(copy: Path) -> None:
    apply_section(copy, "Add a setting with bounds")
    with started(SERVE, {**environment(copy), "BATCH_SIZE": "501"}, cwd=copy) as running:
        code = running.wait()

    assert code == 1
    assert "BATCH_SIZE='501': must be less than or equal to 500" in running.lines
    assert failed_checks(copy) == []
