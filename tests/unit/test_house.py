"""The tree is the diagram: imports point one way, and each peer is known to one module."""

from __future__ import annotations

import ast
import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hello_service"
MODULES = sorted(path for path in PACKAGE.glob("*.py") if path.stem != "__init__")

# Lowest first: a module imports only from lines above its own.
ORDER = [
    ["application", "asgi", "settings"],
    ["delivery", "problems", "launch", "tracing"],
    ["logs", "lifecycle", "upstream", "greeting", "faults", "probes", "pages", "openapi", "gate", "doctor"],
    ["relay"],
    ["app"],
    ["server"],
    ["__main__"],
]
ONLY = {"ddtrace": {"tracing"}, "httpx": {"upstream"}, "aiohttp": {"upstream"}, "hypercorn": {"server", "gate"}}


def imported(path: Path) -> set[str]:
    """Return the names of all modules that `path` imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_has_its_place() -> None:
    """A new module is put into the order above."""
    listed = {name for level in ORDER for name in level}

    assert {path.stem for path in MODULES} <= listed


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_point_one_way(path: Path) -> None:
    """Command line, server, app, routes, upstream; settings and problems are leaves."""
    level = next(number for number, names in enumerate(ORDER) if path.stem in names)
    below = {name for names in ORDER[:level] for name in names}
    own = {name.split(".")[1] for name in imported(path) if name.startswith("hello_service.")}

    assert own - {"localview"} <= below


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_peer_is_known_to_one_module(path: Path) -> None:
    """A change of client or server is a change of one file."""
    for peer, allowed in ONLY.items():
        knows = any(name.split(".")[0] == peer for name in imported(path))
        assert not knows or path.stem in allowed


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_the_lock_files_are_fresh(path: Path) -> None:
    """`scripts/lock` has run since the declarations changed, and named no index."""
    header = runpy.run_path(str(ROOT / "scripts" / "lock.py"))["header"]
    text = path.read_text()

    assert text.splitlines()[0] == header().strip()
    assert "://" not in text
    assert all("==" in line for line in text.splitlines() if line[:1].isalpha())


def test_production_installs_nothing_of_the_groups() -> None:
    """What only tests and development need is in a group."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    run = {line.split("==")[0] for line in (ROOT / "requirements" / "run.txt").read_text().splitlines() if "==" in line}
    wanted = {
        entry.split(">")[0].split("[")[0] for group in groups.values() for entry in group if isinstance(entry, str)
    }

    # Quart is made of flask; a group names it for itself.
    assert run & wanted == {"flask"}
