"""Fixtures for tests with a real container engine."""

from __future__ import annotations

from collections.abc import Iterator

import containers
import pytest
from containers import Engine

VERSION = "7.8.9"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Yield the container engine, or skip the test if there is none."""
    with containers.engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """Build the image from the unchanged Dockerfile, with VERSION, and return its tag."""
    tag = "hello-service:test"
    engine.docker("build", "--build-arg", f"VERSION={VERSION}", "--build-arg", "REVISION=abc123", "--tag", tag, ".")
    return tag


@pytest.fixture(scope="session")
def intake_image(engine: Engine) -> str:
    """Return the name of the image that stands in for Datadog's intake, or skip the test if there is none."""
    if not engine.has(containers.INTAKE_IMAGE):
        pytest.skip(f"there is no image {containers.INTAKE_IMAGE}, which stands in for Datadog's intake")
    return containers.INTAKE_IMAGE
