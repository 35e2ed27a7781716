"""Fixtures for tests with a real container engine."""

from __future__ import annotations

from collections.abc import Iterator

import containers
import pytest
from containers import Engine

VERSION = "7.8.9"  # the version of the image; tests repeat it as a literal


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Yield the container engine, or skip the test if none is available."""
    with containers.engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """Build the repository's Dockerfile with VERSION as its version, and return the tag of the image."""
    tag = "hello-service:test"
    engine.docker("build", "--build-arg", f"VERSION={VERSION}", "--build-arg", "REVISION=abc123", "--tag", tag, ".")
    return tag


@pytest.fixture(scope="session")
def intake_image(engine: Engine) -> str:
    """Return the name of the image that stands in for Datadog's intake, or skip the test if it is missing."""
    if not engine.has(containers.INTAKE_IMAGE):
        pytest.skip(f"the image {containers.INTAKE_IMAGE}, which stands in for Datadog's intake, is missing")
    return containers.INTAKE_IMAGE
