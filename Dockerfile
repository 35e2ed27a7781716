# Stages:
#   build   the environment of production in /opt/venv: what requirements/run.txt locks, by hash, and the package
#   view    build, with the trace agent and the page for a person's own machine; compose.local.yaml alone uses it
#   (last)  the image that ships: Python and that environment, nothing that builds or tests

ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
# Files are copied, as a link into another layer would be; bytecode now, as nobody can write it when the image runs.
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_PYTHON=/opt/venv/bin/python PATH=/opt/uv/bin:$PATH
COPY requirements/uv.txt requirements/
RUN python -m venv /opt/uv \
    && pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement requirements/uv.txt
COPY requirements/run.txt requirements/
RUN python -m venv --without-pip /opt/venv && uv pip install --require-hashes --requirements requirements/run.txt
# The last, as it changes most. uv is itself the package's build backend: nothing is resolved or fetched.
COPY pyproject.toml README.md ./
COPY hello_service hello_service
RUN uv build --offline --wheel --out-dir dist && uv pip install --offline --no-deps dist/*.whl

FROM build AS view
COPY requirements/dev.txt requirements/
RUN uv pip install --require-hashes --requirements requirements/dev.txt
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8081 8126
CMD ["hello-service", "view", "--host", "0.0.0.0"]

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number: an orchestrator can tell that it is not root, and no user database is needed.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# `serve` executes ddtrace-run, and that the server: signals reach it as process 1.
CMD ["hello-service", "serve"]
# ECS does not look at this one: deploy/task-definition.json has the same.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["python", "-Ic", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.getenv('PORT') or 8080), timeout=4); c.request('GET', '/health'); exit(c.getresponse().status != 200)"]
# At the end, so that a new version is a new label and nothing else.
ARG PYTHON_IMAGE
ARG REVISION=unknown
ARG VERSION=dev
ENV DD_VERSION=$VERSION
LABEL org.opencontainers.image.title="hello-service" \
    org.opencontainers.image.description="An async Python service under Datadog APM: Quart on Hypercorn under ddtrace-run." \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.base.name="$PYTHON_IMAGE"
