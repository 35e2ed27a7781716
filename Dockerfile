# Stages:
#   build   the production environment in /opt/venv: the packages of requirements/run.txt, by hash, and this package
#   view    build, with the embedded trace agent and its page; only compose.local.yaml uses it
#   (last)  the image that ships: Python and that environment, without build or test tools

ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
# uv copies files, because a link into another layer would be a copy anyway, and compiles them now, because the container's
# file system is read-only.
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_PYTHON=/opt/venv/bin/python PATH=/opt/uv/bin:$PATH
COPY requirements/uv.txt requirements/
RUN python -m venv /opt/uv \
    && pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement requirements/uv.txt
COPY requirements/run.txt requirements/
RUN python -m venv --without-pip /opt/venv && uv pip install --require-hashes --requirements requirements/run.txt
# The package comes last because it changes most often. uv is also the package's build backend, so nothing is resolved or fetched.
COPY pyproject.toml README.md ./
COPY hello_service hello_service
RUN uv build --offline --wheel --out-dir dist && uv pip install --offline --no-deps dist/*.whl

FROM build AS view
COPY requirements/dev.txt requirements/
RUN uv pip install --require-hashes --requirements requirements/dev.txt
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# The agent creates folders in its working directory.
WORKDIR /tmp
USER 10001:10001
EXPOSE 8081 8126
CMD ["hello-service", "view", "--host", "0.0.0.0"]

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Numeric ids, so that an orchestrator can verify without a user database that the user is not root.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# `serve` execs ddtrace-run, which execs the server, so the server is process 1 and receives the signals.
CMD ["hello-service", "serve"]
# ECS ignores this health check; deploy/task-definition.json has the same one. The request's timeout is shorter than the
# command's, so that the command itself reports the failure.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["python", "-Ic", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.getenv('PORT') or 8080), timeout=4); c.request('GET', '/health'); exit(c.getresponse().status != 200)"]
# These come last so that a new version changes only the image's metadata.
ARG PYTHON_IMAGE
ARG REVISION=unknown
ARG VERSION=dev
ENV DD_VERSION=$VERSION
LABEL org.opencontainers.image.title="hello-service" \
    org.opencontainers.image.description="An async Python service under Datadog APM: Quart on Hypercorn under ddtrace-run." \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.base.name="$PYTHON_IMAGE"
