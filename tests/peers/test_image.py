"""Tests of the image: its contents, and that it runs without privileges and with little memory."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest
from containers import LOCKED_DOWN, Engine
from running import BIN, ROOT, eventually

pytestmark = pytest.mark.deployment

MEMORY_LIMIT = ["--memory", "256m", "--memory-swap", "256m"]  # equal limits mean that the container gets no swap
# Nothing listens on port 1, and telemetry would also try to connect.
NO_AGENT = ["--env", "DD_TRACE_AGENT_URL=http://127.0.0.1:1", "--env", "DD_INSTRUMENTATION_TELEMETRY_ENABLED=false"]


def test_hadolint_finds_no_problem_in_the_dockerfile() -> None:
    """No rule is disabled."""
    process = subprocess.run([BIN / "hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert process.stdout == ""
    assert process.returncode == 0


def test_the_build_context_has_only_what_the_image_needs(engine: Engine, tmp_path: Path) -> None:
    """.dockerignore lists what is included, so .git, tests and .env are excluded."""
    # This image contains only the build context, and is exported as an archive.
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM scratch\nCOPY . /\n")
    archive_path = tmp_path / "context.tar"
    engine.docker("build", "--file", str(dockerfile), "--output", f"type=tar,dest={archive_path}", ".")
    with tarfile.open(archive_path) as archive:
        files_in_context = {member.name for member in archive if member.isfile()}

    list_package = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "hello_service"]
    package = subprocess.run(list_package, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    requirements = {f"requirements/{name}.txt" for name in ("uv", "run", "dev")}
    assert files_in_context == {"README.md", "pyproject.toml", *requirements, *package}


def test_the_image_contains_only_locked_distributions_and_the_package(engine: Engine, image: str) -> None:
    """Every distribution except hello-service has a version that requirements/run.txt locks."""
    program = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    installed = json.loads(engine.docker("run", "--rm", image, "python", "-Ic", program))
    version_of_package = installed.pop("hello-service")
    # A part of ddtrace's own distribution, so the lock file doesn't have it.
    bundled = {"ddtrace-internal"}

    locked: dict[str, set[str]] = {}  # versions by name; markers for Python versions can lead to several
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements/run.txt").read_text(), re.MULTILINE):
        locked.setdefault(normalized_name(name), set()).add(version)
    unlocked = {name for name, version in installed.items() if version not in locked.get(normalized_name(name), ())}
    assert unlocked <= bundled
    assert {"ddtrace", "Hypercorn", "Quart"} <= set(installed)
    assert version_of_package == "1.0.0"  # that of pyproject.toml, not that of the image


def normalized_name(name: str) -> str:
    """Return the name of a distribution as PEP 503 normalizes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_module_is_compiled(engine: Engine, image: str) -> None:
    """The root file system is read-only at run time, so a module without bytecode would be compiled at each start."""
    list_files = "find /opt/venv/lib -name '*.py'; echo; find /opt/venv/lib -name '*.pyc'"
    sources, bytecode = engine.docker("run", "--rm", image, "sh", "-c", list_files).split("\n\n")
    # The source of a/__pycache__/b.cpython-313.pyc is a/b.py.
    compiled = {re.sub(r"__pycache__/(.*)\.cpython-\d+\.pyc", r"\1.py", path) for path in bytecode.splitlines()}

    assert set(sources.splitlines()) == compiled
    assert any("hello_service" in path for path in compiled)


def test_the_image_declares_its_labels_command_signal_and_user(engine: Engine, image: str) -> None:
    """Version and revision are labels, and the version is also DD_VERSION."""
    config = engine.inspect(image)["Config"]
    labels = config["Labels"]

    assert labels["org.opencontainers.image.title"] == "hello-service"
    assert labels["org.opencontainers.image.version"] == "7.8.9"
    assert labels["org.opencontainers.image.revision"] == "abc123"
    assert labels["org.opencontainers.image.base.name"] == "python:3.13-slim"
    assert "DD_VERSION=7.8.9" in config["Env"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Cmd"] == ["hello-service", "serve"]
    assert re.fullmatch(r"\d+:\d+", config["User"])


def test_the_image_runs_without_privileges(engine: Engine, image: str) -> None:
    """It runs in 256 MiB of memory, without root, capabilities or a writable file system, and writes no file."""
    with engine.container(image, *LOCKED_DOWN, *MEMORY_LIMIT, *NO_AGENT, "--publish", "127.0.0.1::8080") as name:
        engine.wait_until_healthy(name)
        url = engine.published_url(name, 8080)
        greeting = json.loads(engine.get(f"{url}/api/hello?name=Ada"))
        info = json.loads(engine.get(f"{url}/info"))
        status = engine.docker("exec", name, "cat", "/proc/1/status")
        command = engine.docker("exec", name, "cat", "/proc/1/cmdline").split("\0")
        exit_code = engine.stop(name)
        state = engine.inspect(name)["State"]
        changed_files = engine.docker("diff", name)

    assert greeting == {"message": "Hello, Ada!"}
    assert (info["version"], info["tracing"]["active"]) == ("7.8.9", True)
    # The real, effective, saved and file system user ids.
    assert re.search(r"Uid:\s+10001\s+10001\s+10001\s+10001", status)
    assert re.search(r"CapBnd:\s+0+\n", status)
    assert re.search(r"NoNewPrivs:\s+1", status)
    assert command[1:3] == ["-m", "hello_service.serving.server"]  # process 1 is the server, so it receives the signals
    assert exit_code == 0
    assert not state["OOMKilled"]
    assert changed_files == ""


def test_a_service_that_does_not_respond_is_unhealthy(engine: Engine, image: str) -> None:
    """The health check uses the port in PORT, and fails if nothing listens there."""
    # The CMD of the health check is indented, unlike the CMD that starts the service.
    (command,) = re.findall(r"^ +CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    with engine.container(image, *NO_AGENT, "--env", "PORT=9090") as name:
        engine.wait_until_healthy(name)
        check_of_another_port = engine.run("exec", "--env", "PORT=9091", name, *json.loads(command), check=False)

    assert check_of_another_port.returncode == 1


def test_an_invalid_setting_stops_the_start(engine: Engine, image: str) -> None:
    """The error message has the setting's name and value."""
    process = engine.run("run", "--rm", "--env", "DRAIN_SECONDS=soon", image, check=False)

    assert process.returncode == 1
    assert "DRAIN_SECONDS='soon'" in process.stderr


def test_every_locked_distribution_has_a_wheel_for_arm64() -> None:
    """The image can be built for linux/arm64 without a compiler."""
    command = [str(BIN / "uv"), "pip", "install", "--dry-run", "--quiet", "--require-hashes", "--only-binary", ":all:"]
    # With an empty target folder, packages that are installed here don't count.
    command += ["--python-platform", "aarch64-manylinux_2_28", "--python-version", "3.13", "--target", "/nonexistent"]
    command += ["-r", "requirements/run.txt"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (process.returncode, process.stderr) == (0, "")


def test_the_script_prints_size_and_start_time_of_the_image(engine: Engine, image: str) -> None:
    command = [str(ROOT / "scripts" / "image"), image]
    process = subprocess.run(command, env=engine.environment, capture_output=True, text=True, check=False)

    assert process.returncode == 0, process.stderr
    assert re.fullmatch(
        r"size: \d+ MB, \d+ MB of it on top of python:3\.13-slim\n"
        r"start time until it listens: [\d.]+ s \(median of 5, [\d.]+ to [\d.]+\)\n",
        process.stdout,
    )


def test_the_image_stops_at_once_on_a_second_signal(engine: Engine, image: str) -> None:
    """The first SIGTERM starts a drain of 100 seconds, and the second one ends it."""
    with engine.container(image, *NO_AGENT, "--env", "DRAIN_SECONDS=100") as name:
        engine.wait_until_healthy(name)
        engine.docker("kill", "--signal", "TERM", name)
        eventually(lambda: '"draining"' in engine.logs(name))
        engine.docker("kill", "--signal", "TERM", name)
        # `eventually` fails after 20 seconds, long before the drain would end.
        state = eventually(lambda: engine.inspect(name)["State"], lambda state: not state["Running"])

    assert state["ExitCode"] == 128 + signal.SIGTERM
