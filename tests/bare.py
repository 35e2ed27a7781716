"""The app for `hypercorn tests/bare:create_app()`: started without `hello-service serve`, with the endpoints of the tests."""

from __future__ import annotations

from quart import Quart
from routes import ENDPOINTS

from hello_service import app


def create_app() -> Quart:
    return app.create_app(endpoints=ENDPOINTS)
