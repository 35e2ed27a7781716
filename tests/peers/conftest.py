"""Fixtures for tests with real peers."""

from __future__ import annotations

from collections.abc import Iterator

import containers
import pytest
from containers import Engine

VERSION = "7.8.9"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Yield a real container engine."""
    with containers.engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """Return the image, built from the unchanged Dockerfile with version 7.8.9."""
    tag = "hello-service:test"
    engine.docker("build", "--build-arg", f"VERSION={VERSION}", "--build-arg", "REVISION=abc123", "--tag", tag, ".")
    return tag


@pytest.fixture(scope="session")
def intake_image(engine: Engine) -> str:
    """Return the image of the stand-in for Datadog's intake."""
    if not engine.has(containers.INTAKE_IMAGE):
        pytest.skip(f"there is no image {containers.INTAKE_IMAGE}, which stands in for Datadog")
    return containers.INTAKE_IMAGE
