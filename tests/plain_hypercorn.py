"""The app for `hypercorn tests/plain_hypercorn:create_app()`, with the endpoints of routes.py and without `serve`."""

from __future__ import annotations

from quart import Quart
from routes import ENDPOINTS

from hello_service import app


def create_app() -> Quart:
    return app.create_app(endpoints=ENDPOINTS)
